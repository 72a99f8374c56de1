"""`edgevit report`: the database as one HTML file. And the picture of `edgevit choose --plot`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import advance, print_json, progress, say, split
from edgevit.cli.options import DbOption, OutputOptions, grouped

if TYPE_CHECKING:
    from edgevit.records.choice import Choice, JointChoice

PlotOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Picture of this choice; the name ends in .png or .svg")
]


@dataclass(frozen=True)
class ContentOptions:
    """Which rows and predictions the page shows, and by which accuracies."""

    device: Annotated[
        str | None,
        typer.Option("--device", "-d", help="Device names, ids or classes, comma-separated; default: all"),
    ] = None
    published: Annotated[bool, typer.Option("--published", help="Include rows that others published")] = False
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Data set that `edgevit evaluate` measured; default: published, ImageNet"),
    ] = None
    confidence: Annotated[float, typer.Option(help="Confidence of predicted upper bounds")] = 0.9
    measured_only: Annotated[bool, typer.Option("--measured-only", help="Show measured rows, without predictions")] = (
        False
    )
    artifacts: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder of artifacts, for errors and gates of their proofs")
    ] = None


@grouped
def run(
    out: Annotated[Path, typer.Option("--out", "-o", help="Output file")] = Path("report.html"),
    *,
    content: ContentOptions,
    db: DbOption = None,
    output: OutputOptions,
) -> None:
    """Write one HTML file with accuracy against latency, the front, and every row; it needs no network."""
    import edgevit

    with progress(output.hides_progress) as bars:
        task = bars.add_task("", total=None)

        def show_device(label: str, devices: int) -> None:
            bars.update(task, total=devices)
            advance(bars, task, label)

        written = edgevit.report(
            out,
            device=None if content.device is None else split(content.device, "device"),
            published=content.published,
            dataset=content.dataset,
            confidence=content.confidence,
            predict=not content.measured_only,
            artifacts=content.artifacts,
            db=db,
            on_device=show_device,
        )
    if output.as_json:
        facts = {"rows": written.rows, "predictions": written.predictions, "devices": written.devices}
        size_mb = written.size_bytes / 1e6
        more = {"problems": written.problems, "left_out": written.left_out}
        print_json({"file": str(out), "size_mb": size_mb, **facts, **more})
        return
    and_predicted = f" and {written.predictions} predictions" if written.predictions else ""
    size = f"{written.size_bytes / 1e6:.1f} MB"
    say(f"{written.rows} rows{and_predicted} of {len(written.devices)} device(s) -> {out}, {size}")
    for source, count in written.left_out.items():
        say(f"left out: {count} rows from {source}, which is not trusted (edgevit db trust)")
    for problem in written.problems:
        say(f"not read: {problem}")


def draw(choice: Choice | JointChoice, path: Path) -> None:
    """Draw a choice for `edgevit choose --plot`. Raise what edgevit.reporting.plot raises."""
    from edgevit.reporting import plot

    plot(choice, path)
