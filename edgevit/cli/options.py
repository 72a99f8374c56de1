"""Option groups of the command line: dataclasses whose fields are options, and the groups that several verbs share.

A field `Annotated[T, typer.Option(...)]` of a dataclass is an option; its default is the option's default. A function
that is decorated with `grouped` may take such a dataclass as a parameter. Typer then sees the dataclass's fields in the
parameter's place, and the function receives one record:

    @dataclass(frozen=True)
    class FilterOptions:
        grade: Annotated[str | None, typer.Option(help="Lowest grade, A to D")] = None
        limit: Annotated[int, typer.Option(min=1, help="Number of rows")] = 500

    @grouped
    def run(device: DeviceOption, filters: FilterOptions, output: OutputOptions) -> None: ...

A group may extend another one by inheritance. Every command takes OutputOptions, which carry --json, -q and -v.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import typing
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from edgevit.cli.common import only_json_on_stdout, parse_input_size, parse_range
from edgevit.cli.logs import raise_verbosity, set_verbosity
from edgevit.records.artifact import WeightsRequest
from edgevit.records.input_shapes import EXAMPLE, read_input_shapes
from edgevit.records.preprocessing import StatedPreprocessing, read_stated
from edgevit.records.quantization import DEFAULT_FLOOR_DB, QuantizationRequest, read_quantization
from edgevit_runtime.record import TensorSpec

ModelArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Name from `edgevit models`, FILE.py:FUNCTION of your own, timm:NAME or hf:FOLDER"
    ),
]
ArtifactsArgument = Annotated[
    list[Path], typer.Argument(metavar="ARTIFACT...", help="Artifact folders that `edgevit export` wrote")
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display")]


def _verbose_option(callback: Callable[[int], int], help_text: str) -> Any:
    return typer.Option(
        "--verbose", "-v", count=True, metavar="", show_default=False, callback=callback, help=help_text
    )


VerboseOption = Annotated[
    int,
    _verbose_option(
        raise_verbosity,
        "Log on standard error, more result detail, tracebacks of errors; -vv: log of every step",
    ),
]
# Before the verb.
RootVerboseOption = Annotated[
    int, _verbose_option(set_verbosity, "Log on standard error, tracebacks of errors; -vv: log of every step")
]
WeightsOption = Annotated[
    Path | None, typer.Option(help="Checkpoint file, or folder of shards; default: random weights, or the function's")
]
WeightsKeyOption = Annotated[
    str,
    typer.Option(metavar="KEY", help="Set of weights in that file: model, ema...; default: the averaged one"),
]
EarlierKeyOption = Annotated[
    str,
    typer.Option("--weights-key", metavar="KEY", help="Set of weights in that file; default: the one of the export"),
]
ModelAgainOption = Annotated[
    str,
    typer.Option(
        "--model", metavar="MODEL", help="Model that the artifact was made from, named again so that its code may run"
    ),
]
SeedOption = Annotated[int, typer.Option(help="Seed of random weights")]
InputSizeOption = Annotated[
    str | None, typer.Option(help="Input size in pixels, 224 or 256x192 (height x width); default: the model card's")
]
InputShapeOption = Annotated[
    list[str] | None,
    typer.Option(metavar="[NAME=]SHAPE[:TYPE]", help=f"Shape of an input, batch of 1 first: {EXAMPLE}; repeatable"),
]
LabelsOption = Annotated[Path | None, typer.Option(help="Text file with one class name per line")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Number of engine threads")]
DeviceOption = Annotated[str, typer.Option("--device", "-d", help="Name from `edgevit devices`")]
DbOption = Annotated[
    str | None,
    typer.Option("--db", help="Database file or SQLAlchemy URL; default: EDGEVIT_DB, or a file in your data folder"),
]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Permission to run code that this database did not record as built here")
]
TagOption = Annotated[
    str, typer.Option(metavar="TAG", help="Name for the new rows, by which `edgevit db compare` finds them")
]
FormOption = Annotated[
    str,
    typer.Option(metavar="FORM", help="Equal form: default (the recipe's), portable (none), tuned, or a form's name"),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Output folder for artifacts")]
OriginOption = Annotated[
    str, typer.Option(metavar="own|trusted|any", help="Whose rows decide: your own, those of trusted sources, any")
]
PercentileOption = Annotated[
    int | None,
    typer.Option(help="Percentile whose upper bound must become known, 90 or 99; default: 99, with --quick 90"),
]
RateOption = Annotated[
    float | None,
    typer.Option(min=0.001, metavar="HZ", help="Camera frames per second; default: back-to-back runs"),
]
MemoryOption = Annotated[
    float | None,
    typer.Option("--max-memory-gb", min=0.01, help="Memory limit of a process; default: 80% of the device's memory"),
]
QuickOption = Annotated[bool, typer.Option("--quick", help="Quick look: fewer runs, a flag and a lower grade")]


@dataclass(frozen=True)
class OutputOptions:
    """How a command answers: as JSON or text, with or without progress, and how much it logs."""

    as_json: JsonOption = False
    quiet: QuietOption = False
    verbose: VerboseOption = 0

    @property
    def hides_progress(self) -> bool:
        """Whether no progress bar is drawn."""
        return self.quiet or self.as_json


@dataclass(frozen=True)
class DatabaseOptions:
    """The latency database, and whether artifacts that it does not know may run code."""

    db: DbOption = None
    trust: TrustOption = False


@dataclass(frozen=True)
class InputOptions:
    """What a model takes: the size of its image, or the shapes of all inputs."""

    input_size: InputSizeOption = None
    input_shape: InputShapeOption = None

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width. Raises UsageError for other text."""
        return parse_input_size(self.input_size)

    @property
    def shapes(self) -> tuple[TensorSpec, ...]:
        """The inputs that were described, the batch open. Raises UsageError for other text."""
        return read_input_shapes(self.input_shape or [])


@dataclass(frozen=True)
class SourceOptions(InputOptions):
    """How a model is loaded: from which weights, and with which inputs."""

    weights: WeightsOption = None
    weights_key: WeightsKeyOption = ""
    seed: SeedOption = 0

    @property
    def weights_request(self) -> WeightsRequest:
        """The weights of the model."""
        return WeightsRequest(self.weights, self.weights_key, self.seed)


@dataclass(frozen=True)
class PreprocessingOptions:
    """How an image becomes an input. What is not stated here or beside the model is assumed, and numbers say so."""

    mean: Annotated[str | None, typer.Option(help="Mean of each channel, or one for all: 0.485,0.456,0.406")] = None
    std: Annotated[str | None, typer.Option(help="Deviation of each channel, or one for all: 0.229,0.224,0.225")] = None
    pixel_range: Annotated[
        str | None,
        typer.Option("--range", metavar="LOW,HIGH", help="Range of pixels before mean and deviation: 0,1 or 0,255"),
    ] = None
    resize: Annotated[
        str | None, typer.Option(help="Shorter side of the resized image, HEIGHTxWIDTH, or stretch to the input's size")
    ] = None
    crop: Annotated[
        float | None, typer.Option(help="Crop as a share of the resized image, or in pixels beside --resize")
    ] = None
    interpolation: Annotated[str | None, typer.Option(help="Interpolation of the resize: bilinear, bicubic...")] = None
    color: Annotated[str | None, typer.Option(help="Order of the colors: RGB, BGR or grey")] = None

    @property
    def statements(self) -> dict[str, Any]:
        """What was stated, by name."""
        names = ("mean", "std", "resize", "crop", "interpolation", "color")
        values = {**{name: getattr(self, name) for name in names}, "range": self.pixel_range}
        return {name: value for name, value in values.items() if value is not None}

    @property
    def stated(self) -> StatedPreprocessing:
        """The statements as a record. Raises UsageError for text that makes no sense."""
        return read_stated(self.statements)


@dataclass(frozen=True)
class ProtocolOptions:
    """How an artifact is measured."""

    quick: QuickOption = False
    percentile: PercentileOption = None
    rate: RateOption = None
    max_memory_gb: MemoryOption = None


@dataclass(frozen=True)
class RangeOptions:
    """The range of the numbers that a model is compared on."""

    input_range: Annotated[
        str | None,
        typer.Option(metavar="LOW,HIGH", help="Range of an input's numbers, such as 0,255; default: noise around 0"),
    ] = None

    @property
    def value_range(self) -> tuple[float, float] | None:
        """The range as numbers. Raises UsageError for other text."""
        return parse_range(self.input_range)


@dataclass(frozen=True)
class SampleOptions(RangeOptions):
    """What a model is compared on."""

    samples: Annotated[
        Path | None, typer.Option(metavar="FILE.npy", help="Samples of the input, as numpy.save writes them: (N, ...)")
    ] = None


@dataclass(frozen=True)
class QuantizationOptions:
    """How the numbers of int8 are found. Other precisions take no notice of it."""

    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER|FILE.npy",
            help="Samples that int8 is calibrated on: images, or an array; default: photographs that ship (assumed)",
        ),
    ] = None
    floor: Annotated[
        float, typer.Option(metavar="DB", help="SNR that int8 must keep; the noisiest layers stay in float until then")
    ] = DEFAULT_FLOOR_DB
    ranges: Annotated[
        str, typer.Option(metavar="minmax|mse", help="Ranges of int8: ends of the values, or least square error")
    ] = "minmax"
    no_absorb: Annotated[bool, typer.Option("--no-absorb", help="No scales moved between layers")] = False
    no_correct: Annotated[bool, typer.Option("--no-correct", help="No biases that make up for rounded weights")] = False

    @property
    def quantization(self) -> QuantizationRequest:
        """The options as a record. Raises UsageError for text that makes no sense."""
        return read_quantization(
            self.data, self.floor, self.ranges, absorbs=not self.no_absorb, corrects=not self.no_correct
        )


def grouped(function: Callable[..., None]) -> Callable[..., None]:
    """Return the function with each option group among its parameters replaced by the options of the group."""
    hints = typing.get_type_hints(function, include_extras=True)
    groups: dict[str, type[Any]] = {name: hint for name, hint in hints.items() if _is_group(hint)}
    parameters = list(_flat_parameters(function, hints))
    counts = Counter(parameter.name for parameter in parameters)
    if repeated := [name for name, count in counts.items() if count > 1]:
        raise TypeError(f"{function.__module__}.{function.__name__} has two options called {', '.join(repeated)}")

    @functools.wraps(function)
    def command(**values: Any) -> None:
        records = {
            name: group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
            for name, group in groups.items()
        }
        in_json = any(isinstance(record, OutputOptions) and record.as_json for record in records.values())
        with only_json_on_stdout() if in_json else contextlib.nullcontext():
            function(**values, **records)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _is_group(hint: Any) -> bool:
    """Return whether an annotation is an option group."""
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _flat_parameters(function: Callable[..., None], hints: dict[str, Any]) -> Iterator[inspect.Parameter]:
    """Yield the parameters that Typer sees, in the order in which help lists them."""
    for parameter in inspect.signature(function).parameters.values():
        hint = hints[parameter.name]
        if _is_group(hint):
            yield from _options_of(hint)
        else:
            yield parameter.replace(annotation=hint, kind=inspect.Parameter.KEYWORD_ONLY)


@functools.cache
def _options_of(group: type[Any]) -> tuple[inspect.Parameter, ...]:
    """Return the options of a group as parameters."""
    hints = typing.get_type_hints(group, include_extras=True)
    fields = inspect.signature(group).parameters.items()
    return tuple(option.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY) for name, option in fields)
