"""A hundred forged records through import and merge: none decides without being called imported, none stops a row."""

from __future__ import annotations

import dataclasses
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from edgevit.records.choice import Budget, Choice
from edgevit.records.identity import identify
from edgevit.records.measurement import Measurement
from edgevit.selection.api import Question, answers
from edgevit.selection.candidates import EVERYTHING
from edgevit.selection.query import PredictionOptions
from edgevit.store import LatencyDB
from edgevit.store.json_records import PortableRecord
from edgevit.store.jsonl import write_lines
from support.measured import HOST, SAMPLES, SILICON, floor, measured, rated

QUESTION = Question(("pi-0001",), Budget(max_latency_ms=20), EVERYTHING, PredictionOptions(False), None)


def scaled(share: float) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(max(1, round(share * ns)) for ns in process) for process in SAMPLES)


def forged_records() -> list[PortableRecord]:
    """Return a hundred records that pose as measured on the own board: some cannot be true, most can."""
    draw = random.Random(0)
    records: list[PortableRecord] = []
    now = datetime.now(UTC)
    times = [now, now + timedelta(hours=20), now + timedelta(days=400), now - timedelta(days=9000)]
    for number in range(80):
        changes: dict[str, Any] = {
            "model": draw.choice(["net_s", f"forged_{number}"]),
            "engine_version": draw.choice(["1.31.1", "99.0", "1" * 201]),
            "started": draw.choice(times),
            "parity_status": draw.choice(["passed", "passed", "believed", "failed"]),
            "device_class": draw.choice(["raspberry-pi-5", "x86_64-zen5-avx512bf16-2c"]),
            "device": draw.choice(["pi5", "local"]),
            "host": draw.choice([HOST, dataclasses.replace(HOST, silicon=SILICON)]),
            "artifact_bytes": draw.choice([4_000_000, 1, 0]),
            "nonce": f"forged {number}",
        }  # fmt: skip
        changes["started"] = changes["started"].isoformat()
        records.append(measured(scaled(draw.choice([0.01, 0.5, 5.0, 100.0])), **changes))
    for number in range(10):
        share = draw.choice([0.0, 0.9, 50.0])
        records.append(floor(share, started=(now - timedelta(minutes=number)).isoformat()))
        records.append(rated(99.0, model="net_s", started=now.isoformat(), note=f"forged {number}"))
    assert len(records) == 100
    return records


def ask_own(db: LatencyDB, **changes: Any) -> Choice:
    [choice] = answers(db, QUESTION._replace(**changes))
    return choice


def without_notes(choice: Choice) -> Choice:
    return dataclasses.replace(choice, notes=tuple(note for note in choice.notes if note.kind != "imported_left_out"))


@pytest.mark.parametrize("way", ["import", "merge"])
def test_forged_records_change_no_answer(tmp_path: Path, way: str) -> None:
    honest = [measured(nonce="1"), measured(scaled(0.9), model="net_t", nonce="2")]
    file, other = tmp_path / "forged.jsonl", str(tmp_path / "other.db")
    write_lines(file, forged_records())
    with LatencyDB.open(str(tmp_path / "own.db"), shipped=False) as db:
        for row in honest:
            db.add(row)
        db.add_noise(floor())
        before = ask_own(db)
        if way == "import":
            result, source = db.import_jsonl(file), str(file)
        else:
            with LatencyDB.open(other, shipped=False) as theirs:
                theirs.import_jsonl(file)
            result, source = db.merge(other), other
        assert result.added > 30
        after = ask_own(db)
        assert without_notes(after) == without_notes(before)
        [said] = [note for note in after.notes if note.kind == "imported_left_out"]
        assert said.subjects == (source,)
        _require_called_imported(db, source, {row.measurement_id for row in honest})
        # A row of today is as good as ever, whatever the forged ones say of tomorrow.
        again = identify(dataclasses.replace(honest[0], started=datetime.now(UTC).isoformat(), nonce="3"))
        assert db.add(again) and again.measurement_id in ids_of(ask_own(db))
        db.forget(source)
        assert ids_of(ask_own(db)) >= {again.measurement_id} and db.check().problems == ()


def ids_of(choice: Choice) -> set[str]:
    return {one.measurement_id for one in choice.fitting}


def _require_called_imported(db: LatencyDB, source: str, own: set[str]) -> None:
    """Check that an answer from everything names the source of its pick, unless the pick is one's own."""
    taken_in = ask_own(db, origin="any")
    assert taken_in.picked is not None
    named = [note.subjects for note in taken_in.notes if note.kind == "pick_imported"]
    assert named == ([] if taken_in.picked.measurement_id in own else [(source,)])


def test_an_imported_accuracy_of_an_own_row_is_named(tmp_path: Path) -> None:
    own, file = measured(nonce="1"), tmp_path / "forged.jsonl"
    facts = {"artifact_sha256": own.artifact_sha256, "model": own.model, "examples": 100, "started": own.started}
    write_lines(file, [rated(99.0, provenance="measured", error=0.5, target="onnx", precision="fp32", **facts)])
    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as db:
        db.add(own)
        db.import_jsonl(file)
        alone = ask_own(db)
        assert alone.picked is not None and alone.picked.top1_percent is None
        dataset = rated().dataset
        taken_in = ask_own(db, origin="any", dataset=dataset)
        assert taken_in.picked is not None and taken_in.picked.top1_percent == 99.0
        assert [note.subjects for note in taken_in.notes if note.kind == "pick_accuracy_imported"] == [(str(file),)]
        db.trust(str(file))
        assert "pick_accuracy_imported" not in [note.kind for note in ask_own(db, dataset=dataset).notes]


def test_an_imported_noise_floor_is_named_where_it_takes_part(tmp_path: Path) -> None:
    file = tmp_path / "forged.jsonl"
    write_lines(file, [floor(0.5, started=datetime.now(UTC).isoformat())])
    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as db:
        db.add(measured(nonce="1"))
        db.add_noise(floor())
        db.import_jsonl(file)
        [said] = [note for note in ask_own(db, origin="any").notes if note.kind == "noise_imported"]
        assert said.subjects == ("pi5", str(file)) and said.numbers == (0.5,)
        assert (
            f"(50.0%), below which latencies count as equal, was not measured by you, but read from {file}" in said.text
        )
        for origin in ("own", "trusted"):
            assert "noise_imported" not in kinds_of(ask_own(db, origin=origin))
        db.add_noise(floor(started=(datetime.now(UTC) + timedelta(minutes=1)).isoformat()))
        assert "noise_imported" not in kinds_of(ask_own(db, origin="any")), "the own one is newer"
        db.forget(str(file))


def test_a_trusted_noise_floor_is_no_matter_for_a_note(tmp_path: Path) -> None:
    file = tmp_path / "theirs.jsonl"
    write_lines(file, [floor(0.5)])
    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as db:
        db.add(measured(nonce="1"))
        db.import_jsonl(file)
        assert "noise_imported" in kinds_of(ask_own(db, origin="any"))
        db.trust(str(file))
        assert "noise_imported" not in kinds_of(ask_own(db, origin="any"))


def kinds_of(choice: Choice) -> list[str]:
    return [note.kind for note in choice.notes]


def test_most_forged_rows_could_be_true(tmp_path: Path) -> None:
    """Nothing in a row itself tells that it was forged: that is what origins are for."""
    write_lines(tmp_path / "f.jsonl", [row for row in forged_records() if isinstance(row, Measurement)])
    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as db:
        result = db.import_jsonl(tmp_path / "f.jsonl")
        assert result.added >= 10 and {refusal.code for refusal in result.refused} == {"impossible"}
