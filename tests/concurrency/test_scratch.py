"""Temporary files that name their process."""

from __future__ import annotations

import os
import time
from pathlib import Path

from edgevit.concurrency.scratch import is_left_behind, mark


def test_a_number_that_another_process_has_now_is_no_excuse(tmp_path: Path) -> None:
    """Pids are used again: the start of the process counts as well."""
    own = tmp_path / f".a.{mark()}.partial"
    assert not is_left_behind(own)
    last = mark()[-1]
    assert is_left_behind(tmp_path / f".a.{mark()[:-1]}{'0' if last != '0' else '1'}.partial")
    assert not is_left_behind(tmp_path / ".a.partial"), "what names no process is kept"


def test_what_another_host_made_is_kept_for_a_week(tmp_path: Path) -> None:
    pid, _, digests = mark().partition("-")
    other = tmp_path / f".a.{pid}-{'0' * 6}{digests[6:]}.partial"
    other.mkdir()
    assert not is_left_behind(other)
    week_ago = time.time() - 8 * 86_400
    os.utime(other, (week_ago, week_ago))
    assert is_left_behind(other)
