"""`edgevit export`: verified artifacts, one per target and precision."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import (
    error_fields,
    print_json,
    print_table,
    progress,
    report_error,
    say,
    say_weights,
    split,
    warn,
)
from edgevit.cli.options import (
    DbOption,
    FormOption,
    LabelsOption,
    ModelArgument,
    OutOption,
    OutputOptions,
    PreprocessingOptions,
    QuantizationOptions,
    SampleOptions,
    SourceOptions,
    grouped,
)
from edgevit.errors import EdgevitError, UsageError
from edgevit.records.tuning import DEFAULT

if TYPE_CHECKING:
    from rich.progress import Progress

    from edgevit.exporting.forked_exports import Export
    from edgevit.records.artifact import Artifact, ExportRequest
    from edgevit_runtime.record import Recipe

ALL = "all"
_STAGES = 3  # that a progress bar can name: fold, export, verify


@dataclass(frozen=True)
class FormOptions(PreprocessingOptions, SampleOptions, QuantizationOptions):
    """Which form of the model an artifact holds, and which options its target gets."""

    batch_size: Annotated[int, typer.Option(min=1, help="Batch size of the artifact")] = 1
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="Open batch size")] = False
    unfolded: Annotated[bool, typer.Option("--unfolded", help="Training form, for comparisons")] = False
    form: FormOption = DEFAULT
    embed_preprocess: Annotated[
        bool, typer.Option("--embed-preprocess", help="Input of uint8 images (N, H, W, 3), normalized inside")
    ] = False
    labels: LabelsOption = None
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Option of the target, from `edgevit targets --json`; repeatable"),
    ] = None
    compute_capability: Annotated[str | None, typer.Option(help="GPU generations to build engines for: 8.6,8.9")] = None


@grouped
def run(
    model: ModelArgument,
    target: Annotated[
        str,
        typer.Option("--target", "-t", help="Names from `edgevit targets`, with commas between, or all that can"),
    ],
    precision: Annotated[
        str, typer.Option(help="Precisions with commas between: fp32, fp16, bf16, int8, w8, w6")
    ] = "fp32",
    out: OutOption = Path("artifacts"),
    *,
    source: SourceOptions,
    form: FormOptions,
    db: DbOption = None,
    output: OutputOptions,
) -> None:
    """Fold, export and verify a model; what fails verification is quarantined (exit code 4).

    Each target and precision is exported in a process of its own, and one of several that fails stops no other.
    """
    from edgevit.exporting.forked_exports import exports_of
    from edgevit.recipes import require_torch
    from edgevit.sweeps.tunings import with_tuning

    require_torch()
    requests = [with_tuning(one, db) for one in read_requests(model, target, precision, out, source, form)]
    artifacts: list[Artifact] = []
    failed: list[EdgevitError] = []
    with progress(output.hides_progress) as bars, exports_of(requests) as run_export:
        for request in requests:
            try:
                artifacts.append(_export(request, db, bars, run_export))
            except EdgevitError as error:
                if len(requests) == 1:
                    raise
                failed.append(error)
    show(artifacts, failed, as_json=output.as_json, verbose=bool(output.verbose))
    if failed:
        raise typer.Exit(failed[0].exit_code)


def read_requests(
    model: str, target: str, precision: str, out: Path, source: SourceOptions, form: FormOptions
) -> list[ExportRequest]:
    """Return the requests of a command line. Raises UsageError where an option makes no sense for a target."""
    from edgevit.exporting.requirements import check_request
    from edgevit.recipes import load_recipe
    from edgevit.records.artifact import ExportRequest, SampleRequest

    dtypes = ["uint8"] if form.embed_preprocess else []
    names, precisions = split(target, "target"), split(precision, "precision")
    pairs = plan(names, precisions, dynamic_batch=form.dynamic_batch, dtypes=dtypes)
    recipes = {name: load_recipe(name).RECIPE for name, _ in pairs}
    options = read_options(form.option or [], recipes, form.compute_capability)
    for name, wished in pairs:
        check_request(load_recipe(name), wished, options=options[name])
    return [
        ExportRequest(
            name,
            out,
            wished,
            model,
            weights=source.weights,
            weights_key=source.weights_key,
            seed=source.seed,
            input_size=source.size,
            input_shapes=source.shapes,
            preprocessing=form.stated,
            batch=form.batch_size,
            dynamic_batch=form.dynamic_batch,
            unfolded=form.unfolded,
            form=form.form,
            embed_preprocess=form.embed_preprocess,
            labels=form.labels,
            options=options[name],
            samples=SampleRequest(form.value_range, form.samples),
            quantization=form.quantization,
        )
        for name, wished in pairs
    ]


def plan(
    targets: Sequence[str], precisions: Sequence[str], *, dynamic_batch: bool = False, dtypes: Sequence[str] = ()
) -> list[tuple[str, str]]:
    """Return each target in each of the precisions that it has; `all` stands for those that are installed and can.

    Raises UsageError where a target named has none of them, or takes no open batch or no such inputs, and where `all`
    stands for none; TargetUnavailableError where its tools are missing.
    """
    from edgevit.exporting.requirements import check_request
    from edgevit.recipes import list_recipes, load_recipe, missing

    names = [recipe.target for recipe in list_recipes() if not missing(recipe)] if ALL in targets else targets
    pairs, refusals = list[tuple[str, str]](), list[UsageError]()
    for name in names:
        recipe = load_recipe(name)
        offered = [artifact for artifact in precisions if artifact in recipe.RECIPE.precisions]
        for artifact in offered or precisions[:1]:  # the first says what is offered
            try:
                check_request(recipe, artifact, dynamic_batch=dynamic_batch, dtypes=dtypes)
                pairs.append((recipe.RECIPE.target, artifact))
            except UsageError as error:
                refusals.append(error)
    if refusals and not (pairs and ALL in targets):
        raise refusals[0]
    return pairs


def _export(request: ExportRequest, db: str | None, bars: Progress, run_export: Export) -> Artifact:
    """Export in a process of its own, with a progress row."""
    from edgevit.verbs.export import export_named

    label = f"{request.target} {request.precision}"
    task = bars.add_task(label, total=_STAGES)

    def on_stage(stage: str) -> None:
        bars.update(task, description=f"{label}: {stage}", advance=1)

    return export_named(request, db, run=run_export, on_stage=on_stage, on_wait=warn)


def show(artifacts: Sequence[Artifact], failed: Sequence[EdgevitError], *, as_json: bool, verbose: bool) -> None:
    """Print the artifacts and the errors."""
    if as_json:
        print_json({"artifacts": artifacts, "failures": [error_fields(error) for error in failed]})
        return
    say_weights(artifact.source for artifact in artifacts)
    for artifact in artifacts:
        say(finishing_line(artifact))
    proofs = [artifact.parity for artifact in artifacts if artifact.parity is not None and artifact.parity.checks]
    for label in dict.fromkeys(parity.network.label for parity in proofs if parity.network is not None):
        say(f"compared with {label}")
    if verbose:
        for artifact in artifacts:
            print_checks(artifact)
    if len({artifact.target for artifact in artifacts}) == 1 or verbose:
        for artifact in {artifact.target: artifact for artifact in reversed(artifacts)}.values():
            for line in ("", f"To run {artifact.payload}:", "", *snippet(artifact).splitlines()):
                say(line)
    runs_here = [
        artifact for artifact in artifacts if artifact.parity is not None and artifact.parity.status == "passed"
    ]
    if runs_here:
        say(f"next: edgevit profile {runs_here[0].folder} --threads 1")
    for error in failed:
        report_error(error, as_json=False, verbose=verbose)


def read_options(
    texts: Sequence[str], recipes: Mapping[str, Recipe], compute_capability: str | None = None
) -> dict[str, dict[str, str]]:
    """Return NAME=VALUE texts as options of the targets that take them. Raise UsageError where none does."""
    if compute_capability is not None:
        texts = [*texts, f"compute_capability={compute_capability}"]
    values: dict[str, dict[str, str]] = {target: {} for target in recipes}
    for text in texts:
        name, sign, value = text.partition("=")
        takers = [target for target, recipe in recipes.items() if name in recipe.options]
        if not sign or not takers:
            offered = (
                ", ".join(sorted({artifact for recipe in recipes.values() for artifact in recipe.options})) or "none"
            )
            why = "an option is NAME=VALUE" if not sign else f"{' and '.join(recipes)}: {offered}"
            raise UsageError(f"no option {text!r}", why=why, fix="edgevit targets --json lists options")
        for target in takers:
            values[target][name] = value
    return values


def finishing_line(artifact: Artifact) -> str:
    """Return `onnx fp32 9.1 s, 18.9 MB, 127 operators, passed: max_rel 6.7e-07, 2 noise, 3 photographs -> FOLDER`."""
    seconds = sum(stage.seconds for stage in artifact.stages)
    counts, fallbacks = artifact.operators.counts, artifact.operators.fallbacks
    slow = f" ({sum(fallbacks.values())} left to slower kernels)" if fallbacks else ""
    facts = [f"{artifact.size_bytes / 1e6:.1f} MB", f"{sum(counts.values())} operators{slow}"]
    facts += [*_int8_facts(artifact), _proof(artifact)]
    return f"{artifact.target} {artifact.precision} {seconds:.1f} s, {', '.join(facts)} -> {artifact.folder}"


def _int8_facts(artifact: Artifact) -> Iterator[str]:
    """Yield how much of an artifact is in int8, by its numbers and by its engine's own form of it."""
    quantization, kernels = artifact.quantization, artifact.operators.int8
    if quantization is None:
        return
    yield quantization.summary
    layers = len(quantization.layers) - len(quantization.excluded)
    if kernels is not None and sum(kernels.values()) < layers:
        yield f"only {sum(kernels.values())} of them in the engine's int8 kernels here"


BUILT = ("built_not_run", "needs_processor")  # the statuses of Parity whose finished file nothing computed


def _proof(artifact: Artifact) -> str:
    from edgevit.recipes import load_recipe

    parity = artifact.parity
    if parity is None:
        return "unverified"
    needs = load_recipe(artifact.target).RECIPE.needs or "an engine"
    label = {
        "evaluated": f"evaluated (running it needs {needs})",
        "built_not_run": f"built, not run (it needs {needs})",
        "needs_processor": f"built, not run (it needs a processor with {parity.needs})",
    }
    number = "nothing compared" if parity.max_rel is None else f"max_rel {parity.max_rel:.1e}"
    progress_made = f" up to stage {parity.checks[-1].stage}" if parity.status in BUILT and parity.checks else ""
    return f"{label.get(parity.status, parity.status)}: {number}{progress_made}, {parity.inputs}"


def print_checks(artifact: Artifact) -> None:
    """Print every comparison, stage by stage, and what computed it."""
    checks = artifact.parity.checks if artifact.parity else ()
    rows = [
        (
            check.stage,
            check.against,
            *check.figures,
            "; ".join(filter(None, (check.tolerance, check.problem))),
            check.how,
        )
        for check in checks
    ]
    print_table(("stage", "against", ">max_rel", ">SNR dB", "tolerance", "by"), rows, title=_title(artifact))


def _title(artifact: Artifact) -> str:
    graph = f", graph {artifact.graph_digest[:12]}" if artifact.graph_digest else ""
    return f"{artifact.folder}{graph}"


def snippet(artifact: Artifact) -> str:
    """Return Python that runs an artifact without edgevit, with what its input has to be."""
    from edgevit.recipes import load_recipe

    lines = load_recipe(artifact.target).snippet(str(artifact.folder / artifact.payload), artifact.inputs)
    return f"# input: {_input_says(artifact)}\n{lines}"


def _input_says(artifact: Artifact) -> str:
    from edgevit.records.input_shapes import describe_inputs
    from edgevit.records.preprocessing import describe_assumed, takes_image

    preprocessing = artifact.preprocessing
    if not takes_image(artifact.model_inputs):
        return describe_inputs(artifact.inputs)
    assumed = describe_assumed(preprocessing)
    caveat = f"; assumed, not stated: {assumed}" if assumed else ""
    if artifact.preprocessing_inside:
        return f"pixels 0 to 255, {preprocessing.colour}, height x width x channels{caveat}"
    numbers = f"(pixel / 255 - {preprocessing.mean}) / {preprocessing.std}"
    if preprocessing.range != (0.0, 1.0):
        low, high = preprocessing.range
        numbers = f"(pixel / 255 * {high - low:g} + {low:g} - {preprocessing.mean}) / {preprocessing.std}"
    return f"{preprocessing.layout}, {preprocessing.colour}, {numbers}{caveat}"
