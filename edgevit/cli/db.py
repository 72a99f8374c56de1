"""`edgevit db`: look into the latency database. What carries rows in and out is in exchange.py."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import ms, print_json, print_table, say
from edgevit.cli.options import DbOption, JsonOption, RateOption

if TYPE_CHECKING:
    from edgevit.records.measurement import Measurement
    from edgevit.store import LatencyDB

app = typer.Typer(help="The latency database: look, check, export, import, merge.", no_args_is_help=True)


DeviceFilter = Annotated[str | None, typer.Option("--device", "-d", help="name, id or class")]


@app.command()
def stats(db: DbOption = None, as_json: JsonOption = False) -> None:
    """Where the database is and what it holds."""
    from edgevit.devices.registry import display_name
    from edgevit.store import LatencyDB

    with LatencyDB.open(db) as database:
        found, devices = database.stats(), database.devices()
    if as_json:
        print_json({**vars(found), "devices": devices})
        return
    say(f"{found.where}, revision {found.revision}")
    print_table(("table", ">rows"), found.tables.items())
    print_table(("status", ">measurements"), found.status.items())
    columns = ("device", "class", ">measurements", "latest")
    lines = [(display_name(d.name, d.device_id), d.device_class, d.measurements, d.latest) for d in devices]
    print_table(columns, lines)


@app.command()
def show(
    row: Annotated[str | None, typer.Argument(metavar="[ID]", help="of one row, or its beginning: all it says")] = None,
    device: DeviceFilter = None,
    model: Annotated[str | None, typer.Option(help="only this model")] = None,
    provenance: Annotated[str | None, typer.Option(help="only these: measured or published")] = None,
    source: Annotated[str, typer.Option(metavar="TEXT", help="only published rows with this in their source")] = "",
    current: Annotated[bool, typer.Option("--current-epoch", help="only rows since a device last changed")] = False,
    limit: Annotated[int, typer.Option(min=1, help="of lines in a table")] = 500,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """The rows, without their raw samples; or everything about one of them."""
    from edgevit.cli.profile import summary
    from edgevit.selection import unit_or_class
    from edgevit.store import LatencyDB

    _require_provenance(provenance)
    with LatencyDB.open(db) as database:
        if row is not None:
            _show_one(database, row, as_json)
            return
        place = None if device is None else unit_or_class(device)
        rows = database.measurements(device=place, model=model, current_epoch=current)
    rows = [row for row in rows if provenance in (None, row.provenance) and source in row.source]
    if as_json:
        print_json({"measurements": [summary(row) for row in rows]})
    else:
        _print(rows, limit)


def _require_provenance(name: str | None) -> None:
    from edgevit.errors import UnknownNameError
    from edgevit.records.model import Provenance

    if name is not None and name not in (known := typing.get_args(Provenance)):
        raise UnknownNameError("provenance", name, known, listing="edgevit db show --help")


def _print(rows: Sequence[Measurement], limit: int) -> None:
    """Rows of ours and rows of others, each with what there is to say of them."""
    from edgevit.cli.profile import print_rows

    published = sorted((row for row in rows if row.provenance == "published"), key=_place)
    ours = [row for row in rows if row.provenance != "published"]
    if ours or not published:
        print_rows(ours[-limit:])  # the newest
    if published:
        _print_published(published[:limit])
    if left := len(ours[:-limit]) + len(published[limit:]):
        say(f"{left} more rows: --limit, or narrow it down with --model, --device, --provenance, --source")


def _place(row: Measurement) -> tuple[str, str, str, int]:
    return row.model, row.device, row.target, row.p50_ns or row.mean_ns or 0


def _print_published(rows: Sequence[Measurement]) -> None:
    columns = (
        *("model", "device", "target", "prec.", ">batch", ">p50 ms", ">p90 ms", ">p99 ms", ">mean ms"),
        *("flags", "date", "source", "id"),
    )
    lines = [
        (
            *(row.model, row.device, row.target, row.precision, "" if "batch" in row.untold else row.batch),
            *(ms(row.p50_ns) or ("" if row.status == "ok" else row.status), ms(row.p90_ns), ms(row.p99_ns)),
            *(ms(row.mean_ns), ", ".join(row.flags), _date(row), row.source, row.measurement_id[:12]),
        )
        for row in rows
    ]
    print_table(columns, lines)
    say("published: by the sources named, and not measured here; edgevit db show ID says what each does not tell")


def _date(row: Measurement) -> str:
    """The day it ran, else the day it was published if that is known."""
    from edgevit.store.published import UNDATED

    return "" if row.started == UNDATED else row.started[:10] + (" (published)" if "started" in row.untold else "")


def _show_one(database: LatencyDB, prefix: str, as_json: bool) -> None:
    from edgevit.cli.profile import summary
    from edgevit.errors import UnknownNameError, UsageError
    from edgevit_runtime.codec import to_data

    ids = database.find(prefix)
    if len(ids) > 1:
        raise UsageError(f"several measurements have ids that begin with {prefix}", fix="give more of it")
    if not ids:
        raise UnknownNameError("measurement", prefix, (), listing="edgevit db show --json")
    row = database.get(ids[0])
    samples = [len(process) for process in row.samples_ns]
    facts = {**summary(row), "samples": samples, "told": to_data(row.told), "snapshots": len(row.snapshots)}
    if as_json:
        print_json({"measurement": facts})
    else:
        print_table(("", "as stored and checked"), ((name, _text(value)) for name, value in facts.items()))


def _text(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)


@app.command()
def epochs(
    device: DeviceFilter = None,
    refresh: Annotated[bool, typer.Option("--refresh", help="find them anew, and write them down")] = False,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Where devices began to behave otherwise: rows that repeat earlier ones jump by more than 3 noise floors."""
    from edgevit.devices.registry import display_name
    from edgevit.store import LatencyDB

    with LatencyDB.open(db) as database:
        if refresh:
            database.refresh_epochs()
        found = database.epochs(device)
    if as_json:
        print_json({"epochs": found})
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
        for e in found
    ]
    print_table(columns, lines)
    if not found:
        say("every device behaves as it did in its first row")


@app.command()
def sql(
    statement: Annotated[str, typer.Argument(help="one SELECT")],
    limit: Annotated[int, typer.Option(min=1, help="of lines")] = 100,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the tables in SQL. It reads and cannot write; raw columns, not held against their digests."""
    from edgevit.store import LatencyDB
    from edgevit.store.readonly_sql import as_lines

    with LatencyDB.open(db) as database:
        answer = database.ask(statement, limit)
    if as_json:
        print_json({"columns": answer.columns, "rows": list(as_lines(answer))})
    else:
        print_table(answer.columns, ([_text(cell) for cell in line.values()] for line in as_lines(answer)))


@app.command()
def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="id of a measurement, or MODEL[@TARGET[@PRECISION]]")],
    second: Annotated[str, typer.Argument(metavar="B", help="the same of what A is compared with")],
    device: Annotated[str, typer.Option("--device", "-d", help="where rows are looked for by name")] = "local",
    threads: Annotated[int | None, typer.Option(min=1, help="of rows that are looked for by name")] = None,
    rate: RateOption = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Whether A is FASTER, SLOWER or the SAME as B, or AMBIGUOUS: when nobody can tell."""
    from edgevit.devices.registry import display_name
    from edgevit.measurement.compare import compare as held_against
    from edgevit.store import LatencyDB

    with LatencyDB.open(db) as database:
        rows = [_row(database, name, device, threads, rate) for name in (first, second)]
        floors = [floor for row in rows if (floor := database.noise(row.device_id)) is not None]
    found = held_against(rows[0], rows[1], floors)
    if as_json:
        print_json(vars(found))
        return
    columns = ("", "model", "target", "prec.", ">thr.", "device", ">p50 ms", "of processes", "grade", "id")
    lines = [
        (
            *(letter, row.model, row.target, row.precision, row.threads),
            *(display_name(row.device, row.device_id), ms(row.p50_ns)),
            *(f"{ms(row.p50_low_ns)} .. {ms(row.p50_high_ns)}", row.grade, row.measurement_id[:12]),
        )
        for letter, row in zip("AB", rows, strict=True)
    ]
    print_table(columns, lines)
    share, low, high = (f"{value - 1:+.1%}" for value in (found.ratio, found.ratio_low, found.ratio_high))
    say(f"{found.verdict}: A takes {share} ({low} .. {high}) of B's time; {found.floor_from}: {found.floor:.1%}")


def _row(database: LatencyDB, name: str, device: str, threads: int | None, rate: float | None) -> Measurement:
    """A row by the beginning of its id, or the newest one that ran, by what was measured. Raises UnknownNameError."""
    from edgevit.errors import UnknownNameError, UsageError
    from edgevit.selection import unit_or_class

    if re.fullmatch(r"[0-9a-f]{6,64}", name) and (ids := database.find(name)):
        if len(ids) > 1:
            raise UsageError(f"several measurements have ids that begin with {name}", fix="give more of it")
        return database.get(ids[0])
    model, target, precision = [*name.split("@"), "", ""][:3]
    rows = [
        row
        for row in database.measurements(device=unit_or_class(device), threads=threads, status="ok")
        if row.rate_hz == rate and row.provenance == "measured"
    ]
    wanted = (model, target or None, precision or None)
    found = [
        row
        for row in rows
        if all(asked in (None, is_) for asked, is_ in zip(wanted, (row.model, row.target, row.precision), strict=True))
    ]
    if not found:
        known = {f"{row.model}@{row.target}@{row.precision}" for row in rows} or {"none yet"}
        raise UnknownNameError(f"measurement on {device}", name, known, listing="edgevit db show")
    return found[-1]
