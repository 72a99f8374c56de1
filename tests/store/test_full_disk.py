"""Rows and a full disk: a clear error that names it, nothing half-written, and all earlier rows as they were."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgevit.cli import main
from edgevit.errors import StoreError
from edgevit.records.measurement import Measurement
from edgevit.store import LatencyDB
from support.exported import tiny_copy
from support.measured import measured

KEPT = 3
# KiB that are free: nothing fits, a journal without its row, and some of the rows.
FREE = (0, 12, 40, 64)


@pytest.fixture(scope="module")
def small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if os.geteuid():
        pytest.skip("only root can mount a small disk")
    folder = tmp_path_factory.mktemp("disk")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=True)
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with a few rows."""
    path = tmp_path_factory.mktemp("stored") / "x.db"
    with LatencyDB.open(str(path), shipped=False) as db:
        for number in range(KEPT):
            db.add(large_row(number))
    return path


@pytest.fixture
def path(small_disk: Path, stored: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of that database on the small disk."""
    monkeypatch.setattr("edgevit.store.jsonl.shipped_files", list)
    yield Path(shutil.copy(stored, small_disk / "x.db"))
    for file in small_disk.iterdir():
        file.unlink()


def large_row(number: int) -> Measurement:
    return measured(((5_000_000 + number,) * 2_000,) * 2, nonce=str(number))


@contextmanager
def full(disk: Path, free_kb: int = 0) -> Iterator[None]:
    """Fill a disk but for some kibibytes."""
    fill(disk, free_kb)
    yield
    (disk / "fill").unlink()


def fill(disk: Path, free_kb: int = 0) -> None:
    state = os.statvfs(disk)
    (disk / "fill").write_bytes(bytes(state.f_bavail * state.f_frsize - free_kb * 1024))


def require_whole(path: Path, count: int) -> None:
    """Check that a database has these rows and no other ones, nothing half is in it, and nothing lies beside it."""
    with LatencyDB.open(str(path), shipped=False) as db:
        assert len(db.measurements()) == count and db.check().problems == ()
        assert db.add(large_row(1_000)), "it takes rows again"
    assert [file.name for file in path.parent.iterdir()] == ["x.db"]


def add_until_full(path: Path, added: list[int]) -> None:
    with LatencyDB.open(str(path), shipped=False) as db:
        for number in range(KEPT, 200):
            db.add(large_row(number))
            added.append(number)


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
@pytest.mark.parametrize("free_kb", FREE)
def test_a_row_is_stored_whole_or_the_full_disk_is_named(
    path: Path, free_kb: int, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either journal, because the version of SQLite decides which one there is."""
    monkeypatch.setattr("edgevit.store.connect.journal_mode", lambda: journal)
    added: list[int] = []
    with full(path.parent, free_kb), pytest.raises(StoreError) as caught:
        add_until_full(path, added)
    assert caught.value.why == "the disk is full" and "free some space" in caught.value.fix
    assert caught.value.where == str(path)
    require_whole(path, KEPT + len(added))


def test_room_for_a_row_is_looked_for_and_nothing_is_left_of_that(path: Path) -> None:
    with LatencyDB.open(str(path), shipped=False) as db:
        with full(path.parent, 200), pytest.raises(StoreError, match="the disk is full"):
            db.require_writable()
        db.require_writable()
    assert [file.name for file in path.parent.iterdir()] == ["x.db"]


def test_a_quota_that_is_used_up_is_named(stored: Path, tmp_path: Path) -> None:
    """No file may grow beyond a limit, which the system reports as it does a quota."""
    path, added = Path(shutil.copy(stored, tmp_path / "x.db")), list[int]()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 40_000, hard))
    try:
        with pytest.raises(StoreError, match="it is full, a quota is used up") as caught:
            add_until_full(path, added)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "free some space" in caught.value.fix
    require_whole(path, KEPT + len(added))


def test_a_disk_that_fills_up_between_two_measurements_costs_the_later_one(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def measure(*_: Any, **__: Any) -> Iterator[Measurement]:
        yield large_row(KEPT)
        fill(path.parent)
        yield large_row(KEPT + 1)

    monkeypatch.setattr("edgevit.sweeps.recording.profile_all", measure)
    artifact = tiny_copy(tmp_path / "tiny", "onnx")
    with pytest.raises(SystemExit) as ended:
        main(["profile", str(artifact.folder), "--quick", "--db", str(path)])
    (path.parent / "fill").unlink()
    text = capsys.readouterr().err
    assert ended.value.code == 1 and "the disk is full" in text and "free some space" in text
    require_whole(path, KEPT + 1)


@pytest.mark.parametrize("words", [["sweep", "--targets", "onnx", "--quick", "--models"], ["profile", "--quick"]])
def test_nothing_is_measured_for_a_disk_that_is_full_from_the_start(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.setattr("edgevit.sweeps.recording.profile_all", lambda *_, **__: pytest.fail("it was measured"))
    monkeypatch.setattr("edgevit.sweeps.run.artifact_for", lambda *_: pytest.fail("it was exported"))
    subject = "vanillanet_5" if words[0] == "sweep" else str(tiny_copy(tmp_path / "tiny", "onnx").folder)
    with full(path.parent), pytest.raises(SystemExit) as ended:
        main([*words, subject, "--db", str(path)])
    assert ended.value.code == 1 and "the disk is full" in capsys.readouterr().err
    require_whole(path, KEPT)
