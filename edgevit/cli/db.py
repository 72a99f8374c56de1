"""`edgevit db`: look into the latency database, carry rows in and out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgevit.cli.common import DbOption, JsonOption, print_json, print_table, say

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
