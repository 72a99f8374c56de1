"""Damaged files for every reader of the product: structured mutations of valid files, and random bytes.

python benchmarks/fuzz_readers.py [--count 20000] [--seed 1] [--reader NAME] [--seconds 600] [--show 5]

Each reader runs in a process of its own. An input fails where its reading ends in anything but an answer or an
EdgevitError, or takes more than HANG_S seconds. memory_mb: growth of the process' largest memory over that after the
first hundred inputs. Exit code 1: something failed. The integers of a failure repeat it
(tests/support/fuzzed_files.py).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from common import report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

HANG_S = 10
_WARM_UP = 100
_LONGEST = 18  # integers of an input: up to six mutations


class Attempt:
    """Keeps which exception ended a block, and where: what a reader may raise is what the benchmark finds out."""

    failure = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if isinstance(error, Exception):
            self.failure = f"{type(error).__name__}: {_location(error)}"
        return bool(self.failure)


class HangError(Exception):
    """Reading took too long."""


def choices(dice: random.Random) -> list[int]:
    """Return the integers of one damaged file."""
    return [dice.getrandbits(32) for _ in range(dice.choice((1, 3, 3, 3, 6, 9, _LONGEST)))]


def run(name: str, count: int, seed: int, seconds: float) -> dict[str, Any]:
    """Read damaged files with one reader until there were `count`, or the time is over."""
    from support.fuzzed_files import readers

    signal.signal(signal.SIGPROF, _hang)
    failures: dict[str, list[Any]] = {}
    outcomes: Counter[str] = Counter()
    slowest = start_kb = 0.0
    with tempfile.TemporaryDirectory() as folder, readers(Path(folder)) as every:
        [reader] = [one for one in every if one.name == name]
        (work := Path(folder) / "work").mkdir()
        (work / "shard.safetensors").write_bytes((Path(folder) / "shard.safetensors").read_bytes())
        dice, begin = random.Random(f"{name} {seed}"), time.process_time()
        for number in range(count):
            if time.process_time() - begin > seconds:
                break
            if number == _WARM_UP:
                start_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            numbers, before = choices(dice), time.process_time()
            signal.setitimer(signal.ITIMER_PROF, HANG_S)
            with Attempt() as attempt:
                outcomes["read" if reader.try_once(work, numbers) else "refused"] += 1
            signal.setitimer(signal.ITIMER_PROF, 0)
            if attempt.failure:
                failures.setdefault(attempt.failure, []).append(numbers)
                outcomes["failed"] += 1
            slowest = max(slowest, time.process_time() - before)
        cpu = time.process_time() - begin
        growth_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - (start_kb or 0)
    return {"reader": name, "inputs": sum(outcomes.values()), **outcomes, "cpu_s": round(cpu, 1),
            "slowest_s": round(slowest, 3), "memory_mb": round(growth_kb / 1024, 1),
            "failures": {key: {"count": len(ones), "example": ones[0]} for key, ones in failures.items()}}  # fmt: skip


def _hang(number: int, frame: object) -> None:
    raise HangError


def _location(error: BaseException) -> str:
    """Return the last line of our own code in the traceback of an error."""
    location, trace = "", error.__traceback__
    while trace is not None:
        file = Path(trace.tb_frame.f_code.co_filename)
        if "edgevit" in file.parts or "edgevit_runtime" in file.parts:
            location = f"{file.name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return location


def _names() -> list[str]:
    from support.fuzzed_files import readers

    with tempfile.TemporaryDirectory() as folder, readers(Path(folder)) as every:
        return [reader.name for reader in every]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reader")
    parser.add_argument("--seconds", type=float, default=600.0)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    results = []
    for name in [arguments.reader] if arguments.reader else _names():
        with ProcessPoolExecutor(1, context) as pool:
            try:
                result = pool.submit(run, name, arguments.count, arguments.seed, arguments.seconds).result()
            except BrokenProcessPool:
                result = {"reader": name, "failures": {"the process of the reader ended": {"count": 1, "example": []}}}
        results.append(result)
        print(json.dumps(result), file=sys.stderr, flush=True)
    report("fuzz_readers", {"seed": arguments.seed, "hang_s": HANG_S, "readers": results})
    return int(any(result["failures"] for result in results))


if __name__ == "__main__":
    sys.exit(main())
