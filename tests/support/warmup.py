"""Short warm-ups, for tests that look at anything but the warm-up: by default a worker warms up for 0.5 to 5 s."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from edgevit.measurement import noise_floor, roofline, runner
from edgevit_runtime.record import Job

if TYPE_CHECKING:
    import pytest

_MODULES = (runner, noise_floor, roofline)
# Of one process of a command. It still goes on until the times have settled, as a user's does.
COMMANDS_MIN_NS, COMMANDS_MAX_NS = 50_000_000, 500_000_000


def shorten_warmups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the workers of `profile`, `run_workload` and `layer_times` warm up for two runs."""
    short = partial(Job, warmup_min_runs=2, warmup_min_ns=0, warmup_max_ns=0)
    for module in _MODULES:
        monkeypatch.setattr(module, "Job", short)


def shorten_for_good() -> None:
    """Let the workers of all later measurements of this process and of its forks warm up for a tenth of the time."""
    for module in _MODULES:
        module.Job = partial(Job, warmup_min_ns=COMMANDS_MIN_NS, warmup_max_ns=COMMANDS_MAX_NS)  # type: ignore[attr-defined]
