"""What is said of samples, checked against definitions, exact probabilities and simulation."""

from __future__ import annotations

import dataclasses
import math
import random
import statistics as stdlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.measurement.summary import (
    PROTOCOL_MIN_NS,
    grade,
    is_bimodal,
    is_drifting,
    percentile,
    reported_upper_bound,
    runs_needed,
    summarise,
    summarise_reported,
    upper_bound,
)
from edgevit.records.measurement import MEAN_ONLY, SUMMARY_ONLY
from edgevit_runtime.record import VendorSummary

MS = 1_000_000
process = st.lists(st.integers(1, 10**12), min_size=1, max_size=60)
processes = st.lists(process, min_size=1, max_size=6)


def binomial_at_most(t: int, n: int, p: float) -> float:
    return math.fsum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(t + 1))


@pytest.mark.parametrize(("q", "runs"), [(0.90, 64), (0.99, 662)])
def test_runs_needed_are_those_of_loadgen(q: float, runs: int) -> None:
    assert runs_needed(q) == runs
    assert upper_bound(range(runs - 1), q) is None
    assert upper_bound(range(runs), q) == runs - 2, "exactly one sample lies above"


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
@pytest.mark.parametrize("confidence", [0.9, 0.99])
@pytest.mark.parametrize("n", [0, 1, 2, 10, 100, 333, 1000])
def test_upper_bound_is_the_smallest_that_keeps_its_promise(q: float, confidence: float, n: int) -> None:
    bound = upper_bound(list(range(n)), q, confidence)
    if bound is None:
        assert n < 2 or binomial_at_most(1, n, 1 - q) > 1 - confidence
        return
    above = n - 1 - bound
    assert binomial_at_most(above, n, 1 - q) <= 1 - confidence < binomial_at_most(above + 1, n, 1 - q)


def test_upper_bound_of_a_million_samples() -> None:
    bound: Any = upper_bound(range(10**6), 0.9)
    deviations = (bound - 900_000) / math.sqrt(10**6 * 0.9 * 0.1)
    assert abs(deviations - stdlib.NormalDist().inv_cdf(0.99)) < 0.02


@pytest.mark.parametrize(("q", "n"), [(0.9, 64), (0.9, 500), (0.99, 662)])
def test_upper_bound_covers_as_often_as_it_says(q: float, n: int) -> None:
    generator = np.random.default_rng(0)
    samples = np.exp(generator.normal(size=(2000, n)))
    true = math.exp(stdlib.NormalDist().inv_cdf(q))
    bounds: list[Any] = [upper_bound(row, q) for row in samples]
    covered = np.mean([bound >= true for bound in bounds])
    assert covered > 0.985  # 99%, less two standard errors of 2000 trials
    assert covered < 1 or n < 100, "a bound that never fails is too high"


@given(process, st.integers(1, 100))
def test_percentile_is_the_nearest_rank(samples: list[int], percent: int) -> None:
    rank = percentile(samples, percent / 100)
    assert rank in samples
    assert 100 * sum(value <= rank for value in samples) >= percent * len(samples)
    assert 100 * sum(value < rank for value in samples) < percent * len(samples)


@given(processes)
def test_summary_is_ordered(samples: list[list[int]]) -> None:
    summary: Any = summarise(samples, [True] * len(samples))
    pooled = [value for one in samples for value in one]
    assert summary.min_ns == min(pooled)
    assert min(pooled) <= summary.p50_low_ns <= summary.p50_ns <= summary.p50_high_ns
    assert summary.p50_ns <= summary.p90_ns <= summary.p99_ns <= max(pooled)
    assert summary.p90_ns in pooled and summary.p99_ns in pooled
    assert summary.p90_upper_ns is None or summary.p90_ns <= summary.p90_upper_ns <= max(pooled)
    assert summary.p99_upper_ns is None or summary.p99_ns <= summary.p99_upper_ns <= max(pooled)
    assert (summary.p90_upper_ns is None) == (len(pooled) < 64)
    assert 0 <= summary.iqr_ns <= max(pooled) - min(pooled)
    assert 0 <= summary.mad_ns <= max(pooled) - min(pooled) + 1
    assert min(pooled) <= summary.mean_ns <= max(pooled)
    assert (summary.processes, summary.runs) == (len(samples), len(pooled))


@given(processes, st.randoms(use_true_random=False))
def test_order_does_not_matter(samples: list[list[int]], generator: random.Random) -> None:
    """But for drift, which is a matter of order."""
    shuffled = [generator.sample(one, len(one)) for one in generator.sample(samples, len(samples))]
    summary, other = (summarise(each, [True] * len(samples)) for each in (samples, shuffled))
    flags = [tuple(flag for flag in each.flags if flag != "drifting") for each in (summary, other)]
    assert flags[0] == flags[1]
    assert dataclasses.replace(summary, flags=()) == dataclasses.replace(other, flags=())


@given(process)
def test_one_process_is_the_textbook(samples: list[int]) -> None:
    summary = summarise([samples], [True])
    assert summary.p50_ns == summary.p50_low_ns == summary.p50_high_ns == round(stdlib.median(samples))
    assert summary.mean_ns == round(stdlib.fmean(samples))
    assert summary.p90_ns == percentile(samples, 0.9)
    assert summary.iqr_ns == percentile(samples, 0.75) - percentile(samples, 0.25)
    assert summary.mad_ns == percentile([abs(value - summary.p50_ns) for value in samples], 0.5)


def test_processes_weigh_the_same_however_many_runs_they_made() -> None:
    samples = [[10 * MS] * 100] * 3 + [[MS] * 1000] * 2  # three slow processes, ten times as many fast runs
    summary = summarise(samples, [True] * 5)
    assert (summary.p50_ns, summary.p50_low_ns, summary.p50_high_ns) == (10 * MS, MS, 10 * MS)
    assert summary.p90_ns == 10 * MS
    assert summary.mean_ns == round(6.4 * MS)
    assert summary.grade == "D"


def test_upper_bound_is_not_below_the_slowest_process() -> None:
    samples = [[100] * 100] * 4 + [[100] * 89 + [200] * 11]  # pooled: 11 of 500 are slow; the last process' p90 is
    assert summarise(samples, [True] * 5).p90_upper_ns == 200


@pytest.mark.parametrize(
    ("range_share", "iqr_share", "full", "expected"),
    [
        (0.02, 0.10, True, "A"), (0.02, 0.11, True, "B"), (0.021, 0.0, True, "B"), (0.05, 0.5, True, "B"),
        (0.051, 0.0, True, "C"), (0.10, 0.0, True, "C"), (0.101, 0.0, True, "D"),
        (0.0, 0.0, False, "C"), (0.2, 0.0, False, "D"),
    ],
)  # fmt: skip
def test_grade(range_share: float, iqr_share: float, full: bool, expected: str) -> None:
    assert grade(range_share, iqr_share, full=full) == expected


def test_flags() -> None:
    second = [10 * MS] * 100
    assert summarise([second] * 5, [True] * 5).flags == ()
    assert summarise([second] * 5, [True] * 5).grade == "A"
    assert summarise([second] * 5, [True] * 4 + [False]).flags == ("not_warm",)
    assert summarise([second] * 4, [True] * 4).flags == ("few_processes",)
    assert summarise([second] * 4, [True] * 4).grade == "C"
    assert summarise([second] * 4 + [second[:99]], [True] * 5).flags == ("too_short",)
    assert summarise([[MS] * 100] * 5, [True] * 5).flags == ("too_short",)
    assert summarise([[PROTOCOL_MIN_NS // 10_000] * 9_500] * 5, [True] * 5).flags == (), "the loop itself takes time"


@pytest.mark.parametrize("seed", range(5))
def test_one_peak_is_not_bimodal(seed: int) -> None:
    generator = np.random.default_rng(seed)
    shapes = [
        generator.normal(1e6, 2e5, 2000), 1e6 + generator.exponential(5e5, 2000), generator.uniform(1e6, 2e6, 2000),
        np.exp(generator.normal(13, 0.5, 2000)), np.full(2000, 1e6), np.append(np.full(1900, 1e6), np.full(100, 9e6)),
    ]  # fmt: skip
    assert [is_bimodal(np.sort(values.astype(np.int64))) for values in shapes] == [False] * 6


@pytest.mark.parametrize("share", [0.15, 0.5, 0.85])
def test_two_peaks_are_bimodal(share: float) -> None:
    generator = np.random.default_rng(1)
    low, high = generator.normal(1e6, 2e4, 3000), generator.normal(1.3e6, 2e4, 3000)
    cut = int(3000 * share)
    assert is_bimodal(np.sort(np.append(low[:cut], high[cut:]).astype(np.int64)))
    close = generator.normal(1.02e6, 1e3, 3000)
    assert not is_bimodal(np.sort(np.append(generator.normal(1e6, 1e3, 3000), close).astype(np.int64))), "2% apart"


def test_few_samples_are_never_bimodal() -> None:
    assert not is_bimodal(np.array([1, 1000]))
    assert not is_bimodal(np.array([], dtype=np.int64))


@pytest.mark.parametrize("samples", [[], [[]], [[1], []]])
def test_no_samples_is_an_error(samples: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="no samples"):
        summarise(samples, [True])


def test_summary_is_plain_integers() -> None:
    summary = summarise([[random.Random(0).randrange(1, 99) for _ in range(700)]], [True])
    assert all(type(value) in (int, str, tuple) for value in vars(summary).values())


# Drift


def noisy(
    generator: np.random.Generator, heavy: bool, slow_from: float | None = None, across: bool = False
) -> list[list[int]]:
    """Return five processes with runs of 10 ms and one-sided noise, 30% slower from a share of the time on."""
    rows = []
    for process in range(5):
        noise = np.abs(generator.standard_normal(133)) * (generator.standard_exponential(133) if heavy else 1)
        times = 10e6 * (1 + 0.06 * noise) * (1 + 0.005 * generator.standard_normal())
        moment = (process + np.arange(133) / 133) / 5 if across else np.arange(133) / 133
        if slow_from is not None:
            times[moment >= slow_from] *= 1.3
        rows.append([int(value) for value in times])
    return rows


@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize(("slow_from", "across"), [(0.5, False), (0.5, True), (0.4, True), (0.3, False), (0.7, False)])
def test_a_slow_down_is_flagged_always(heavy: bool, slow_from: float, across: bool) -> None:
    generator = np.random.default_rng(0)
    flags = [summarise(noisy(generator, heavy, slow_from, across), [True] * 5).flags for _ in range(100)]
    assert all("drifting" in row_flags for row_flags in flags)


@pytest.mark.parametrize("heavy", [False, True])
def test_noise_is_no_drift(heavy: bool) -> None:
    generator = np.random.default_rng(0)
    assert not any("drifting" in summarise(noisy(generator, heavy), [True] * 5).flags for _ in range(200))


def test_outliers_are_no_drift() -> None:
    assert not is_drifting([[10, 10, 1000] * 40] + [[10] * 100] * 4)
    assert is_drifting([[10] * 60 + [12] * 60])
    assert is_drifting([[10] * 9, [10] * 9, [11] * 9, [12] * 9, [12] * 9])
    assert not is_drifting([[10] * 9] * 4 + [[20] * 9]), "one process that was slow is what the grade is for"
    assert not is_drifting([[10]])


# What programs tell that keep their samples


def reports(*medians: int | None, runs: int = 200, mean: int = 10 * MS, p95: int | None = None) -> list[VendorSummary]:
    return [VendorSummary(value, 9 * MS, 20 * MS, mean, runs, p95) for value in medians]


def test_a_summary_of_summaries_invents_nothing() -> None:
    summary = summarise_reported(reports(*(value * MS for value in (10, 12, 11, 10, 10))))
    assert (summary.p50_ns, summary.p50_low_ns, summary.p50_high_ns) == (10 * MS, 10 * MS, 12 * MS)
    assert (summary.processes, summary.runs, summary.min_ns, summary.mean_ns) == (5, 1000, 9 * MS, 10 * MS)
    unknown = (
        summary.p90_ns,
        summary.p90_upper_ns,
        summary.p99_ns,
        summary.p99_upper_ns,
        summary.iqr_ns,
        summary.mad_ns,
    )
    assert unknown == (None,) * 6
    assert (summary.grade, summary.flags) == ("D", (SUMMARY_ONLY,))
    with pytest.raises(ValueError):
        summarise_reported([])
    with pytest.raises(ValueError):
        summarise_reported([dataclasses.replace(reports(MS)[0], runs=None)])


def test_a_mean_is_not_called_a_median() -> None:
    means = [
        dataclasses.replace(process, mean_ns=(10 + i) * MS)
        for i, process in enumerate(reports(None, None, None, None, None))
    ]
    summary = summarise_reported(means)
    assert (summary.p50_ns, summary.p50_low_ns, summary.p50_high_ns, summary.mean_ns) == (None, None, None, 12 * MS)
    assert summary.flags == ("drifting", MEAN_ONLY, SUMMARY_ONLY)
    assert summary.grade == "D", "means that differ by a third"
    mixed = summarise_reported([*reports(10 * MS), *reports(None)])
    assert mixed.p50_ns is None and MEAN_ONLY in mixed.flags


@pytest.mark.parametrize(
    ("medians", "runs", "grade", "flags"),
    [
        ((10 * MS,) * 5, 200, "B", (SUMMARY_ONLY,)),  # an A needs an interquartile range
        ((None,) * 5, 200, "C", (MEAN_ONLY, SUMMARY_ONLY)),
        ((10 * MS,) * 2, 200, "C", ("few_processes", SUMMARY_ONLY)),
        ((10 * MS,) * 5, 89, "C", (SUMMARY_ONLY, "too_short")),
        ((10 * MS,) * 5, 99, "C", (SUMMARY_ONLY, "too_short")),
        ((1 * MS,) * 5, 100, "B", (SUMMARY_ONLY,)),
    ],
)
def test_grades_of_what_is_told_are_capped(
    medians: tuple[int | None, ...], runs: int, grade: str, flags: tuple[str, ...]
) -> None:
    summary = summarise_reported(reports(*medians, runs=runs))
    assert (summary.grade, summary.flags) == (grade, flags)


@pytest.mark.parametrize(
    ("processes", "runs"), [(5, 100), (5, 60), (5, 50), (2, 100), (5, 133), (1, 500), (2, 32), (5, 20), (1, 64)]
)
def test_a_bound_from_95th_percentiles_keeps_its_promise(processes: int, runs: int) -> None:
    """It is there just where so few samples can lie above it, by the exact binomial distribution."""
    above = processes * math.ceil(runs / 20 - 1e-9)
    bound = reported_upper_bound(reports(*[10 * MS] * processes, runs=runs, p95=15 * MS), 0.90)
    allowed = above >= 1 and binomial_at_most(above, processes * runs, 0.10) <= 0.01
    assert bound == (15 * MS if allowed else None)
    # A 95th percentile says nothing about p99.
    assert reported_upper_bound(reports(10 * MS, runs=10_000, p95=15 * MS), 0.99) is None
    assert reported_upper_bound([*reports(10 * MS, p95=15 * MS, runs=9000), *reports(10 * MS)], 0.90) is None


def test_a_bound_from_95th_percentiles_covers_as_often_as_it_says() -> None:
    """benchmark_model's own rule: the value at n * 95 / 100 of the sorted samples, counted from 0."""
    generator, covered = np.random.default_rng(0), 0
    for _ in range(2000):
        samples = np.sort(generator.exponential(size=(5, 100)), axis=1)
        bound = reported_upper_bound(reports(*[MS] * 5, runs=100, p95=int(samples[:, 95].max() * MS)), 0.90)
        covered += bound is not None and bound >= -math.log(0.1) * MS
    assert covered >= 0.99 * 2000
