"""Where a record of the latency database came from: kept beside the record, and never part of its digest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# measured: written by the installation that measured it. imported, merged: read from a file or another database.
# published: read from tables that others published. shipped: came with edgevit. unrecorded: older than origins.
OriginKind = Literal["measured", "imported", "merged", "published", "shipped", "unrecorded"]
# Whose records decide: those of this installation alone, those of trusted sources too, or all.
OriginPolicy = Literal["own", "trusted", "any"]
# Trusted until a person decides otherwise. What was published by others is taken in by name, and never passes for a
# measurement of one's own.
TRUSTED_KINDS: tuple[OriginKind, ...] = ("shipped", "unrecorded", "published")
SHIPPED = "edgevit"  # source of rows that ship with edgevit
_SHOWN = 8  # digits of an installation's id
UNRECORDED = "unrecorded"  # source of rows from before origins were recorded


@dataclass(frozen=True)
class Origin:
    """One way by which records entered a database.

    source: the file or database that was read, or the installation that measured. installation: the id of the edgevit
    that wrote, made at its first use. by: the user there, or the role on a server. since: ISO 8601 in UTC, of the
    import, or of the first row that was measured.
    """

    kind: OriginKind
    source: str
    installation: str = ""
    by: str = ""
    since: str = ""

    @property
    def label(self) -> str:
        """The kind with the source: `imported rows.jsonl`, `measured by ann in 0123abcd`, `shipped`."""
        if self.kind in ("shipped", "unrecorded"):
            return self.kind
        if self.kind == "measured":
            return f"measured by {self.by or 'another user'} in {self.installation[:_SHOWN]}"
        return f"{self.kind} {self.source}"


@dataclass(frozen=True)
class SourceSummary:
    """An origin with the number of its records: of measurements and all that is beside them, and of code built."""

    origin: Origin
    records: int
    is_own: bool  # measured by this very installation
    is_trusted: bool  # its records decide, unless --origin says otherwise
