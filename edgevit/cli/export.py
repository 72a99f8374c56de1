"""`edgevit export`: verified artifacts, one per target and precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import (
    DbOption,
    InputSizeOption,
    JsonOption,
    ModelArgument,
    OutOption,
    QuietOption,
    SeedOption,
    VerboseOption,
    WeightsOption,
    advance,
    parse_input_size,
    print_json,
    print_table,
    progress,
    say,
    split,
)
from edgevit.errors import UsageError

if TYPE_CHECKING:
    from edgevit.types import Artifact
    from edgevit_runtime.record import Recipe

_STAGES = 3  # that a progress bar can name: fold, export, verify


def run(
    model: ModelArgument,
    target: Annotated[str, typer.Option("--target", "-t", help="names of `edgevit targets`, with commas between")],
    precision: Annotated[str, typer.Option(help="fp32, fp16; several with commas between")] = "fp32",
    weights: WeightsOption = None,
    seed: SeedOption = 0,
    input_size: InputSizeOption = None,
    batch_size: Annotated[int, typer.Option(min=1, help="of the artifact")] = 1,
    dynamic_batch: Annotated[bool, typer.Option("--dynamic-batch", help="leave the batch open")] = False,
    unfolded: Annotated[bool, typer.Option("--unfolded", help="export the training form, to compare")] = False,
    out: OutOption = Path("artifacts"),
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="of the target: `edgevit targets --json`; repeatable")
    ] = None,
    compute_capability: Annotated[str | None, typer.Option(help="GPUs to build engines for: 8.6,8.9")] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Fold, export and verify a model; what fails verification is quarantined (exit code 4)."""
    from edgevit.recipes import require_torch

    require_torch()
    from edgevit.export import check_request
    from edgevit.pipeline import Order, export_subject
    from edgevit.recipes import load_recipe
    from edgevit.subject import load_subject
    from edgevit.sweep import record_built

    pairs = [(t, p) for t in split(target, "target") for p in split(precision, "precision")]
    for name, wanted in pairs:
        check_request(load_recipe(name), wanted)
    options = read_options(option or [], {name: load_recipe(name).RECIPE for name, _ in pairs}, compute_capability)
    size = parse_input_size(input_size)
    subject = load_subject(model, weights=weights, seed=seed, input_size=size)
    made = []
    with progress(quiet or as_json) as bars:
        task = bars.add_task("", total=len(pairs) * _STAGES)
        for name, wanted in pairs:
            order = Order(
                name,
                out,
                wanted,
                batch_size,
                dynamic_batch,
                unfolded,
                options[name],
                on_stage=lambda stage, what=f"{name} {wanted}": advance(bars, task, f"{what}: {stage}"),  # type: ignore[misc]
            )
            made.append(export_subject(subject, order))
            record_built(made[-1], db)
    if as_json:
        print_json({"artifacts": made})
        return
    for artifact in made:
        say(finishing_line(artifact))
    if verbose:
        for artifact in made:
            print_checks(artifact)
    say(snippet(made[0]))


def read_options(
    texts: Sequence[str], recipes: Mapping[str, Recipe], compute_capability: str | None = None
) -> dict[str, dict[str, str]]:
    """NAME=VALUE texts as options of each target that takes them. Raises UsageError for one that no target takes."""
    if compute_capability is not None:
        texts = [*texts, f"compute_capability={compute_capability}"]
    given: dict[str, dict[str, str]] = {target: {} for target in recipes}
    for text in texts:
        name, sign, value = text.partition("=")
        takers = [target for target, recipe in recipes.items() if name in recipe.options]
        if not sign or not takers:
            known = ", ".join(sorted({item for recipe in recipes.values() for item in recipe.options})) or "none"
            why = "an option is NAME=VALUE" if not sign else f"{' and '.join(recipes)}: {known}"
            raise UsageError(f"no option {text!r}", why=why, fix="edgevit targets --json lists options")
        for target in takers:
            given[target][name] = value
    return given


def finishing_line(artifact: Artifact) -> str:
    """`onnx fp32 9.1 s, 18.9 MB, max_rel 6.7e-07`, and where it is."""
    parity = artifact.parity
    seconds = sum(stage.seconds for stage in artifact.stages)
    proof = f"max_rel {parity.max_rel:.1e} ({parity.status}: {parity.inputs})" if parity else "unverified"
    mb = artifact.size_bytes / 1e6
    return f"{artifact.target} {artifact.precision} {seconds:.1f} s, {mb:.1f} MB, {proof} -> {artifact.folder}"


def print_checks(artifact: Artifact) -> None:
    """Every comparison that was made, stage by stage."""
    checks = artifact.parity.checks if artifact.parity else ()
    rows = [
        (c.stage, c.against, f"{c.max_rel:.1e}", "equal" if c.snr_db is None else f"{c.snr_db:.0f}", c.tolerance)
        for c in checks
    ]
    print_table(("stage", "against", ">max_rel", ">SNR dB", "tolerance"), rows, title=str(artifact.folder))


def snippet(artifact: Artifact) -> str:
    """How to go on from here."""
    return f"next: edgevit profile {artifact.folder} --threads 1"
