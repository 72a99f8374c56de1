"""Targets, precisions and engines of measured records are those of the recipes; published names have a form alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgevit.recipes import list_recipes
from edgevit.store import LatencyDB, closed_lists
from edgevit.store.json_records import PortableRecord
from edgevit.store.jsonl import write_lines
from support.measured import failed, measured, published, rated, vendor_row
from support.stored_rows import add_record, transcribed

EVALUATED: dict[str, Any] = {
    "provenance": "measured", "error": 0.5, "examples": 100, "untold": (), "target": "onnx", "precision": "fp32",
    "engine": "onnxruntime", "started": "2026-11-21T10:00:00+00:00",
}  # fmt: skip
STRANGE: dict[str, PortableRecord] = {
    "target": measured(target="onx", nonce="1"),
    "no target": measured(target="", nonce="2"),
    "target of a failed run": failed(target="armnn", nonce="3"),
    "precision": measured(precision="fp7", nonce="4"),
    "engine": measured(engine="onnxruntime\x1b[2J", nonce="5"),
    "engine of an accuracy": rated(**EVALUATED | {"engine": "mine"}),
    "target of an accuracy": rated(**EVALUATED | {"target": "armnn"}),
    "precision of an accuracy": rated(**EVALUATED | {"precision": "int3"}),
    "escapes in a published target": published(target="\x1b[2J", nonce="6"),
    "an endless published engine": published(engine="x" * 101, nonce="7"),
}
KNOWN: dict[str, PortableRecord] = {
    "engine of a vendor": vendor_row(),
    "model in its own framework": rated(**EVALUATED | {"target": "", "precision": "", "engine": "torch"}),
    "runtime of a publication": transcribed(),
    "reference evaluator": rated(**EVALUATED | {"target": "coreml", "engine": "torch"}),
}


def test_every_recipe_may_be_named() -> None:
    for recipe in list_recipes():
        for precision in recipe.precisions:
            row = measured(target=recipe.target, precision=precision, engine=recipe.engine)
            assert list(closed_lists.problems(row)) == []


@pytest.mark.parametrize("way", ["import", "merge"])
def test_names_of_no_recipe_are_refused_on_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    records = [*STRANGE.values(), *KNOWN.values()]
    file, other = tmp_path / "rows.jsonl", str(tmp_path / "other.db")
    write_lines(file, records)
    with monkeypatch.context() as context, LatencyDB.open(other, shipped=False) as db:
        # As a database that another program wrote.
        context.setattr(closed_lists, "problems", lambda record: iter(()))
        for record in records:
            add_record(db, record)
    with LatencyDB.open(str(tmp_path / "own.db"), shipped=False) as db:
        result = db.import_jsonl(file) if way == "import" else db.merge(other)
        assert result.added == len(KNOWN)
        assert [refusal.code for refusal in result.refused] == ["impossible"] * len(STRANGE)
        reasons = " ".join(refusal.text for refusal in result.refused)
        for name in ("'onx'", "'armnn'", "'fp7'", "'mine'", "'int3'", "no name", "none of coreml, executorch"):
            assert name in reasons
