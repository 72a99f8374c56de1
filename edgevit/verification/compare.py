"""Distances between two sets of outputs, and the gates that limit them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevit.records.artifact import ParityCheck
from edgevit.verification.inputs import Arrays

# JSON has no infinities; these values stand for them.
INFINITE = float(np.finfo(np.float64).max)
NO_SIGNAL_DB = -300.0


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


FOLD_GATE = Gate(max_rel=1e-5)
# Derived from benchmarks/parity_gates.py by the rule in docs/verify.md. fp32: the worst right artifact is at 3.9e-6,
# the mildest mistake at 1.9e-4. fp16 and bf16: 10 dB below the worst right artifact, which is at 55.8 and 39.6 dB.
GATES = {"fp32": Gate(max_rel=1e-4), "fp16": Gate(min_snr_db=45.0), "bf16": Gate(min_snr_db=29.0)}


def compare(stage: str, against: str, reference: Sequence[Arrays], other: Sequence[Arrays], gate: Gate) -> ParityCheck:
    """Compare outputs set by set, and judge the worst of them."""
    errors, snrs, agreements = [], [], []
    for expected, computed in zip(reference, other, strict=True):
        if len(expected) != len(computed):
            return failed(stage, against, f"{gate.label}; {len(computed)} outputs instead of {len(expected)}")
        for a, b in zip(expected, computed, strict=True):
            errors.append(max_rel(a, b))
            snrs.append(snr_db(a, b))
            agreements.append(_top1_agreement(a, b))
    worst_snr = min((value for value in snrs if value is not None), default=None)
    passed = gate.passes(max(errors), worst_snr)
    return ParityCheck(
        stage, against, min(max(errors), INFINITE), worst_snr, float(np.mean(agreements)), gate.label, passed
    )


def failed(stage: str, against: str, reason: str) -> ParityCheck:
    """Return the failed check of a stage that gave nothing to compare."""
    return ParityCheck(stage, against, INFINITE, NO_SIGNAL_DB, 0.0, reason, False)


def max_rel(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    """Return max |a - b| / max |a|; infinite where the shapes differ or a value is not finite."""
    if not _are_comparable(a, b):
        return float("inf")
    if not a.size:
        return 0.0
    scale = np.abs(a.astype(np.float64)).max()
    difference = np.abs(a.astype(np.float64) - b.astype(np.float64)).max()
    return float(difference / scale) if scale > 0 else float("inf") if difference > 0 else 0.0


def snr_db(a: NDArray[np.generic], b: NDArray[np.generic]) -> float | None:
    """Return 10 log10 of the power of a over the power of a - b, in dB; None where they are equal to the bit."""
    if not _are_comparable(a, b):
        return NO_SIGNAL_DB
    exact = a.astype(np.float64)
    signal, noise = (float(np.square(x).sum()) for x in (exact, exact - b.astype(np.float64)))
    if noise == 0:
        return None
    return float(10 * np.log10(signal / noise)) if signal > 0 else NO_SIGNAL_DB


def _are_comparable(a: NDArray[np.generic], b: NDArray[np.generic]) -> bool:
    return a.shape == b.shape and bool(np.isfinite(a).all() and np.isfinite(b).all())


def _top1_agreement(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    if a.shape != b.shape or a.ndim == 0:
        return float(a.shape == b.shape and bool(a == b))
    return float((a.argmax(-1) == b.argmax(-1)).mean())
