"""Files and folders that may not be read or written, and a full disk: one clear error, and advice for its cause."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from edgevit.store import LatencyDB
from support.exported import tiny_copy
from support.measured import measured, rated
from support.restricted import Answer, run_restricted, why_not

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "permissions can be taken away")
NETWORK = """
import torch

def net():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()).eval()
"""
EXPORT = ("export", "--target", "onnx", "--input-size", "8", "-o")
# What may not be read, and the words of a command with a part of its error.
UNREADABLE: dict[str, tuple[tuple[str, ...], str]] = {
    "rows.jsonl": (("db", "import", "rows.jsonl", "--db", "x.db"), "not readable"),
    "rows.parquet": (("db", "import", "rows.parquet", "--db", "x.db"), "not readable"),
    "perf.csv": (("db", "import", "perf.csv", "--from", "aihub", "--db", "x.db"), "not readable"),
    "other.db": (("db", "merge", "other.db", "--db", "x.db"), "chmod u+rw"),
    "theirs.db": (("db", "stats", "--db", "theirs.db"), "chmod u+rw"),
    "w.pth": ((*EXPORT, "out", "good.py:net", "--weights", "w.pth"), "not readable"),
    "labels.txt": ((*EXPORT, "out", "good.py:net", "--labels", "labels.txt"), "not readable"),
    "s.npy": ((*EXPORT, "out", "good.py:net", "--samples", "s.npy"), "not readable"),
    "net.py": ((*EXPORT, "out", "net.py:net"), "chmod u+r"),
    "manifest/manifest.json": (("verify", "manifest"), "ermission denied"),
    "images": (("evaluate", "tiny", "--data", "images"), "not readable"),
    "closed": ((*EXPORT, "closed/out", "good.py:net"), "-o FOLDER"),
    "shut": (("db", "export", "shut/x.jsonl", "--db", "x.db"), "ermission denied"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file of each kind that is read."""
    folder = tmp_path_factory.mktemp("permissions") / "work"
    folder.mkdir()
    with LatencyDB.open(str(folder / "x.db"), shipped=False) as db:
        db.add(measured())
        db.add_accuracy(rated())
        db.export_jsonl(folder / "rows.jsonl")
        db.export_file(folder / "rows.parquet")
    for name in ("other.db", "theirs.db"):
        shutil.copy(folder / "x.db", folder / name)
    shutil.copy(Path(__file__).parents[1] / "published/aihub_perf.csv", folder / "perf.csv")
    (folder / "labels.txt").write_text("a\nb\n")
    for name in ("net.py", "good.py"):
        (folder / name).write_text(NETWORK)
    torch.save({"0.weight": torch.ones(2, 3, 3, 3)}, folder / "w.pth")
    np.save(folder / "s.npy", np.ones((2, 3, 8, 8), dtype=np.float32))
    for name in ("tiny", "manifest"):
        tiny_copy(folder / name, "onnx")
    for name in ("images", "closed", "shut"):
        (folder / name).mkdir()
    return folder


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, Answer]:
    """The answer to each command, where its file may not be read."""
    modes = {name: (folder / name).stat().st_mode for name in UNREADABLE}
    for name in UNREADABLE:
        (folder / name).chmod(0)
    try:
        given = run_restricted(folder, [words for words, _ in UNREADABLE.values()])
    finally:
        for name, mode in modes.items():
            (folder / name).chmod(mode)
    return dict(zip(UNREADABLE, given, strict=True))


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_may_not_be_read_is_a_clear_error(answers: dict[str, Answer], name: str) -> None:
    answer, (_, expected) = answers[name], UNREADABLE[name]
    assert answer.code in (1, 2), answer
    assert expected in answer.text and name.split("/")[0] in answer.text


def test_a_database_that_may_only_be_read_answers_and_takes_nothing(folder: Path) -> None:
    (locked := folder / "locked").mkdir()
    shutil.copy(folder / "x.db", locked / "x.db")
    row, db = measured().measurement_id, ("--db", "locked/x.db")
    reading = [("db", "stats", *db), ("db", "show", *db), ("db", "check", *db), ("db", "sql", "SELECT 1", *db),
               ("choose", "-d", "pi5", "--max-latency", "1s", "--measured-only", "--origin", "any", *db)]  # fmt: skip
    writing = [("db", "tag", "nightly", row, *db), ("db", "import", "rows.jsonl", *db), ("devices", "noise", *db),
               ("profile", "tiny", "--quick", *db), ("db", "epochs", "--refresh", *db)]  # fmt: skip
    (locked / "x.db").chmod(0o444)
    locked.chmod(0o555)
    try:
        given = run_restricted(folder, [*reading, *writing])
    finally:
        locked.chmod(0o755)
    assert [answer.code for answer in given] == [0] * len(reading) + [1] * len(writing)
    for answer in given[len(reading) :]:
        assert "chmod u+w" in answer.text and "locked/x.db" in answer.text


@pytest.mark.slow
def test_a_disk_that_is_full_leaves_no_part_of_an_artifact(folder: Path) -> None:
    """No file may exceed 700 bytes, so that neither a payload nor a row is written."""
    sweep = ("sweep", "--models", "good.py:net", "--targets", "onnx", "--input-size", "8", "--quick", "-o", "full")
    given = run_restricted(folder, [(*EXPORT, "full", "good.py:net"), (*sweep, "--db", "x.db")], file_limit=700)
    for answer in given:
        assert answer.code == 1, answer
        assert "error:" in answer.text or "failed:" in answer.text
        assert "free some space" in answer.text
    full = folder / "full"
    assert not full.exists() or list(full.iterdir()) == []
    with LatencyDB.open(str(folder / "x.db"), shipped=False) as db:
        assert db.check().problems == () and len(db.measurements()) == 1
