"""Attacks on a person who works in a stranger's folder, or reads a stranger's files: each is refused or harmless.

Others stand where their subject is: code of manifests in tests/artifacts, forged rows in tests/selection, hostile text
in test_hostile_text.py, checkpoints that keep a reader busy in tests/models/test_checkpoint.py.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from edgevit.artifacts.labels import read_labels
from edgevit.cli import main
from edgevit.concurrency.lock_file import without_password
from edgevit.errors import EdgevitError, StoreError, UsageError
from edgevit.evaluation.image_folder import Example, _read_names
from edgevit.evaluation.prefetch import ImageFeed
from edgevit.exporting.child_process import export_separately
from edgevit.images.calibration_files import calibration_sha256
from edgevit.models.hf_network import _read_json
from edgevit.plain_files import NotPlainError, read_plain
from edgevit.records.artifact import ExportRequest
from edgevit.records.model import Preprocessing
from edgevit.store import LatencyDB, exchange, jsonl
from edgevit.verification.inputs import read_rows
from edgevit_runtime.record import TensorSpec
from support.measured import measured, rated

ROOT = Path(__file__).parents[2]
IMAGE = TensorSpec("image", (1, 3, 8, 8))
_HANG_S = 10


@pytest.fixture
def within_seconds() -> Iterator[None]:
    """Fail a test that waits: a pipe that no one writes to has no end."""

    def fail(number: int, frame: object) -> None:
        pytest.fail(f"it waited for more than {_HANG_S} s")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(_HANG_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# A stranger's folder


def test_a_module_in_the_current_folder_is_not_imported_by_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("edgevit", "torch", "onnx"):
        (tmp_path / f"{name}.py").write_text(f"from pathlib import Path\nPath({str(tmp_path / 'owned')!r}).touch()\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EdgevitError, match="no_such_model"):
        export_separately(ExportRequest("onnx", tmp_path / "out", model="no_such_model"))
    assert not (tmp_path / "owned").exists()


def test_every_process_that_runs_a_module_leaves_the_current_folder_out() -> None:
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "edgevit").rglob("*.py"))
    commands = [line for text in texts for line in text.splitlines() if '"-m", "edgevit' in line]
    assert len(commands) >= 2 and all('"-P"' in line for line in commands), commands


def read_image(path: Path) -> object:
    """Read an image as a thread of an evaluation does."""
    read = ImageFeed((), Preprocessing(), IMAGE, 1)._read(Example(path, 0, path.name))
    raise UsageError("an image cannot be read", why=read.why)


PIPES: dict[str, Callable[[Path], object]] = {
    "labels.txt": read_labels,
    "samples.npy": lambda path: read_rows(path, [IMAGE]),
    "image.png": read_image,
    "calibration.png": lambda path: calibration_sha256(path.parent),
    "names.txt": lambda path: _read_names(path, 2, ["a", "b"]),
    "config.json": lambda path: _read_json(path, "hf:folder"),
}


@pytest.mark.parametrize("name", PIPES)
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(name: str, tmp_path: Path, within_seconds: None) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(EdgevitError) as caught:
        PIPES[name](tmp_path / name)
    assert "no plain file" in str(caught.value)


def test_a_file_that_becomes_a_pipe_is_not_waited_for(
    tmp_path: Path, within_seconds: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(pipe := tmp_path / "pipe")
    monkeypatch.setattr("edgevit.plain_files.require_plain", lambda path: None)
    with pytest.raises(NotPlainError):
        read_plain(pipe)


def test_a_configuration_that_is_nested_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a":' + "[" * 100_000)
    with pytest.raises(EdgevitError, match="readable config"):
        _read_json(tmp_path / "config.json", "hf:folder")


def test_a_lock_that_is_a_link_changes_nothing_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (victim := tmp_path / "victim").write_text("precious")
    (out := tmp_path / "out").mkdir()
    (out / ".edgevit.lock").symlink_to(victim)
    with pytest.raises(SystemExit) as ended:
        main(["export", "vanillanet_5", "-t", "onnx", "-o", str(out)])
    assert ended.value.code == 1 and "cannot write to the output folder" in capsys.readouterr().err
    assert victim.read_text() == "precious"


# A stranger's rows


def test_a_database_with_triggers_takes_no_row_of_ours(tmp_path: Path) -> None:
    """A trigger could say that code was built here, in the name of the installation that has just measured."""
    path = str(tmp_path / "theirs.db")
    LatencyDB.open(path, shipped=False).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "CREATE TRIGGER evil AFTER INSERT ON measurement BEGIN INSERT INTO trust SELECT * FROM trust; END"
        )
    for create in (True, False):
        with pytest.raises(StoreError, match="has triggers") as caught:
            LatencyDB.open(path, shipped=False, create_file=create)
        assert "'evil'" in caught.value.why and "DROP TRIGGER" in caught.value.fix


def test_a_file_of_one_endless_line_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 200_000)
    monkeypatch.setattr(exchange, "_BATCH_BYTES", 200_000)
    with (tmp_path / "rows.jsonl").open("wb") as file:
        file.truncate(12_000_000)
    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as db:
        tracemalloc.start()
        result = db.import_file(tmp_path / "rows.jsonl")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(result.refused) == 60 and peak < 6_000_000


@pytest.mark.parametrize("name", ["$\\frac{$", "a$b$c", "$\\unknown$", "<script>alert(1)</script>", "\x1b[2J"])
def test_a_name_is_neither_a_formula_nor_markup_in_a_picture(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warnings of a picture are errors here: one would be of a character that is drawn as it is."""
    monkeypatch.setattr("edgevit.store.jsonl.shipped_files", list)
    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as db:
        for model, percent in ((name, 75.0), ("net_t", 70.0)):
            db.add(measured(model=model, nonce=model))
            db.add_accuracy(rated(percent, model=model))
    picture = tmp_path / "p.svg"
    with pytest.raises(SystemExit) as ended:
        main(["choose", "-d", "pi-0001", "--max-latency", "1s", "--measured-only", "--db", str(tmp_path / "x.db"),
              "--plot", str(picture)])  # fmt: skip
    assert ended.value.code == 0
    drawn = picture.read_bytes()
    assert len(drawn) > 10_000 and b"<script" not in drawn and b"\x1b" not in drawn


# What is told to others


URLS = [
    "postgresql://ann:secret@127.0.0.1:1/x",
    "postgresql://127.0.0.1:1/x?user=ann&password=secret",
    "postgresql://127.0.0.1:1/x?sslpassword=secret&user=ann",
    "postgresql://ann:sec/secret@127.0.0.1:port/x?password=secret",
]


@pytest.mark.parametrize("url", URLS)
def test_a_password_is_shown_nowhere(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["db", "stats", "--db", url], ["db", "stats", "--db", url, "--json"]):
        with pytest.raises(SystemExit):
            main(words)
        out, error = capsys.readouterr()
        assert "127.0.0.1" in out + error and "secret" not in out + error
    assert re.search("sec(?!/)", without_password(url)) is None or "port" in url
