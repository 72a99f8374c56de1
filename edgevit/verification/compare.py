"""Distances between two sets of outputs, and the gates that limit them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevit.records.artifact import ParityCheck, WorstChannel
from edgevit.verification.channels import Reals, channel_errors, usual
from edgevit.verification.inputs import Arrays

# Stands for the SNR of an output without power, because JSON has no infinities.
NO_SIGNAL_DB = -300.0
# One channel of eighty adds its noise to a hundredth of the output's. A right artifact's noise is not spread evenly.
CHANNEL_ALLOWANCE_DB = 10.0
# A norm of a constant divides rounding by the root of its epsilon.
EXTREME_ALLOWANCE = 10.0


@dataclass(frozen=True)
class Gate:
    """The limits of one comparison; None is no limit."""

    max_rel: float | None = None
    min_snr_db: float | None = None

    @property
    def label(self) -> str:
        """The limits as a report shows them: `max_rel <= 0.0001`."""
        limits = [f"max_rel <= {self.max_rel:g}" if self.max_rel is not None else ""]
        limits += [f"SNR >= {self.min_snr_db:g} dB" if self.min_snr_db is not None else ""]
        return ", ".join(filter(None, limits))

    def passes(self, max_rel: float, snr_db: float | None) -> bool:
        """Return whether both limits hold. An SNR of None means equality to the bit; a NaN fails every limit."""
        is_close = self.max_rel is None or max_rel <= self.max_rel
        return is_close and (self.min_snr_db is None or snr_db is None or snr_db >= self.min_snr_db)

    @property
    def for_extremes(self) -> Gate:
        """The limits on inputs that amplify rounding."""
        relative = None if self.max_rel is None else self.max_rel * EXTREME_ALLOWANCE
        snr = None if self.min_snr_db is None else self.min_snr_db - 20 * math.log10(EXTREME_ALLOWANCE)
        return Gate(relative, snr)

    @property
    def for_channels(self) -> Gate:
        """The limits of a single channel."""
        snr = None if self.min_snr_db is None else self.min_snr_db - CHANNEL_ALLOWANCE_DB
        return Gate(self.max_rel, snr)

    def worst(self, channels: Sequence[WorstChannel]) -> WorstChannel | None:
        """Return the channel nearest to its limit, or furthest beyond it; None without any."""
        limit = self.for_channels

        def share(channel: WorstChannel) -> float:
            by_error = channel.max_rel / limit.max_rel if limit.max_rel else 0.0
            missing_db = (limit.min_snr_db or 0.0) - (math.inf if channel.snr_db is None else channel.snr_db)
            return max(by_error, 10 ** (missing_db / 20) if limit.min_snr_db is not None else 0.0)

        return max(channels, key=share, default=None)


FOLD_GATE = Gate(max_rel=1e-5)
# Derived from benchmarks/parity_gates.py by the rule in docs/verify.md. fp32: the worst right artifact is at 3.9e-6,
# the mildest mistake at 1.9e-4. fp16 and bf16: 10 dB below the worst right artifact, which is at 55.8 and 39.6 dB.
GATES = {"fp32": Gate(max_rel=1e-4), "fp16": Gate(min_snr_db=45.0), "bf16": Gate(min_snr_db=29.0)}


def compare(
    stage: str, against: str, reference: Sequence[Arrays], other: Sequence[Arrays], gate: Gate, extremes: int = 0
) -> ParityCheck:
    """Compare outputs set by set, and judge the worst of them, then every channel.

    extremes: how many sets at the end amplify rounding; wider limits hold for them.
    """
    if problem := _why_incomparable(reference, other):
        return failed(stage, against, gate.label, problem)
    ordinary = len(reference) - extremes
    kinds = (_Errors(gate, slice(0, ordinary)), _Errors(gate.for_extremes, slice(ordinary, None)))
    for output, (expected, computed) in enumerate(
        zip(zip(*reference, strict=True), zip(*other, strict=True), strict=True)
    ):
        pairs = [_without_equal_infinities(a, b) for a, b in zip(expected, computed, strict=True)]
        if not any(a.any() for a, _ in pairs) and any(b.any() for _, b in pairs):
            return failed(stage, against, gate.label, f"output {output} is not 0, and the model's is 0 on every input")
        for kind in kinds:
            kind.add(output, pairs)
    agreements = [
        _top1_agreement(a, b) for pair in zip(reference, other, strict=True) for a, b in zip(*pair, strict=True)
    ]
    last = next((kind for kind in kinds if not kind.passed), kinds[0])
    label = f"{gate.label}; on extremes {gate.for_extremes.label}" if last is kinds[1] else gate.label
    passed = all(kind.passed for kind in kinds)
    return ParityCheck(
        stage, against, last.max_rel, last.snr_db, float(np.mean(agreements)), label, passed, channel=last.channel
    )


class _Errors:
    """The errors on some of the sample sets, and whether a gate lets them pass."""

    def __init__(self, gate: Gate, sets: slice) -> None:
        self._gate, self._sets = gate, sets
        self._errors, self._snrs, self._channels = list[float](), list[float | None](), list[WorstChannel]()

    def add(self, output: int, pairs: Sequence[tuple[Reals, Reals]]) -> None:
        """Take the errors of one output, given on all sets."""
        peaks, levels = (usual(np.array([size(a) for a, _ in pairs])).tolist() for size in (_peak, _level))
        for (a, b), peak, level in list(zip(pairs, peaks, levels, strict=True))[self._sets]:
            self._errors.append(max_rel(a, b, peak))
            self._snrs.append(snr_db(a, b, level))
        self._channels += channel_errors([a for a, _ in pairs], [b for _, b in pairs], output, self._sets)

    @property
    def max_rel(self) -> float:
        """The largest error."""
        return max(self._errors, default=0.0)

    @property
    def snr_db(self) -> float | None:
        """The lowest SNR; None where all are equal to the bit."""
        return min((value for value in self._snrs if value is not None), default=None)

    @property
    def channel(self) -> WorstChannel | None:
        """The channel nearest to its limit, or furthest beyond it."""
        return self._gate.worst(self._channels)

    @property
    def passed(self) -> bool:
        """Whether outputs and channels are within the limits."""
        channel, limits = self.channel, self._gate.for_channels
        channels_pass = channel is None or limits.passes(channel.max_rel, channel.snr_db)
        return self._gate.passes(self.max_rel, self.snr_db) and channels_pass


def failed(stage: str, against: str, tolerance: str, problem: str) -> ParityCheck:
    """Return the failed check of a stage that gave nothing to measure."""
    return ParityCheck(stage, against, None, None, 0.0, tolerance, False, problem=problem)


def max_rel(a: NDArray[np.generic], b: NDArray[np.generic], least: float = 0.0) -> float:
    """Return max |a - b| / max |a|; infinite where shapes differ, or where not both are finite.

    least: the magnitude that |a| is given at least.
    """
    if not _are_comparable(a, b):
        return math.inf
    difference = _peak(a.astype(np.float64) - b.astype(np.float64))
    scale = max(_peak(a.astype(np.float64)), least)
    return difference / scale if scale > 0 else math.inf if difference > 0 else 0.0


def snr_db(a: NDArray[np.generic], b: NDArray[np.generic], least: float = 0.0) -> float | None:
    """Return 10 log10 of the power of a over the power of a - b, in dB; None where they are equal to the bit.

    least: the root mean square that a is given at least.
    """
    if not _are_comparable(a, b):
        return NO_SIGNAL_DB
    exact = a.astype(np.float64)
    signal, noise = (float(np.square(x).sum()) for x in (exact, exact - b.astype(np.float64)))
    if noise == 0:
        return None
    signal = max(signal, least**2 * a.size)
    return float(10 * np.log10(signal / noise)) if signal > 0 else NO_SIGNAL_DB


def _are_comparable(a: NDArray[np.generic], b: NDArray[np.generic]) -> bool:
    return a.shape == b.shape and bool(np.isfinite(a).all() and np.isfinite(b).all())


def _peak(a: NDArray[np.generic]) -> float:
    return float(np.abs(a).max(initial=0.0))


def _level(a: NDArray[np.generic]) -> float:
    """Return the root mean square."""
    return float(np.sqrt(np.square(a).mean())) if a.size else 0.0


def _why_incomparable(reference: Sequence[Arrays], other: Sequence[Arrays]) -> str:
    """Return in words why no error can be measured: other outputs, other shapes, other numbers that are not finite."""
    for expected, computed in zip(reference, other, strict=True):
        if len(expected) != len(computed):
            return f"{len(computed)} outputs, and the model has {len(expected)}"
        for output, (a, b) in enumerate(zip(expected, computed, strict=True)):
            if a.shape != b.shape:
                return f"output {output} has the shape {b.shape}, and the model's has {a.shape}"
            if not all(np.isfinite(array).all() for array in _without_equal_infinities(a, b)):
                return f"output {output} is not finite where the model's is, or the other way round"
    return ""


def _without_equal_infinities(a: NDArray[np.generic], b: NDArray[np.generic]) -> tuple[Reals, Reals]:
    """Return both in float64, with 0 where both are the same infinity, as a mask puts it there."""
    masked = np.isinf(a) & (a == b)
    return np.where(masked, 0.0, a.astype(np.float64)), np.where(masked, 0.0, b.astype(np.float64))


def _top1_agreement(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    if a.shape != b.shape or a.ndim == 0:
        return float(a.shape == b.shape and bool(a == b))
    return float((a.argmax(-1) == b.argmax(-1)).mean())
