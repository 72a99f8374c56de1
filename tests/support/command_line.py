"""The command line in a process of its own, for tests: what it prints, and its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.speed import seconds

STRANGER = """
import torch
from torch import nn

def tiny():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, 10)).eval()

def training():
    return tiny().train()

def nothing():
    return 3
"""

# The folder of the run's warm programs; see warm_python.py.
WARM = "EDGEVIT_TESTS_WARM"
COMMAND_S = 300


def programs() -> Path:
    """Return the folder of `edgevit` and `python`: the warm ones where there are some."""
    return Path(os.environ[WARM], "bin") if WARM in os.environ else Path(sys.executable).parent


def edgevit(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in this folder; return its exit code, standard output and standard error.

    It is a process of its own, forked from one that has imported torch: seconds less for each.
    """
    command = [str(programs() / "edgevit"), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=seconds(COMMAND_S), check=False,
                          stdin=subprocess.DEVNULL)  # fmt: skip


def refused(code: int, *arguments: object, folder: Path | None = None) -> str:
    """Run a command that must fail with this code and without a traceback; return its standard error."""
    outcome = edgevit(*arguments, folder=folder)
    assert outcome.returncode == code, outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert outcome.stderr.startswith(("error: ", "Usage: "))
    return outcome.stderr
