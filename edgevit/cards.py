"""The model cards as counted and shipped (latency_db/models.jsonl, one JSON object per line), without torch.

The facts come from the families' files. `edgevit models --refresh` counts params and MACs once, so choosing and
listing need neither torch nor the models. The operators of the folded forms have a file of their own: only predictions
need them, and an answer from measured rows should not wait for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import TypeVar

from edgevit.errors import StoreError
from edgevit.records.model import ModelCard, ModelOperators, OperatorCost
from edgevit_runtime.codec import RecordError, from_json, to_json

CARDS_FILE, OPERATORS_FILE = "models.jsonl", "operators.jsonl"
_FIX = "edgevit models --refresh"
_Line = TypeVar("_Line", ModelCard, ModelOperators)


def load_cards() -> dict[str, ModelCard]:
    """Return name -> card, in the file's order. Raises StoreError if it is absent, damaged or names a model twice."""
    cards: dict[str, ModelCard] = {}
    for card, location in _lines(CARDS_FILE, ModelCard):
        if not card.name:
            raise StoreError("a model card without a name", where=location, fix=_FIX)
        if card.name in cards:
            raise StoreError(f"two model cards for {card.name}", where=location, fix=_FIX)
        cards[card.name] = card
    return cards


def load_operators() -> dict[str, tuple[OperatorCost, ...]]:
    """Return name -> operators of the folded form at the card's input size. Raises StoreError as load_cards does."""
    return {record.model: record.operators for record, _ in _lines(OPERATORS_FILE, ModelOperators)}


def _lines(name: str, kind: type[_Line]) -> Iterator[tuple[_Line, str]]:
    """Yield the records of a shipped file, each with its location."""
    resource = resources.files("edgevit.latency_db") / name
    try:
        lines = resource.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError("the model cards cannot be read", where=str(resource), why=str(error), fix=_FIX) from error
    for number, line in enumerate(lines, start=1):
        location = f"{resource}, line {number}"
        yield _read_line(line, kind, location), location


def write_lines(records: Iterable[ModelCard | ModelOperators], path: str | Path) -> None:
    """Write records in their order, one line each, completely or not at all. Raises StoreError."""
    path = Path(path)
    text = "".join(to_json(record) + "\n" for record in records)
    try:
        _replace(path, text)
    except OSError as error:
        raise StoreError("the model cards cannot be written", where=str(path), why=str(error)) from error


def _read_line(line: str, kind: type[_Line], location: str) -> _Line:
    try:
        return from_json(kind, line)
    except RecordError as error:
        raise StoreError("a model card cannot be read", where=location, why=str(error), fix=_FIX) from error


def _replace(path: Path, text: str) -> None:
    """Write a temporary file beside the target, flush it to disk and rename it: readers see the old or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        # The temporary file still exists only after a failure.
        temporary.unlink(missing_ok=True)
