"""Quarantine: refused records as they came, with the reason. They are kept apart and never deleted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection

from edgevit.store import partition_checksums, small_tables, tables
from edgevit.store.json_records import ParsedRecord

# Limit for what is kept of one record: the largest rows measured so far take a tenth.
MAX_CONTENT_BYTES = 2**20


@dataclass(frozen=True)
class QuarantinedRecord:
    """A refused record: its location, the reason, when it was noticed (ISO 8601, UTC), and its contents.

    `size_bytes` is of the whole, `content` its first MAX_CONTENT_BYTES.
    """

    quarantine_id: str
    noticed: str
    location: str
    reason: str
    size_bytes: int
    content: bytes


def put(connection: Connection, refused: Sequence[ParsedRecord]) -> None:
    """Keep refused records. The same content with the same reason is kept once."""
    for record in refused:
        content = record.content[:MAX_CONTENT_BYTES]
        reason = "" if record.refusal is None else record.refusal.text
        values = {
            "quarantine_id": _id(content, reason),
            "noticed": datetime.now(UTC).isoformat(timespec="seconds"),
            "place": _storable(record.location),
            "reason": _storable(reason),
            "content": content,
            "size_bytes": len(record.content),
        }
        small_tables.add_row(connection, tables.quarantine, values)


def read(connection: Connection) -> list[QuarantinedRecord]:
    """Return everything in quarantine, by when it was noticed. Raises StoreError where it was changed."""
    rows = partition_checksums.read_table(connection, tables.quarantine)
    records = [QuarantinedRecord(location=row.pop("place"), **row) for row in rows]
    for record in records:
        if record.quarantine_id != _id(record.content, record.reason):
            raise partition_checksums.damage_error(f"{record.location} in quarantine was changed")
    return sorted(records, key=lambda record: (record.noticed, record.location, record.quarantine_id))


def _id(content: bytes, reason: str) -> str:
    return hashlib.sha256(content + b"\0" + _storable(reason).encode("utf-8")).hexdigest()


def _storable(text: str) -> str:
    """Replace characters that not every database holds: reasons quote what they refuse."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
