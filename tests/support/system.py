"""Programs of the system that tests run. `make system` installs them; without them the tests are skipped."""

from __future__ import annotations

import os
import shutil

import pytest

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"


def find_program(name: str) -> str | None:
    """Return the path of a program, which may be an administrator's; None where it is not installed."""
    return shutil.which(name, path=_PATH)


def describe_missing(*names: str) -> str:
    """Return why a test cannot run: the programs that are not installed, and what installs them; empty if none."""
    missing = [name for name in names if find_program(name) is None]
    return f"no {', '.join(missing)} on this machine: make system" if missing else ""


def require_programs(*names: str) -> None:
    """Skip the test unless these programs are installed. Under CI the skip is a failure."""
    if reason := describe_missing(*names):
        pytest.skip(reason)
