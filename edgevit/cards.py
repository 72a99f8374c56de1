"""The model cards as counted and shipped (latency_db/models.jsonl, one JSON object per line). No torch in here.

The facts come from the families' files; params and MACs are counted once, by `edgevit models --refresh`, so that
choosing and listing need neither torch nor the models.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from edgevit.errors import StoreError
from edgevit.types import ModelCard
from edgevit_runtime.record import RecordError, from_json, to_json

_FILE = "models.jsonl"
_FIX = "edgevit models --refresh"


def load_cards() -> dict[str, ModelCard]:
    """Name -> card, in the order of the file. StoreError if the file is absent, damaged or names a model twice."""
    resource = resources.files("edgevit.latency_db") / _FILE
    try:
        lines = resource.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError("the model cards cannot be read", where=str(resource), why=str(error), fix=_FIX) from error
    cards: dict[str, ModelCard] = {}
    for number, line in enumerate(lines, start=1):
        card = _read_line(line, where=f"{resource}, line {number}")
        if card.name in cards:
            raise StoreError(f"two model cards for {card.name}", where=f"{resource}, line {number}", fix=_FIX)
        cards[card.name] = card
    return cards


def write_cards(cards: Iterable[ModelCard], path: str | Path) -> None:
    """Write the cards in their order, one line each: wholly, or not at all where it fails. Raises StoreError."""
    path = Path(path)
    text = "".join(to_json(card) + "\n" for card in cards)
    try:
        _replace(path, text)
    except OSError as error:
        raise StoreError("the model cards cannot be written", where=str(path), why=str(error)) from error


def _read_line(line: str, where: str) -> ModelCard:
    try:
        return from_json(ModelCard, line)
    except RecordError as error:
        raise StoreError("a model card cannot be read", where=where, why=str(error), fix=_FIX) from error


def _replace(path: Path, text: str) -> None:
    """A temporary file beside the target, flushed to the disk, then renamed over it: readers see the old or the new."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)  # there only where something failed
