"""Commands that are killed at random moments: nothing half is left, and nothing finished is lost."""

from __future__ import annotations

import json
import signal
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edgevit.artifacts.folder import open_artifact
from support.command_line import edgevit
from support.killing import KILLS, TEMPORARY, End, kill_often, start
from support.speed import seconds

OWN = ("--input-size", "32")
EXPORT = ("export", "net.py:tiny", "-t", "onnx", *OWN, "-o", "out", "--db", "x.db", "--json")
SWEEP = ("sweep", "--models", "net.py:tiny", "--targets", "onnx", *OWN, "--quick", "--db", "x.db", "--json", "-o")
NAME = "net-tiny-32-onnx-fp32"
KEPT = (
    "FROM measurement JOIN artifact USING (artifact_no) JOIN model USING (model_no) "
    "WHERE model.name LIKE '%net.py:tiny'"
)


def rows_in(database: Path) -> dict[str, str]:
    """Return the own network's measurements: the id of each with its key."""
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'measurement'").fetchall():
            return {}
        return dict(connection.execute(f"SELECT measurement_id, measurement_key {KEPT}").fetchall())


def check_database(folder: Path) -> None:
    outcome = edgevit("db", "check", "--db", "x.db", folder=folder)
    assert outcome.returncode == 0, outcome.stderr


def kill_exports(here: Path, number: signal.Signals, kills: int, *, warm: bool = False) -> None:
    """Kill an export, whose artifact each run replaces. There is always a whole one."""

    def look(ended: End) -> None:
        visible = [path.name for path in (here / "out").glob("[!.]*")]
        # Killed between two renames, the older one waits for the next run under its hidden name.
        assert visible == [NAME] or (ended.code == -9 and list((here / "out").glob(f".{NAME}.old.*"))), visible
        for name in visible:
            open_artifact(here / "out" / name)
        if ended.code == 0:
            assert json.loads(ended.printed)["artifacts"][0]["sha256"] == open_artifact(here / "out" / NAME).sha256

    kill_often(EXPORT, here, [number] * kills, look, seed=int(number), warm=warm)


def kill_profiles(here: Path, number: signal.Signals, kills: int, *, warm: bool = False) -> None:
    """Kill a profile, of which each run adds a row. No run loses a row, and none adds a half one."""
    folder = here / "out" / NAME
    if not folder.exists():
        outcome = edgevit(*EXPORT, folder=here)
        assert outcome.returncode == 0, outcome.stderr
    before: dict[str, str] = {}

    def look(ended: End) -> None:
        rows = rows_in(here / "x.db") if (here / "x.db").exists() else {}
        new = rows.keys() - before.keys()
        assert before.keys() <= rows.keys() and len(new) <= 1
        if ended.code == 0:
            [measurement] = json.loads(ended.printed)["measurements"]
            assert new == {measurement["measurement_id"]} and measurement["status"] == "ok"
        before.update(rows)

    profile = ("profile", f"out/{NAME}", "--quick", "--db", "x.db", "--json")
    kill_often(profile, here, [number] * kills, look, seed=int(number), warm=warm)
    check_database(here)


def kill_sweeps(here: Path, number: signal.Signals, kills: int, *, warm: bool = False) -> None:
    """Kill a sweep, which goes on where the one before stopped; after its end it begins anew. Its key has one row."""

    def look(ended: End) -> None:
        visible = list((here / "out").glob("[!.]*"))
        for folder in visible:
            open_artifact(folder)
        rows = rows_in(here / "x.db") if (here / "x.db").exists() else {}
        assert len(rows) <= 1
        if ended.code == 0:
            assert len(rows) == 1 and [path.name for path in visible] == [NAME]
            check_database(here)
            for path in here.glob("x.db*"):
                path.unlink()
            open_artifact(here / "out" / NAME).folder.rename(here / f"done-{len(list(here.iterdir()))}")

    kill_often((*SWEEP, "out"), here, [number] * kills, look, seed=int(number), warm=warm)


COMMANDS = {"export": kill_exports, "profile": kill_profiles, "sweep": kill_sweeps}


@pytest.mark.slow
@pytest.mark.parametrize("number", KILLS, ids=lambda number: number.name)
@pytest.mark.parametrize("command", COMMANDS)
def test_twenty_kills_leave_nothing_half_and_lose_nothing(command: str, number: signal.Signals, here: Path) -> None:
    COMMANDS[command](here, number, 20)


@pytest.mark.parametrize(("command", "number"), [("export", signal.SIGTERM), ("profile", signal.SIGKILL)])
def test_a_kill_leaves_nothing_half_and_loses_nothing(command: str, number: signal.Signals, here: Path) -> None:
    COMMANDS[command](here, number, 2, warm=True)


@pytest.mark.slow
@pytest.mark.parametrize("second_out", ["out", "other"])
def test_two_sweeps_at_once_measure_each_artifact_once(second_out: str, here: Path) -> None:
    """They share the folder, or the device alone."""
    both = [start((*SWEEP, out, "--threads", "1,2"), here, here / TEMPORARY) for out in ("out", second_out)]
    texts = [process.communicate(timeout=seconds(200)) for process in both]
    assert [process.returncode for process in both] == [0, 0], texts
    keys = list(rows_in(here / "x.db").values())
    assert len(keys) == len(set(keys)) == 2
    waits = [text for _, text in texts if "is in use by" in text]
    assert len(waits) == 1 or second_out != "out", texts
