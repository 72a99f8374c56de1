"""`edgevit tune`: the exactly equal form that a device computes a network fastest in."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import parse_duration, print_json, print_table, progress, say
from edgevit.cli.options import (
    DbOption,
    DeviceOption,
    ModelArgument,
    OutputOptions,
    PreprocessingOptions,
    RangeOptions,
    SourceOptions,
    ThreadsOption,
    grouped,
)

if TYPE_CHECKING:
    from edgevit.records.tuning import TimeRatio, TriedForm, Tuning


@dataclass(frozen=True)
class RaceOptions(PreprocessingOptions, RangeOptions):
    """What is raced, and for how long."""

    precision: Annotated[str, typer.Option(help="Precision that the target has: fp32, fp16, bf16, int8...")] = "fp32"
    batch_size: Annotated[int, typer.Option(min=1, help="Batch size of a run")] = 1
    budget: Annotated[
        str, typer.Option(metavar="TIME", help="Time after which no more sites are tried: 90s, 10min, 1.5h")
    ] = "10min"
    data: Annotated[Path | None, typer.Option(metavar="FOLDER|FILE.npy", help="Samples that int8 is calibrated on")] = (
        None
    )
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Option of the target, from `edgevit targets --json`; repeatable"),
    ] = None


@grouped
def run(
    model: ModelArgument,
    target: Annotated[str, typer.Option("--target", "-t", help="Name from `edgevit targets`")],
    device: DeviceOption = "local",
    threads: ThreadsOption = 1,
    *,
    source: SourceOptions,
    asked: RaceOptions,
    db: DbOption = None,
    output: OutputOptions,
) -> None:
    """Find the exactly equal form that a device computes a network fastest in, by measuring."""
    import edgevit
    from edgevit.cli.export import read_options
    from edgevit.recipes import load_recipe

    recipe = load_recipe(target).RECIPE
    with progress(output.hides_progress) as bars:
        task = bars.add_task(f"{model} on {recipe.target}", total=None)

        def on_tried(tried: TriedForm) -> None:
            bars.update(task, description=f"{tried.operator}: {tried.form} {_describe(tried.ratio)}", advance=1)

        tuning = edgevit.tune(
            model,
            target,
            device=device,
            threads=threads,
            precision=asked.precision,
            budget_s=parse_duration(asked.budget),
            weights=source.weights,
            weights_key=source.weights_key,
            seed=source.seed,
            input_size=source.size,
            input_shape=source.input_shape,
            preprocessing=asked.statements,
            batch_size=asked.batch_size,
            options=read_options(asked.option or [], {target: recipe}).get(target, {}),
            input_range=asked.value_range,
            data=asked.data,
            db=db,
            on_tried=on_tried,
        )
    if output.as_json:
        print_json({"tuning": tuning})
    else:
        _print(tuning, _export_command(tuning, asked, source))


def _export_command(tuning: Tuning, asked: RaceOptions, source: SourceOptions) -> str:
    """Return the command that exports what was tuned."""
    words = ["edgevit", "export", tuning.model, "--target", tuning.target, "--form", "tuned"]
    words += ["--precision", asked.precision] if asked.precision != "fp32" else []
    words += ["--batch-size", str(asked.batch_size)] if asked.batch_size != 1 else []
    words += ["--input-size", source.input_size] if source.input_size else []
    for shape in source.input_shape or []:
        words += ["--input-shape", shape]
    words += ["--weights", str(source.weights)] if source.weights else []
    words += ["--weights-key", source.weights_key] if source.weights_key else []
    return shlex.join(words)


def _print(tuning: Tuning, export_command: str) -> None:
    taken = {(one.site, one.form) for one in tuning.forms}
    rows = [
        (
            str(tried.sites),
            tried.operator,
            tried.form,
            _describe(tried.ratio) or tried.reason,
            tried.verdict,
            "yes" if (tried.site, tried.form) in taken else "",
        )
        for tried in sorted(tuning.tried, key=lambda tried: tried.ratio.value if tried.ratio else float("inf"))
    ]
    print_table((">sites", "operator", "form", "of its time, fastest first", "verdict", "taken"), rows)
    say(f"measured: {tuning.label}")
    if tuning.over_default is not None:
        say(f"measured: {_describe(tuning.over_default)} of the time of the recipe's own forms")
    if not tuning.complete:
        say("the budget ended the search before every site was tried; the next one goes on from here")
    if tuning.forms:
        say(f"use it: {export_command}")


def _describe(ratio: TimeRatio | None) -> str:
    return "" if ratio is None else f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
