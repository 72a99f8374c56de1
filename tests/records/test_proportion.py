"""Wilson's interval against SciPy's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.records.proportion import Proportion


@pytest.fixture(scope="module")
def binomtest() -> Any:
    """Return SciPy's test, whose import is left to the one worker that needs it."""
    from scipy import stats

    return stats.binomtest


@given(st.integers(1, 100_000).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_interval_is_that_of_scipy(binomtest: Any, counts: tuple[int, int]) -> None:
    right, total = counts
    interval = binomtest(right, total).proportion_ci(0.95, method="wilson")
    proportion = Proportion(right, total)
    expected = 100 * interval.low, 100 * interval.high
    assert proportion.interval_percent == pytest.approx(expected, abs=1e-9)
    # Wilson's interval is never cut off between 0% and 100%, so the error is half of its width.
    assert proportion.error_percent == pytest.approx((expected[1] - expected[0]) / 2, abs=1e-9)
