"""The command line in a process of its own, for tests: what it prints, and its exit code."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import subprocess
import sys
import tempfile
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

# Each command is a process of its own, forked from one that has imported torch: 2 s less for each.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["torch", "edgevit.cli.common"])
COMMAND_S = 300


def edgevit(*arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command in this folder; return its exit code, standard output and standard error."""
    with tempfile.TemporaryDirectory() as streams:
        files = [Path(streams, name) for name in ("stdout", "stderr")]
        process = PROCESSES.Process(target=run_main, args=(list(map(str, arguments)), folder, files, dict(os.environ)))
        process.start()
        process.join(seconds(COMMAND_S))
        assert process.exitcode is not None, f"no end after {seconds(COMMAND_S):g} s: {arguments}"
        return subprocess.CompletedProcess(
            list(map(str, arguments)), process.exitcode, *(file.read_text() for file in files)
        )


def run_main(arguments: list[str], folder: Path | None, files: list[Path], environment: dict[str, str]) -> None:
    """Do in the new process what `python -m edgevit.cli` does."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder or Path.cwd())
    for number, path in enumerate(files, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["edgevit", *arguments]
    importlib.import_module("edgevit.cli").main()


def refused(code: int, *arguments: object, folder: Path | None = None) -> str:
    """Run a command that must fail with this code and without a traceback; return its standard error."""
    outcome = edgevit(*arguments, folder=folder)
    assert outcome.returncode == code, outcome.stderr
    assert "Traceback" not in outcome.stderr
    assert outcome.stderr.startswith(("error: ", "Usage: "))
    return outcome.stderr
