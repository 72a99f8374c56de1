"""`edgevit report`: the database as one HTML file; and what `edgevit choose --plot` needs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import advance, print_json, progress, say, split
from edgevit.cli.options import DbOption, JsonOption

if TYPE_CHECKING:
    from edgevit.records.choice import Choice, JointChoice

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
    import edgevit

    with progress(as_json) as bars:
        task = bars.add_task("", total=None)

        def show_device(label: str, devices: int) -> None:
            bars.update(task, total=devices)
            advance(bars, task, label)

        written = edgevit.report(
            out,
            device=None if device is None else split(device, "device"),
            published=published,
            dataset=dataset,
            confidence=confidence,
            predict=not measured_only,
            artifacts=artifacts,
            db=db,
            on_device=show_device,
        )
    if as_json:
        facts = {"rows": written.rows, "predictions": written.predictions, "devices": written.devices}
        size_mb = written.size_bytes / 1e6
        print_json({"file": str(out), "size_mb": size_mb, **facts, "problems": written.problems})
        return
    and_predicted = f" and {written.predictions} predictions" if written.predictions else ""
    size = f"{written.size_bytes / 1e6:.1f} MB"
    say(f"{written.rows} rows{and_predicted} of {len(written.devices)} device(s) -> {out}, {size}")
    for problem in written.problems:
        say(f"not read: {problem}")


def draw(choice: Choice | JointChoice, path: Path) -> None:
    """For `edgevit choose --plot`. Raises what edgevit.reporting.plot raises."""
    from edgevit.reporting import plot

    plot(choice, path)
