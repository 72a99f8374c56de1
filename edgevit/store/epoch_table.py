"""The `epoch` table. A device's epochs are recomputed when newly added rows could change them."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Container, Iterable, Iterator

from sqlalchemy import ColumnElement, Connection, delete, exists, func, select

from edgevit.records.measurement import Epoch, Measurement, NoiseFloor
from edgevit.store import epochs, partition_checksums, queries, rows, small_tables, tables
from edgevit.store.rows import Values

_LOG = logging.getLogger(__name__)
_DUE_KEY = "epochs_due"  # key of the meta table
_COLUMNS = (  # in the order of the fields of an Epoch
    "device_id", "device", "number", "started", "measurement_id", "reference_id", "ratio", "limit_share", "reason",
)  # fmt: skip


def read(connection: Connection) -> list[Epoch]:
    """Return every stored epoch, in no order."""
    query = select(*(tables.epoch.c[name] for name in _COLUMNS))
    return [Epoch(*values) for values in connection.execute(query)]


def compute(connection: Connection, device_ids: Iterable[str]) -> list[Epoch]:
    """Compute the epochs of devices from their rows and noise floors, by device and number.

    Raises StoreError where a row is damaged or missing.
    """
    units = _device_rows_by_unit(connection)
    floors = small_tables.latest_noise(connection)
    computed = []
    for device_id in sorted(set(device_ids)):
        columns = queries.rows_of_devices(connection, units.get(device_id, {}))
        timed = [row for values in columns if (row := epochs.timed_row(values))]
        computed += epochs.find_epochs(device_id, timed, _share(floors.get(device_id)))
    return computed


def current_rows(connection: Connection, device: str | None, ignored: Container[str] = ()) -> Iterator[Values]:
    """Yield the columns of a device's rows since it last changed, under any of its names.

    `ignored` are ids of records that do not decide.
    """
    columns, numbers = _rows_of_units(connection, device, ignored)
    return (
        values
        for values in epochs.rows_of_current_epochs(columns, _noise_shares(connection, ignored))
        if values["device_no"] in numbers
    )


def rows_and_former_ids(
    connection: Connection, device: str | None, ignored: Container[str] = ()
) -> tuple[list[Values], set[str]]:
    """Return the columns of all rows of a device, and the ids of those from before it last changed.

    `ignored` are ids of records that do not decide: neither are they rows, nor do they tell a change.
    """
    columns, numbers = _rows_of_units(connection, device, ignored)
    shares = _noise_shares(connection, ignored)
    current = {values["measurement_id"] for values in epochs.rows_of_current_epochs(columns, shares)}
    of_device = [values for values in columns if values["device_no"] in numbers]
    return of_device, {values["measurement_id"] for values in of_device} - current


def _rows_of_units(
    connection: Connection, device: str | None, ignored: Container[str]
) -> tuple[list[Values], set[int]]:
    """Return all rows of the units that have this name, under any name, and the numbers of the name itself."""
    devices = queries.device_rows(connection, None)
    named = {number for number, row in devices.items() if device is None or queries.matches_device(row, device)}
    units = {devices[number]["device_id"] for number in named}
    numbers = {number: row for number, row in devices.items() if row["device_id"] in units}
    return _deciding(queries.rows_of_devices(connection, numbers), ignored), named


def _deciding(columns: Iterable[Values], ignored: Container[str]) -> list[Values]:
    return [values for values in columns if values["measurement_id"] not in ignored]


def _noise_shares(connection: Connection, ignored: Container[str]) -> dict[str, float]:
    return {device_id: floor.share for device_id, floor in small_tables.latest_noise(connection, ignored).items()}


def rows_of_other_devices(
    connection: Connection, device: str, models: Collection[str], limit: int, ignored: Container[str] = ()
) -> list[Values]:
    """Return at most `limit` rows of other devices that have rows of these models, as columns.

    A device counts wholly or not at all, and with its rows since it last changed. Devices of the same class come
    first, then those with the most rows. Rows are compared with their checksums. An index, which has no checksum,
    says which devices have the models. A damaged index costs a prediction sources, and costs no answer rows.
    """
    matching, units = queries.device_rows(connection, device), _device_rows_by_unit(connection)
    excluded = {row["device_id"] for row in matching.values()}
    classes = {row["device_class"] for row in matching.values()}
    partitions = partition_checksums.read_partitions(connection)
    with_models = queries.device_numbers_of_models(connection, models)
    sizes = {
        device_id: sum(
            partitions[name].rows
            for number in numbers
            if (name := partition_checksums.device_partition(number)) in partitions
        )
        for device_id, numbers in units.items()
        if device_id not in excluded and not with_models.isdisjoint(numbers)
    }
    same_class = {
        device_id for device_id in sizes if any(row["device_class"] in classes for row in units[device_id].values())
    }
    chosen: dict[int, Values] = {}
    remaining = limit
    for device_id in sorted(sizes, key=lambda name: (name not in same_class, -sizes[name], name)):
        if sizes[device_id] <= remaining:
            remaining -= sizes[device_id]
            chosen |= units[device_id]
    columns = _deciding(queries.rows_of_devices(connection, chosen), ignored)
    return list(epochs.rows_of_current_epochs(columns, _noise_shares(connection, ignored)))


def _device_rows_by_unit(connection: Connection) -> dict[str, dict[int, Values]]:
    """Return the rows of the device table by device_id and number: a device may have had several names."""
    units: dict[str, dict[int, Values]] = {}
    for number, row in queries.device_rows(connection, None).items():
        units.setdefault(row["device_id"], {})[number] = row
    return units


def _share(floor: NoiseFloor | None) -> float | None:
    return None if floor is None else floor.share


def refresh(connection: Connection, device_ids: Iterable[str]) -> list[Epoch]:
    """Recompute and store devices' epochs, and return the new ones. The connection must be one that writes."""
    requested = set(device_ids)
    old = {epoch.measurement_id for epoch in read(connection) if epoch.device_id in requested}
    new = compute(connection, requested)
    connection.execute(delete(tables.epoch).where(tables.epoch.c.device_id.in_(requested)))
    if new:
        values = [dict(zip(_COLUMNS, vars(epoch).values(), strict=True)) for epoch in new]
        connection.execute(tables.epoch.insert(), values)
    if (due := due_devices(connection)) & requested:
        small_tables.write_meta(connection, _DUE_KEY, json.dumps(sorted(due - requested)))
    opened = [epoch for epoch in new if epoch.measurement_id not in old]
    _LOG.debug("recomputed the epochs of %d devices: %d are new", len(requested), len(opened))
    return opened


def mark_due(connection: Connection, device_ids: Iterable[str]) -> None:
    """Note that the stored epochs of these devices are due: a killed import leaves them to the next writer.

    Readers compute epochs from the rows and never write. A reader may lack the permission, and an import may be under
    way.
    """
    if new := set(device_ids) - (old := due_devices(connection)):
        small_tables.write_meta(connection, _DUE_KEY, json.dumps(sorted(old | new)))


def due_devices(connection: Connection) -> set[str]:
    """Return the devices whose stored epochs are due. Raises StoreError where their list is damaged."""
    try:
        return set(map(str, json.loads(small_tables.read_meta(connection, _DUE_KEY) or "[]")))
    except (TypeError, ValueError) as error:
        raise partition_checksums.damage_error(f"the list of devices whose epochs are due: {error}") from error


def may_open_epoch(connection: Connection, row: Measurement) -> bool:
    """Return whether a row that was just added may change its device's epochs: it repeats others and disagrees.

    A row that is older than others may, because later epochs depend on it. So may a row of the moment at which an
    epoch begins, because it is judged with the rows that began it.
    """
    timed = epochs.timed_row(rows.head_values(row))
    if timed is None:
        return False
    # Published rows of a day are judged together, and little is stored of a device that is due.
    if timed.low_ns is None or row.device_id in due_devices(connection):
        return True
    measurement, device = tables.measurement.c, tables.device.c
    of_device = measurement.device_no.in_(select(device.device_no).where(device.device_id == row.device_id))
    if connection.execute(select(exists().where(of_device, measurement.started_unix_us > timed.unix_us))).scalar():
        return True
    latest = select(func.max(measurement.started_unix_us)).join(
        tables.epoch, tables.epoch.c.measurement_id == measurement.measurement_id
    )
    begun = connection.execute(latest.where(tables.epoch.c.device_id == row.device_id)).scalar() or 0
    if begun == timed.unix_us:
        return True
    earlier = (measurement.started_unix_us >= begun, measurement.started_unix_us < timed.unix_us)
    similar = rows.head_query().where(of_device, *earlier, *_similar_conditions(row))
    timed_rows = (epochs.timed_row(values) for values in rows.row_dicts(connection.execute(similar)))
    repeats = [other for other in timed_rows if other and other.key == timed.key]
    floor = small_tables.latest_noise(connection).get(row.device_id)
    return bool(repeats) and not epochs.agrees(timed, repeats, _share(floor))


def _similar_conditions(row: Measurement) -> list[ColumnElement[bool]]:
    """Return conditions that every repeat of a row meets, and some others do: epochs.timed_row has the exact key."""
    measurement, artifact = tables.measurement.c, tables.artifact.c
    same_network = tables.model.c.name == row.model
    if row.graph_digest:
        same_network = artifact.graph_digest == row.graph_digest
    elif row.artifact_sha256:
        same_network = artifact.sha256 == row.artifact_sha256
    return [
        measurement.status == "ok",
        measurement.engine == row.engine,
        measurement.threads == row.threads,
        same_network,
    ]
