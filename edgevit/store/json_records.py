"""Records as lines of text, each with the digest of all it says; and back, or why a line is none."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

from edgevit.records.identity import accuracy_id, graph_id
from edgevit.records.measurement import Accuracy, Measurement, NoiseFloor
from edgevit.records.model import Graph
from edgevit.store.row_checksums import row_sha256
from edgevit.store.rows import Values, head_values
from edgevit_runtime.codec import RecordError, from_data, to_json

Travelling = Measurement | Accuracy | NoiseFloor | Graph
# A measurement is the line itself, with its digest beside its fields; the others say what they are.
_DIGEST = "row_sha256"
_KINDS: dict[str, type[Accuracy] | type[NoiseFloor] | type[Graph]] = {
    "accuracy": Accuracy,
    "noise_floor": NoiseFloor,
    "graph": Graph,
}


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
    content: bytes  # empty: a database has no line for it
    digest: object = None  # what it says is its digest, not held against the record yet; None: it says nothing
    columns: Values | None = None  # of a measurement that was checked: rows.measurement_values


def to_line(record: Travelling) -> str:
    """A record with its digest, as one line of JSON in ASCII without the line's end."""
    if isinstance(record, Measurement):
        return to_json({**vars(record), _DIGEST: digest_of(record)})
    kind = next(name for name, known in _KINDS.items() if isinstance(record, known))
    return to_json({kind: record, _DIGEST: digest_of(record)})


def digest_of(record: Travelling) -> str:
    """The digest of all that a record says, of a measurement samples and snapshots included."""
    if isinstance(record, Measurement):
        return row_sha256(head_values(record))
    if isinstance(record, Accuracy):
        return accuracy_id(record)
    if isinstance(record, Graph):
        return graph_id(record)
    return hashlib.sha256(to_json(record).encode("ascii")).hexdigest()


def read_line(place: str, line: bytes) -> Item:
    """What a line says, or why it says nothing that can be taken."""
    try:
        record, digest = _from_line(line)
    # ValueError: RecordError, and integers of thousands of digits; RecursionError: arrays thousands deep
    except (ValueError, RecursionError) as error:
        return Item(place, None, str(error), line)
    return Item(place, record, "", line, digest)


def _from_line(line: bytes) -> tuple[Travelling, object]:
    try:
        data = json.loads(line, parse_constant=_refuse_constant)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"not JSON: {error}") from error
    return from_fields(data)


def from_fields(data: Any) -> tuple[Travelling, object]:
    """A record from the JSON data of a line, and what the line says is its digest. Raises RecordError for no record.

    A line without a digest is taken for what it says: people write such, and edgevit did before there were digests.
    """
    told = data.pop(_DIGEST, None) if isinstance(data, dict) else None
    kind = next((name for name in _KINDS if isinstance(data, dict) and name in data), None)
    if kind is None:
        return from_data(Measurement, data), told
    if len(data) > 1:
        raise RecordError(f"{kind}: unknown {', '.join(sorted(set(data) - {kind}))}")
    return from_data(_KINDS[kind], data[kind]), told


def _refuse_constant(name: str) -> Any:
    raise RecordError(f"{name} is not a number that a record may hold")
