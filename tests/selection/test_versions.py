"""The order of engine versions: PEP 440, a natural order for vendors' strings, and time for digests."""

from __future__ import annotations

import itertools

import pytest

from edgevit.selection.versions import is_older, latest, newest_engines
from support.candidates import DAYS, answer, row, texts

OLDER = [
    ("1.9", "1.10"),
    ("1.10rc1", "1.10"),
    ("1.10.dev20260101", "1.10rc1"),
    ("2.25.0", "2.25.0.240728"),
    ("1.0", "1!0.9"),
    ("1.31.1", "1.31.1.post1"),
    # PEP 440 refuses at least one of each pair.
    ("7.1.0-abc", "7.1.0"),
    ("1.9-SNAPSHOT", "1.10-SNAPSHOT"),
    ("v2.2.0-g1", "v2.10.0-g0"),
]
EQUALLY_OLD = [("1.31.1", "1.31.1+cpu"), ("1.31.1+cpu", "1.31.1+cu126"), ("1.10", "1.10.0"), ("v1.2", "1.2")]


@pytest.mark.parametrize(("old", "new"), OLDER)
def test_older_versions(old: str, new: str) -> None:
    assert is_older(old, new) and not is_older(new, old)
    assert latest([row(engine_version=old), row(engine_version=new)]) == new


@pytest.mark.parametrize(("one", "other"), EQUALLY_OLD)
def test_builds_and_spellings_of_one_version_are_equally_old(one: str, other: str) -> None:
    assert not is_older(one, other) and not is_older(other, one)
    rows = [row(engine_version=one), row(engine_version=other)]
    assert latest(rows) == latest(rows[::-1])


def test_a_local_label_drops_no_row() -> None:
    """A row of 1.31.1+cpu that is faster than one of 1.31.1 stays an answer, whichever came first."""
    for fast, slow in itertools.permutations(("1.31.1", "1.31.1+cpu")):
        rows = [row("a", 5, engine_version=fast, started=DAYS[0]), row("a", 9, engine_version=slow, started=DAYS[1])]
        choice = answer(*rows, max_latency_ms=6)
        assert choice.picked is not None and choice.picked.engine_version == fast
        assert choice.picked.flags == () and texts(choice) == ()


def test_of_digests_the_last_one_counts() -> None:
    rows = [row(engine_version="sha256:ff", started=DAYS[0]), row(engine_version="sha256:00", started=DAYS[1])]
    assert latest(rows) == "sha256:00" and is_older("sha256:ff", "sha256:00") and is_older("1.0", "sha256:00")
    assert not is_older("", "sha256:00") and latest([]) == ""


def test_newest_engines_are_those_of_each_unit_target_and_engine() -> None:
    rows = [row(engine_version="1.9"), row(engine_version="1.10"), row(engine_version="1.8", device_id="pi-2")]
    assert newest_engines(rows) == {
        ("pi-0001", "onnx", "onnxruntime"): "1.10",
        ("pi-2", "onnx", "onnxruntime"): "1.8",
    }
