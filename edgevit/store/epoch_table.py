"""The epoch table: written anew for a device whenever rows came that may change its epochs."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator

from sqlalchemy import ColumnElement, Connection, delete, exists, func, select

from edgevit.records.measurement import Epoch, Measurement, NoiseFloor
from edgevit.store import epochs, partition_checksums, queries, rows, small_tables, tables
from edgevit.store.rows import Values

_DUE = "epochs_due"  # key of meta
_COLUMNS = (  # in the order of the fields of an Epoch
    "device_id", "device", "number", "started", "measurement_id", "reference_id", "ratio", "limit_share", "reason",
)  # fmt: skip


def read(connection: Connection) -> list[Epoch]:
    """Every epoch that is written down, in no order."""
    query = select(*(tables.epoch.c[name] for name in _COLUMNS))
    return [Epoch(*line) for line in connection.execute(query)]


def compute(connection: Connection, device_ids: Iterable[str]) -> list[Epoch]:
    """The epochs of devices from their rows and noise floors, by device and number.

    Raises StoreError where a row is damaged or missing.
    """
    units = _numbers(connection)
    floors = small_tables.latest_noise(connection)
    found = []
    for device_id in sorted(set(device_ids)):
        given = queries.of_devices(connection, units.get(device_id, {}))
        told = [one for values in given if (one := epochs.seen(values))]
        found += epochs.find(device_id, told, _share(floors.get(device_id)))
    return found


def current_rows(connection: Connection, device: str | None) -> Iterator[Values]:
    """The columns of the rows of a device (queries.listing) since it last changed, whatever its name was."""
    found, wanted = _of_whole_units(connection, device)
    return (values for values in epochs.current(found, _floors(connection)) if values["device_no"] in wanted)


def rows_and_former(connection: Connection, device: str | None) -> tuple[list[Values], set[str]]:
    """The columns of all rows of a device (queries.listing), and which of them are from before it last changed."""
    found, wanted = _of_whole_units(connection, device)
    kept = {values["measurement_id"] for values in epochs.current(found, _floors(connection))}
    mine = [values for values in found if values["device_no"] in wanted]
    return mine, {values["measurement_id"] for values in mine} - kept


def _of_whole_units(connection: Connection, device: str | None) -> tuple[list[Values], set[int]]:
    """All rows of the units that answer to a name, whatever they were called then, and the numbers that it asks for."""
    every = queries.device_numbers(connection, None)
    wanted = {number for number, line in every.items() if device is None or queries.answers_to(line, device)}
    units = {every[number]["device_id"] for number in wanted}
    numbers = {number: line for number, line in every.items() if line["device_id"] in units}
    return list(queries.of_devices(connection, numbers)), wanted


def _floors(connection: Connection) -> dict[str, float]:
    return {device_id: floor.share for device_id, floor in small_tables.latest_noise(connection).items()}


def rows_of_others(connection: Connection, device: str, models: Collection[str], most: int) -> list[Values]:
    """The columns of rows of other devices that have rows of these models, each since it last changed: at most so many,
    of whole devices.

    Devices of the same class come first, then those with the most rows. Rows are held against their digests. Which
    devices are read is told by an index, which is not: a damaged one costs a prediction sources, and no answer rows.
    """
    asked, units = queries.device_numbers(connection, device), _numbers(connection)
    mine = {line["device_id"] for line in asked.values()}
    classes = {line["device_class"] for line in asked.values()}
    parts, holders = partition_checksums.read_parts(connection), queries.holders(connection, models)
    sizes = {
        device_id: sum(
            parts[name].lines for number in numbers if (name := partition_checksums.rows_of(number)) in parts
        )
        for device_id, numbers in units.items()
        if device_id not in mine and not holders.isdisjoint(numbers)
    }
    alike = {
        device_id for device_id in sizes if any(line["device_class"] in classes for line in units[device_id].values())
    }
    chosen: dict[int, Values] = {}
    left = most
    for device_id in sorted(sizes, key=lambda name: (name not in alike, -sizes[name], name)):
        if sizes[device_id] <= left:
            left -= sizes[device_id]
            chosen |= units[device_id]
    return list(epochs.current(list(queries.of_devices(connection, chosen)), _floors(connection)))


def _numbers(connection: Connection) -> dict[str, dict[int, Values]]:
    """The lines of the device table by device_id and number: a device may have had several names."""
    found: dict[str, dict[int, Values]] = {}
    for number, line in queries.device_numbers(connection, None).items():
        found.setdefault(line["device_id"], {})[number] = line
    return found


def _share(floor: NoiseFloor | None) -> float | None:
    return None if floor is None else floor.share


def refresh(connection: Connection, device_ids: Iterable[str]) -> list[Epoch]:
    """Write devices' epochs anew; those that were not there before. The connection must be one that writes."""
    wanted = set(device_ids)
    old = {epoch.measurement_id for epoch in read(connection) if epoch.device_id in wanted}
    new = compute(connection, wanted)
    connection.execute(delete(tables.epoch).where(tables.epoch.c.device_id.in_(wanted)))
    if new:
        lines = [dict(zip(_COLUMNS, vars(item).values(), strict=True)) for item in new]
        connection.execute(tables.epoch.insert(), lines)
    if (due := marked(connection)) & wanted:
        small_tables.write_meta(connection, _DUE, json.dumps(sorted(due - wanted)))
    return [epoch for epoch in new if epoch.measurement_id not in old]


def mark(connection: Connection, device_ids: Iterable[str]) -> None:
    """Note that these devices' epochs must be found anew: an import that is killed leaves that to whoever adds next.

    Whoever reads asks the rows (compute, current_rows), and must not have to write: it may not be allowed to, and an
    import may be under way.
    """
    if new := set(device_ids) - (old := marked(connection)):
        small_tables.write_meta(connection, _DUE, json.dumps(sorted(old | new)))


def marked(connection: Connection) -> set[str]:
    """The devices whose epochs must be found anew. Raises StoreError where the list of them is damaged."""
    try:
        return set(map(str, json.loads(small_tables.read_meta(connection, _DUE) or "[]")))
    except (TypeError, ValueError) as error:
        raise partition_checksums.broken(f"the list of devices whose epochs are due: {error}") from error


def may_open(connection: Connection, row: Measurement) -> bool:
    """Whether a row that was just added may change its device's epochs: it repeats others and does not agree.

    One that is older than others may, too, because epochs after it are told from it; and so may one of the moment at
    which an epoch begins, because it is judged with those that began it.
    """
    mine = epochs.seen(rows.head_values(row))
    if mine is None:
        return False
    if mine.low_ns is None or row.device_id in marked(connection):
        return True  # published rows of a day are judged together; of a device that is marked little is written down
    kept, device = tables.measurement.c, tables.device.c
    of_device = kept.device_no.in_(select(device.device_no).where(device.device_id == row.device_id))
    if connection.execute(select(exists().where(of_device, kept.started_unix_us > mine.unix_us))).scalar():
        return True
    last = select(func.max(kept.started_unix_us)).join(
        tables.epoch, tables.epoch.c.measurement_id == kept.measurement_id
    )
    begun = connection.execute(last.where(tables.epoch.c.device_id == row.device_id)).scalar() or 0
    if begun == mine.unix_us:
        return True
    earlier = (kept.started_unix_us >= begun, kept.started_unix_us < mine.unix_us)
    alike = rows.head().where(of_device, *earlier, *_same(row))
    seen = (epochs.seen(values) for values in rows.fetched(connection.execute(alike)))
    repeats = [one for one in seen if one and one.key == mine.key]
    floor = small_tables.latest_noise(connection).get(row.device_id)
    return bool(repeats) and not epochs.agrees(mine, repeats, _share(floor))


def _same(row: Measurement) -> list[ColumnElement[bool]]:
    """Conditions that every repeat of a row meets, and some others do: what is the same is told by epochs.seen."""
    kept, artifact = tables.measurement.c, tables.artifact.c
    what = tables.model.c.name == row.model
    if row.graph_digest:
        what = artifact.graph_digest == row.graph_digest
    elif row.artifact_sha256:
        what = artifact.sha256 == row.artifact_sha256
    return [kept.status == "ok", kept.engine == row.engine, kept.threads == row.threads, what]
