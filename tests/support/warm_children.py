"""Exports of child processes that are forked from a process which has imported torch: seconds less for each."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from edgevit.exporting import child_process, forked_exports
from support.command_line import programs


class WarmSys:
    """The module sys with a warm Python as its executable."""

    @property
    def executable(self) -> str:
        """The warm Python."""
        return str(programs() / "python")

    def __getattr__(self, name: str) -> Any:
        return getattr(sys, name)


@pytest.fixture
def warm_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let exports start warm Pythons, for tests whose subject is not how they start."""
    for module in (child_process, forked_exports):
        monkeypatch.setattr(module, "sys", WarmSys())
