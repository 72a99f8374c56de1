"""Exports of child processes that are forked from a process which has imported torch: seconds less for each."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from edgevit.exporting import child_process
from support.command_line import programs


@pytest.fixture
def warm_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let export_separately() start warm Pythons, for tests whose subject is not how they start."""
    monkeypatch.setattr(child_process, "sys", SimpleNamespace(executable=str(programs() / "python")))
