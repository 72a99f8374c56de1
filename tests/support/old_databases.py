"""Databases of older revisions of the schema, with rows in them: for tests."""

from __future__ import annotations

from typing import Any, Literal

from sqlalchemy import Engine, MetaData, text

from edgevit.records.measurement import Measurement
from edgevit.store import rows, schema
from edgevit.store.connect import WRITE, create, database_url
from edgevit_runtime.codec import to_json
from support.measured import floor


def migrate(engine: Engine, direction: Literal["upgrade", "downgrade"], revision: str) -> None:
    """Migrate a database to a revision."""
    from alembic import command

    with engine.execution_options(**WRITE).begin() as connection:
        getattr(command, direction)(schema.alembic_config(connection), revision)


def old_database(url: str, revision: str, measurements: list[Measurement]) -> Engine:
    """Create a database as the edgevit of a revision left it, with these rows; columns it did not have are lost."""
    engine = create(database_url(url))
    migrate(engine, "upgrade", revision)
    old = MetaData()
    with engine.connect() as connection:
        old.reflect(connection)
    with engine.execution_options(**WRITE).begin() as connection:
        for number, row in enumerate(measurements, start=1):
            values_by_table = [*_rows_by_table(number, row).items(), *(("sample", v) for v in rows.sample_values(row))]
            for name, values in values_by_table:
                columns = {key: value for key, value in values.items() if key in old.tables[name].columns}
                connection.execute(old.tables[name].insert(), columns)
        if "noise" in old.tables:
            values = {name: value for name, value in vars(floor()).items() if name != "p50s_ns"}
            connection.execute(old.tables["noise"].insert(), {**values, "p50s_ns_json": to_json(floor().p50s_ns)})
        for name in ("model", "artifact", "device", "environment"):
            if connection.dialect.name == "postgresql":
                connection.execute(text(f"SELECT setval('{name}_{name}_no_seq', {len(measurements) + 1})"))
    return engine


def _rows_by_table(number: int, row: Measurement) -> dict[str, dict[str, Any]]:
    numbers: dict[str, int | None] = {f"{name}_no": number for name in ("model", "artifact", "device", "environment")}
    by_table: dict[str, dict[str, Any]] = {
        "model": {**numbers, **rows.model_values(row), "name": f"{row.model}{number}"},
        "artifact": {**numbers, **rows.artifact_values(row, number)},
        "device": {**numbers, **rows.device_values(row), "name": f"{row.device}{number}"},
    }
    host = {} if row.host is None else rows.environment_values(row.host)
    if host:
        by_table["environment"] = {**numbers, **host, "sha256": f"{number:064d}"}
    numbers["environment_no"] = number if host else None
    return by_table | {"measurement": {**rows.measurement_values(row), **numbers}}
