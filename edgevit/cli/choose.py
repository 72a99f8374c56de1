"""`edgevit choose`: the most accurate model that fits a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgevit.cli.common import print_json, say, split, warn
from edgevit.cli.options import DbOption, EarlierKeyOption, OriginOption, OutOption, OutputOptions, QuickOption, grouped
from edgevit.cli.report import PlotOption, draw
from edgevit.records.artifact import WeightsRequest

if TYPE_CHECKING:
    from edgevit.cli.choose_export import Sources
    from edgevit.records.artifact import Artifact
    from edgevit.records.choice import Budget, Choice, JointChoice
    from edgevit.selection import CandidateFilter, Question

EXIT_CODES = {"chosen": 0, "infeasible": 3, "unsupported": 5, "unmeasured": 6, "no_accuracy": 7}


@dataclass(frozen=True)
class BudgetOptions:
    """The limits that a candidate must meet."""

    max_latency: Annotated[
        str | None,
        typer.Option("--max-latency", "--budget", help="Latency budget, as 33ms, 0.033s or 30fps; 33 means ms"),
    ] = None
    percentile: Annotated[int, typer.Option(help="Latency percentile of the budget, 1-99")] = 90
    min_top1: Annotated[float | None, typer.Option(help="Lowest top-1 accuracy in percent")] = None
    max_size_mb: Annotated[float | None, typer.Option(help="Largest artifact, 10^6 bytes")] = None
    max_memory_mb: Annotated[float | None, typer.Option(help="Highest memory of the process, 10^6 bytes")] = None
    max_energy_mj: Annotated[float | None, typer.Option(help="Highest energy of a run in millijoules")] = None
    objective: Annotated[str, typer.Option(help="Number by which what fits ranks: accurate, fastest or smallest")] = (
        "accurate"
    )

    def budget(self) -> Budget:
        """Return the budget. Raises UsageError for a latency that makes no sense, UnknownNameError for an objective."""
        from edgevit.records.choice import Budget
        from edgevit.selection import objective_named, parse_latency

        latency_ms = None if self.max_latency is None else parse_latency(self.max_latency)
        sizes = (self.max_size_mb, self.max_memory_mb, self.max_energy_mj)
        return Budget(latency_ms, self.percentile, self.min_top1, *sizes, objective_named(self.objective))


@dataclass(frozen=True)
class FilterOptions:
    """The candidates in question."""

    models: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="Models in question, as mine.py:* or mobilevig_*, with commas between"),
    ] = None
    task: Annotated[str, typer.Option(help="Task of the models in question; any: all tasks")] = "classify"
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="Targets in question, with commas between; default: all")
    ] = None
    precision: Annotated[str | None, typer.Option(help="Precisions in question, with commas between; default: all")] = (
        None
    )
    engine: Annotated[str | None, typer.Option(help="Engines in question, with commas between; default: all")] = None
    threads: Annotated[int | None, typer.Option(min=1, help="Thread count in question; default: all")] = None
    licence: Annotated[
        str | None, typer.Option(help="Licences of models in question, with commas between; default: all")
    ] = None
    published: Annotated[bool, typer.Option("--published", help="Include rows that others published")] = False
    reconstructed: Annotated[
        bool, typer.Option("--reconstructed", help="Include models rebuilt from papers that released no weights")
    ] = False

    outdated: Annotated[
        bool, typer.Option("--outdated", help="Include networks whose checkpoint or code was overwritten here")
    ] = False
    allow_unevaluated: Annotated[
        bool,
        typer.Option("--allow-unevaluated", help="Networks in int8 count by a bound where they were not evaluated"),
    ] = False

    def candidate_filter(self) -> CandidateFilter:
        """Return the filter. Raises UsageError for an empty list, UnknownNameError for an unknown target."""
        from edgevit.selection import CandidateFilter, targets_named

        return CandidateFilter(
            targets=targets_named(_names(self.target, "target")),
            precisions=_names(self.precision, "precision"),
            threads=self.threads,
            published=self.published,
            engines=_names(self.engine, "engine"),
            licences=_names(self.licence, "licence"),
            reconstructed=self.reconstructed,
            models=_names(self.models, "model"),
            task=self.task,
            outdated=self.outdated,
            unevaluated=self.allow_unevaluated,
        )


@dataclass(frozen=True)
class EvidenceOptions:
    """The numbers that an answer is made by."""

    confidence: Annotated[float, typer.Option(help="Confidence of predicted upper bounds")] = 0.9
    measured_only: Annotated[bool, typer.Option("--measured-only", help="No predictions, measured rows alone")] = False
    dataset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Data set of accuracies from `edgevit evaluate`; default: published, ImageNet"
        ),
    ] = None
    origin: OriginOption = "trusted"


@dataclass(frozen=True)
class ViewOptions:
    """The form in which an answer is shown."""

    pareto: Annotated[
        bool, typer.Option("--pareto", help="All candidates that no other beats in accuracy and latency")
    ] = False
    why: Annotated[bool, typer.Option("--why", help="Every candidate with the reasons against it")] = False
    plot: PlotOption = None


@dataclass(frozen=True)
class ActionOptions:
    """What is measured and exported on top of an answer."""

    measure: Annotated[
        bool, typer.Option("--measure", help="Measure the suggestions that may change the answer, and choose again")
    ] = False
    export: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder to hand over the picked artifact in, verified")
    ] = None
    weights: Annotated[
        Path | None, typer.Option(help="Checkpoint file of the pick, where its artifact is not here")
    ] = None
    weights_key: EarlierKeyOption = ""
    labels: Annotated[
        Path | None, typer.Option(help="Text file with the labels of the pick, where its artifact is not here")
    ] = None
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="Permission to hand over random weights, for trials of an engine")
    ] = False
    artifacts: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDERS", help="Artifacts that may be measured or handed over, or folders of them, commas between"
        ),
    ] = None
    out: OutOption = Path("artifacts")
    quick: QuickOption = False

    @property
    def weights_request(self) -> WeightsRequest:
        """The weights of the picked model for its export."""
        return WeightsRequest(self.weights, self.weights_key)


@grouped
def run(
    limits: BudgetOptions,
    device: Annotated[
        str,
        typer.Option("--device", "-d", help="Device name, id or class; several with commas: fit on all of them"),
    ] = "local",
    *,
    filters: FilterOptions,
    evidence: EvidenceOptions,
    view: ViewOptions,
    actions: ActionOptions,
    db: DbOption = None,
    output: OutputOptions,
) -> None:
    """Choose the most accurate model whose latency's upper bound fits; exit code 3 if none does.

    Exit code 5: no candidate in question runs there; 6: a candidate may fit that was not measured; 7: candidates fit,
    and the accuracy of none is known.
    """
    question = _question(device, limits, filters, evidence)
    artifacts = _opened(actions.artifacts)
    choice = _answer(question, db)
    results: dict[str, Any] = {}
    if actions.measure or actions.export is not None:
        sources = _sources(actions, artifacts, filters)
    if actions.measure:
        choice = _measure(choice, question, sources, actions, db, output, results)
    if actions.export is not None:
        from edgevit.cli.choose_export import hand_over

        results["exported"] = hand_over(choice, sources, actions.export, db)
    if view.plot is not None:
        draw(choice, view.plot)
    if output.as_json:
        print_json({**vars(choice), **results})
    else:
        _show(choice, view, results, predicts=question.prediction.enabled)
    if code := EXIT_CODES[choice.outcome]:
        raise typer.Exit(code)


def _question(device: str, limits: BudgetOptions, filters: FilterOptions, evidence: EvidenceOptions) -> Question:
    from edgevit.selection import PredictionOptions, Question, origin_named

    prediction = PredictionOptions(not evidence.measured_only, evidence.confidence)
    devices, origin = tuple(split(device, "device")), origin_named(evidence.origin)
    return Question(devices, limits.budget(), filters.candidate_filter(), prediction, evidence.dataset, origin)


def _names(text: str | None, kind: str) -> list[str] | None:
    return None if text is None else split(text, kind)


def _opened(folders: str | None) -> list[Artifact]:
    """Open the artifacts in these folders and below them, which checks every byte. Warn of those that are damaged."""
    from edgevit.artifacts.folder import read_artifacts

    opened: list[Artifact] = []
    for folder in split(folders, "folder") if folders else []:
        artifacts, errors = read_artifacts(Path(folder))
        opened += artifacts
        for error in errors:
            warn(f"not read: {'; '.join(error.lines()[:3])}")
    return opened


def _answer(question: Question, db: str | None) -> Choice | JointChoice:
    from edgevit.selection import answers, choose_jointly
    from edgevit.store import LatencyDB

    with LatencyDB.open(db, create_file=False) as database:
        choices = answers(database, question)
    return choices[0] if len(choices) == 1 else choose_jointly(choices)


def _measure(
    choice: Choice | JointChoice,
    question: Question,
    sources: Sources,
    actions: ActionOptions,
    db: str | None,
    output: OutputOptions,
    results: dict[str, Any],
) -> Choice | JointChoice:
    """Measure the suggestions, add the rows to the results, and return the new answer."""
    from edgevit.cli.choose_actions import measure_suggested
    from edgevit.cli.profile import print_rows, summary

    rows = measure_suggested(choice, sources, quick=actions.quick, db=db, quiet=output.hides_progress)
    results["measured"] = [summary(row) for row in rows]
    if rows and not output.as_json:
        print_rows(rows)
    return _answer(question, db) if rows else choice


def _sources(actions: ActionOptions, artifacts: Sequence[Artifact], filters: FilterOptions) -> Sources:
    from edgevit.cli.choose_export import Sources

    named = frozenset(_names(filters.models, "model") or ())
    weights = actions.weights_request
    return Sources(artifacts, actions.out, weights, actions.random_weights, actions.labels, named)


def _show(choice: Choice | JointChoice, view: ViewOptions, results: dict[str, Any], *, predicts: bool) -> None:
    from edgevit.cli.choose_output import print_choice

    print_choice(choice, pareto=view.pareto, why=view.why, predicts=predicts)
    for exported in results.get("exported", []):
        say(f"exported: {exported['folder']} ({exported['says']})")
