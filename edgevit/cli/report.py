"""`edgevit report`: the database as one HTML file; and what `edgevit choose --plot` needs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import advance, print_json, progress, say, split
from edgevit.cli.options import DbOption, JsonOption

if TYPE_CHECKING:
    from edgevit.records.choice import Choice, JointChoice
    from edgevit.store import LatencyDB

_CONFIDENCE = 0.9  # of what is predicted, unless another one is asked for; as of `edgevit choose`
PlotOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="draw this choice, too: a name that ends in .png or .svg")
]


def run(
    out: Annotated[Path, typer.Option("--out", "-o", help="the file")] = Path("report.html"),
    device: Annotated[
        str | None, typer.Option("--device", "-d", help="only these, with commas between: names, ids or classes")
    ] = None,
    published: Annotated[bool, typer.Option("--published", help="with rows that others published")] = False,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="accuracies as `edgevit evaluate` measured them on it; default: published"),
    ] = None,
    confidence: Annotated[float, typer.Option(help="with which what is predicted holds")] = _CONFIDENCE,
    measured_only: Annotated[
        bool, typer.Option("--measured-only", help="predict nothing: only what was measured is shown")
    ] = False,
    artifacts: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="of artifacts: errors and gates of their proofs")
    ] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one HTML file with accuracy against latency, the front, and every row; it needs no network."""
    from edgevit.cards import load_cards
    from edgevit.reporting import ReportOptions, collect, write
    from edgevit.store import LatencyDB

    with LatencyDB.open(db) as database:
        devices = None if device is None else [_looked_up(name, database) for name in split(device, "device")]
        options = ReportOptions(devices, dataset, published, not measured_only, confidence, artifacts)
        where = None if db is None else database.location
        # Of these `edgevit choose` has the same options.
        shared = {
            "--dataset": dataset,
            "--db": where,
            "--confidence": None if confidence == _CONFIDENCE else confidence,
        }
        given = {"--out": out, "--device": device, "--artifacts": artifacts, **shared}
        flags = [name for name, on in (("--published", published), ("--measured-only", measured_only)) if on]
        with progress(as_json) as bars:
            task = bars.add_task("", total=None)

            def on_device(label: str, devices: int) -> None:
                bars.update(task, total=devices)
                advance(bars, task, label)

            report = collect(
                database,
                load_cards(),
                options,
                command=shlex.join(["edgevit", "report", *_words(given), *flags]),
                choose_options=_words(shared),
                on_device=on_device,
            )
    size = write(report, out)
    predicted = sum(part.predicted for part in report.devices)
    rows = len(report.entries) - predicted
    if as_json:
        facts = {"rows": rows, "predictions": predicted, "devices": [part.label for part in report.devices]}
        print_json({"file": str(out), "size_mb": size / 1e6, **facts, "problems": report.problems})
        return
    and_predicted = f" and {predicted} predictions" if predicted else ""
    say(f"{rows} rows{and_predicted} of {len(report.devices)} device(s) -> {out}, {size / 1e6:.1f} MB")
    for problem in report.problems:
        say(f"not read: {problem}")


def draw(choice: Choice | JointChoice, path: Path) -> None:
    """For `edgevit choose --plot`. Raises what edgevit.reporting.plot raises."""
    from edgevit.reporting import plot

    plot(choice, path)


def _looked_up(device: str, database: LatencyDB) -> str:
    """Return what a device is looked up by. Raises UnknownNameError for one without rows."""
    from edgevit.selection import not_measured, unit_or_class

    name = unit_or_class(device)
    if not any(name in (unit.name, unit.device_id, unit.device_class) for unit in database.devices()):
        raise not_measured(database, device)
    return name


def _words(options: Mapping[str, object]) -> list[str]:
    """Return the options that have a value as words of a command line; a URL has lost its password."""
    return [word for name, value in options.items() if value is not None for word in (name, str(value))]
