"""Tags: names of rows that are outside of their digests, stay in their database, and cannot be changed unnoticed."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import new_file
from edgevit.errors import StoreError, UsageError
from edgevit.store import LatencyDB
from support.measured import measured
from support.stored_rows import execute

OTHER = measured(nonce="1")


def test_a_tag_changes_no_row_and_is_kept_once(url: str) -> None:
    with LatencyDB.open(url, shipped=False) as db:
        assert db.add(measured(), tag="nightly") and not db.add(measured(), tag="nightly")
        db.add(OTHER)
        assert db.get(measured().measurement_id) == measured()
        assert db.tags() == {"nightly": {measured().measurement_id}}
        assert db.add_tag([measured().measurement_id, OTHER.measurement_id], "nightly") == 1
        assert not db.add(measured(), tag="v1.2")
        assert {name: len(ids) for name, ids in db.tags().items()} == {"nightly": 2, "v1.2": 1}
        assert db.check().problems == () and db.stats().tables["tag"] == 3


def test_a_tag_is_of_a_stored_row(url: str) -> None:
    with LatencyDB.open(url, shipped=False) as db:
        with pytest.raises(StoreError):
            db.add_tag(["a" * 64], "nightly")
        assert db.tags() == {}


@pytest.mark.parametrize("name", ["", "two words", "a@b", "timm:net", "-x", "x" * 101, "tag:", "nacht\x1b[2J"])
def test_texts_that_cannot_be_a_tag_are_refused(tmp_path: Path, name: str) -> None:
    with LatencyDB.open(new_file(tmp_path / "x.db"), shipped=False) as db, pytest.raises(UsageError, match="be a tag"):
        db.add_tag([], name)


def test_tags_stay_where_they_were_given(tmp_path: Path) -> None:
    """A stranger's `nightly` must not become part of a baseline here."""
    source = new_file(tmp_path / "source.db")
    with LatencyDB.open(source, shipped=False) as db:
        db.add(measured(), tag="nightly")
        db.export_jsonl(tmp_path / "rows.jsonl")
    for name in ("merged", "imported"):
        with LatencyDB.open(new_file(tmp_path / f"{name}.db"), shipped=False) as db:
            result = db.merge(source) if name == "merged" else db.import_jsonl(tmp_path / "rows.jsonl")
            assert result.added == 1 and db.tags() == {}


def test_a_tag_that_vanished_is_noticed(url: str) -> None:
    with LatencyDB.open(url, shipped=False) as db:
        db.add(measured(), tag="nightly")
    execute(url, "DELETE FROM tag")
    with LatencyDB.open(url, shipped=False) as db:
        with pytest.raises(StoreError, match="not as it was written"):
            db.tags()
        assert any("tag" in problem for problem in db.check().problems)
