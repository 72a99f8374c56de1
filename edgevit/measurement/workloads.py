"""Fixed workloads that measure a machine. They run on a device as a model's payload does.

This file travels to the device like a recipe, so it imports edgevit_runtime and the standard library only. Workloads
that need NumPy report where it is missing. A payload is a line of text: "mixed", "gemm SIZE" or "triad MEGABYTES".
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
_CHUNK_ITEMS = 1 << 16  # elements of an array at a time, so that the intermediate result stays in a cache


class Workload:
    """A session that has neither inputs nor outputs."""

    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()

    def __init__(self, engine_version: str, provider: str, run: Callable[[], object]) -> None:
        self.engine_version, self.provider, self._run = engine_version, provider, run

    def feed(self, tensors: Sequence[bytes], batch: int) -> None:
        """Accept no inputs."""

    def run(self) -> None:
        """Compute once."""
        self._run()

    def fetch(self) -> tuple[bytes, ...]:
        """Return no outputs."""
        return ()


def load(path: Path, *, threads: int) -> Session:
    """Return the workload that the payload names. Raises UnsupportedError for one that this device cannot run."""
    name, *size = path.read_text(encoding="utf-8").split()
    if name == "mixed":
        return Workload(platform.python_version(), "zlib", _mixed())
    try:
        import numpy as np
    except ImportError as error:
        raise UnsupportedError(f"the machine's peak is measured with NumPy, which is not there: {error}") from error
    run = {"gemm": _gemm, "triad": _triad}[name](int(size[0]), threads, np)
    return Workload(np.__version__, "NumPy", run)


def _mixed() -> Callable[[], object]:
    """Return a workload that a neighbour disturbs: branches, caches and memory.

    SHA-256 does not serve: processors have instructions for it, and it repeated itself within 0.02% where models
    differed by 2%.
    """
    dice = random.Random(0)
    text = b"".join(bytes([dice.randrange(32)]) * dice.randrange(1, 9) for _ in range(DEFLATE_WORDS))
    memory = bytearray(COPY_BYTES)
    return lambda: (zlib.compress(text), bytes(memory))


def _gemm(size: int, threads: int, np: Any) -> Callable[[], object]:
    """Return a float32 matrix product of size**3 MACs. The BLAS library's variables limit its threads."""
    first, second, product = (np.full((size, size), 0.5, np.float32) for _ in range(3))
    return lambda: np.matmul(first, second, out=product)


def _triad(megabytes: int, threads: int, np: Any) -> Callable[[], object]:
    """Return a = b + 3 c, as in STREAM: two arrays are read and one is written."""
    from concurrent.futures import ThreadPoolExecutor

    elements = megabytes * 1_000_000 // 4
    a, b, c = (np.ones(elements, np.float32) for _ in range(3))
    scratch = [np.empty(_CHUNK_ITEMS, np.float32) for _ in range(threads)]

    def part(number: int) -> None:
        between = scratch[number]
        for start in range(number * elements // threads, (number + 1) * elements // threads, _CHUNK_ITEMS):
            end = min(start + _CHUNK_ITEMS, (number + 1) * elements // threads)
            np.multiply(c[start:end], 3.0, out=between[: end - start])
            np.add(between[: end - start], b[start:end], out=a[start:end])

    if threads == 1:
        return lambda: part(0)
    pool = ThreadPoolExecutor(threads)
    return lambda: list(pool.map(part, range(threads)))


def gemm_macs(size: int) -> int:
    """Return the multiply-accumulates of one run."""
    return size**3


def triad_bytes(megabytes: int) -> int:
    """Return the bytes that one run must read and write, without the read of a cache line before its write."""
    return 3 * (megabytes * 1_000_000 // 4) * 4
