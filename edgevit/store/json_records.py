"""Portable records as JSON: one line of text per record, with the checksum of its contents, and back."""

from __future__ import annotations

import hashlib
import json
from typing import Any, NamedTuple

from edgevit.records.measurement import Measurement, NoiseFloor
from edgevit.store.content_tables import CONTENT_TABLES, ContentRecord, table_of
from edgevit.store.refusals import RefusalCode, RefusalReason
from edgevit.store.row_checksums import row_sha256
from edgevit.store.rows import Values, head_values
from edgevit_runtime.codec import RecordError, from_data, to_json

PortableRecord = Measurement | NoiseFloor | ContentRecord
# A measurement is the JSON object itself, with its checksum beside its fields. Other records stand below their kind.
_CHECKSUM = "row_sha256"
_KINDS: dict[str, type[NoiseFloor] | type[ContentRecord]] = {
    "noise_floor": NoiseFloor,
    **{table.name: record_type for record_type, table in CONTENT_TABLES.items()},
}


class Refusal(NamedTuple):
    """A record that did not enter the database: its location, and the code and text of the reason."""

    location: str  # "file.jsonl, line 3"
    code: RefusalCode
    text: str


class ImportResult(NamedTuple):
    """Result of an import: rows added, rows that were there already, and refusals, which are in quarantine."""

    added: int
    duplicates: int
    refused: tuple[Refusal, ...]


class ParsedRecord(NamedTuple):
    """A record at its location in a file or database, or the reason why it is refused; and its bytes.

    `content` is empty for a record of a database, which has no line of text. `checksum` is the one stated there, not
    compared with the record yet; None: it is absent. `columns` are rows.measurement_values of a checked measurement.
    """

    location: str
    record: PortableRecord | None
    refusal: RefusalReason | None
    content: bytes
    checksum: object = None
    columns: Values | None = None


def to_line(record: PortableRecord) -> str:
    """Return a record with its checksum as one line of ASCII JSON, without the end of the line."""
    if isinstance(record, Measurement):
        return to_json({**vars(record), _CHECKSUM: checksum_of(record)})
    kind = next(name for name, record_type in _KINDS.items() if isinstance(record, record_type))
    return to_json({kind: record, _CHECKSUM: checksum_of(record)})


def checksum_of(record: PortableRecord) -> str:
    """Return the digest of all contents of a record; samples and snapshots of a measurement are included."""
    if isinstance(record, Measurement):
        return row_sha256(head_values(record))
    if isinstance(record, NoiseFloor):
        return hashlib.sha256(to_json(record).encode("ascii")).hexdigest()
    return table_of(record).digest(record)


def read_line(location: str, line: bytes) -> ParsedRecord:
    """Parse a line into its record, or into the reason why it has none."""
    try:
        record, checksum = _from_line(line)
    # ValueError: RecordError, and integers of thousands of digits; RecursionError: arrays thousands deep
    except (ValueError, RecursionError) as error:
        return ParsedRecord(location, None, RefusalReason("malformed", str(error)), line)
    return ParsedRecord(location, record, None, line, checksum)


def _from_line(line: bytes) -> tuple[PortableRecord, object]:
    try:
        data = json.loads(line, parse_constant=_refuse_constant)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"not JSON: {error}") from error
    return from_fields(data)


def from_fields(data: Any) -> tuple[PortableRecord, object]:
    """Build a record from the JSON data of a line, and return the checksum that the line states.

    Raises RecordError for data that are no record. A line without a checksum is accepted: people write such lines,
    and so did edgevit before there were checksums.
    """
    stated = data.pop(_CHECKSUM, None) if isinstance(data, dict) else None
    kind = next((name for name in _KINDS if isinstance(data, dict) and name in data), None)
    if kind is None:
        return from_data(Measurement, data), stated
    if len(data) > 1:
        raise RecordError(f"{kind}: unknown {', '.join(sorted(set(data) - {kind}))}")
    return from_data(_KINDS[kind], data[kind]), stated


def _refuse_constant(name: str) -> Any:
    raise RecordError(f"{name} is not a number that a record may hold")
