"""Upper bounds of percentiles against SciPy's quantile test."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, quantile_test

from edgevit.measurement.summary import CONFIDENCE, runs_needed, upper_bound

QUANTILES = (0.5, 0.75, 0.9, 0.95, 0.99)


@given(st.integers(2, 3000), st.sampled_from(QUANTILES))
def test_bound_is_that_of_scipys_quantile_test(count: int, q: float) -> None:
    samples = random.Random(count).sample(range(10 * count), count)
    bound = upper_bound(samples, q)
    if count < runs_needed(q):
        assert bound is None
        return
    interval = quantile_test(samples, p=q, alternative="less").confidence_interval(CONFIDENCE)
    assert bound == interval.high


@pytest.mark.parametrize("q", QUANTILES)
def test_least_number_of_runs_follows_from_scipys_binomial_distribution(q: float) -> None:
    expected = next(count for count in range(2, 2000) if binom.cdf(1, count, 1 - q) <= 1 - CONFIDENCE)
    assert runs_needed(q) == expected
