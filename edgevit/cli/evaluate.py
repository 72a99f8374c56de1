"""`edgevit evaluate`: the accuracy of artifacts on a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgevit.cli.common import describe_size, error_fields, print_json, print_table, progress, report_error, say
from edgevit.cli.options import (
    ArtifactsArgument,
    DatabaseOptions,
    EarlierKeyOption,
    ModelAgainOption,
    OutputOptions,
    PreprocessingOptions,
    grouped,
)
from edgevit.errors import EdgevitError

if TYPE_CHECKING:
    from rich.progress import Progress

    from edgevit.evaluation import Evaluation, Proportion
    from edgevit.records.artifact import Artifact

_SHOWN = 10  # unreadable files by name; --json names all


@dataclass(frozen=True)
class ImageOptions(PreprocessingOptions):
    """Which images are classified, how they are called, and how they become inputs."""

    limit: Annotated[
        int | None, typer.Option(min=1, help="Number of images, drawn at random, the same each time; default: all")
    ] = None
    classes: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File of class folder names in the order of the outputs, one per line"),
    ] = None
    dataset: Annotated[
        str, typer.Option(metavar="NAME", help="Name of the data set; default: the folder's", show_default=False)
    ] = ""
    skip_unreadable: Annotated[
        bool, typer.Option("--skip-unreadable", help="Leave out and count files that cannot be read")
    ] = False


@dataclass(frozen=True)
class ReferenceOptions:
    """Whether the model itself is evaluated beside its artifact."""

    against_model: Annotated[
        bool, typer.Option("--against-model", help="Number of images whose class the export changed, by torch")
    ] = False
    weights: Annotated[
        Path | None, typer.Option(help="Checkpoint that the artifact was made from, for --against-model")
    ] = None
    weights_key: EarlierKeyOption = ""
    model: ModelAgainOption = ""


@grouped
def run(
    artifacts: ArtifactsArgument,
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="Folder of class folders: FOLDER/CLASS/image.jpg")],
    images: ImageOptions,
    reference: ReferenceOptions,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of engine threads; default: all cores")] = None,
    batch_size: Annotated[
        int | None,
        typer.Option("--batch-size", "--batch", min=1, help="Batch size for artifacts with an open batch; default: 1"),
    ] = None,
    *,
    database: DatabaseOptions,
    output: OutputOptions,
) -> None:
    """Measure top-1 and top-5 accuracy through exported artifacts, and keep it."""
    require_pillow()
    from edgevit.artifacts.folder import open_artifact

    opened = [open_artifact(folder) for folder in artifacts]
    evaluations: list[Evaluation] = []
    failed: list[EdgevitError] = []
    for artifact in opened:
        try:
            with progress(output.hides_progress) as bars:
                evaluations.append(_evaluate(artifact, data, images, reference, threads, batch_size, database, bars))
        except EdgevitError as error:
            if len(opened) == 1:
                raise
            failed.append(error)
    if output.as_json:
        print_json(
            {
                "evaluations": [_data(evaluation) for evaluation in evaluations],
                "failures": [error_fields(evaluation) for evaluation in failed],
            }
        )
    else:
        show(evaluations)
        for failure in failed:
            report_error(failure, as_json=False, verbose=bool(output.verbose))
    if failed:
        raise typer.Exit(failed[0].exit_code)


def _evaluate(
    artifact: Artifact,
    data: Path,
    images: ImageOptions,
    reference: ReferenceOptions,
    threads: int | None,
    batch_size: int | None,
    database: DatabaseOptions,
    bars: Progress,
) -> Evaluation:
    """Evaluate one artifact with a progress bar; its rows enter the database at once."""
    import edgevit

    task = bars.add_task(artifact.folder.name, total=None)
    return edgevit.evaluate(
        artifact,
        data,
        limit=images.limit,
        classes=images.classes,
        dataset=images.dataset,
        skip_unreadable=images.skip_unreadable,
        preprocessing=images.statements,
        **{**vars(reference), "model": reference.model or None},
        threads=threads,
        batch_size=batch_size,
        trust=database.trust,
        db=database.db,
        on_progress=lambda finished, total: bars.update(task, completed=finished, total=total),
    )


def _data(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as JSON data, with shares beside their counts."""
    shown_apart = ("top1", "top5", "agreement", "confusion")
    fields = {name: value for name, value in vars(evaluation).items() if name not in shown_apart}
    labels, counts = evaluation.confusion.labels, evaluation.confusion.counts
    agreement = evaluation.agreement
    model = None if agreement is None else {**vars(agreement), "top1": _rate(agreement.top1)}
    return {
        **fields,
        "top1": _rate(evaluation.top1),
        "top5": _rate(evaluation.top5),
        "agreement": model,
        "confusion": {"labels": labels, "counts": counts},
    }


def _rate(rate: Proportion | None) -> dict[str, Any] | None:
    if rate is None:
        return None
    low, high = rate.interval_percent
    fields = {"percent": rate.percent, "error_percent": rate.error_percent, "low_percent": low, "high_percent": high}
    return {"right": rate.right, "images": rate.total, **fields}


def show(evaluations: Sequence[Evaluation]) -> None:
    """Print each evaluation, then notes on the numbers."""
    from edgevit.cards import load_cards
    from edgevit.records.model import IMAGENET
    from edgevit.records.network import network_labels
    from edgevit.records.preprocessing import describe_preprocessing, state_options

    if not evaluations:
        return
    cards = load_cards()
    labels, sizes = network_labels(evaluations), {evaluation.input_shape for evaluation in evaluations}
    names = ["model", *["weights"] * bool(labels), *["input"] * (len(sizes) > 1), "target", "prec."]
    columns = (*names, ">images", ">top-1 %", "95% interval", ">top-5 %", ">published", ">images/s")
    lines = []
    for evaluation in evaluations:
        card = cards.get(evaluation.model) if evaluation.dataset == IMAGENET else None
        low, high = evaluation.top1.interval_percent
        speed = f"{evaluation.top1.total / evaluation.seconds:.0f}"
        rates = (
            f"{evaluation.top1.percent:.2f}{' assumed' * bool(evaluation.assumed)}",
            f"{low:.2f} .. {high:.2f}",
            f"{evaluation.top5.percent:.2f}" if evaluation.top5 else "",
        )
        lines.append(
            (
                evaluation.model,
                *([labels.get((evaluation.model, evaluation.network_id), "")] if labels else []),
                *([describe_size(evaluation.input_shape)] if len(sizes) > 1 else []),
                evaluation.target,
                evaluation.precision,
                evaluation.top1.total,
                *rates,
                card and card.top1_percent,
                speed,
            )
        )
    print_table(columns, lines)
    for evaluation in evaluations:
        say(f"measured: {evaluation.dataset}, {evaluation.images}; {evaluation.engine}")
        say(evaluation.class_order)
        say(f"preprocessing: {describe_preprocessing(evaluation.preprocessing)}")
        if options := state_options(evaluation.preprocessing):
            say(f"assumed, so check it and state it: {options}")
        if evaluation.agreement is not None:
            model = evaluation.agreement
            say(
                f"the model itself, in torch: {model.top1.percent:.2f}%; the artifact gives {model.changed} of "
                f"{model.top1.total} images another class: {model.lost} it loses, {model.gained} it gains"
            )
        for note in evaluation.notes:
            say(f"note: {note}")
        for text in evaluation.unreadable[:_SHOWN]:
            say(f"unreadable: {text}")


def require_pillow() -> None:
    """Raise TargetUnavailableError with the command that mends it where Pillow or SciPy is missing."""
    import importlib.util

    from edgevit.errors import TargetUnavailableError

    for module, name in (("PIL", "pillow"), ("scipy", "scipy")):
        if importlib.util.find_spec(module) is None:
            problem = f"this needs {name}, which is not installed"
            raise TargetUnavailableError(problem, fix="pip install 'edgevit[evaluate]'")
