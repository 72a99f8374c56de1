"""Records as lines of text, each with the digest of all it says; and back, or why a line is none."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

from edgevit.identity import accuracy_id
from edgevit.store.rows import digest_of
from edgevit.types import Accuracy, Measurement, NoiseFloor
from edgevit_runtime.record import RecordError, from_data, to_data, to_json

Travelling = Measurement | Accuracy | NoiseFloor
# A measurement is the line itself, with its digest beside its fields; the others say what they are.
_DIGEST = "row_sha256"
_KINDS: dict[str, type[Accuracy] | type[NoiseFloor]] = {"accuracy": Accuracy, "noise_floor": NoiseFloor}


class Refusal(NamedTuple):
    """A line that was not taken, and why."""

    place: str  # "file.jsonl, line 3"
    reason: str


class Imported(NamedTuple):
    """What came of an import: rows added, rows the database had already, and those it refused, kept in quarantine."""

    added: int
    known: int
    refused: tuple[Refusal, ...]


class Item(NamedTuple):
    """What was found at a place of a file or database: a record, or None and why there is none; and its bytes."""

    place: str
    record: Travelling | None
    reason: str
    content: bytes


def to_line(record: Travelling) -> str:
    """A record with its digest, as one line of JSON in ASCII without the line's end."""
    if isinstance(record, Measurement):
        return to_json({**to_data(record), _DIGEST: digest_of(record)})
    kind = next(name for name, known in _KINDS.items() if isinstance(record, known))
    return to_json({kind: record, _DIGEST: _digest(record)})


def read_line(place: str, line: bytes) -> Item:
    """What a line says, or why it says nothing that can be taken."""
    try:
        return Item(place, _from_line(line), "", line)
    # ValueError: RecordError, and integers of thousands of digits; RecursionError: arrays thousands deep
    except (ValueError, RecursionError) as error:
        return Item(place, None, str(error), line)


def _from_line(line: bytes) -> Travelling:
    try:
        data = json.loads(line, parse_constant=_refuse_constant)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"not JSON: {error}") from error
    return from_fields(data)


def from_fields(data: Any) -> Travelling:
    """A record from the JSON data of a line. Raises RecordError where it is none, or its digest is not its own.

    A line without a digest is taken for what it says: people write such, and edgevit did before there were digests.
    """
    told = data.pop(_DIGEST, None) if isinstance(data, dict) else None
    kind = next((name for name in _KINDS if isinstance(data, dict) and name in data), None)
    record: Travelling
    if kind is None:
        record = from_data(Measurement, data)
    elif len(data) > 1:
        raise RecordError(f"{kind}: unknown {', '.join(sorted(set(data) - {kind}))}")
    else:
        record = from_data(_KINDS[kind], data[kind])
    if told is not None and told != _checked_digest(record):
        raise RecordError("it is not what was written: its digest is another")
    return record


def _checked_digest(record: Travelling) -> str:
    try:
        return _digest(record)
    except (ValueError, TypeError, OverflowError) as error:  # of values that validation would refuse
        raise RecordError(f"it has no digest: {error}") from error


def _digest(record: Travelling) -> str:
    if isinstance(record, Measurement):
        return digest_of(record)
    if isinstance(record, Accuracy):
        return accuracy_id(record)
    return hashlib.sha256(to_json(record).encode("ascii")).hexdigest()


def _refuse_constant(name: str) -> Any:
    raise RecordError(f"{name} is not a number that a record may hold")
