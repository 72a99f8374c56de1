"""`edgevit report`: the database as one HTML file. And the picture of `edgevit choose --plot`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import advance, print_json, progress, say, split
from edgevit.cli.options import DbOption, OutputOptions, grouped

if TYPE_CHECKING:
    from edgevit.records.choice import Choice, JointChoice
    from edgevit.reporting import Report
    from edgevit.store import LatencyDB

# The confidence of predictions, as of `edgevit choose`.
_CONFIDENCE = 0.9
PlotOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Picture of this choice; the name ends in .png or .svg")
]


@dataclass(frozen=True)
class ContentOptions:
    """Which rows and predictions the page shows, and by which accuracies."""

    device: Annotated[
        str | None, typer.Option("--device", "-d", help="Device names, ids or classes, comma-separated; default: all")
    ] = None
    published: Annotated[bool, typer.Option("--published", help="Include rows that others published")] = False
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Data set of accuracies that `edgevit evaluate` measured; default: published"
        ),
    ] = None
    confidence: Annotated[float, typer.Option(help="Confidence of predicted upper bounds")] = _CONFIDENCE
    measured_only: Annotated[bool, typer.Option("--measured-only", help="Show measured rows, without predictions")] = (
        False
    )
    artifacts: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of artifacts, for errors and gates of their proofs")
    ] = None

    def words(self, out: Path, db: str | None) -> list[str]:
        """Return the command that makes the page again; a URL in `db` has lost its password."""
        options = {"--out": out, "--device": self.device, "--artifacts": self.artifacts}
        flags = {"--published": self.published, "--measured-only": self.measured_only}
        named = [name for name, is_on in flags.items() if is_on]
        return ["edgevit", "report", *_words(options), *self.choose_words(db), *named]

    def choose_words(self, db: str | None) -> list[str]:
        """Return the options that `edgevit choose` needs for answers of the same database in the same way."""
        confidence = None if self.confidence == _CONFIDENCE else self.confidence
        return _words({"--dataset": self.dataset, "--db": db, "--confidence": confidence})


@grouped
def run(
    content: ContentOptions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Output file")] = Path("report.html"),
    db: DbOption = None,
    *,
    output: OutputOptions,
) -> None:
    """Write one HTML file with accuracy against latency, the front, and every row; it needs no network."""
    from edgevit.reporting import write
    from edgevit.store import LatencyDB

    with LatencyDB.open(db) as database:
        report = _collect(database, content, out, None if db is None else database.location, output)
    _print_summary(report, out, write(report, out), output)


def _collect(database: LatencyDB, content: ContentOptions, out: Path, db: str | None, output: OutputOptions) -> Report:
    from edgevit.cards import load_cards
    from edgevit.reporting import ReportOptions, collect

    names = None if content.device is None else split(content.device, "device")
    options = ReportOptions(
        devices=names and [_looked_up(name, database) for name in names],
        dataset=content.dataset,
        published=content.published,
        predict=not content.measured_only,
        confidence=content.confidence,
        artifacts=content.artifacts,
    )
    with progress(output.hides_progress) as bars:
        task = bars.add_task("", total=None)

        def on_device(label: str, device_count: int) -> None:
            bars.update(task, total=device_count)
            advance(bars, task, label)

        return collect(
            database,
            load_cards(),
            options,
            command=shlex.join(content.words(out, db)),
            choose_options=content.choose_words(db),
            on_device=on_device,
        )


def _print_summary(report: Report, out: Path, size: int, output: OutputOptions) -> None:
    predicted = sum(part.predicted for part in report.devices)
    rows = len(report.entries) - predicted
    if output.as_json:
        facts = {"rows": rows, "predictions": predicted, "devices": [part.label for part in report.devices]}
        print_json({"file": str(out), "size_mb": size / 1e6, **facts, "problems": report.problems})
        return
    and_predicted = f" and {predicted} predictions" if predicted else ""
    say(f"{rows} rows{and_predicted} of {len(report.devices)} device(s) -> {out}, {size / 1e6:.1f} MB")
    for problem in report.problems:
        say(f"not read: {problem}")


def draw(choice: Choice | JointChoice, path: Path) -> None:
    """Draw the picture of `edgevit choose --plot`. Raises what edgevit.reporting.plot raises."""
    from edgevit.reporting import plot

    plot(choice, path)


def _looked_up(device: str, database: LatencyDB) -> str:
    """Return the key of a device's rows. Raises UnknownNameError for a device without rows."""
    from edgevit.selection import not_measured, unit_or_class

    name = unit_or_class(device)
    if not any(name in (unit.name, unit.device_id, unit.device_class) for unit in database.devices()):
        raise not_measured(database, device)
    return name


def _words(options: Mapping[str, object]) -> list[str]:
    """Return the options that have a value as words of a command line."""
    return [word for name, value in options.items() if value is not None for word in (name, str(value))]
