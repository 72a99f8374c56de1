"""Locks of output folders, and what killed processes leave behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edgevit.artifacts import folder_lock
from edgevit.artifacts.folder import MANIFEST
from edgevit.artifacts.folder_lock import locked_folder
from edgevit.concurrency import scratch
from edgevit.concurrency.scratch import mark, scratch_folder
from edgevit.errors import ArtifactError
from support.speed import seconds

HOLD = """
import sys
from pathlib import Path
from edgevit.artifacts.folder_lock import locked_folder
from edgevit.concurrency.scratch import mark, scratch_folder
sys.argv = ["/bin/edgevit", "sweep", "--db", "postgresql://me:secret@host/db", "--models", "a b"]
with locked_folder(Path("out")), scratch_folder("test"):
    Path(f"out/.net.{mark()}.partial").mkdir()
    print(mark(), flush=True)
    sys.stdin.read()
"""


def hold(folder: Path) -> tuple[subprocess.Popen[str], str]:
    """Start a process that holds `out` in a folder; return it and its mark."""
    environment = {**os.environ, "TMPDIR": str(folder)}
    process = subprocess.Popen([sys.executable, "-c", HOLD], cwd=folder, env=environment, text=True,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # fmt: skip
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_second_run_waits_and_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    process, _ = hold(tmp_path)
    told: list[str] = []
    entered = threading.Event()

    def enter() -> None:
        with locked_folder(tmp_path / "out", told.append):
            entered.set()

    waiting = threading.Thread(target=enter)
    waiting.start()
    assert not entered.wait(0.6) and len(told) == 1
    assert f"process {process.pid} on " in told[0] and "edgevit sweep --db postgresql://***@host/db" in told[0]
    assert "--models 'a b'" in told[0] and " since 20" in told[0] and "secret" not in told[0]
    process.communicate("", timeout=seconds(20))
    assert entered.wait(seconds(10))
    waiting.join()
    assert not (tmp_path / "out" / ".edgevit.lock").exists()


def test_a_killed_run_holds_nothing_and_the_next_one_removes_what_it_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    process, its_mark = hold(tmp_path)
    out, temporary = tmp_path / "out", [*tmp_path.glob("edgevit-test-*")]
    assert len(temporary) == 1 and (out / f".net.{its_mark}.partial").is_dir()
    mine = out / f".other.{mark()}.partial"
    mine.mkdir()
    process.kill()
    process.communicate()
    told: list[str] = []
    with locked_folder(out, told.append):
        assert sorted(path.name for path in out.iterdir()) == sorted([".edgevit.lock", mine.name])
    assert told == []
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    scratch._clear_once.cache_clear()
    with scratch_folder():
        assert not temporary[0].exists()


def test_an_older_artifact_that_was_being_replaced_gets_its_name_back(tmp_path: Path) -> None:
    process, its_mark = hold(tmp_path)
    process.kill()
    process.communicate()
    out = tmp_path / "out"
    for name in ("lost", "replaced"):
        (folder := out / f".{name}.old.{its_mark}").mkdir()
        (folder / MANIFEST).write_text("old")
    (out / "replaced").mkdir()
    (out / "replaced" / MANIFEST).write_text("new")
    (out / "replaced" / f".{MANIFEST}.{its_mark}").write_text("half")
    with locked_folder(out):
        pass
    files = {str(path.relative_to(out)): path.read_text() for path in out.rglob("*") if path.is_file()}
    assert files == {f"lost/{MANIFEST}": "old", f"replaced/{MANIFEST}": "new"}


def test_a_folder_that_nothing_came_of_is_removed(tmp_path: Path) -> None:
    with locked_folder(tmp_path / "new"):
        assert json.loads((tmp_path / "new" / ".edgevit.lock").read_text())["pid"] == os.getpid()
    assert not (tmp_path / "new").exists()
    (tmp_path / "old").mkdir()
    with locked_folder(tmp_path / "old"):
        pass
    assert list((tmp_path / "old").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named_and_a_full_disk_gets_its_own_advice(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ArtifactError, match="cannot write") as caught, locked_folder(tmp_path / "file" / "out"):
        pass
    assert caught.value.fix == "-o FOLDER you may write to"
    full = folder_lock.unwritable(tmp_path, OSError(28, "No space left on device"))
    assert full.fix.startswith("free some space") and "No space left" in full.why
