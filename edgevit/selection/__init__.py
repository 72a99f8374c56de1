"""choose: the most accurate model that fits a budget on a device, and why each other candidate was not it.

Rows are claims about candidates. First it is settled which row speaks for a candidate (supersession.py), then each one
that is left is held against the budget (constraints.py), and those that fit are ranked (ranking.py). Nothing depends on
the order of the rows. What is held against a latency budget is never the percentile itself but its upper bound:
choosing by the median breaks a p90 budget in 46% of requests, and a p99 budget in 79% (84 models, 14 systems of
MLPerf). Latencies that differ by less than the device's noise floor rank alike, and the smaller artifact is the better
one.

What a device has no row of is predicted (predictions.py), and held against the budget by the upper bound of the
prediction. Numbers say which they are: measured, published or predicted, and on what a prediction rests.

Rows that others published have no bounds and no proof of what ran. They are left out unless they are asked for; then
the percentile that the source tells is held against the budget, and the candidate says that it was published.
Models that were reconstructed from a paper are left out unless they are asked for, too: nobody published weights of
them, and that ours would reach the paper's accuracy is not known. What was measured of them on a data set counts.
"""

from __future__ import annotations

from edgevit.selection.answer import NOTHING, Known, choose_among
from edgevit.selection.api import Question, answers, choose, question, unit_or_class
from edgevit.selection.candidates import EVERYTHING, Predicted, Wanted
from edgevit.selection.joint import joint
from edgevit.selection.limits import check_budget, parse_latency
from edgevit.selection.other_devices import Elsewhere
from edgevit.selection.predictions import predictions
from edgevit.selection.query import How, ask, noise_floors, not_measured

__all__ = [
    "EVERYTHING",
    "NOTHING",
    "Elsewhere",
    "How",
    "Known",
    "Predicted",
    "Question",
    "Wanted",
    "answers",
    "ask",
    "check_budget",
    "choose",
    "choose_among",
    "joint",
    "noise_floors",
    "not_measured",
    "parse_latency",
    "predictions",
    "question",
    "unit_or_class",
]
