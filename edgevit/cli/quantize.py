"""`edgevit quantize`: what int8 costs a model, layer by layer, before anything is exported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import print_json, print_table, say
from edgevit.cli.options import (
    ModelArgument,
    OutputOptions,
    PreprocessingOptions,
    QuantizationOptions,
    RangeOptions,
    SourceOptions,
    grouped,
)

if TYPE_CHECKING:
    from edgevit.records.quantization import Quantization


@dataclass(frozen=True)
class NumberOptions(QuantizationOptions, PreprocessingOptions, RangeOptions):
    """Which int8 numbers a model gets, and from which samples."""

    target: Annotated[
        str, typer.Option("--target", "-t", help="Name from `edgevit targets`; default: numbers right on any processor")
    ] = ""
    precision: Annotated[str, typer.Option(help="int8, or w8 or w6 for weights alone")] = "int8"
    why: Annotated[bool, typer.Option("--why", help="Explain the noisiest layers by their weights and branches")] = (
        False
    )
    option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Option of the target, from `edgevit targets --json`; repeatable"),
    ] = None


@grouped
def run(model: ModelArgument, source: SourceOptions, numbers: NumberOptions, output: OutputOptions) -> None:
    """Show what int8 costs a model: the noise of each layer, and what stays in float to keep a floor."""
    import edgevit

    report = edgevit.quantize(
        model,
        numbers.target,
        data=numbers.data,
        precision=numbers.precision,
        floor_db=numbers.floor,
        ranges=numbers.ranges,
        absorb=not numbers.no_absorb,
        correct=not numbers.no_correct,
        why=numbers.why,
        weights=source.weights,
        weights_key=source.weights_key,
        seed=source.seed,
        input_size=source.size,
        input_shape=source.input_shape,
        preprocessing=numbers.statements,
        input_range=numbers.value_range,
        options=_options(numbers),
    )
    if output.as_json:
        print_json({"model": model, "target": numbers.target, "precision": numbers.precision, "quantization": report})
    else:
        _print(report)


def _options(numbers: NumberOptions) -> dict[str, str]:
    """Return the options of the target. Raises UsageError for other text, and for options without a target."""
    from edgevit.cli.export import read_options
    from edgevit.recipes import load_recipe

    recipes = {numbers.target: load_recipe(numbers.target).RECIPE} if numbers.target else {}
    return read_options(numbers.option or [], recipes).get(numbers.target, {})


def _print(report: Quantization) -> None:
    rows = [
        (layer.name, layer.module, layer.kind, _db(layer.snr_db), "float" if layer.excluded else "int8")
        for layer in sorted(report.layers, key=lambda layer: (layer.snr_db is None, layer.snr_db))
    ]
    print_table(("layer, noisiest first", "module", "kind", ">SNR dB alone", "stays in"), rows)
    steps = [(step.label, _db(step.snr_db), "yes" if step.taken else "no") for step in report.steps]
    print_table(("step", ">SNR dB", "taken"), steps)
    for spread in report.spreads:
        say(f"{spread.label}; channels differ by {spread.channel_spread_db:.0f} dB")
    say(f"simulated: {report.summary}; floor {report.floor_db:g} dB, top-1 agreement {report.top1_agreement:.1%}")


def _db(snr_db: float | None) -> str:
    return "equal" if snr_db is None else f"{snr_db:.1f}"
