"""`edgevit db compare` and `edgevit db tag`: names of rows, exit codes of a gate, and its summaries."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from conftest import new_file
from edgevit.cli import main
from edgevit.devices.registry import local_device
from edgevit.records.measurement import Measurement
from edgevit.records.network import Network
from edgevit.store import LatencyDB
from edgevit.store.jsonl import write_lines
from support.measured import HOST, SILICON, failed, floor, measured, published

ZEN = dataclasses.replace(HOST, silicon=SILICON)
HERE: dict[str, Any] = {"device": "local", "device_id": local_device().device_id, "host": ZEN}


def row(ms: float, day: int, **changes: Any) -> Measurement:
    times = tuple(tuple(round((ms + 0.0001 * (run + process)) * 1e6) for run in range(10)) for process in range(3))
    return measured(times, **({**HERE, "started": f"2026-11-{day:02}T10:00:00+00:00", "nonce": f"{day}"} | changes))


@pytest.fixture
def db(tmp_path: Path) -> Iterator[LatencyDB]:
    with LatencyDB.open(new_file(tmp_path / "x.db"), shipped=False) as database:
        database.add_noise(dataclasses.replace(floor(0.02), device_id=HERE["device_id"]))
        yield database


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("edgevit.store.jsonl.shipped_files", list)
    monkeypatch.chdir(tmp_path)


class Outcome:
    """The exit code and the output of a command."""

    def __init__(self, capsys: pytest.CaptureFixture[str], words: tuple[object, ...]) -> None:
        self.code: Any = 0
        try:
            main(["db", *map(str, words), "--db", "x.db"])
        except SystemExit as end:
            self.code = end.code or 0
        self.out, self.error = capsys.readouterr()


@pytest.fixture
def edgevit(capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda *words: Outcome(capsys, words)


def compared(outcome: Outcome) -> list[tuple[str | None, str | None]]:
    """Return the ids of the pairs in the JSON of a comparison."""
    return [
        tuple(pair[side] and pair[side]["measurement_id"] for side in "ab") for pair in json.loads(outcome.out)["pairs"]
    ]


OLD, NEW = row(10, 1), row(12, 2)


# Names


def test_b_is_judged_against_a(db: LatencyDB, edgevit: Any) -> None:
    db.add(OLD), db.add(NEW)
    old, new = OLD.measurement_id[:10], NEW.measurement_id[:10]
    outcome = edgevit("compare", old, new)
    assert outcome.code == 0 and "SLOWER: B takes +20.0%" in outcome.out, outcome.error
    assert edgevit("compare", old, new, "--fail-if", "slower").code == 4
    assert edgevit("compare", new, old, "--fail-if", "slower").code == 0


@pytest.mark.parametrize("names", [("net_s@onnx@fp32",) * 2, ("net_s", "net_s@onnx"), ("net_s", NEW.measurement_id)])
def test_a_row_is_not_compared_with_itself(db: LatencyDB, edgevit: Any, names: tuple[str, str]) -> None:
    db.add(NEW)
    for known, fix in ((None, "--tag NAME"), (OLD, f"edgevit db compare {OLD.measurement_id[:12]}")):
        if known is not None:
            db.add(known)
        for order in (names, names[::-1]):
            outcome = edgevit("compare", *order, "--fail-if", "slower")
            assert outcome.code == 2 and "A and B are one row" in outcome.error and fix in outcome.error


def test_a_row_of_both_tags_is_not_compared_with_itself(db: LatencyDB, edgevit: Any) -> None:
    db.add(NEW, tag="a")
    db.add_tag([NEW.measurement_id], "b")
    outcome = edgevit("compare", "a", "b")
    assert outcome.code == 2 and "A and B are one row" in outcome.error


def test_ambiguous_names_are_refused(db: LatencyDB, edgevit: Any) -> None:
    several = [row(10, day) for day in range(1, 28)]
    for one in several:
        db.add(one)
    prefixes = [one.measurement_id[:6] for one in several]
    db.add_tag([OLD.measurement_id], "net_s")
    db.add_tag([OLD.measurement_id], prefixes[5])
    assert "tag:net_s or net_s@onnx" in edgevit("compare", "net_s", prefixes[4]).error
    outcome = edgevit("compare", prefixes[5], prefixes[4])
    assert outcome.code == 2 and f"tag:{prefixes[5]}" in outcome.error
    assert edgevit("compare", "tag:net_s", prefixes[4]).code == 0


def test_ids_with_one_beginning_are_refused(db: LatencyDB, edgevit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    db.add(OLD), db.add(NEW)
    monkeypatch.setattr(LatencyDB, "find", lambda self, prefix: [OLD.measurement_id, NEW.measurement_id])
    outcome = edgevit("compare", OLD.measurement_id[:8], "net_s")
    assert outcome.code == 2 and "several measurements" in outcome.error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("compare",), "two names are needed"),
        (("compare", "net_s"), "--baseline TAG"),
        (("compare", "nest_s", "net_s"), "net_s@onnx@fp32"),
        (("compare", "net_s", "tag:nigthly"), "nightly"),
        (("compare", "--baseline", "nigthly"), "nightly"),
        (("compare", "net_s", "net_s", "--baseline", "nightly"), "takes the place of A"),
        (("compare", "net_s", "nightly", "--percentile", "95"), "50, 90 or 99"),
        (("compare", "net_s", "nightly", "--fail-if", "faster"), "--fail-if slower"),
        (("compare", "net_s", "nightly", "--markdown", "-", "--json"), "--markdown FILE"),
        (("tag", "two words", "net_s"), "cannot be a tag"),
        (("tag", "more"), "no row named"),
    ],
)
def test_commands_that_make_no_sense_are_refused(
    db: LatencyDB, edgevit: Any, words: tuple[str, ...], message: str
) -> None:
    db.add(NEW, tag="nightly")
    outcome = edgevit(*words)
    assert outcome.code == 2 and message in outcome.error


# Sets


def test_tags_are_compared_row_by_row(db: LatencyDB, edgevit: Any) -> None:
    two = {"threads": 2}
    rows = [row(10, 1), row(6, 1, **two), row(10.001, 2), row(6.001, 2, **two)]
    for number, one in enumerate(rows):
        db.add(one, tag="before" if number < 2 else "after")
    outcome = edgevit("compare", "before", "after", "--fail-if", "slower", "--json")
    assert outcome.code == 0 and json.loads(outcome.out)["outcome"] == "passed"
    assert set(compared(outcome)) == {
        (rows[0].measurement_id, rows[2].measurement_id),
        (rows[1].measurement_id, rows[3].measurement_id),
    }
    db.add(row(7, 3, **two), tag="after")
    outcome = edgevit("compare", "before", "after", "--fail-if", "slower", "--percentile", "90")
    assert outcome.code == 4 and "1 slower" in outcome.out and "1 same" in outcome.out
    assert edgevit("compare", "before", "after", "--fail-if", "slower", "--threads", "4").code == 0


def test_a_baseline_is_compared_with_what_was_measured_since(db: LatencyDB, edgevit: Any) -> None:
    base = ("compare", "--baseline", "main", "--fail-if", "slower")
    db.add(row(9, 1))
    db.add(row(10, 2), tag="main")
    db.add(row(8, 3, model="net_m"))
    outcome = edgevit(*base)
    assert outcome.code == 6 and "no row of this configuration" in outcome.out, "the row of before is no counterpart"
    db.add(row(10.001, 4))
    assert edgevit(*base).code == 0, "of another model nothing was asked"
    outcome = edgevit(*base, "net_s", "--json")
    assert outcome.code == 0 and compared(outcome) == [(row(10, 2).measurement_id, row(10.001, 4).measurement_id)]
    assert edgevit(*base, "net_m").code == 6, "both sides lack a counterpart"
    db.add(row(12, 5))
    assert edgevit(*base).code == 4
    db.add(row(12, 6), tag="main")
    assert edgevit(*base).code == 6, "a new baseline has nothing after it"
    db.add(row(12, 7))
    assert edgevit(*base).code == 0


def test_each_network_of_a_baseline_meets_its_like(db: LatencyDB, edgevit: Any) -> None:
    def trained(ms: float, day: int, letter: str) -> Measurement:
        network = Network("function", letter * 64, letter * 64, "2.9.0")
        return row(ms, day, model="n.py:net", network=network, artifact_sha256=letter * 64)

    for letter in "ab":
        db.add(trained(10, 1, letter), tag="main")
    db.add(trained(12, 2, "a")), db.add(trained(10, 3, "b"))
    for name in ((), ("n.py:net",)):
        outcome = edgevit("compare", "--baseline", "main", *name, "--fail-if", "slower")
        assert outcome.code == 4 and "1 slower, 1 same" in outcome.out


@pytest.mark.parametrize(
    ("candidate", "code"),
    [
        (failed(**HERE), "no_latency"),
        (row(5, 2, host=dataclasses.replace(HOST, silicon=dataclasses.replace(SILICON, stepping=7))), "other_silicon"),
        (row(5, 2, flags=("emulated",)), "emulated"),
        (row(5, 2, threads=1), "no_counterpart"),
    ],
)
def test_a_gate_that_compared_nothing_never_passes(
    db: LatencyDB, edgevit: Any, candidate: Measurement, code: str
) -> None:
    db.add(OLD, tag="main")
    db.add(candidate, tag="now")
    outcome = edgevit("compare", "main", "now", "--fail-if", "slower", "--json", "--junit", "x.xml")
    assert outcome.code == 6 and json.loads(outcome.out)["outcome"] == "undecided"
    assert code in {one["code"] for pair in json.loads(outcome.out)["pairs"] for one in pair["obstacles"]}
    assert ElementTree.parse("x.xml").find(".//error") is not None
    assert "NOT JUDGED" in edgevit("compare", "main", "now", "--fail-if", "slower").out
    assert edgevit("compare", "main", "now").code == (0 if code == "other_silicon" else 6)


def test_a_newest_run_that_failed_hides_behind_no_older_one(db: LatencyDB, edgevit: Any) -> None:
    db.add(OLD, tag="main")
    db.add(NEW)
    db.add(failed(**HERE, started="2026-11-09T10:00:00+00:00"))
    for words in (("main", "net_s"), ("--baseline", "main"), ("--baseline", "main", "net_s")):
        outcome = edgevit("compare", *words, "--fail-if", "slower")
        assert outcome.code == 6 and "crashed" in outcome.out


def test_published_rows_have_no_names_here(db: LatencyDB, edgevit: Any) -> None:
    db.add(published(device="local", device_id=HERE["device_id"]))
    db.add(failed(**HERE, model="net_m"))
    assert "net_m" in edgevit("compare", "net_s", "net_m").error


# Tags


@pytest.fixture
def foreign(db: LatencyDB, tmp_path: Path) -> Path:
    """Own rows of two days, which differ by 40%, and a file read in: a slower row of the second day, and a noise floor.

    The imported row and the slower own one have the tag `theirs` and `ours`.
    """
    file = tmp_path / "foreign.jsonl"
    forged = row(30, 23, nonce="forged")
    write_lines(file, [forged, floor(0.9, device_id=HERE["device_id"], started="2026-11-28T10:00:00+00:00")])
    db.add(row(5, 21), tag="first")
    db.add(row(7, 22), tag="ours")
    db.import_jsonl(file)
    db.add_tag([forged.measurement_id], "theirs")
    return file


def test_a_gate_goes_by_no_row_of_a_source_without_trust(edgevit: Any, foreign: Path) -> None:
    gate = ("compare", "tag:first", "tag:theirs", "--fail-if", "slower")
    untrusted = edgevit(*gate, "--json")
    assert untrusted.code == 6
    [pair] = json.loads(untrusted.out)["pairs"]
    assert pair["verdict"] is None and [one["code"] for one in pair["obstacles"]] == ["untrusted_origin"]
    assert f"B from {foreign}" in edgevit(*gate).out
    assert edgevit("compare", "tag:first", "tag:theirs").code == 0, "no gate: the verdict is told with its obstacle"
    assert edgevit(*gate, "--origin", "any").code == 4
    assert edgevit("trust", foreign).code == 0
    assert edgevit(*gate).code == 4 and edgevit(*gate, "--origin", "own").code == 6


def test_a_noise_floor_of_a_source_without_trust_hides_nothing(edgevit: Any, foreign: Path) -> None:
    gate = ("compare", "tag:first", "tag:ours", "--fail-if", "slower")
    assert edgevit(*gate).code == 4
    assert edgevit(*gate, "--origin", "any").code == 0, "with a floor of 90% nothing is slower"


def test_what_a_comparison_leaves_out_is_named(edgevit: Any, foreign: Path) -> None:
    since = edgevit("compare", "--baseline", "first", "--fail-if", "slower")
    assert since.code == 4 and f"left out: 1 rows from {foreign}" in since.out
    named = edgevit("compare", "tag:first", "net_s", "--json")
    assert json.loads(named.out)["left_out"] == {str(foreign): 1}
    [pair] = json.loads(named.out)["pairs"]
    assert pair["b"]["started"].startswith("2026-11-22"), "the newest row of a name is an own one"


def test_a_name_of_foreign_rows_alone_says_so(db: LatencyDB, edgevit: Any, tmp_path: Path) -> None:
    write_lines(file := tmp_path / "f.jsonl", [row(5, 21)])
    db.import_jsonl(file)
    unknown = edgevit("compare", "net_s", "net_s@onnx")
    assert unknown.code == 2 and str(file) in unknown.error and "db trust" in unknown.error


def test_rows_that_are_there_get_a_tag(db: LatencyDB, edgevit: Any) -> None:
    db.add(OLD, tag="nightly"), db.add(NEW)
    assert json.loads(edgevit("tag", "v1", "nightly", "net_s", "--json").out) == {
        "schema_version": 1, "added": 2, "tags": {"nightly": 1, "v1": 2}
    }  # fmt: skip
    assert "0 rows tagged v1; 2 have it" in edgevit("tag", "v1", NEW.measurement_id[:12]).out
    assert "nightly" in edgevit("tag").out


# Summaries


def test_summaries_hold_no_markup_of_a_row(db: LatencyDB, edgevit: Any) -> None:
    name = "n|e`t<b>\x1b[2J\ud7ff&\n"
    db.add(row(10, 1, model=name), tag="main")
    db.add(row(12, 2, model=name), tag="now")
    db.add(failed(**HERE, error="]]>|\x0b"), tag="now")
    words = ("compare", "main", "now", "--fail-if", "slower", "--junit", "x.xml", "--markdown", "x.md")
    assert edgevit(*words).code == 4
    suite = ElementTree.parse("x.xml").getroot()
    assert {key: suite.get(key) for key in ("tests", "failures", "errors")} == {
        "tests": "2", "failures": "1", "errors": "1"
    }  # fmt: skip
    [failure] = suite.iter("failure")
    assert failure.get("type") == "SLOWER" and "+20.0%" in str(failure.get("message"))
    text = Path("x.md").read_text(encoding="utf-8")
    assert "\x1b" not in text and "<b>" not in text.replace("\\<b\\>", "")
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len(lines) == 4 and {line.replace("\\|", "").count("|") for line in lines} == {15}
    assert edgevit(*words[:5], "--markdown", "-").out == text
    assert not list(Path().glob(".*.part"))


@pytest.mark.parametrize("option", ["--junit", "--markdown"])
def test_a_summary_that_cannot_be_written_is_an_error(db: LatencyDB, edgevit: Any, option: str) -> None:
    db.add(OLD), db.add(NEW)
    Path("folder").mkdir()
    for path in ("folder", "nowhere/x"):
        outcome = edgevit("compare", OLD.measurement_id, NEW.measurement_id, option, path)
        assert outcome.code == 1 and "the summary cannot be written" in outcome.error and not outcome.out


def test_comparing_imports_no_torch(db: LatencyDB) -> None:
    db.add(OLD), db.add(NEW)
    code = (
        "import sys; from edgevit.cli import main\n"
        f"main(['db', 'compare', '{OLD.measurement_id}', '{NEW.measurement_id}', '--db', 'x.db'])\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
