"""Waiting times of tests, stretched on machines that are slower or busier than the one they were written on.

A machine's slowness is how many times longer it takes to start a Python process. EDGEVIT_TESTS_SLOWNESS sets it.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache

_STARTED = "import asyncio, decimal, email.message, ssl"
# The time of that start on an idle virtual machine of two cores (AMD EPYC).
_REFERENCE_S = 0.1
_STARTS = 3
# With a larger factor, a test that hangs would not end in a day.
_MOST = 100.0
_POLL_S = 0.02


def seconds(usual: float) -> float:
    """Return a waiting time for this machine, given the one that is enough on an idle machine."""
    return usual * slowness()


@cache
def slowness() -> float:
    """Return how many times slower than the reference machine this one is, 1 at least. Measure it once per process."""
    setting = os.environ.get("EDGEVIT_TESTS_SLOWNESS")
    measured = float(setting) if setting else statistics.median(_start_s() for _ in range(_STARTS)) / _REFERENCE_S
    return min(max(1.0, measured), _MOST)


def wait_until(condition: Callable[[], object], usual: float = 10) -> bool:
    """Wait for a condition and return whether it came true within `usual` seconds, stretched for this machine."""
    end = time.monotonic() + seconds(usual)
    while not (reached := condition()) and time.monotonic() < end:
        time.sleep(_POLL_S)
    return bool(reached)


def _start_s() -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-I", "-c", _STARTED], check=True)
    return time.perf_counter() - begin
