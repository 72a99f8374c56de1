"""`edgevit choose`: the most accurate model that fits a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgevit.cli.common import print_json, say, split
from edgevit.cli.options import DbOption, JsonOption, OutOption, QuickOption, QuietOption, VerboseOption
from edgevit.cli.report import PlotOption, draw

if TYPE_CHECKING:
    from edgevit.records.artifact import Artifact
    from edgevit.records.choice import Choice, JointChoice
    from edgevit.selection import Question

EXIT_CODES = {"chosen": 0, "infeasible": 3, "unsupported": 5, "unmeasured": 6}


def run(
    max_latency: Annotated[str | None, typer.Option(help="25ms, 0.025s, 25000us; 25 means ms")] = None,
    device: Annotated[
        str,
        typer.Option("--device", "-d", help="a name, id or class; several, with commas between: fits on all of them"),
    ] = "local",
    percentile: Annotated[int, typer.Option(help="of the latency that the budget is for: 1 to 99")] = 90,
    min_top1: Annotated[float | None, typer.Option(help="top-1 accuracy in percent")] = None,
    max_size_mb: Annotated[float | None, typer.Option(help="of the artifact, 10^6 bytes")] = None,
    max_memory_mb: Annotated[float | None, typer.Option(help="of the process at its largest, 10^6 bytes")] = None,
    max_energy_mj: Annotated[float | None, typer.Option(help="per run, in millijoules")] = None,
    target: Annotated[str | None, typer.Option("--target", "-t", help="only these, with commas between")] = None,
    precision: Annotated[str | None, typer.Option(help="only these, with commas between")] = None,
    engine: Annotated[str | None, typer.Option(help="only these, with commas between")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="only this thread count")] = None,
    licence: Annotated[str | None, typer.Option(help="of the model; only these, with commas between")] = None,
    published: Annotated[bool, typer.Option("--published", help="rows that others published count, too")] = False,
    reconstructed: Annotated[
        bool, typer.Option("--reconstructed", help="models count whose papers published no weights, too")
    ] = False,
    confidence: Annotated[float, typer.Option(help="with which what is predicted fits")] = 0.9,
    measured_only: Annotated[
        bool, typer.Option("--measured-only", help="predict nothing: only what somebody measured counts")
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="by what `edgevit evaluate` measured on it; default: published, ImageNet"),
    ] = None,
    pareto: Annotated[
        bool, typer.Option("--pareto", help="all that nothing else beats in accuracy and latency")
    ] = False,
    why: Annotated[bool, typer.Option("--why", help="every candidate, and what rejected it")] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="measure what may change the answer, and choose again")
    ] = False,
    export: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="hand over the picked artifact, verified, in this folder")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="of --export: official checkpoint; without one the weights are random")
    ] = None,
    artifacts: Annotated[
        str | None, typer.Option(help="folders of artifacts that may be measured or handed over, with commas between")
    ] = None,
    out: OutOption = Path("artifacts"),
    quick: QuickOption = False,
    plot: PlotOption = None,
    db: DbOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = 0,
) -> None:
    """Choose the most accurate model whose latency's upper bound fits; exit code 3 if none does.

    Exit code 5: nothing that was asked for runs there; 6: something may fit, and nobody measured it.
    """
    from edgevit.records.choice import Budget
    from edgevit.selection import CandidateFilter, PredictionOptions, Question, parse_latency, targets_named

    candidate_filter = CandidateFilter(
        targets=targets_named(None if target is None else split(target, "target")),
        precisions=None if precision is None else split(precision, "precision"),
        threads=threads,
        published=published,
        engines=None if engine is None else split(engine, "engine"),
        licences=None if licence is None else split(licence, "licence"),
        reconstructed=reconstructed,
    )
    limit = None if max_latency is None else parse_latency(max_latency)
    asked = Question(
        tuple(split(device, "device")),
        Budget(limit, percentile, min_top1, max_size_mb, max_memory_mb, max_energy_mj),
        candidate_filter,
        PredictionOptions(not measured_only, confidence),
        dataset,
    )
    held = _opened(artifacts)
    choice = _answer(asked, db)
    more: dict[str, Any] = {}
    if measure:
        from edgevit.cli.choose_actions import measure_suggested
        from edgevit.cli.profile import print_rows, summary

        rows = measure_suggested(choice, held, out, quick=quick, db=db, quiet=quiet or as_json)
        more["measured"] = [summary(row) for row in rows]
        if rows and not as_json:
            print_rows(rows)
        choice = _answer(asked, db) if rows else choice
    if export is not None:
        from edgevit.cli.choose_actions import hand_over

        more["exported"] = hand_over(choice, held, export, weights, db)
    if plot is not None:
        draw(choice, plot)
    if as_json:
        print_json({**vars(choice), **more})
    else:
        from edgevit.cli.choose_output import print_choice

        print_choice(choice, pareto=pareto, why=why, predicts=not measured_only)
        for item in more.get("exported", []):
            say(f"exported: {item['folder']} ({item['says']})")
    if code := EXIT_CODES[choice.outcome]:
        raise typer.Exit(code)


def _opened(folders: str | None) -> list[Artifact]:
    """The artifacts in these folders, every byte of them checked."""
    from edgevit.artifacts.folder import open_artifact

    return [open_artifact(Path(item)) for item in split(folders, "folder")] if folders else []


def _answer(asked: Question, db: str | None) -> Choice | JointChoice:
    from edgevit.selection import answers, joint
    from edgevit.store import LatencyDB

    with LatencyDB.open(db) as database:
        found = answers(database, asked)
    return found[0] if len(found) == 1 else joint(found)
