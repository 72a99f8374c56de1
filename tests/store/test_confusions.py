"""Tests of the confusions of evaluations, and of accuracies that say what they rest on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edgevit.errors import StoreError
from edgevit.records.identity import identify_confusion
from edgevit.records.measurement import CLASS_ORDER, NO_CLASS, Accuracy, Confusion
from edgevit.records.model import Preprocessing
from edgevit.store import LatencyDB, partition_checksums, tables
from edgevit.store.confusions import CONFUSIONS
from edgevit.store.connect import create, database_url
from support.measured import rated
from support.old_databases import migrate

COUNTS = {(0, 0): 5, (0, 1): 1, (1, NO_CLASS): 2}


def evaluated(**changes: Any) -> Accuracy:
    facts: dict[str, Any] = {
        "provenance": "measured",
        "error": 1.0,
        "untold": (),
        "started": "2026-11-21T10:00:00+00:00",
    }
    return rated(**(facts | changes))


def confusion() -> Confusion:
    return identify_confusion("a" * 64, ("cat", "dog"), COUNTS)


@pytest.fixture
def db(url: str) -> Iterator[LatencyDB]:
    with LatencyDB.open(url, shipped=False) as database:
        yield database


def test_an_evaluation_comes_back_and_travels_as_it_was_kept(db: LatencyDB, tmp_path: Path) -> None:
    preprocessing = Preprocessing(mean=(0.5,) * 3, assumed=("std", "crop"))
    row = evaluated(assumed=("std", "crop", CLASS_ORDER), preprocessing=preprocessing)
    assert db.add_evaluation([row], confusion()) == 1
    assert db.accuracies() == [row] and db.confusions() == [confusion()]
    db.export_jsonl(tmp_path / "a.jsonl")
    with LatencyDB.open(str(tmp_path / "other.db"), shipped=False) as other:
        assert other.import_jsonl(tmp_path / "a.jsonl").added == 2
        assert other.accuracies() == [row] and other.confusions() == [confusion()]
        assert other.check().problems == ()
    text = (tmp_path / "a.jsonl").read_text()
    (tmp_path / "b.jsonl").write_text(text.replace('"dog"', '"fox"').replace('"std"', '"range"'))
    assert len(db.import_jsonl(tmp_path / "b.jsonl").refused) == 2, "altered ones are refused"


@pytest.mark.parametrize(
    ("counts", "why"),
    [({}, "counts no image"), ({(0, 2): 1}, "of 2 classes"), ({(-1, 0): 1}, "of 2"), ({(0, 0): 0}, "0 images")],
)
def test_what_cannot_be_true_is_refused(counts: dict[tuple[int, int], int], why: str) -> None:
    with pytest.raises(StoreError) as caught:
        CONFUSIONS.validate(identify_confusion("a" * 64, ("cat", "dog"), counts))
    assert why in caught.value.why
    with pytest.raises(StoreError, match="refused"):
        CONFUSIONS.validate(dataclasses.replace(confusion(), labels=("cat", "fox")))


def test_an_accuracy_can_rest_on_known_assumptions_alone(db: LatencyDB) -> None:
    with pytest.raises(StoreError) as caught:
        db.add_accuracy(evaluated(assumed=("luck",)))
    assert "luck" in caught.value.why


def test_older_accuracies_keep_their_ids_and_checksums(empty_url: str) -> None:
    plain, stated = evaluated(), evaluated(assumed=(CLASS_ORDER,), preprocessing=Preprocessing())
    with LatencyDB.open(empty_url, shipped=False) as db:
        db.add_accuracies([plain, stated])
        db.add_evaluation([], confusion())
    engine = create(database_url(empty_url))
    migrate(engine, "downgrade", "0005")
    engine.dispose()
    with LatencyDB.open(empty_url, shipped=False) as db:
        assert db.accuracies() == [plain], "what the older schema could not say is gone, and nothing else"
        assert db.confusions() == [] and db.check().problems == ()
        assert db.add_accuracy(stated) and not db.add_accuracy(plain)
        assert db.check().problems == ()


def test_ids_and_checksums_of_the_schema_before_hold() -> None:
    """These are digests that revision 0005 wrote."""
    row = rated()
    assert row.accuracy_id == "67f0bdcbfb9b18d021de0dac7084a80b9f94c09f05a66567d7d88786aa4b908a"
    values = {name: value for name, value in vars(row).items() if f"{name}_json" not in tables.accuracy.columns}
    values |= {"untold_json": '["error"]', "input_size_json": "[]", "assumed_json": "[]"}
    values |= {"preprocessing_json": "null", "network_json": "null"}
    checksum = partition_checksums.checksum_of(tables.accuracy, values)
    assert checksum == 1128133248009462833
    assert partition_checksums.checksum_of(tables.accuracy, values | {"assumed_json": '["mean"]'}) != checksum
