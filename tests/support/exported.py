"""The tiny network as an artifact of each target, exported once in a run for all tests that only read it."""

from __future__ import annotations

import atexit
import dataclasses
import fcntl
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path

import torch

from edgevit.artifacts.folder import open_artifact
from edgevit.exporting.pipeline import export_subject
from edgevit.records.artifact import Artifact, ExportRequest
from support.command_line import WARM
from support.subjects import tiny_subject


@cache
def tiny_artifact(target: str, precision: str = "fp32") -> Artifact:
    """Return the tiny network, exported and verified by the first worker of pytest that asks. Only read its files."""
    folder = _folder_of_the_run() / f"{target}-{precision}"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            folder.mkdir(exist_ok=True)
            artifact = _export(folder, target, precision)
            artifact.folder.rename(folder / "done")
    return open_artifact(folder / "done")


def tiny_copy(folder: Path, target: str, precision: str = "fp32") -> Artifact:
    """Return a copy of the tiny artifact in a new folder, for tests that change it."""
    artifact = tiny_artifact(target, precision)
    shutil.copytree(artifact.folder, folder)
    return dataclasses.replace(artifact, folder=folder)


def _export(folder: Path, target: str, precision: str) -> Artifact:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return export_subject(tiny_subject(folder), ExportRequest(target, folder / "out", precision))
    finally:
        torch.set_num_threads(threads)


def _folder_of_the_run() -> Path:
    """Return a folder that all workers of pytest share, where there is one."""
    folder = Path(os.environ[WARM]) / "exported" if WARM in os.environ else _own_folder()
    folder.mkdir(exist_ok=True)
    return folder


@cache
def _own_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="edgevit-tests-exported-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
