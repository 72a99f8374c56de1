"""Errors of single channels, each against the magnitude of the channels of its kind.

One tensor may hold numbers of several kinds, such as boxes in pixels beside scores from 0 to 1. Against the largest box
a lost score is no error. So the channels of an output are divided into groups of one magnitude, and the error of each
channel counts against its own group.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevit.records.artifact import WorstChannel

# A group ends where the next channel is so many times smaller. Within it the magnitudes of one kind of number vary.
GAP = 20.0
# A group's magnitude is at least this share of the output's: below it, values are the rounding of the others.
FLOOR = 1e-3
# A few numbers that are smaller than all others may be so by chance, like logits near zero. A group has so many numbers
# of each sample at least, and two channels at least unless the output has few.
NUMBERS = 16
FEW = 8

Reals = NDArray[np.float64]


def channel_errors(
    expected: Sequence[Reals], computed: Sequence[Reals], output: int, sets: slice = slice(None)
) -> Iterator[WorstChannel]:
    """Yield the channels with the largest error and the lowest SNR of each group, of axis 1 and of the last axis.

    `expected` and `computed` are one output on every sample set, (B, ..) each, finite and alike in shape. Magnitudes
    are medians over the sets, and of a set where they are larger its own; errors are those on `sets`. Outputs with
    fewer than two axes, and axes of one channel, have nothing to tell apart.
    """
    shape = expected[0].shape
    for axis in sorted({1, len(shape) - 1}):
        if len(shape) < 2 or shape[axis] < 2 or not expected[0].size:
            continue
        signals = [_rows(array, axis) for array in expected]
        errors = [np.abs(signal - _rows(array, axis)) for signal, array in zip(signals, computed, strict=True)]
        channels = _Channels(
            peak=np.array([np.abs(signal).max(1) for signal in signals]),
            power=np.array([np.square(signal).mean(1) for signal in signals]),
            error=np.array([error.max(1) for error in errors]),
            noise=np.array([np.square(error).mean(1) for error in errors]),
        )
        for group in groups(np.sqrt(np.median(channels.power, 0)), signals[0].shape[1]):
            yield from _of_group(output, axis, group, channels, sets)


@dataclass(frozen=True)
class _Channels:
    """Largest magnitude, mean power, largest error and mean power of the error: (sets, channels) each."""

    peak: Reals
    power: Reals
    error: Reals
    noise: Reals


def groups(magnitudes: Reals, numbers: int) -> list[NDArray[np.intp]]:
    """Return the channels (C,) in groups of one magnitude, from the largest magnitude to the smallest.

    numbers: how many each channel has in a sample.
    """
    order = np.argsort(-magnitudes, kind="stable")
    ordered = magnitudes[order]
    ends = [i for i in range(1, len(order)) if ordered[i] * GAP < ordered[i - 1]]
    parts = [part for part in np.split(order, ends) if len(part)]
    result = parts[:1]
    for part in parts[1:]:
        if len(part) * numbers >= NUMBERS and (len(part) > 1 or len(order) <= FEW):
            result.append(part)
        else:
            result[-1] = np.concatenate([result[-1], part])
    return result


def _of_group(
    output: int, axis: int, group: NDArray[np.intp], all_of: _Channels, sets: slice
) -> Iterator[WorstChannel]:
    """Yield the channel of a group with the largest error, and the one with the most noise, if there is any error."""
    scale = usual(np.maximum(all_of.peak[:, group].max(1), FLOOR * all_of.peak.max(1)))
    signal = usual(np.maximum(all_of.power[:, group].mean(1), FLOOR**2 * all_of.power.mean(1)))
    if scale.min() == 0:
        return
    errors = (all_of.error[:, group] / scale[:, None])[sets].max(0, initial=0.0)
    noises = (all_of.noise[:, group] / signal[:, None])[sets].max(0, initial=0.0)
    for i in sorted({int(errors.argmax()), int(noises.argmax())}):
        if noises[i] > 0:
            yield WorstChannel(output, axis, int(group[i]), float(errors[i]), float(-10 * np.log10(noises[i])))


def usual(magnitudes: Reals) -> Reals:
    """Return the magnitude against which the error on each sample set counts: its own, and the median's at least.

    On one constant input an output may be nearly 0, and its error is the rounding of what it is made of. Where most
    outputs are 0, a share of the largest stands for the median.
    """
    return np.maximum(magnitudes, max(np.median(magnitudes), FLOOR * magnitudes.max()))


def _rows(array: Reals, axis: int) -> Reals:
    """Return (channels, all other numbers)."""
    return np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
