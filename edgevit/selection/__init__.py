"""Selection: the most accurate model that fits a budget on a device, and the reasons against each other candidate.

Rows are claims about candidates. First one representative row is selected per candidate (supersession.py). Then each of
those is compared with the budget (constraints.py), and the candidates that fit are ranked (ranking.py). Nothing depends
on the order of the rows. A latency budget is never compared with the percentile itself but with its upper bound.
Choosing by the median breaks a p90 budget in 46% of requests, and a p99 budget in 79% (84 models, 14 systems of
MLPerf). Latencies that differ by less than the device's noise floor rank alike, and the smaller artifact is the better
one.

Cells of a device without a row are predicted (predictions.py), and the upper bound of the prediction is compared with
the budget. Each number says whether it was measured, published or predicted; a prediction names its evidence.

Rows that others published have no bounds and no proof of what ran. They are left out by default; where they are
included, the percentile that the source reports is compared with the budget. Models that were reconstructed from a
paper are left out by default, too. Their weights were not published, and it is not known that ours would reach the
paper's accuracy. An accuracy of them that was measured on a data set counts.

Reasons and notes are records with codes; wording.py turns them into English.
"""

from __future__ import annotations

from edgevit.selection.answer import NOTHING, Evidence, choose_among
from edgevit.selection.api import Question, answers, choose, targets_named, unit_or_class
from edgevit.selection.candidates import EVERYTHING, CandidateFilter, PredictedCell
from edgevit.selection.cells import Cell
from edgevit.selection.commands import NO_COMMANDS, Commands
from edgevit.selection.joint import choose_jointly
from edgevit.selection.limits import check_budget, objective_named, origin_named, parse_latency
from edgevit.selection.other_devices import OtherDevices
from edgevit.selection.predictions import predicted_cells
from edgevit.selection.query import PredictionOptions, ask, noise_floors, not_measured, read_other_devices
from edgevit.selection.ranking import PickStep, pick_steps

__all__ = [
    "EVERYTHING",
    "NOTHING",
    "NO_COMMANDS",
    "CandidateFilter",
    "Cell",
    "Commands",
    "Evidence",
    "OtherDevices",
    "PickStep",
    "PredictedCell",
    "PredictionOptions",
    "Question",
    "answers",
    "ask",
    "check_budget",
    "choose",
    "choose_among",
    "choose_jointly",
    "noise_floors",
    "not_measured",
    "objective_named",
    "origin_named",
    "parse_latency",
    "pick_steps",
    "predicted_cells",
    "read_other_devices",
    "targets_named",
    "unit_or_class",
]
