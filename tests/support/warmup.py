"""Short warm-ups, for tests that look at anything but the warm-up: by default a worker warms up for 0.5 to 5 s."""

from __future__ import annotations

from functools import partial

import pytest

from edgevit.measurement import noise_floor, roofline, runner
from edgevit_runtime.record import Job


def shorten_warmups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the workers of `profile`, `run_workload` and `layer_times` warm up for two runs."""
    short = partial(Job, warmup_min_runs=2, warmup_min_ns=0, warmup_max_ns=0)
    for module in (runner, noise_floor, roofline):
        monkeypatch.setattr(module, "Job", short)
