"""Fixed workloads that run on a device as a payload does: what the machine is measured with, and not a model.

This file travels to the device like a recipe, so it knows edgevit_runtime and the standard library; those that need
NumPy say so where it is not there. A payload is a line of text: "mixed", "gemm SIZE" or "triad MEGABYTES".
"""

from __future__ import annotations

import platform
import random
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from edgevit_runtime.record import Recipe, Session, TensorSpec, UnsupportedError

RECIPE = Recipe(target="workloads", suffix=".txt", engine="numpy", precisions=("fp32",), requires=(), extra="")
DEFLATE_WORDS = 40_000  # a fifth of a megabyte: some milliseconds of branches and table look-ups in near caches
COPY_BYTES = 16 << 20  # beyond most last-level caches of boards: a millisecond or more of memory
GEMM_SIZES = (256, 512, 1024, 2048)  # short ones find a quiet moment on a busy machine, long ones occupy many cores
TRIAD_MB = 64  # of each of three arrays: beyond any last-level cache
_CHUNK_ITEMS = 1 << 16  # of an array at a time, so that what is between the two steps stays in a cache


class Workload:
    """Something to run that has neither inputs nor outputs."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()

    def __init__(self, engine_version: str, provider: str, run: Callable[[], object]) -> None:
        self.engine_version, self.provider, self._run = engine_version, provider, run

    def feed(self, tensors: Sequence[bytes], batch: int) -> None:
        """There is nothing to feed."""

    def run(self) -> None:
        """Do it once."""
        self._run()

    def fetch(self) -> tuple[bytes, ...]:
        """There is nothing to fetch."""
        return ()


def load(path: Path, *, threads: int) -> Session:
    """The workload that the payload names. Raises UnsupportedError for one that this device cannot do."""
    name, *size = path.read_text(encoding="utf-8").split()
    if name == "mixed":
        return Workload(platform.python_version(), "zlib", _mixed())
    try:
        import numpy as np
    except ImportError as error:
        raise UnsupportedError(f"the machine's peak is measured with NumPy, which is not there: {error}") from error
    made = {"gemm": _gemm, "triad": _triad}[name](int(size[0]), threads, np)
    return Workload(np.__version__, "NumPy", made)


def _mixed() -> Callable[[], object]:
    """What a neighbour disturbs: branches, caches and memory.

    SHA-256, which processors have instructions for, repeated itself within 0.02% where models differed by 2%.
    """
    dice = random.Random(0)
    text = b"".join(bytes([dice.randrange(32)]) * dice.randrange(1, 9) for _ in range(DEFLATE_WORDS))
    memory = bytearray(COPY_BYTES)
    return lambda: (zlib.compress(text), bytes(memory))


def _gemm(size: int, threads: int, np: Any) -> Callable[[], object]:
    """size**3 multiply-accumulates in float32; the threads are those of the BLAS library, held by its variables."""
    first, second, product = (np.full((size, size), 0.5, np.float32) for _ in range(3))
    return lambda: np.matmul(first, second, out=product)


def _triad(megabytes: int, threads: int, np: Any) -> Callable[[], object]:
    """a = b + 3 c, as in STREAM: two arrays are read and one is written."""
    from concurrent.futures import ThreadPoolExecutor

    items = megabytes * 1_000_000 // 4
    a, b, c = (np.ones(items, np.float32) for _ in range(3))
    scratch = [np.empty(_CHUNK_ITEMS, np.float32) for _ in range(threads)]

    def part(number: int) -> None:
        between = scratch[number]
        for start in range(number * items // threads, (number + 1) * items // threads, _CHUNK_ITEMS):
            end = min(start + _CHUNK_ITEMS, (number + 1) * items // threads)
            np.multiply(c[start:end], 3.0, out=between[: end - start])
            np.add(between[: end - start], b[start:end], out=a[start:end])

    if threads == 1:
        return lambda: part(0)
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(part, range(threads)))


def gemm_macs(size: int) -> int:
    """Multiply-accumulates of one run."""
    return size**3


def triad_bytes(megabytes: int) -> int:
    """Bytes that one run must read and write; that a cache line is read before it is written is not counted."""
    return 3 * (megabytes * 1_000_000 // 4) * 4
