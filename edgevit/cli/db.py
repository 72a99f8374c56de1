"""`edgevit db`: views of the latency database. Exchange is in db_exchange.py, comparison in db_compare.py."""

from __future__ import annotations

import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import ms, print_json, print_table, say
from edgevit.cli.options import DbOption, OutputOptions, grouped

if TYPE_CHECKING:
    from edgevit.records.measurement import Measurement
    from edgevit.records.origin import Origin
    from edgevit.store import LatencyDB

app = typer.Typer(help="The latency database: look, check, export, import, merge.", no_args_is_help=True)


DeviceFilter = Annotated[str | None, typer.Option("--device", "-d", help="Name, id or class of a device")]


@app.command()
@grouped
def stats(*, db: DbOption = None, output: OutputOptions) -> None:
    """Show where the database is, and the number of rows in its tables."""
    from edgevit.devices.registry import display_name
    from edgevit.store import LatencyDB

    with LatencyDB.open(db, create_file=False) as database:
        totals, devices = database.stats(), database.devices()
    if output.as_json:
        counts = {"tables": totals.tables, "status": totals.status}
        print_json({"where": totals.location, "revision": totals.revision, **counts, "devices": devices})
        return
    say(f"{totals.location}, revision {totals.revision}")
    print_table(("table", ">rows"), totals.tables.items())
    print_table(("status", ">measurements"), totals.status.items())
    columns = ("device", "class", ">measurements", "latest")
    lines = [(display_name(d.name, d.device_id), d.device_class, d.measurements, d.latest) for d in devices]
    print_table(columns, lines)


@dataclass(frozen=True)
class RowFilterOptions:
    """Filters for rows, and the limit of a table."""

    device: DeviceFilter = None
    model: Annotated[str | None, typer.Option(help="Name of a model")] = None
    provenance: Annotated[str | None, typer.Option(help="Provenance of rows: measured or published")] = None
    source: Annotated[str, typer.Option(metavar="TEXT", help="Text in the source of published rows")] = ""
    current: Annotated[bool, typer.Option("--current-epoch", help="Rows since a device last changed")] = False
    limit: Annotated[int, typer.Option(min=1, help="Most lines of a table")] = 500


@app.command()
@grouped
def show(
    row: Annotated[str | None, typer.Argument(metavar="[ID]", help="Id of a row, or its beginning")] = None,
    *,
    filters: RowFilterOptions,
    db: DbOption = None,
    output: OutputOptions,
) -> None:
    """Show rows without their raw samples, or all fields of one row."""
    from edgevit.cli.profile import summary
    from edgevit.store import LatencyDB

    _require_provenance(filters.provenance)
    with LatencyDB.open(db, create_file=False) as database:
        if row is not None:
            _show_one(database, row, output.as_json)
            return
        rows, origins = _filtered(database, filters), database.foreign_origins()
    if output.as_json:
        lines = [{**summary(row), "origin": origins.get(row.measurement_id)} for row in rows]
        print_json({"measurements": lines})
    else:
        _print(rows, origins, filters.limit)


def _filtered(database: LatencyDB, filters: RowFilterOptions) -> list[Measurement]:
    from edgevit.selection import unit_or_class

    unit = None if filters.device is None else unit_or_class(filters.device)
    rows = database.measurements(device=unit, model=filters.model, current_epoch=filters.current)
    return [row for row in rows if filters.provenance in (None, row.provenance) and filters.source in row.source]


def _require_provenance(name: str | None) -> None:
    from edgevit.errors import UnknownNameError
    from edgevit.records.model import Provenance

    if name is not None and name not in (names := typing.get_args(Provenance)):
        raise UnknownNameError("provenance", name, names, listing="edgevit db show --help")


def _print(rows: Sequence[Measurement], origins: Mapping[str, Origin], limit: int) -> None:
    """Print measured rows and published rows, each in a table of their own."""
    from edgevit.cli.profile import print_rows

    published = sorted((row for row in rows if row.provenance == "published"), key=_sort_key)
    others = [row for row in rows if row.provenance != "published"]
    if others or not published:
        # The newest rows stand last.
        labels = {row_id: origin.label for row_id, origin in origins.items()}
        print_rows(others[-limit:], labels)
    if published:
        # The column of the publication says the origin of a row that an importer read from there.
        labels = {row_id: origin.label for row_id, origin in origins.items() if origin.kind != "published"}
        _print_published(published[:limit], labels)
    if hidden := len(others[:-limit]) + len(published[limit:]):
        say(f"{hidden} more rows: --limit, or narrow it down with --model, --device, --provenance, --source")


def _sort_key(row: Measurement) -> tuple[str, str, str, int]:
    return row.model, row.device, row.target, row.p50_ns or row.mean_ns or 0


def _print_published(rows: Sequence[Measurement], origins: Mapping[str, str]) -> None:
    has_origins = any(row.measurement_id in origins for row in rows)
    columns = (
        *("model", "device", "target", "prec.", ">batch", ">p50 ms", ">p90 ms", ">p99 ms", ">mean ms"),
        *("flags", "date", "source", *(["from"] if has_origins else []), "id"),
    )
    lines = [
        (
            *(row.model, row.device, row.target, row.precision, "" if "batch" in row.untold else row.batch),
            *(ms(row.p50_ns) or ("" if row.status == "ok" else row.status), ms(row.p90_ns), ms(row.p99_ns)),
            *(ms(row.mean_ns), ", ".join(row.flags), _date(row), row.source),
            *([origins.get(row.measurement_id, "")] if has_origins else []),
            row.measurement_id[:12],
        )
        for row in rows
    ]
    print_table(columns, lines)
    say("published: by the sources named, and not measured here; edgevit db show ID says what each does not tell")


def _date(row: Measurement) -> str:
    """Return the day of the run, else the day of publication if that is known."""
    from edgevit.store.published import UNDATED

    return "" if row.started == UNDATED else row.started[:10] + (" (published)" if "started" in row.untold else "")


def _show_one(database: LatencyDB, prefix: str, as_json: bool) -> None:
    from edgevit.cli.profile import summary
    from edgevit.errors import UnknownNameError, UsageError
    from edgevit_runtime.codec import to_data

    ids = database.find(prefix)
    if len(ids) > 1:
        raise UsageError(f"several measurements have ids that begin with {prefix}", fix="give more of its beginning")
    if not ids:
        raise UnknownNameError("measurement", prefix, (), listing="edgevit db show --json")
    row = database.get(ids[0])
    samples = [len(process) for process in row.samples_ns]
    origins = database.origins(ids).get(row.measurement_id, ())
    facts = {
        **summary(row),
        "origins": to_data(origins),
        "samples": samples,
        "told": to_data(row.told),
        "snapshots": len(row.snapshots),
    }
    if as_json:
        print_json({"measurement": facts})
    else:
        print_table(("", "as stored and checked"), ((name, _text(value)) for name, value in facts.items()))


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


@app.command()
@grouped
def sources(*, db: DbOption = None, output: OutputOptions) -> None:
    """Show where records came from: measured by which installation, or read from which file or database, and when."""
    from edgevit.store import LatencyDB

    with LatencyDB.open(db, create_file=False) as database:
        found = database.sources()
    if output.as_json:
        print_json({"sources": found})
        return
    columns = ("kind", "source", "by", "installation", "since", "decide", ">records")
    lines = [
        (
            f"{one.origin.kind} here" if one.is_own else one.origin.kind,
            *(one.origin.source, one.origin.by, one.origin.installation, one.origin.since),
            *("yes" if one.is_trusted else "no", one.records),
        )
        for one in found
    ]
    print_table(columns, lines)


@app.command()
@grouped
def epochs(
    device: DeviceFilter = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="Recompute and store all epochs")] = False,
    *,
    db: DbOption = None,
    output: OutputOptions,
) -> None:
    """Show where devices changed: rows that repeat earlier ones jump by more than 3 noise floors."""
    from edgevit.devices.registry import display_name
    from edgevit.store import LatencyDB

    with LatencyDB.open(db, create_file=False) as database:
        if refresh:
            database.refresh_epochs()
        changes = database.epochs(device)
    if output.as_json:
        print_json({"epochs": changes})
        return
    columns = ("device", ">epoch", "since", ">ratio", ">limit", "row", "repeats", "because")
    lines = [
        (
            display_name(e.device, e.device_id),
            e.number,
            e.started,
            f"{e.ratio:.2f}",
            f"{e.limit:.0%}",
            e.measurement_id[:12],
            e.reference_id[:12],
            e.reason,
        )
        for e in changes
    ]
    print_table(columns, lines)
    if not changes:
        say("every device behaves as it did in its first row")


@app.command()
@grouped
def sql(
    statement: Annotated[str, typer.Argument(help="SELECT statement")],
    limit: Annotated[int, typer.Option(min=1, help="Most lines")] = 100,
    *,
    db: DbOption = None,
    output: OutputOptions,
) -> None:
    """Query the tables in SQL. It cannot write, and shows raw columns without checking their checksums."""
    from edgevit.store import LatencyDB
    from edgevit.store.readonly_sql import as_dicts

    with LatencyDB.open(db, create_file=False) as database:
        result = database.query(statement, limit)
    if output.as_json:
        print_json({"columns": result.columns, "rows": list(as_dicts(result))})
    else:
        rows = (["NULL" if cell is None else _text(cell) for cell in row.values()] for row in as_dicts(result))
        # A mark of right alignment that is part of a name is shown behind another one.
        print_table([f">{name}" if name.startswith(">") else name for name in result.columns], rows)
