"""`edgevit db export`, `import`, `merge`, `quarantine`, `check`: rows that travel, and whether to believe them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import DbOption, JsonOption, print_json, print_table, say, size

if TYPE_CHECKING:
    from edgevit.store import Imported, LatencyDB

app = typer.Typer()  # its commands are those of `edgevit db`
_REASONS_SHOWN = 20


@app.command("export")
def export_rows(
    file: Annotated[Path, typer.Argument(help="JSON lines, one record each; a name that ends in .parquet: Parquet")],
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write every row with its samples, and accuracies and noise floors, to a file."""
    from edgevit.store import LatencyDB

    with LatencyDB.open(db) as database:
        count = database.export_file(file)
    if as_json:
        print_json({"file": str(file), "rows": count})
    else:
        say(f"{count} rows -> {file}")


@app.command("import")
def import_rows(
    file: Annotated[
        Path | None, typer.Argument(help="what `edgevit db export` wrote, or of the form of --from")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--from", help="published by others: aihub, mlperf, papers or timm")
    ] = None,
    source: Annotated[str, typer.Option(help="URL and release of a published file, kept in its rows")] = "",
    published: Annotated[
        str, typer.Option(metavar="DATE", help="when it was published, if the file does not say")
    ] = "",
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add the rows of a file; each is validated, bad ones go into quarantine with the reason (exit code 1)."""
    from edgevit.errors import UsageError
    from edgevit.store import LatencyDB

    if form is not None:
        _import_published(file, form, source, published, db, as_json)
        return
    if file is None or source or published:
        what = "no FILE was named" if file is None else "--source and --published are of published files"
        raise UsageError(what, fix="edgevit db import FILE, or with --from FORM")
    _refuse_strange(file)
    with LatencyDB.open(db) as database:
        _report(database, database.import_file(file), as_json)


def _import_published(file: Path | None, form: str, source: str, published: str, db: str | None, as_json: bool) -> None:
    from edgevit.importers import Publication, named_file, screening
    from edgevit.store import LatencyDB

    with named_file(form, file) as path:
        screened = screening(form, Publication(path, source, published))
        with LatencyDB.open(db) as database:
            _report(database, database.import_items(screened.items()), as_json, dict(screened.counts))


def _refuse_strange(file: Path) -> None:
    """A table of somebody's is read with --from only: what a column means is not guessed."""
    if file.suffix.lower() not in (".csv", ".yaml", ".yml"):
        return
    from edgevit.errors import UsageError
    from edgevit.importers import forms

    raise UsageError(f"{file} is nothing that `edgevit db export` wrote", fix=f"say --from, one of these\n{forms()}")


@app.command()
def merge(
    source: Annotated[str, typer.Argument(metavar="OTHER", help="the other database: file or SQLAlchemy URL")],
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add what another database holds. It is only read, and believed row by row; bad rows go into quarantine."""
    from edgevit.store import LatencyDB

    with LatencyDB.open(db) as database:
        _report(database, database.merge(source), as_json)


def _report(database: LatencyDB, came: Imported, as_json: bool, counts: dict[str, int] | None = None) -> None:
    from edgevit.cli.profile import says_epoch

    if as_json:
        refused = [item._asdict() for item in came.refused]
        told = {"added": came.added, "known": came.known, "refused": refused, "epochs": database.opened}
        print_json(told if counts is None else {**told, "counts": counts})
    else:
        say(f"{came.added} added, {came.known} known already, {len(came.refused)} refused")
        for name, count in sorted((counts or {}).items()):
            say(f"{count} rows {name.replace('_', ' ')}")
        for place, reason in came.refused[:_REASONS_SHOWN]:
            say(f"refused: {place}: {reason}")
        if len(came.refused) > _REASONS_SHOWN:
            say(f"... and {len(came.refused) - _REASONS_SHOWN} more: edgevit db quarantine")
        for epoch in database.opened:
            say(says_epoch(epoch))
    if came.refused:
        raise typer.Exit(1)


@app.command()
def quarantine(db: DbOption = None, as_json: JsonOption = False) -> None:
    """What imports and merges did not take in, and why; --json has it as it came."""
    from edgevit.store import LatencyDB

    with LatencyDB.open(db) as database:
        found = database.quarantine()
    if as_json:
        items = [{**vars(item), "content": item.content.decode("utf-8", "backslashreplace")} for item in found]
        print_json({"quarantine": items})
    else:
        columns = ("noticed", "place", ">MB", "reason")
        print_table(columns, [(item.noticed, item.place, size(item.size_bytes), item.reason) for item in found])


@app.command()
def check(db: DbOption = None, as_json: JsonOption = False) -> None:
    """Read everything and hold it against digests, ids, tallies and samples; exit code 1 where something is wrong."""
    from edgevit.store import LatencyDB

    with LatencyDB.open(db, shipped=False) as database:
        found = database.check()
    if as_json:
        print_json(vars(found))
    else:
        for problem in found.problems:
            say(f"wrong: {problem}")
        verdict = f"{len(found.problems)} problems" if found.problems else "all as it was written"
        said = f"{found.rows} rows with their samples, {found.accuracies} accuracies, {found.quarantined} in quarantine"
        say(f"{verdict}: {said}")
    if found.problems:
        raise typer.Exit(1)
