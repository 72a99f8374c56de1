"""Records that travel between host and device: frozen dataclasses and a strict JSON codec for them.

The codec refuses what it does not know (a missing key, an extra key, a wrong type, NaN), because a record that is read
loosely on one side is a wrong number on the other.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import types
import typing
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

Status = Literal["ok", "failed", "crashed", "timeout", "unsupported", "throttled"]
ITEM_BYTES = {
    "float32": 4, "float16": 2, "bfloat16": 2, "float64": 8, "uint8": 1, "int8": 1, "int32": 4, "int64": 8, "bool": 1,
}  # fmt: skip


class UnsupportedError(RuntimeError):
    """What load() raises where its engine is installed but cannot run here; the message says what it needs."""


class ProcessorError(UnsupportedError):
    """Raised by load() where the engine runs, and this processor lacks an instruction set that the payload needs."""

    def __init__(self, missing_instructions: str, detail: str) -> None:
        super().__init__(f"needs a processor with {missing_instructions}: {detail}")
        self.missing_instructions = missing_instructions


class RecordError(ValueError):
    """A JSON document is not the record it should be; the message names the place."""


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of one input or output. A dimension of -1 is the batch, open until the tensor is made."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    def at_batch(self, batch: int) -> TensorSpec:
        """The same tensor with its open dimension set to `batch`."""
        if -1 not in self.shape:
            return self
        return dataclasses.replace(self, shape=tuple(batch if size == -1 else size for size in self.shape))

    def as_numpy(self) -> str:
        """Python that makes such a tensor of zeros, of one sample where the batch is open: for snippets."""
        return f'np.zeros({self.at_batch(1).shape}, "{self.dtype}")'

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor, dense and in C order."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def output_names(count: int) -> list[str]:
    """What a payload's outputs are called, in the model's order: `output`, or `output_0`, `output_1`..."""
    return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]


@dataclass(frozen=True)
class Recipe:
    """What a recipe module says of its target."""

    target: str
    suffix: str  # of the payload: ".onnx"
    engine: str  # the distribution that runs the artifact
    precisions: tuple[str, ...]
    requires: tuple[str, ...]  # distributions that the conversion imports
    extra: str  # `pip install edgevit[EXTRA]` brings all of them
    aliases: tuple[str, ...] = ()
    source: str = ""  # the target whose payload export() starts from, in place of a module
    evaluator: str = ""  # package of edgevit/verification that computes a payload where the engine cannot run
    harness: str = ""  # file of edgevit/harness that knows the program which the engine's makers measure with
    native: str = ""  # the same of a native program, for devices without Python
    needs: str = ""  # of the machine that runs it: "an NVIDIA GPU"
    processor_needs: dict[str, str] = field(default_factory=dict)  # precision -> instruction set that runs it: "bf16"
    options: dict[str, str] = field(default_factory=dict)  # that export() takes: name -> what it is for
    known_failures: dict[str, str] = field(default_factory=dict)  # "model" or "model:precision" -> why, with a link
    engine_choices: tuple[str, ...] = ()  # may stand in for `engine`: the first installed counts, and none is no error
    executes_code: bool = False  # opening a payload may run code that it holds
    widens_half: bool = False  # the engine computes in single what an fp16 payload declares half: it hides an overflow
    fixed_batch: str = ""  # why it takes no open batch; empty: it does
    input_dtypes: tuple[str, ...] = ()  # that it takes; empty: all that its source takes, or any


@dataclass(frozen=True)
class Stage:
    """One step of a conversion: its name, what it cost, and the file or folder it left, which load() can open.

    target: whose load(); the recipe's own if empty. precision: what its result computes with.
    """

    name: str
    seconds: float
    path: Path
    target: str = ""
    precision: str = "fp32"


@dataclass(frozen=True)
class Operators:
    """How often each operator occurs in a payload, and which of them its engine leaves to its slower kernels.

    fallbacks: None where the engine does not tell, or has but one kind of kernel.
    """

    counts: dict[str, int]
    fallbacks: dict[str, int] | None = None


@dataclass(frozen=True)
class LayerTime:
    """What one operator of the payload, as the engine runs it, costs per run. None: the engine does not tell.

    bytes: of its inputs, weights and outputs, each counted once.
    """

    name: str
    operator: str
    ns: int
    macs: int | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Job:
    """What a worker process is asked to do with one artifact. Paths are relative to its working directory."""

    # detect: no artifact and no recipe, so target, folder... are empty
    task: Literal["time", "infer", "classify", "layers", "detect"]
    target: str
    folder: str
    payload: str  # inside the folder: what the recipe's load() opens
    sha256: str  # of the folder's tree; the worker refuses another
    threads: int
    batch: int = 1
    seed: int = 0  # of the noise that is timed
    min_runs: int = 100
    min_ns: int = 1_000_000_000
    warmup_min_runs: int = 10
    warmup_min_ns: int = 500_000_000
    warmup_max_ns: int = 5_000_000_000
    rate_hz: float | None = None  # time: one run per frame of a camera, not one after the other
    cold: bool = False  # time: take the artifact out of the file cache before load()
    max_memory_bytes: int | None = None  # of the worker and what it starts; None: the watchdog's share of all memory
    feeds: str = ""  # infer, classify: file or pipe with `count` sets of the inputs, raw, one after another
    count: int = 0
    keep: int = 1  # classify: classes of each sample, best first
    stall_s: float | None = None  # classify: the longest that one set may take; None: no limit
    engines: tuple[str, ...] = ()  # detect: distributions to look for


@dataclass(frozen=True)
class Host:
    """What does not change while a measurement runs. None: the system does not tell."""

    machine: str
    system: str
    kernel: str
    python: str
    cpu_model: str
    cores: int
    memory_bytes: int | None


@dataclass(frozen=True)
class Snapshot:
    """What may change while a measurement runs. None: the system does not tell; never zero in its place."""

    unix_ns: int
    affinity: tuple[int, ...]
    governor: str | None
    frequency_khz: int | None
    temperature_mc: int | None
    load_1min: float | None
    steal_ticks: int | None
    total_ticks: int | None
    power_source: str | None
    nominal_khz: int | None = None  # the clock that the processor is sold with, or its highest
    throttled: bool | None = None  # the system slows the processor down, or lacks voltage, at this moment
    throttle_events: int | None = None  # since it started; only growth means something


@dataclass(frozen=True)
class VendorSummary:
    """What a vendor's program says of the runs of one process, where it keeps its samples to itself; nanoseconds.

    As fine as it prints them. None: it does not say. p95_ns is the program's own 95th percentile of these runs.
    """

    median_ns: int | None
    min_ns: int
    max_ns: int
    mean_ns: int
    runs: int | None = None
    p95_ns: int | None = None


@dataclass(frozen=True)
class Timing:
    """One process' raw times in nanoseconds, in the order they were taken.

    load_ns is all of load() with the engine's import; import_ns and compile_ns are parts of it. At a rate a sample is
    the time from a frame's arrival to its result, and `missed` counts the frames that came while another was computed.
    energy_j is what all samples took together, pauses between them included. None: the system or engine does not tell.
    Where a vendor's program was run in the worker's place and prints a summary only, `told` is it, with no samples.
    """

    load_ns: int | None
    first_ns: int | None
    warmup_ns: tuple[int, ...]
    samples_ns: tuple[int, ...]
    warm: bool | None  # the warm-up rule was met before its time was up; None: nobody can tell
    peak_rss_bytes: int | None
    before: Snapshot
    after: Snapshot
    import_ns: int | None = None
    compile_ns: int | None = None
    cold: bool = False  # the artifact was not in the file cache when load() began
    missed: int | None = None
    energy_j: float | None = None
    summary: VendorSummary | None = None


@dataclass(frozen=True)
class DeviceInventory:
    """What a device consists of and has installed. None or nothing: the system does not tell."""

    os: str | None  # "Debian GNU/Linux 12 (bookworm)"
    board: str | None  # "Raspberry Pi 5 Model B Rev 1.0"
    physical_cores: int | None
    caches: dict[str, int]  # of the first core, bytes by level: {"L1d": 32768, "L2": 524288}
    accelerators: tuple[str, ...]  # as the system names them; what they can run is not known by that
    engines: dict[str, str]  # distribution -> version


@dataclass(frozen=True)
class Reply:
    """What came of a job. `status` is ok only when the worker finished; `error` says why otherwise."""

    status: Status
    error: str = ""
    host: Host | None = None
    engine: str = ""
    engine_version: str = ""
    provider: str = ""
    inputs: tuple[TensorSpec, ...] = ()
    outputs: tuple[TensorSpec, ...] = ()
    timing: Timing | None = None
    layers: tuple[LayerTime, ...] = ()  # layers: in the order the engine runs them
    results: tuple[tuple[str, ...], ...] = ()  # infer: per set of inputs, each output's bytes in base64
    classes: tuple[tuple[int, ...], ...] = ()  # classify: per sample, best first; none where the output has a NaN
    unit: str = ""  # the unit's own number; never kept: the host keeps a salted digest of it
    emulated: str = ""  # what stands in for the processor: "qemu-aarch64"; empty on a real one
    detected: DeviceInventory | None = None
    missing_instructions: str = ""  # unsupported: the instruction set that the payload needs and the processor lacks
    as_verified: bool = True  # what ran is what parity is checked of: its weights, its arithmetic


class Session(Protocol):
    """A loaded artifact, ready to run. Tensors cross as raw little-endian bytes in C order: no NumPy needed here.

    One that can tell reading from compiling has `compile_ns: int` too.
    """

    engine_version: str
    provider: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def feed(self, tensors: Sequence[bytes], batch: int) -> None:
        """Set the inputs, in the order of `inputs`."""

    def run(self) -> None:
        """Compute once; this call alone is timed."""

    def fetch(self) -> tuple[bytes, ...]:
        """The outputs of the last run, in the order of `outputs`."""


class RecipeModule(Protocol):
    """A module of export_recipes. export() and annotate() need the converter, load() needs the engine only.

    A module whose options can be wrong may have `check(options: Mapping[str, str]) -> None` too: it raises ValueError
    for what export() would refuse, before anything is folded or converted. One whose engine times its operators has
    `layers(path, *, threads, tensors, batch, runs) -> tuple[LayerTime, ...]`, which opens the payload as load() does,
    feeds `tensors` and gives each operator's median over `runs` runs. One with `import_engine()` lets the worker time
    that part of load() on its own.
    """

    RECIPE: Recipe

    def export(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        path: Path,
        *,
        precision: str,
        dynamic_batch: bool,
        options: Mapping[str, str],
    ) -> tuple[Stage, ...]:
        """Write the payload at `path` for these example inputs by name, and say what each stage cost.

        `model` is a module in evaluation mode, or the path of the payload that RECIPE.source made of it.
        Every stage leaves its result in `stages/` beside the payload, in a form that load() opens, so that a wrong
        result can be traced to the stage that made it.
        """

    def annotate(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write metadata into the payload, or do nothing where the format holds none."""

    def operators(self, path: Path) -> Operators:
        """What the payload consists of, constants left out. Needs the converter's distributions."""

    def snippet(self, path: str, inputs: Sequence[TensorSpec]) -> str:
        """A few lines of Python that run the payload at `path` without edgevit, and print the class they find."""

    def load(self, path: Path, *, threads: int) -> Session:
        """Open the payload with the engine. Raises UnsupportedError where that cannot run on this machine."""


@typing.runtime_checkable
class HostBound(Protocol):
    """What a recipe module has besides where RECIPE.needs says that not every machine can run its payloads."""

    def why_unavailable(self, to: Literal["build", "run"]) -> str:
        """What this machine lacks to build a payload, or to run one, whatever is installed; empty if nothing.

        Quick: no engine is imported.
        """


@typing.runtime_checkable
class ProcessorBound(Protocol):
    """An addition to a recipe module with precisions that not every processor computes: RECIPE.processor_needs."""

    def missing_instructions(self, precision: str) -> str:
        """Return the instruction set that the precision needs and this processor lacks; empty if it lacks none."""


RecordT = TypeVar("RecordT")
_PLAIN = frozenset({str, int, float, bool, type(None)})


def to_data(record: Any) -> Any:
    """A record as JSON data: dataclasses as objects, tuples as arrays, paths as strings."""
    kind = type(record)
    if kind in _PLAIN:
        return record
    if (names := _names(typing.cast(Hashable, kind))) is not None:
        return {name: to_data(getattr(record, name)) for name in names}
    if isinstance(record, Mapping):
        return {str(key): to_data(value) for key, value in record.items()}
    if isinstance(record, (tuple, list)):
        return [to_data(value) for value in record]
    return str(record) if isinstance(record, Path) else record


@functools.cache
def _names(kind: Hashable) -> tuple[str, ...] | None:
    """The fields of a dataclass; None for any other class."""
    return tuple(item.name for item in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


def to_json(record: Any, *, indent: int | None = None) -> str:
    """Canonical JSON: sorted keys, no NaN; the same record is the same text, so it can be hashed."""
    if indent is None:
        return _CANONICAL.encode(record)
    return json.dumps(record, sort_keys=True, allow_nan=False, indent=indent, default=_one_level)


def _one_level(record: Any) -> Any:
    """What JSON has no word for, as what it has one for; what is in there comes next."""
    if (names := _names(typing.cast(Hashable, type(record)))) is not None:
        return {name: getattr(record, name) for name in names}
    if isinstance(record, Mapping):
        return dict(record)
    if isinstance(record, Path):
        return str(record)
    raise TypeError(f"{type(record).__name__} is nothing that JSON holds")


# The encoder walks through tuples, lists and dicts itself, in C, in half the time of to_data. Records are frozen: there
# is no circle to look for.
_CANONICAL = json.JSONEncoder(
    sort_keys=True, allow_nan=False, separators=(",", ":"), check_circular=False, default=_one_level
)


def from_json(kind: type[RecordT], text: str | bytes) -> RecordT:
    """Read a record of this kind. Raises RecordError with the place of the first thing that is wrong."""
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RecordError(f"not JSON: {error}") from error
    return from_data(kind, data)


def from_data(kind: type[RecordT], data: Any, where: str = "") -> RecordT:
    """Build a record of this kind from JSON data. Raises RecordError with the place of the first thing wrong."""
    try:
        return typing.cast(RecordT, _reader(typing.cast(Hashable, kind))(data))
    except _MismatchError as error:
        raise RecordError(f"{where or kind.__name__}{error.place}: {error.problem}") from None


def _refuse_constant(name: str) -> Any:
    raise RecordError(f"{name} is not a number that a record may hold")


class _MismatchError(Exception):
    """What is wrong with data, and at which place below where its reader stands."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem, self.place = problem, ""

    def below(self, step: str) -> _MismatchError:
        """The same, seen from one level higher."""
        self.place = step + self.place
        return self


_Reader = Callable[[Any], Any]


@functools.cache
def _reader(kind: Any) -> _Reader:
    """What reads data as this kind. Made once: to take a type apart is slower than to read what it describes."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return lambda data: data
    if dataclasses.is_dataclass(kind):
        return _dataclass_reader(typing.cast(type, kind))
    if origin in (typing.Union, types.UnionType):
        return _union_reader(arguments)
    if origin is Literal:
        what = f"one of {', '.join(map(repr, arguments))}"
        return lambda data: _expect(data in arguments, data, what)
    if origin is tuple:
        return _tuple_reader(arguments)
    if origin is dict:
        return _dict_reader(_reader(arguments[1]))
    if kind is Path:
        return lambda data: Path(_expect(isinstance(data, str), data, "a path"))
    return _read_float if kind is float else _plain_reader(kind)


def _plain_reader(kind: type) -> _Reader:
    def read(data: Any) -> Any:
        if type(data) is kind:
            return data
        return _expect(isinstance(data, kind) and not isinstance(data, bool), data, kind.__name__)

    return read


def _read_float(data: Any) -> float:
    good = isinstance(data, (int, float)) and not isinstance(data, bool) and math.isfinite(data)
    return float(_expect(good, data, "a finite number"))


def _dataclass_reader(kind: type) -> _Reader:
    hints, known = typing.get_type_hints(kind), dataclasses.fields(kind)
    readers = {item.name: _reader(hints[item.name]) for item in known}
    as_it_is = {item.name: _taken_as_it_is(hints[item.name]) for item in known}
    absent = (dataclasses.MISSING, dataclasses.MISSING)
    needed = {item.name for item in known if (item.default, item.default_factory) == absent}

    def read(data: Any) -> Any:
        _expect(isinstance(data, dict), data, "an object")
        if extra := data.keys() - readers.keys():
            raise _MismatchError(f"unknown {', '.join(sorted(extra))}; a newer edgevit may have written it")
        if missing := needed - data.keys():
            raise _MismatchError(f"{', '.join(sorted(missing))} missing")
        values = {}
        for name, value in data.items():
            if type(value) in as_it_is[name]:
                values[name] = value
                continue
            try:
                values[name] = readers[name](value)
            except _MismatchError as error:
                raise error.below(f".{name}") from None
        return kind(**values)

    return read


def _taken_as_it_is(hint: Any) -> frozenset[type]:
    """The classes of data that a field takes as it is, so that most fields need no reader."""
    arguments = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    return frozenset(item for item in arguments if item in (str, int, bool, type(None)))


def _union_reader(arguments: tuple[Any, ...]) -> _Reader:
    readers = [_reader(item) for item in arguments if item is not type(None)]
    may_be_null = len(readers) < len(arguments)

    def read(data: Any) -> Any:
        if data is None and may_be_null:
            return None
        for reader in readers[:-1]:
            try:
                return reader(data)
            except _MismatchError:
                continue
        return readers[-1](data)

    return read


def _tuple_reader(arguments: tuple[Any, ...]) -> _Reader:
    any_length = arguments[-1] is Ellipsis
    readers = [_reader(item) for item in arguments if item is not Ellipsis]

    def read(data: Any) -> Any:
        _expect(isinstance(data, list), data, "an array")
        if not any_length:
            _expect(len(data) == len(readers), data, f"{len(readers)} items")
        values: list[Any] = []
        try:
            for reader, value in zip(readers * len(data) if any_length else readers, data, strict=True):
                values.append(reader(value))
        except _MismatchError as error:
            raise error.below(f"[{len(values)}]") from None
        return tuple(values)

    return read


def _dict_reader(reader: _Reader) -> _Reader:
    def read(data: Any) -> Any:
        _expect(isinstance(data, dict), data, "an object")
        values = {}
        for key, value in data.items():
            try:
                values[key] = reader(value)
            except _MismatchError as error:
                raise error.below(f".{key}") from None
        return values

    return read


def _expect(good: bool, data: Any, what: str) -> Any:
    if not good:
        raise _MismatchError(f"expected {what}, found {str(data)[:60]!r}")
    return data
