"""Names of rows on a command line: the beginning of an id, a tag, or MODEL[@TARGET[@PRECISION]]."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from edgevit.cli.options import RateOption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from edgevit.records.measurement import Measurement
    from edgevit.records.origin import OriginPolicy
    from edgevit.store import LatencyDB

_ID = re.compile(r"[0-9a-f]{6,64}")
_SHOWN = 12


@dataclass(frozen=True)
class RowScope:
    """Where rows given by name or tag were measured, and how."""

    device: Annotated[
        str | None,
        typer.Option("--device", "-d", help="Device of rows; default: local for rows given by name, any for tags"),
    ] = None
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of rows given by name or tag")] = None
    rate: RateOption = None


@dataclass(frozen=True)
class NamedRows:
    """The rows that a name stands for, oldest first."""

    name: str
    kind: Literal["id", "tag", "name"]
    rows: Sequence[Measurement]

    @property
    def ids(self) -> frozenset[str]:
        """The ids of the rows."""
        return frozenset(row.measurement_id for row in self.rows)


class RowFinder:
    """The measured rows of a database, and the names that users call them by."""

    def __init__(self, database: LatencyDB, scope: RowScope, origin: OriginPolicy = "trusted") -> None:
        from edgevit.selection import unit_or_class

        self._database, self._scope = database, scope
        self.rows = [row for row in database.measurements() if row.provenance == "measured"]
        # A row of a source without trust stays one that a person named by its id or gave a tag. Each has its source.
        self.untrusted = database.trusting(origin).undecided()
        self._left_out: dict[str, str] = {}
        self._key = None if scope.device is None else unit_or_class(scope.device)
        self.tags = database.tags()

    @property
    def left_out(self) -> dict[str, int]:
        """The number of rows that a name or a baseline would have found in sources without trust, by source."""
        return dict(sorted(Counter(self._left_out.values()).items()))

    def find(self, name: str) -> NamedRows:
        """Return the rows of a name. Raises UsageError for an ambiguous name, UnknownNameError for an unknown one."""
        from edgevit.errors import UsageError
        from edgevit.records.tag import TAG_PREFIX

        if name.startswith(TAG_PREFIX):
            return self.tagged(name.removeprefix(TAG_PREFIX))
        meanings: list[Callable[[], NamedRows]] = []
        fixes = []
        if _ID.fullmatch(name) and (ids := self._database.find(name)):
            meanings.append(lambda: self._by_id(name, ids))
            fixes.append(f"more of the id, {ids[0][: len(name) + _SHOWN]}")
        if name in self.tags:
            meanings.append(lambda: self.tagged(name))
            fixes.append(f"{TAG_PREFIX}{name}")
        if rows := self._of_configuration(name):
            meanings.append(lambda: NamedRows(name, "name", rows))
            fixes.append(f"{name}@{rows[-1].target}")
        if len(meanings) > 1:
            raise UsageError(f"{name!r} has two meanings", why="ids, tags, models", fix=f"write {' or '.join(fixes)}")
        return meanings[0]() if meanings else self._unknown(name)

    def tagged(self, tag: str) -> NamedRows:
        """Return the rows of a tag, of any status. Raises UnknownNameError for one that no row has."""
        from edgevit.errors import UnknownNameError

        if tag not in self.tags:
            raise UnknownNameError("tag", tag, self.tags, listing="edgevit db tag")
        ids = self.tags[tag]
        rows = [row for row in self.rows if row.measurement_id in ids and self._in_scope(row, self._key)]
        return NamedRows(tag, "tag", rows)

    def others(self, baseline: NamedRows) -> list[Measurement]:
        """Return the rows beside a baseline that the scope allows, of trusted sources."""
        models = {row.model for row in baseline.rows}
        rows = [row for row in self.rows if self._in_scope(row, self._key) and row.measurement_id not in baseline.ids]
        self._leave_out(row for row in rows if row.model in models)
        return self._trusted(rows)

    def _leave_out(self, rows: Iterable[Measurement]) -> None:
        """Remember which of these rows are of sources without trust."""
        ids = [row.measurement_id for row in rows]
        self._left_out |= {row_id: self.untrusted[row_id] for row_id in ids if row_id in self.untrusted}

    def _trusted(self, rows: Iterable[Measurement]) -> list[Measurement]:
        return [row for row in rows if row.measurement_id not in self.untrusted]

    def _by_id(self, name: str, ids: Sequence[str]) -> NamedRows:
        from edgevit.errors import UsageError

        if len(ids) > 1:
            raise UsageError(f"several measurements have ids that begin with {name}", fix="give more of its beginning")
        return NamedRows(name, "id", [self._database.get(ids[0])])

    def _of_configuration(self, name: str) -> list[Measurement]:
        """Return the newest row of each configuration that MODEL[@TARGET[@PRECISION]] names, of any status."""
        from edgevit.measurement.regression import newest

        model, target, precision = [*name.split("@"), "", ""][:3]
        rows = [row for row in self._of_device() if row.rate_hz == self._scope.rate]
        matching = [
            row
            for row in rows
            if row.model == model and target in ("", row.target) and precision in ("", row.precision)
        ]
        self._leave_out(matching)
        return newest(self._trusted(matching), ("device_id",)) if name.count("@") <= 2 else []

    def _of_device(self) -> list[Measurement]:
        from edgevit.devices.registry import LOCAL
        from edgevit.selection import unit_or_class

        key = self._key or unit_or_class(LOCAL)
        return [row for row in self.rows if self._in_scope(row, key)]

    def _in_scope(self, row: Measurement, key: str | None) -> bool:
        """Return whether a row is of the threads, the rate and the device that were asked for; None: of any."""
        if self._scope.threads not in (None, row.threads) or self._scope.rate not in (None, row.rate_hz):
            return False
        return key is None or key in (row.device, row.device_id, row.device_class)

    def _unknown(self, name: str) -> NamedRows:
        from edgevit.devices.registry import LOCAL
        from edgevit.errors import UnknownNameError, UsageError

        if self._left_out:
            why = ", ".join(f"{count} from {source}" for source, count in self.left_out.items())
            fix = "edgevit db trust SOURCE, if they are to decide"
            raise UsageError(f"{name!r} names no row of a trusted source", why=why, fix=fix)
        names = {f"{row.model}@{row.target}@{row.precision}" for row in self._trusted(self._of_device())}
        names |= set(self.tags)
        kind = f"measurement on {self._scope.device or LOCAL}"
        raise UnknownNameError(kind, name, names or {"none yet"}, listing="edgevit db show")
