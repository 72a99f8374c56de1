"""Timing of a session: noise as input, the warm-up, and the loop that takes the samples.

The clock is time.perf_counter_ns: nanoseconds, monotonic, and the finest one on every platform. On Linux it is
CLOCK_MONOTONIC, the same as monotonic_ns. On Windows monotonic_ns ticks every 15.6 ms before Python 3.13, and this one
does not.
"""

from __future__ import annotations

import contextlib
import gc
import random
import statistics
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from edgevit_runtime.power import Meter
from edgevit_runtime.record import ITEM_BYTES, Job, TensorSpec

WARM_TOLERANCE = 0.02  # of the first half's median
# Growth of the warm-up between two checks: a check sorts all times, so one check per run would be quadratic.
_GROWTH = 1.25
# A block of random numbers is repeated: Python generates a million Gaussian numbers in half a second, a copy is faster.
_BLOCK_ITEMS = 4096
_FLOATS = {"float16": "e", "float32": "f", "float64": "d"}
# Zeros and ones for wide integers: valid as a size, a flag and an index into any table.
_INTEGERS = {"uint8": ("B", 0, 255), "int8": ("b", -128, 127), "int32": ("i", 0, 1), "int64": ("q", 0, 1),
             "bool": ("B", 0, 1)}  # fmt: skip


@dataclass(frozen=True)
class Warmup:
    """The times of the runs before the first sample. warm: whether they had settled."""

    times_ns: tuple[int, ...]
    warm: bool


def noise(specs: Sequence[TensorSpec], batch: int, seed: int) -> tuple[bytes, ...]:
    """Return one set of raw little-endian inputs: standard Gaussian floats, uniform integers. Same seed, same bytes."""
    generator = random.Random(seed)
    return tuple(_tensor(spec.at_batch(batch), generator) for spec in specs)


def _tensor(spec: TensorSpec, generator: random.Random) -> bytes:
    block = _block(spec.dtype, generator)
    return (block * (spec.nbytes // len(block) + 1))[: spec.nbytes]


def _block(dtype: str, generator: random.Random) -> bytes:
    if dtype in _INTEGERS:
        code, low, high = _INTEGERS[dtype]
        return struct.pack(f"<{_BLOCK_ITEMS}{code}", *(generator.randint(low, high) for _ in range(_BLOCK_ITEMS)))
    values = [generator.gauss(0.0, 1.0) for _ in range(_BLOCK_ITEMS)]
    if dtype == "bfloat16":  # the upper half of a float32
        wide = struct.pack(f"<{_BLOCK_ITEMS}f", *values)
        return b"".join(wide[at + 2 : at + 4] for at in range(0, len(wide), ITEM_BYTES["float32"]))
    return struct.pack(f"<{_BLOCK_ITEMS}{_FLOATS[dtype]}", *values)


def timed(run: Callable[[], object]) -> int:
    """Return the nanoseconds of one call."""
    begin = time.perf_counter_ns()
    run()
    return time.perf_counter_ns() - begin


class Camera:
    """Frames that arrive at a fixed rate. Between them the process sleeps, as it would in front of a camera.

    A run takes the frame that arrives next; frames that arrive while it computes are missed, none is queued.
    """

    def __init__(self, rate_hz: float) -> None:
        self.missed = 0
        self._period_ns = round(1e9 / rate_hz)
        self._due = time.perf_counter_ns() + self._period_ns

    def frame(self, run: Callable[[], object]) -> int:
        """Return the ns from the next frame's arrival to its result, which include the delay of the sleep's end."""
        if (wait := self._due - time.perf_counter_ns()) > 0:
            time.sleep(wait / 1e9)
        run()
        latency = time.perf_counter_ns() - self._due
        passed = latency // self._period_ns
        self.missed += passed
        self._due += (passed + 1) * self._period_ns
        return latency

    def sample(
        self, run: Callable[[], object], min_runs: int, min_ns: int, meter: Meter | None = None
    ) -> tuple[int, ...]:
        """Take samples as sample() does, frame by frame; `missed` then counts those of the samples alone."""
        self.missed = 0
        with _resting_collector():
            return _collect(lambda: self.frame(run), min_runs, min_ns, meter)


def warm_up(run: Callable[[], object], job: Job, measure: Callable[[Callable[[], object]], int] = timed) -> Warmup:
    """Run until the times settle.

    The warm-up takes at least warmup_min_runs and warmup_min_ns. It then continues until the second half's median is
    within 2% of the first half's, or until warmup_max_ns are over. The least number of runs is made in any case.
    """
    clock = time.perf_counter_ns
    begin, times = clock(), list[int]()
    while len(times) < job.warmup_min_runs or clock() - begin < job.warmup_min_ns:
        times.append(measure(run))
    while not settled(times) and clock() - begin < job.warmup_max_ns:
        enough = int(len(times) * _GROWTH) + 1
        while len(times) < enough and clock() - begin < job.warmup_max_ns:
            times.append(measure(run))
    return Warmup(tuple(times), settled(times))


def settled(times_ns: Sequence[int]) -> bool:
    """Return whether the second half's median is within WARM_TOLERANCE of the first half's, from two runs on."""
    half = len(times_ns) // 2
    if not half:
        return False
    first, second = statistics.median(times_ns[:half]), statistics.median(times_ns[half:])
    return abs(second - first) <= WARM_TOLERANCE * first


def sample(run: Callable[[], object], min_runs: int, min_ns: int, meter: Meter | None = None) -> tuple[int, ...]:
    """Return the times of at least min_runs runs that last at least min_ns together, in the order of the runs.

    The garbage collector is disabled meanwhile, because its pauses belong to this loop and not to the model. A meter is
    read between the runs.
    """
    with _resting_collector():
        return _collect(lambda: timed(run), min_runs, min_ns, meter)


def _collect(step: Callable[[], int], min_runs: int, min_ns: int, meter: Meter | None) -> tuple[int, ...]:
    clock, samples = time.perf_counter_ns, list[int]()
    if meter:
        meter.start()
    start = clock()
    while len(samples) < min_runs or clock() - start < min_ns:
        samples.append(step())
        if meter:
            meter.tick()
    return tuple(samples)


@contextlib.contextmanager
def _resting_collector() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
