"""Summary of raw samples: percentiles, their upper bounds, spread, grade and flags. Pure functions in nanoseconds.

A percentile is the nearest rank: the smallest sample that at least that share of the samples does not exceed. So it is
always a measured time. Over several processes each process has the same weight, however many runs it made in its
second. Otherwise a fast process would outvote a slow one, and p90 could fall below the headline. Only a process' median
is the usual one (mean of the middle two), because with two values the lower one would flatter.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from edgevit.records.measurement import MEAN_ONLY, SUMMARY_ONLY
from edgevit_runtime.record import VendorSummary

Grade = Literal["A", "B", "C", "D"]
CONFIDENCE = 0.99  # of an upper bound; MLPerf LoadGen's
# The protocol (docs/measure.md). The range of five process medians contained the true median in 96% of trials, a single
# process' own interval in 15 of 24.
PROTOCOL_PROCESSES = 5
PROTOCOL_MIN_RUNS = 100
PROTOCOL_MIN_NS = 1_000_000_000
# The samples of a process may sum to this share of its second: the clock calls between them take the rest.
_LOOP_SHARE = 0.9
# Grades (docs/measure.md): range of the process medians over the headline, best first. An A also needs a small IQR.
_RANGES: tuple[tuple[Grade, float], ...] = (("A", 0.02), ("B", 0.05), ("C", 0.10))
_IQR_OF_AN_A = 0.10
_BEST_OF_A_SHORT_PROTOCOL: Grade = "C"  # few or short processes agree by luck: two of them do half the time
BEST_OF_A_SUMMARY: Grade = "B"  # an A needs an interquartile range, which no summary contains
BEST_OF_A_MEAN: Grade = "C"  # a few slow runs move a mean, and means agree where medians need not
_REPORTED_PERCENTILE = 0.95  # of a process' runs; some programs print it
# Bimodal: the best cut in two leaves means this many standard deviations apart. Cut the same way, a normal distribution
# gives 2.6, an exponential 3.0, a uniform 3.5; two separate peaks give more.
_MODES_APART = 4.0
_MODE_SHARE = 0.10  # of the samples in the smaller mode; fewer are outliers
_MODES_DIFFER = 0.05  # of the lower mode; a smaller distance decides no choice
DRIFT = 0.10  # between the medians of two halves in time: as much as makes a grade D


@dataclass(frozen=True)
class Summary:
    """Statistics of a measurement's samples in nanoseconds. An upper bound is `None` where it has too few runs.

    For samples summarised by a vendor's program, other percentiles and spreads are unknown, and the median may be.
    """

    processes: int
    runs: int
    p50_ns: int | None
    p50_low_ns: int | None
    p50_high_ns: int | None
    p90_ns: int | None
    p90_upper_ns: int | None
    p99_ns: int | None
    p99_upper_ns: int | None
    min_ns: int
    mean_ns: int
    iqr_ns: int | None
    mad_ns: int | None
    grade: Grade
    flags: tuple[str, ...]


def summarise(samples_ns: Sequence[Sequence[int]], warm: Sequence[bool | None], *, paced: bool = False) -> Summary:
    """Summarise the samples of each process.

    `warm` tells for each process whether its warm-up had settled, None if unknown. `paced` runs waited for a camera's
    frames, so they need not add up to the time a process takes. An upper bound is the larger of two: that of the pooled
    samples, and the slowest process' percentile. Samples of one process are alike, so a bound that counts them as
    independent is too low. Raises ValueError without samples.
    """
    if not samples_ns or not all(samples_ns):
        raise ValueError("no samples: every process needs at least one")
    medians = [statistics.median(process) for process in samples_ns]
    headline = round(statistics.median(medians))
    values, weights = _pool(samples_ns)
    spread = _weighted(values, weights, 0.75) - _weighted(values, weights, 0.25)
    flags = _flags(samples_ns, warm, values, paced=paced)
    return Summary(
        processes=len(samples_ns),
        runs=len(values),
        p50_ns=headline,
        p50_low_ns=round(min(medians)),
        p50_high_ns=round(max(medians)),
        p90_ns=_weighted(values, weights, 0.90),
        p90_upper_ns=_upper(samples_ns, values, 0.90),
        p99_ns=_weighted(values, weights, 0.99),
        p99_upper_ns=_upper(samples_ns, values, 0.99),
        min_ns=int(values[0]),
        mean_ns=round(statistics.fmean(sum(process) / len(process) for process in samples_ns)),
        iqr_ns=spread,
        mad_ns=_weighted(*_sorted(np.abs(values - headline), weights), 0.5),
        grade=grade((max(medians) - min(medians)) / headline, spread / headline, full=not set(flags) & _SHORT_FLAGS),
        flags=flags,
    )


def summarise_reported(processes: Sequence[VendorSummary]) -> Summary:
    """Summarise the reports of a vendor's program, one for each process.

    Values that it does not report are None, and so are those that need samples: p90, p99, interquartile range. Grade
    and spread are those of the processes' medians, or of their means where it reports no median. Raises ValueError for
    no process, and for one without a number of runs.
    """
    if not processes or not all(process.runs for process in processes):
        raise ValueError("every process needs a number of runs")
    medians = [process.median_ns for process in processes if process.median_ns is not None]
    has_medians = len(medians) == len(processes)
    centres = medians if has_medians else [process.mean_ns for process in processes]
    flags = _reported_flags(processes, centres, has_medians=has_medians)
    range_share = (max(centres) - min(centres)) / statistics.median(centres)
    graded = grade(range_share, math.inf, full=not set(flags) & _SHORT_FLAGS)
    return Summary(
        processes=len(processes),
        runs=sum(process.runs or 0 for process in processes),
        p50_ns=round(statistics.median(medians)) if has_medians else None,
        p50_low_ns=min(medians) if has_medians else None,
        p50_high_ns=max(medians) if has_medians else None,
        p90_ns=None,
        p90_upper_ns=reported_upper_bound(processes, 0.90),
        p99_ns=None,
        p99_upper_ns=None,
        min_ns=min(process.min_ns for process in processes),
        mean_ns=round(statistics.fmean(process.mean_ns for process in processes)),
        iqr_ns=None,
        mad_ns=None,
        grade=max(graded, BEST_OF_A_SUMMARY if has_medians else BEST_OF_A_MEAN),
        flags=flags,
    )


def reported_upper_bound(processes: Sequence[VendorSummary], q: float) -> int | None:
    """Return a bound for percentile q, as `upper_bound` does, from each process' own 95th percentile.

    At most a twentieth of a process' runs, rounded up, lie above that percentile. So the largest of these percentiles
    is an order statistic with a known number of runs above it. The bound is `None` where a process does not report its
    percentile, and where that number is too large for q.
    """
    bounds = [process.p95_ns for process in processes if process.p95_ns is not None and process.runs is not None]
    if not bounds or len(bounds) < len(processes):
        return None
    runs = [process.runs or 0 for process in processes]
    above = sum(math.ceil((1 - _REPORTED_PERCENTILE) * count - 1e-9) for count in runs)
    allowed = _samples_above(sum(runs), q, CONFIDENCE)
    return max(bounds) if allowed is not None and above <= allowed else None


def _reported_flags(
    processes: Sequence[VendorSummary], centres: Sequence[int], *, has_medians: bool
) -> tuple[str, ...]:
    """Return the flags of a row without samples. Two groups and a drift within a process cannot be detected."""
    least_ns = _LOOP_SHARE * PROTOCOL_MIN_NS
    raised = {
        "drifting": is_drifting([[centre] for centre in centres]),
        FEW_PROCESSES: len(processes) < PROTOCOL_PROCESSES,
        MEAN_ONLY: not has_medians,
        SUMMARY_ONLY: True,
        "too_short": any(
            (process.runs or 0) < PROTOCOL_MIN_RUNS or (process.runs or 0) * process.mean_ns < least_ns
            for process in processes
        ),
    }
    return tuple(name for name, is_raised in raised.items() if is_raised)


def percentile(samples: Sequence[int], q: float) -> int:
    """Return the nearest-rank percentile of one process' samples, q in (0, 1]."""
    return sorted(samples)[max(0, math.ceil(q * len(samples) - 1e-9) - 1)]


def upper_bound(samples: Sequence[int], q: float, confidence: float = CONFIDENCE) -> int | None:
    """Return a sample that the true percentile q does not exceed, with this confidence; None for too few samples.

    The bound is an order statistic, free of any distribution. With t samples above it, it fails only if at most t of n
    samples lie above the percentile, P(Binomial(n, 1 - q) <= t). As in MLPerf LoadGen's early stopping, t is at least
    1. So no bound rests on the largest sample: p90 takes 64 samples, p99 takes 662.
    https://github.com/mlcommons/inference_policies/blob/master/inference_rules.adoc (early stopping)
    """
    above = _samples_above(len(samples), q, confidence)
    return None if above is None else sorted(samples)[len(samples) - 1 - above]


def tail(samples_ns: Sequence[Sequence[int]], q: float) -> tuple[int, int | None]:
    """Return percentile q of the samples of all processes and its upper bound, as `summarise` does for p90 and p99.

    Raises ValueError without samples.
    """
    if not samples_ns or not all(samples_ns):
        raise ValueError("no samples: every process needs at least one")
    values, weights = _pool(samples_ns)
    return _weighted(values, weights, q), _upper(samples_ns, values, q)


def runs_needed(q: float, confidence: float = CONFIDENCE) -> int:
    """Return the least number of samples from which `upper_bound` gives a bound for percentile q."""
    runs = 2
    while q**runs + runs * (1 - q) * q ** (runs - 1) > 1 - confidence:
        runs += 1
    return runs


def grade(range_share: float, iqr_share: float, *, full: bool) -> Grade:
    """Grade a range of process medians and an interquartile range, both as shares of the headline.

    A: range <= 2% and IQR <= 10%; B: range <= 5%; C: <= 10%; D: beyond. A shortened protocol gives C at best.
    """
    best: Grade = next((letter for letter, limit in _RANGES if range_share <= limit), "D")
    if best == "A" and iqr_share > _IQR_OF_AN_A:
        best = "B"
    return best if full else max(best, _BEST_OF_A_SHORT_PROTOCOL)


def is_bimodal(ordered: NDArray[np.int64]) -> bool:
    """Return whether sorted samples fall into two groups (a clock that jumps, two kinds of core).

    Otsu's cut leaves the least variance in the two parts; each part has at least a tenth of the samples. The samples
    are bimodal if the parts' means differ by _MODES_APART standard deviations and by _MODES_DIFFER.
    """
    n = len(ordered)
    edge = math.ceil(n * _MODE_SHARE)
    cuts = np.arange(edge, n - edge + 1)  # samples in the lower part
    if edge < 2 or not len(cuts):
        return False
    values = ordered.astype(np.float64)
    sums, squares = np.cumsum(values), np.cumsum(values**2)
    low, high = sums[cuts - 1] / cuts, (sums[-1] - sums[cuts - 1]) / (n - cuts)
    low_variance = squares[cuts - 1] / cuts - low**2
    high_variance = (squares[-1] - squares[cuts - 1]) / (n - cuts) - high**2
    best = int(np.argmin(low_variance * cuts + high_variance * (n - cuts)))
    deviation = math.sqrt(max(0.0, low_variance[best] + high_variance[best]) / 2)
    distance = high[best] - low[best]
    return bool(distance > _MODES_DIFFER * low[best] and distance > _MODES_APART * deviation)


def is_drifting(samples_ns: Sequence[Sequence[int]]) -> bool:
    """Return whether the machine became slower or faster, within a process or from the first processes to the last.

    Within a process, the medians of the two halves in time differ by more than DRIFT. Outliers, up to half of each,
    change neither. Between processes, every median of the first half differs so from every median of the second. A
    single slow process only lowers the grade.
    """
    medians = [statistics.median(process) for process in samples_ns]
    half = len(medians) // 2
    first, last = medians[:half], medians[len(medians) - half :]
    if half and (_exceeds(max(first), min(last)) or _exceeds(max(last), min(first))):
        return True
    return any(_halves_differ(process) for process in samples_ns)


def _halves_differ(values: Sequence[int]) -> bool:
    half = len(values) // 2
    if not half:
        return False
    first, second = statistics.median(values[:half]), statistics.median(values[-half:])
    return _exceeds(first, second) or _exceeds(second, first)


def _exceeds(faster: float, slower: float) -> bool:
    return slower > (1 + DRIFT) * faster


FEW_PROCESSES = "few_processes"  # flag of a quick measurement, which does not replace the full protocol
_SHORT_FLAGS = {FEW_PROCESSES, "too_short"}


def _flags(
    samples_ns: Sequence[Sequence[int]], warm: Sequence[bool | None], ordered: NDArray[np.int64], *, paced: bool
) -> tuple[str, ...]:
    least_ns = 0 if paced else _LOOP_SHARE * PROTOCOL_MIN_NS
    short = any(len(process) < PROTOCOL_MIN_RUNS or sum(process) < least_ns for process in samples_ns)
    raised = {
        "bimodal": is_bimodal(ordered),
        "drifting": is_drifting(samples_ns),
        FEW_PROCESSES: len(samples_ns) < PROTOCOL_PROCESSES,
        "not_warm": False in warm,
        "too_short": short,
    }
    return tuple(name for name, is_raised in raised.items() if is_raised)


def _pool(samples_ns: Sequence[Sequence[int]]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return all samples, sorted, with weights that are equal for each process and sum to one."""
    values = np.concatenate([np.asarray(process, dtype=np.int64) for process in samples_ns])
    weights = np.concatenate([np.full(len(process), 1 / len(process)) for process in samples_ns])
    return _sorted(values, weights / len(samples_ns))


def _sorted(values: NDArray[np.int64], weights: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    order = np.argsort(values, kind="stable")
    return values[order], weights[order]


def _weighted(values: NDArray[np.int64], weights: NDArray[np.float64], q: float) -> int:
    """Return the nearest-rank percentile of sorted values with different weights."""
    # Cumulated weights are off by rounding.
    reached = np.searchsorted(np.cumsum(weights), q - 1e-9)
    return int(values[min(int(reached), len(values) - 1)])


def _upper(samples_ns: Sequence[Sequence[int]], ordered: NDArray[np.int64], q: float) -> int | None:
    above = _samples_above(len(ordered), q, CONFIDENCE)
    if above is None:
        return None
    return max(int(ordered[len(ordered) - 1 - above]), *(percentile(process, q) for process in samples_ns))


def _samples_above(n: int, q: float, confidence: float) -> int | None:
    """Return how many samples at most may lie above a bound for percentile q; None if not even one may.

    The binomial distribution function is cumulated from ratios of its terms in logarithms, exact to rounding for any n.
    """
    if n < 2:
        return None
    k = np.arange(1, n, dtype=np.float64)
    steps = np.log((n - k + 1) / k) + math.log((1 - q) / q)
    terms = np.exp(n * math.log(q) + np.concatenate([[0.0], np.cumsum(steps)]))
    allowed = int(np.searchsorted(np.cumsum(terms), 1 - confidence, side="right")) - 1
    return allowed if allowed >= 1 else None
