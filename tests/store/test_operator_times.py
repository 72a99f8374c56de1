"""Times of operators and tunings that cannot be true do not enter the database."""

from __future__ import annotations

from typing import Any

import pytest

from edgevit.errors import StoreError
from edgevit.records.tuning import SiteForm, TimeRatio
from edgevit.store.operator_times import OPERATOR_TIMES, TUNINGS
from support.tuned import SITE, operator_time, tuning


@pytest.mark.parametrize(
    "changes",
    [
        {"p50_low_ns": 2_000_000}, {"p50_high_ns": 10}, {"p50_low_ns": 0}, {"threads": 0}, {"runs": 0}, {"macs": -1},
        {"moved_bytes": -1}, {"site": ""}, {"device_id": ""}, {"target": "nowhere"}, {"precision": "int3"},
        {"started": "yesterday"}, {"started": "2126-11-21T10:00:00+00:00"}, {"kind": "guessed"},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_times_are_refused(changes: dict[str, Any]) -> None:
    OPERATOR_TIMES.validate(operator_time())
    with pytest.raises(StoreError, match="the operator_time is refused"):
        OPERATOR_TIMES.validate(operator_time(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"graph_digest": "d"}, {"gain": None}, {"forms": ()}, {"gain": TimeRatio(0.6, 0.7, 0.8)},
        {"over_default": TimeRatio(0.0, 0.0, 0.0)}, {"target": "nowhere"}, {"started": "yesterday"},
        {"forms": (SiteForm(SITE, "depthwise_rows"), SiteForm(SITE, "depthwise_columns"))},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_tunings_are_refused(changes: dict[str, Any]) -> None:
    TUNINGS.validate(tuning())
    with pytest.raises(StoreError, match="the tuning is refused"):
        TUNINGS.validate(tuning(**changes))
