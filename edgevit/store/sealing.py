"""Digests for the rows of a database that an older edgevit wrote, before there were any."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, select, update

from edgevit.errors import StoreError
from edgevit.store import annals, quarantine, rows, tables, tally
from edgevit.store.lines import Item
from edgevit.store.seals import as_seal
from edgevit.store.validate import validate
from edgevit.types import Measurement

_BATCH_ROWS = 200


def seal_rows(connection: Connection) -> None:
    """Give every row its digest and every part its tally, unless there is a tally already.

    A row that cannot be true, or cannot be read, goes into quarantine: until now nobody could tell.
    """
    if connection.execute(select(func.count()).select_from(tables.tally)).scalar_one():
        return
    tally.create(connection)
    for table in tally.WHOLE:
        lines = connection.execute(select(table)).mappings().all()
        if lines:
            tally.add(connection, {table.name: ([tally.seal_of(table, dict(line)) for line in lines], None)})
    last = ""
    while ids := _next_ids(connection, last):
        _seal(connection, ids)
        last = ids[-1]
    for device_id in connection.execute(select(tables.device.c.device_id).distinct()).scalars().all():
        annals.refresh(connection, device_id)


def _next_ids(connection: Connection, last: str) -> list[str]:
    name = tables.measurement.c.measurement_id
    return list(connection.execute(select(name).where(name > last).order_by(name).limit(_BATCH_ROWS)).scalars())


def _seal(connection: Connection, ids: list[str]) -> None:
    sample, kept = tables.sample, tables.measurement
    parts: dict[str, list[RowMapping]] = {}
    query = select(sample).where(sample.c.measurement_id.in_(ids)).order_by(sample.c.measurement_id, sample.c.process)
    for part in connection.execute(query).mappings():
        parts.setdefault(part["measurement_id"], []).append(part)
    changes: dict[str, tuple[list[int], int | None]] = {}
    for line in connection.execute(rows.head().where(kept.c.measurement_id.in_(ids))).mappings().all():
        name = line["measurement_id"]
        row = _read(line, parts.get(name, []))
        if isinstance(row, StoreError):
            _take_out(connection, dict(line), row)
            continue
        values = rows.measurement_values(row)
        digests = {key: values[key] for key in ("evidence_sha256", "row_sha256", "started_unix_us")}
        connection.execute(update(kept).where(kept.c.measurement_id == name).values(digests))
        seals, latest = changes.setdefault(tally.rows_of(line["device_no"]), ([], None))
        seals.append(as_seal(values["row_sha256"]))
        changes[tally.rows_of(line["device_no"])] = (seals, max(latest or 0, values["started_unix_us"]))
    tally.add(connection, changes)


def _read(line: RowMapping, parts: list[RowMapping]) -> Measurement | StoreError:
    try:
        row = rows.read(dict(line), parts, sealed=False)
        validate(row)
    except StoreError as error:
        return error
    return row


def _take_out(connection: Connection, line: Mapping[str, Any], error: StoreError) -> None:
    name = line["measurement_id"]
    content = json.dumps(line, sort_keys=True, default=str).encode()
    quarantine.put(connection, [Item(f"measurement {name}", None, f"{error.what}: {error.why}", content)])
    for table in (tables.sample, tables.measurement):
        connection.execute(delete(table).where(table.c.measurement_id == name))
