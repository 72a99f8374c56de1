"""`edgevit db export`, `import`, `merge`, `quarantine`, `check`: rows that travel, and whether to believe them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import print_json, print_table, say, size
from edgevit.cli.options import DbOption, JsonOption

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgevit.store import Imported, LatencyDB
    from edgevit.store.json_records import Travelling

app = typer.Typer()  # its commands are those of `edgevit db`
_REASONS_SHOWN = 20
_COUNTED = {  # what edgevit.screening counts of the rows that it takes
    "copied": "are one run that the source gives to several devices",
    "without_ceiling": "were not held against what their device can do: its peak, or the model's cost, is not known",
    "without_neighbours": "were not compared with other devices and models: there are too few of those",
}
_GRADES = "ABCD"


@app.command("export")
def export_rows(
    file: Annotated[Path, typer.Argument(help="JSON lines, one record each; a name that ends in .parquet: Parquet")],
    device: Annotated[
        str | None,
        typer.Option("--device", "-d", help="its rows and noise floors alone: name, id or class"),
    ] = None,
    grade: Annotated[str | None, typer.Option(help="of rows that ran, only this one or better: A, B, C")] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write every row with its samples, and accuracies and noise floors, to a file."""
    from edgevit.store import LatencyDB

    with LatencyDB.open(db) as database:
        count = database.export_file(file, _chosen(database, device, grade))
    if as_json:
        print_json({"file": str(file), "rows": count})
    else:
        say(f"{count} rows -> {file}")


def _chosen(database: LatencyDB, device: str | None, grade: str | None) -> Callable[[Travelling], bool] | None:
    """What of all records is to travel; None: everything."""
    from edgevit.errors import UsageError
    from edgevit.records.measurement import Measurement, NoiseFloor
    from edgevit.selection import not_measured, unit_or_class

    if grade not in (None, *_GRADES):
        raise UsageError(f"{grade!r} is not a grade", fix="--grade A, B, C or D")
    if device is None and grade is None:
        return None
    asked = None if device is None else unit_or_class(device)
    known = [unit for unit in database.devices() if asked in (None, unit.name, unit.device_id, unit.device_class)]
    if device is not None and not known:
        raise not_measured(database, device)
    units, good = (
        {(unit.device_id, unit.device_class) for unit in known},
        tuple(_GRADES[: _GRADES.index(grade or "D") + 1]),
    )

    def keep(record: Travelling) -> bool:
        match record:
            case Measurement():
                of_device = device is None or (record.device_id, record.device_class) in units
                return of_device and (record.status != "ok" or grade is None or record.grade in good)
            case NoiseFloor():
                return device is None or record.device_id in {unit for unit, _ in units}
        return device is None

    return keep


@app.command("import")
def import_rows(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="what `edgevit db export` wrote, or of --from")
    ] = None,
    form: Annotated[
        str | None, typer.Option("--from", help="published by others: aihub, mlperf, papers or timm")
    ] = None,
    source: Annotated[str, typer.Option(help="URL and release of published files, kept in their rows")] = "",
    published: Annotated[str, typer.Option(metavar="DATE", help="when they were published, if they do not say")] = "",
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add the rows of files; each is validated, bad ones go into quarantine with the reason (exit code 1).

    Published files that are named together are judged together.
    """
    from edgevit.errors import UsageError
    from edgevit.published.importers import is_published, require_form
    from edgevit.store import Imported, LatencyDB

    if form is not None:
        _import_published(files or [], form, source, published, db, as_json)
        return
    if not files:
        raise UsageError("no FILE was named", fix="edgevit db import FILE, or with --from FORM")
    if source or published:
        raise UsageError("--source and --published are of published files", fix="say their form with --from")
    for file in files:
        if is_published(file):
            require_form(file)
    with LatencyDB.open(db) as database:
        came = [database.import_file(file) for file in files]
        added, known = sum(part.added for part in came), sum(part.known for part in came)
        _report(database, Imported(added, known, tuple(chain(*(part.refused for part in came)))), as_json)


def _import_published(files: list[Path], form: str, source: str, published: str, db: str | None, as_json: bool) -> None:
    from edgevit.published.importers import Publication, files_of, screened
    from edgevit.store import LatencyDB

    with files_of(form, files) as paths:
        screening = screened(form, [Publication(path, source, published) for path in paths])
        with LatencyDB.open(db) as database:
            _report(database, database.import_items(screening.items()), as_json, screening.counts)


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


def _report(database: LatencyDB, came: Imported, as_json: bool, counts: Mapping[str, int] | None = None) -> None:
    """What came in and what did not. `counts`: of published rows, beside what was refused by what."""
    from edgevit.cli.profile import says_epoch

    kinds = Counter(item.reason.partition(":")[0] for item in came.refused)
    if as_json:
        refused = [item._asdict() for item in came.refused]
        told = {"added": came.added, "known": came.known, "refused": refused, "epochs": database.opened}
        print_json(told if counts is None else {**told, "refused_because": dict(kinds), "counts": dict(counts)})
    else:
        say(f"{came.added} added, {came.known} known already, {len(came.refused)} refused")
        for name, count in sorted((counts or {}).items()):
            say(f"{count} rows {_COUNTED[name]}")
        _say_refused(came, kinds)
        for epoch in database.opened:
            say(says_epoch(epoch))
    if came.refused:
        raise typer.Exit(1)


def _say_refused(came: Imported, kinds: Mapping[str, int]) -> None:
    for place, reason in came.refused[:_REASONS_SHOWN]:
        say(f"refused: {place}: {reason}")
    if len(came.refused) > _REASONS_SHOWN:
        every = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        say(f"... and {len(came.refused) - _REASONS_SHOWN} more: edgevit db quarantine; together: {every}")


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
