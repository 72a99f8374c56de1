"""Fixtures of tests whose commands are killed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.command_line import STRANGER
from support.killing import TEMPORARY, end_all_in


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A folder with a network, and an empty folder for temporary files. What still runs there at the end is killed."""
    (tmp_path / "net.py").write_text(STRANGER)
    (tmp_path / TEMPORARY).mkdir()
    yield tmp_path
    end_all_in(tmp_path)
