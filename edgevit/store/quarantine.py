"""What was not taken in, as it came, with the reason: doubtful rows are kept apart and never deleted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection

from edgevit.store import partition_checksums, small_tables, tables
from edgevit.store.json_records import Item

MAX_CONTENT_BYTES = 2**20  # of one row that is kept: the largest measured so far take a tenth


@dataclass(frozen=True)
class Quarantined:
    """Something that was not taken: where it was, why, when that was noticed, and what it says."""

    quarantine_id: str
    noticed: str  # ISO 8601, UTC
    place: str
    reason: str
    size_bytes: int  # of the whole
    content: bytes  # its first MAX_CONTENT_BYTES


def put(connection: Connection, refused: Sequence[Item]) -> None:
    """Keep what was refused. The same content with the same reason is kept once."""
    for item in refused:
        content = item.content[:MAX_CONTENT_BYTES]
        values = {
            "quarantine_id": _id(content, item.reason),
            "noticed": datetime.now(UTC).isoformat(timespec="seconds"),
            "place": _storable(item.place),
            "reason": _storable(item.reason),
            "content": content,
            "size_bytes": len(item.content),
        }
        small_tables.add_line(connection, tables.quarantine, values)


def read(connection: Connection) -> list[Quarantined]:
    """Everything in quarantine, by when it was noticed. Raises StoreError where it is not what was put there."""
    found = [Quarantined(**line) for line in partition_checksums.read_whole(connection, tables.quarantine)]
    for item in found:
        if item.quarantine_id != _id(item.content, item.reason):
            raise partition_checksums.broken(f"{item.place} in quarantine was changed")
    return sorted(found, key=lambda item: (item.noticed, item.place, item.quarantine_id))


def _id(content: bytes, reason: str) -> str:
    return hashlib.sha256(content + b"\0" + _storable(reason).encode("utf-8")).hexdigest()


def _storable(text: str) -> str:
    """Text that every database holds: reasons quote what they refuse."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode("utf-8")
