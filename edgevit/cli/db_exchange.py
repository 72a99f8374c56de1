"""`edgevit db export`, `import`, `merge`, `quarantine`, `check`: exchange of records, and their verification."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import print_json, print_table, say, size
from edgevit.cli.options import DbOption, OutputOptions, grouped

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgevit.store import ImportResult, LatencyDB, QuarantinedRecord, Refusal, RefusalCode
    from edgevit.store.json_records import PortableRecord

# Its commands become those of `edgevit db`.
app = typer.Typer()
_MAX_REFUSALS_SHOWN = 20
# What edgevit.published.screening counts among the rows that it takes.
_COUNT_LABELS = {
    "copied": "are one run that the source gives to several devices",
    "without_ceiling": "were not compared with the limits of their device: its peak, or the model's cost, is unknown",
    "without_neighbours": "were not compared with other devices and models: there are too few of those",
}
_GRADES = "ABCD"


@app.command("export")
@grouped
def export_rows(
    file: Annotated[Path, typer.Argument(help="File of JSON lines; Parquet for a name in .parquet")],
    device: Annotated[
        str | None,
        typer.Option("--device", "-d", help="Name, id or class of the only device to export"),
    ] = None,
    grade: Annotated[str | None, typer.Option(help="Lowest grade of rows that ran: A, B, C or D")] = None,
    *,
    db: DbOption = None,
    output: OutputOptions,
) -> None:
    """Write every row with its samples, and accuracies, noise floors and graphs, to a file."""
    from edgevit.store import LatencyDB

    with LatencyDB.open(db, create_file=False) as database:
        count = database.export_file(file, _selection(database, device, grade))
    if output.as_json:
        print_json({"file": str(file), "rows": count})
    else:
        say(f"{count} rows -> {file}")


def _selection(database: LatencyDB, device: str | None, grade: str | None) -> Callable[[PortableRecord], bool] | None:
    """Return a test for the records to export; None: all of them."""
    from edgevit.errors import UsageError
    from edgevit.records.measurement import Measurement, NoiseFloor
    from edgevit.selection import not_measured, unit_or_class

    if grade not in (None, *_GRADES):
        raise UsageError(f"{grade!r} is not a grade", fix="--grade A, B, C or D")
    if device is None and grade is None:
        return None
    name = None if device is None else unit_or_class(device)
    matching = [unit for unit in database.devices() if name in (None, unit.name, unit.device_id, unit.device_class)]
    if device is not None and not matching:
        raise not_measured(database, device)
    units = {(unit.device_id, unit.device_class) for unit in matching}
    grades = tuple(_GRADES[: _GRADES.index(grade or "D") + 1])

    def keep(record: PortableRecord) -> bool:
        match record:
            case Measurement():
                of_device = device is None or (record.device_id, record.device_class) in units
                return of_device and (record.status != "ok" or grade is None or record.grade in grades)
            case NoiseFloor():
                return device is None or record.device_id in {unit for unit, _ in units}
        return device is None

    return keep


@dataclass(frozen=True)
class PublishedOptions:
    """The form and origin of published files."""

    form: Annotated[
        str | None, typer.Option("--from", help="Form of published files: aihub, mlperf, papers or timm")
    ] = None
    source: Annotated[str, typer.Option(help="URL and release of published files, stored in their rows")] = ""
    published: Annotated[str, typer.Option(metavar="DATE", help="Date of publication, for files without one")] = ""


@app.command("import")
@grouped
def import_rows(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE]...", help="Files of `edgevit db export` or of --from")
    ] = None,
    *,
    origin: PublishedOptions,
    db: DbOption = None,
    output: OutputOptions,
) -> None:
    """Add the rows of files. Refused rows go into quarantine with the reason (exit code 1).

    Each row is validated. Published files that are named together are judged together.
    """
    from edgevit.errors import UsageError
    from edgevit.published.importers import is_published, require_form
    from edgevit.store import ImportResult, LatencyDB

    if origin.form is not None:
        _import_published(files or [], origin.form, origin, db, output.as_json)
        return
    if not files:
        raise UsageError("no FILE was named", fix="edgevit db import FILE, or with --from FORM")
    if origin.source or origin.published:
        raise UsageError("--source and --published are for published files", fix="name their form with --from")
    # Before the database is opened, which creates it.
    for file in files:
        if not file.is_file() or is_published(file):
            require_form(file)
    with LatencyDB.open(db) as database:
        results = [database.import_file(file) for file in files]
        added, duplicates = sum(result.added for result in results), sum(result.duplicates for result in results)
        refused = tuple(chain(*(result.refused for result in results)))
        _report(database, ImportResult(added, duplicates, refused), output.as_json)


def _import_published(files: list[Path], form: str, origin: PublishedOptions, db: str | None, as_json: bool) -> None:
    from edgevit.published.importers import Publication, files_of, screened
    from edgevit.store import LatencyDB

    with files_of(form, files) as paths:
        screening = screened(form, [Publication(path, origin.source, origin.published) for path in paths])
        with LatencyDB.open(db) as database:
            _report(
                database,
                database.import_records(screening.records(), _source(origin.source, paths)),
                as_json,
                screening.counts,
            )


def _source(stated: str, paths: Sequence[Path]) -> str:
    return stated or ", ".join(str(path.absolute()) for path in paths)


@app.command()
@grouped
def merge(
    source: Annotated[str, typer.Argument(metavar="OTHER", help="Other database: an SQLite file or an SQLAlchemy URL")],
    *,
    db: DbOption = None,
    output: OutputOptions,
) -> None:
    """Add the rows of another database, which is only read. Each is validated; refused rows go into quarantine."""
    from edgevit.store import LatencyDB
    from edgevit.store.connect import database_url
    from edgevit.store.foreign_database import require_existing

    # Before the own database is opened, which creates it.
    if (address := database_url(source)).get_backend_name() == "sqlite":
        require_existing(address)
    with LatencyDB.open(db) as database:
        _report(database, database.merge(source), output.as_json)


def _report(database: LatencyDB, result: ImportResult, as_json: bool, counts: Mapping[str, int] | None = None) -> None:
    """Print the result of an import, and exit with code 1 if records were refused.

    `counts` are the screening's counts of published rows.
    """
    from edgevit.sweeps.recording import describe_epoch

    by_code = Counter(refusal.code for refusal in result.refused)
    if as_json:
        totals = {
            "added": result.added,
            "known": result.duplicates,
            "forgotten": database.left_forgotten,
            "refused": list(map(_data, result.refused)),
        }
        published = {} if counts is None else {"refused_because": dict(by_code), "counts": dict(counts)}
        print_json({**totals, "epochs": database.opened_epochs, **published})
    else:
        say(f"{result.added} added, {result.duplicates} known already, {len(result.refused)} refused")
        if database.left_forgotten:
            say(
                f"{database.left_forgotten} left out: their source was forgotten here (edgevit db forget SOURCE --undo)"
            )
        for name, count in sorted((counts or {}).items()):
            say(f"{count} rows {_COUNT_LABELS[name]}")
        _say_refused(result, by_code)
        for epoch in database.opened_epochs:
            say(describe_epoch(epoch))
    if result.refused:
        raise typer.Exit(1)


def _data(refusal: Refusal) -> dict[str, str]:
    return {"place": refusal.location, "code": refusal.code, "reason": refusal.text}


def _say_refused(result: ImportResult, by_code: Mapping[RefusalCode, int]) -> None:
    from edgevit.store.refusals import LABELS

    for refusal in result.refused[:_MAX_REFUSALS_SHOWN]:
        say(f"refused: {refusal.location}: {refusal.text}")
    if len(result.refused) > _MAX_REFUSALS_SHOWN:
        totals = ", ".join(f"{count} {LABELS[code]}" for code, count in by_code.items())
        hidden = len(result.refused) - _MAX_REFUSALS_SHOWN
        say(f"... and {hidden} more: edgevit db quarantine; together: {totals}")


SourceArgument = Annotated[str, typer.Argument(metavar="SOURCE", help="A source of `edgevit db sources`")]


@app.command()
@grouped
def trust(source: SourceArgument, *, db: DbOption = None, output: OutputOptions) -> None:
    """Let the rows and accuracies of a source decide choices, as those of this installation do."""
    _decide(source, db, is_trusted=True, as_json=output.as_json)


@app.command()
@grouped
def distrust(source: SourceArgument, *, db: DbOption = None, output: OutputOptions) -> None:
    """Exclude the rows and accuracies of a source from choices; they stay in the database."""
    _decide(source, db, is_trusted=False, as_json=output.as_json)


@app.command()
@grouped
def forget(
    source: SourceArgument,
    undo: Annotated[bool, typer.Option("--undo", help="Let a forgotten source be read again")] = False,
    *,
    db: DbOption = None,
    output: OutputOptions,
) -> None:
    """Delete what came from a source alone, for good: no import or merge brings it back."""
    from edgevit.store import LatencyDB

    with LatencyDB.open(db, create_file=False) as database:
        source = _whole(source, {one.origin.source for one in database.sources()})
        count = database.remember(source) if undo else database.forget(source)
    if output.as_json:
        print_json({"source": source, "is_forgotten": not undo, "records": count})
    elif undo:
        say(f"{count} records of {source} may be read again: edgevit db import, or merge")
    else:
        say(f"{count} records of {source} are deleted, and do not come back")


def _whole(source: str, known: Collection[str]) -> str:
    """Return a source by its whole path, by which files and databases are kept."""
    return next((name for name in (source, str(Path(source).absolute())) if name in known), source)


def _decide(source: str, db: str | None, *, is_trusted: bool, as_json: bool) -> None:
    from edgevit.store import LatencyDB

    with LatencyDB.open(db, create_file=False) as database:
        source = _whole(source, {one.origin.source for one in database.sources()})
        database.trust(source, is_trusted=is_trusted)
        count = sum(one.records for one in database.sources() if one.origin.source == source)
    if as_json:
        print_json({"source": source, "is_trusted": is_trusted, "records": count})
        return
    say(f"{count} records of {source} {'decide from now on' if is_trusted else 'decide no more'}")


@app.command()
@grouped
def quarantine(*, db: DbOption = None, output: OutputOptions) -> None:
    """Show the records that imports and merges refused, with the reasons; --json has their contents."""
    from edgevit.store import LatencyDB

    with LatencyDB.open(db, create_file=False) as database:
        records = database.quarantine()
    if output.as_json:
        print_json({"quarantine": list(map(_quarantine_data, records))})
    else:
        lines = [(record.noticed, record.location, size(record.size_bytes), record.reason) for record in records]
        print_table(("noticed", "place", ">MB", "reason"), lines)


def _quarantine_data(record: QuarantinedRecord) -> dict[str, object]:
    return {
        "quarantine_id": record.quarantine_id,
        "noticed": record.noticed,
        "place": record.location,
        "reason": record.reason,
        "size_bytes": record.size_bytes,
        "content": record.content.decode("utf-8", "backslashreplace"),
    }


@app.command()
@grouped
def check(*, db: DbOption = None, output: OutputOptions) -> None:
    """Compare everything stored with its checksums, ids and samples; exit code 1 if something is wrong."""
    from edgevit.store import LatencyDB

    with LatencyDB.open(db, shipped=False, create_file=False) as database:
        report = database.check()
    counts = {"rows": report.rows, "accuracies": report.accuracies, "quarantined": report.quarantined}
    if output.as_json:
        print_json({"where": report.location, **counts, "problems": report.problems})
    else:
        for problem in report.problems:
            say(f"wrong: {problem}")
        verdict = f"{len(report.problems)} problems" if report.problems else "all as it was written"
        totals = f"{report.rows} rows with their samples, {report.accuracies} accuracies"
        say(f"{verdict}: {totals}, {report.quarantined} in quarantine")
    if report.problems:
        raise typer.Exit(1)
