"""choose: the most accurate model that fits a budget on a device, and why each other candidate was not it.

Rows are claims about candidates. First it is settled which row speaks for a candidate (speaking.py), then each one
that is left is held against the budget (verdicts.py), and those that fit are ranked (ranking.py). Nothing depends on
the order of the rows. What is held against a latency budget is never the percentile itself but its upper bound:
choosing by the median breaks a p90 budget in 46% of requests, and a p99 budget in 79% (84 models, 14 systems of
MLPerf). Latencies that differ by less than the device's noise floor rank alike, and the smaller artifact is the better
one.

Rows that others published have no bounds and no proof of what ran. They are left out unless they are asked for; then
the percentile that the source tells is held against the budget, and the candidate says that it was published.
"""

from __future__ import annotations

from edgevit.choose.answer import choose, choose_among, noise_floors
from edgevit.choose.candidates import EVERYTHING, Wanted
from edgevit.choose.limits import check_budget, parse_latency

__all__ = ["EVERYTHING", "Wanted", "check_budget", "choose", "choose_among", "noise_floors", "parse_latency"]
