"""`edgevit db`: look into the latency database, carry rows in and out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import DbOption, JsonOption, RateOption, ms, print_json, print_table, say

if TYPE_CHECKING:
    from edgevit.store import LatencyDB
    from edgevit.types import Measurement

app = typer.Typer(help="The latency database: look, export, import.", no_args_is_help=True)


@app.command()
def stats(db: DbOption = None, as_json: JsonOption = False) -> None:
    """Where the database is and what it holds."""
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
    print_table(columns, [(d.name, d.device_class, d.measurements, d.latest) for d in devices])


@app.command()
def show(
    device: Annotated[str | None, typer.Option("--device", "-d", help="name, id or class")] = None,
    model: Annotated[str | None, typer.Option(help="only this model")] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """The rows, without their raw samples."""
    from edgevit.cli.profile import print_rows, summary
    from edgevit.store import LatencyDB

    with LatencyDB.open(db) as database:
        rows = database.measurements(device=device, model=model)
    if as_json:
        print_json({"measurements": [summary(row) for row in rows]})
    else:
        print_rows(rows)


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
    from edgevit.compare import compare as held_against
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
            *(letter, row.model, row.target, row.precision, row.threads, row.device, ms(row.p50_ns)),
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

    if re.fullmatch(r"[0-9a-f]{6,64}", name) and (ids := database.find(name)):
        if len(ids) > 1:
            raise UsageError(f"several measurements have ids that begin with {name}", fix="give more of it")
        return database.get(ids[0])
    model, target, precision = [*name.split("@"), "", ""][:3]
    rows = [
        row
        for row in database.measurements(device=device, threads=threads, status="ok")
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


@app.command("export")
def export_rows(
    file: Annotated[Path, typer.Argument(help="JSON lines, one row each")],
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write every row, with its samples, to a file."""
    from edgevit.store import LatencyDB

    with LatencyDB.open(db) as database:
        count = database.export_jsonl(file)
    if as_json:
        print_json({"file": str(file), "rows": count})
    else:
        say(f"{count} rows -> {file}")


@app.command("import")
def import_rows(
    file: Annotated[Path, typer.Argument(help="JSON lines that `edgevit db export` wrote")],
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add the rows of a file; each is validated, bad ones are refused with the reason (exit code 1)."""
    from edgevit.store import LatencyDB

    with LatencyDB.open(db) as database:
        came = database.import_jsonl(file)
    if as_json:
        print_json({"added": came.added, "known": came.known, "refused": [item._asdict() for item in came.refused]})
    else:
        say(f"{came.added} added, {came.known} known already, {len(came.refused)} refused")
        for place, reason in came.refused:
            say(f"refused: {place}: {reason}")
    if came.refused:
        raise typer.Exit(1)
