"""The rows of measurements as their checksums cover them, in a database of any revision.

The code's own query has columns of later revisions, which an older database has not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import sqlalchemy as sa

from edgevit.store import partition_checksums, row_checksums, rows

_JOINED = """
SELECT measurement.*, model.name AS model, model.family, artifact.target, artifact.sha256 AS artifact_sha256,
artifact.size_bytes AS artifact_bytes, artifact.graph_digest, device.name AS device, device.device_id,
device.device_class, environment.machine AS host_machine, environment.system AS host_system,
environment.kernel AS host_kernel, environment.python AS host_python, environment.cpu_model AS host_cpu_model,
environment.cores AS host_cores, environment.memory_bytes AS host_memory_bytes {silicon}
FROM measurement JOIN artifact ON artifact.artifact_no = measurement.artifact_no
JOIN model ON model.model_no = artifact.model_no JOIN device ON device.device_no = measurement.device_no
LEFT JOIN environment ON environment.environment_no = measurement.environment_no
"""


def read(connection: sa.Connection) -> Iterator[dict[str, Any]]:
    """Yield the columns of every row that its checksum covers, and those of the measurement table."""
    environment = {column["name"] for column in sa.inspect(connection).get_columns("environment")}
    has_silicon = "silicon_json" in environment
    silicon = ", coalesce(environment.silicon_json, 'null') AS host_silicon_json" if has_silicon else ""
    for row in rows.row_dicts(connection.execute(sa.text(_JOINED.format(silicon=silicon)))):
        yield {**row_checksums.LATER, **row}


def change(connection: sa.Connection, changed: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Give every row the checksum that it has with these columns changed, and every device the checksum of its rows.

    Raises DamagedError for a row whose checksum is wrong already. Nothing happens in a database without checksums.
    """
    if not has_checksums(connection):
        return
    all_rows = list(read(connection))
    update = sa.text("UPDATE measurement SET row_sha256 = :row_sha256 WHERE measurement_id = :measurement_id")
    for row in all_rows:
        columns = changed(row)
        if columns:
            rows.require_checksum(row)
            row["row_sha256"] = row_checksums.row_sha256({**row, **columns})
            connection.execute(update, {name: row[name] for name in ("row_sha256", "measurement_id")})
    connection.execute(sa.text("DELETE FROM tally WHERE part LIKE 'rows of device %'"))
    partition_checksums.add(connection, partition_checksums.partitions_of(all_rows))


def recount(connection: sa.Connection, table: sa.Table) -> None:
    """Give a small table the checksum of its present rows. Nothing happens in a database without checksums."""
    if not has_checksums(connection):
        return
    connection.execute(sa.text("DELETE FROM tally WHERE part = :part"), {"part": table.name})
    partition_checksums.add_table(connection, table)
    present = rows.row_dicts(connection.execute(sa.select(table)))
    checksums = [partition_checksums.checksum_of(table, row) for row in present]
    partition_checksums.add(connection, [partition_checksums.PartitionChecksum(table.name).plus(checksums)])


def has_checksums(connection: sa.Connection) -> bool:
    """Return whether the database has checksums already. An older one gets them at the end of its migration."""
    return bool(connection.execute(sa.text("SELECT count(*) FROM tally")).scalar_one())
