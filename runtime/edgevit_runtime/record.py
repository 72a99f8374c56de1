"""Records that travel between host and device, and the interfaces of recipes and their sessions."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from edgevit_runtime.dialect import Dialect

Status = Literal["ok", "failed", "crashed", "timeout", "unsupported", "throttled"]
ITEM_BYTES = {
    "float32": 4, "float16": 2, "bfloat16": 2, "float64": 8, "uint8": 1, "int8": 1, "int32": 4, "int64": 8, "bool": 1,
}  # fmt: skip


class UnsupportedError(RuntimeError):
    """An installed engine cannot run on this machine; load() raises it, and the message names the requirement."""


class ProcessorError(UnsupportedError):
    """The engine runs, and this processor lacks an instruction set that the payload needs; load() raises it."""

    def __init__(self, missing_instructions: str, detail: str) -> None:
        super().__init__(f"needs a processor with {missing_instructions}: {detail}")
        self.missing_instructions = missing_instructions


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype of one input or output. A dimension of -1 is the open batch."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"

    def at_batch(self, batch: int) -> TensorSpec:
        """Return the same tensor with its open dimension set to `batch`."""
        if -1 not in self.shape:
            return self
        return dataclasses.replace(self, shape=tuple(batch if size == -1 else size for size in self.shape))

    def as_numpy(self) -> str:
        """Return the Python code for such a tensor of zeros, with one sample where the batch is open."""
        return f'np.zeros({self.at_batch(1).shape}, "{self.dtype}")'

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor, dense and in C order."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


def output_names(count: int) -> list[str]:
    """Return the names of a payload's outputs, in the model's order: `output`, or `output_0`, `output_1`..."""
    return ["output"] if count == 1 else [f"output_{i}" for i in range(count)]


@dataclass(frozen=True)
class FormRule:
    """A form (edgevit/tuning/forms) that a recipe takes on every device, because its engine was faster on all of them.

    above_taps: of convolutions, those whose kernels have more taps. precisions: in which it was measured.
    """

    form: str
    above_taps: int
    precisions: tuple[str, ...] = ("fp32", "fp16")


@dataclass(frozen=True)
class Recipe:
    """The static properties of a target, declared by its recipe module."""

    target: str
    suffix: str  # of the payload: ".onnx"
    engine: str  # the distribution that runs the artifact
    precisions: tuple[str, ...]
    requires: tuple[str, ...]  # distributions that the conversion imports
    extra: str  # `pip install edgevit[EXTRA]` installs all of them
    aliases: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()  # modules that export() imports and other recipes import too
    source: str = ""  # the target whose payload export() starts from, in place of a module
    evaluator: str = ""  # package of edgevit/verification that evaluates a payload where the engine cannot run
    harness: str = ""  # file of edgevit/devices/vendor_tools for the vendor's benchmark program
    native: str = ""  # the same for a native program, for devices without Python
    needs: str = ""  # of the machine that runs it: "an NVIDIA GPU"
    processor_needs: dict[str, str] = field(default_factory=dict)  # precision -> instruction set that runs it: "bf16"
    options: dict[str, str] = field(default_factory=dict)  # of export(): name -> purpose
    known_failures: dict[str, str] = field(default_factory=dict)  # "model" or "model:precision" -> reason, with a link
    engine_choices: tuple[str, ...] = ()  # alternatives to `engine`: the first installed counts, and all may be missing
    executes_code: bool = False  # opening a payload may run code in it
    widens_half: bool = False  # the engine runs an fp16 payload in single precision, which hides an overflow
    fixed_batch: str = ""  # reason why it takes no open batch; empty: it does
    input_dtypes: tuple[str, ...] = ()  # accepted types; empty: those of its source, or any
    # Operators that the converter gets wrong as they are (edgevit/exporting/spelling.py).
    spellings: tuple[str, ...] = ()
    # Exactly equal ways to compute that the engine is faster with, in the order of preference.
    forms: tuple[FormRule, ...] = ()


@dataclass(frozen=True)
class Stage:
    """One stage of a conversion: its name, its duration, and the resulting file or folder, which load() can open.

    target: the recipe whose load() opens it; the recipe's own if empty. precision: that of the result's arithmetic.
    """

    name: str
    seconds: float
    path: Path
    target: str = ""
    precision: str = "fp32"


@dataclass(frozen=True)
class Operators:
    """The number of each operator in a payload, and the operators that run on the engine's slower kernels.

    fallbacks: None where the engine does not report them, or has only one kind of kernel. int8: the number of
    layers of each kind that multiply int8 numbers in the engine's own form of the payload on this processor; None where
    it does not tell, and for payloads without such numbers.
    """

    counts: dict[str, int]
    fallbacks: dict[str, int] | None = None
    int8: dict[str, int] | None = None


@dataclass(frozen=True)
class LayerTime:
    """The cost per run of one operator of the payload, as the engine runs it. None: the engine does not report it.

    bytes: of its inputs, weights and outputs, each counted once.
    """

    name: str
    operator: str
    ns: int
    macs: int | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class Job:
    """The task of a worker process for one artifact. Paths are relative to its working directory."""

    # detect: there is neither artifact nor recipe, so target, folder and the like are empty.
    task: Literal["time", "infer", "classify", "layers", "detect"]
    target: str
    folder: str
    payload: str  # inside the folder: what the recipe's load() opens
    sha256: str  # of the folder's tree; the worker refuses any other tree
    threads: int
    batch: int = 1
    seed: int = 0  # of the noise that the timed runs take as input
    min_runs: int = 100
    min_ns: int = 1_000_000_000
    warmup_min_runs: int = 10
    warmup_min_ns: int = 500_000_000
    warmup_max_ns: int = 5_000_000_000
    rate_hz: float | None = None  # time: one run per frame of a camera, not one after the other
    cold: bool = False  # time: take the artifact out of the file cache before load()
    max_memory_bytes: int | None = None  # of the worker and its children; None: the watchdog's share of all memory
    feeds: str = ""  # infer, classify: file or pipe with `count` sets of the inputs, raw, one after another
    count: int = 0
    keep: int = 1  # classify: classes of each sample, best first
    stall_s: float | None = None  # classify: time limit of one set; None: no limit
    engines: tuple[str, ...] = ()  # detect: distributions to look for


@dataclass(frozen=True)
class CoreCluster:
    """Cores of one kind. None or empty: the system does not report it.

    part: implementer and part number on ARM, "0x41:0xd0b". On x86 "small" for the slower kind of two, else empty.
    """

    cores: int
    part: str
    max_khz: int | None
    caches: tuple[tuple[str, int], ...]  # of the first core, level and bytes: (("L1d", 32768), ("L2", 524288))


@dataclass(frozen=True)
class Silicon:
    """What a machine computes with, as its kernel reports it. None or empty: it does not.

    instruction_sets: those by which engines choose their kernels, and that every core has. quota_cores: the share of
    the processor that the control groups of the process allow, in cores.
    """

    vendor: str  # "AuthenticAMD"; on ARM the implementer's number, "0x41"
    family: int | None
    model: int | None
    stepping: int | None
    instruction_sets: tuple[str, ...]
    clusters: tuple[CoreCluster, ...]
    hypervisor: str  # "unknown" for one that bears no name; empty: no sign of one
    quota_cores: float | None = None


@dataclass(frozen=True)
class Host:
    """The constant environment of a measurement. None: the system does not report it, or the row is older."""

    machine: str
    system: str
    kernel: str
    python: str
    cpu_model: str
    cores: int
    memory_bytes: int | None
    silicon: Silicon | None = None


@dataclass(frozen=True)
class Snapshot:
    """The variable environment of a measurement. None, and never zero: the system does not report it."""

    unix_ns: int
    affinity: tuple[int, ...]
    governor: str | None
    frequency_khz: int | None
    temperature_mc: int | None
    load_1min: float | None
    steal_ticks: int | None
    total_ticks: int | None
    power_source: str | None
    nominal_khz: int | None = None  # the processor's rated clock, or its highest one
    throttled: bool | None = None  # the system throttles the processor, or lacks voltage, now
    throttle_events: int | None = None  # since it started; only growth is meaningful
    runnable: int | None = None  # threads that run or wait for a core, of the whole machine, this one included
    quota_throttled_us: int | None = None  # how long a quota held this process back; only growth is meaningful


@dataclass(frozen=True)
class VendorSummary:
    """Statistics of the runs of one process, in ns, as printed by a vendor's program that does not print samples.

    They have the resolution of the printed text. None: not printed. p95_ns is the program's own 95th percentile.
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
    energy_j is the energy of all samples together, with the pauses between them. None: the system or engine does not
    report it. `summary` replaces the samples where a vendor's program ran as the worker and printed a summary only.
    """

    load_ns: int | None
    first_ns: int | None
    warmup_ns: tuple[int, ...]
    samples_ns: tuple[int, ...]
    warm: bool | None  # the warm-up rule was met before its time limit; None: unknown
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
    """The hardware and the installed engines of a device. None or empty: the system does not report it."""

    os: str | None  # "Debian GNU/Linux 12 (bookworm)"
    board: str | None  # "Raspberry Pi 5 Model B Rev 1.0"
    physical_cores: int | None
    accelerators: tuple[str, ...]  # names from the system, which do not tell what they can run
    engines: dict[str, str]  # distribution -> version


@dataclass(frozen=True)
class Reply:
    """The result of a job. `status` is ok only when the worker finished; otherwise `error` has the reason."""

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
    unit: str = ""  # the unit's own number; it is never stored, as the host stores a salted digest of it
    emulated: str = ""  # the processor's emulator: "qemu-aarch64"; empty on a real processor
    detected: DeviceInventory | None = None
    missing_instructions: str = ""  # unsupported: the instruction set that the payload needs and the processor lacks
    clonable_unit: bool = False  # a copy of its disk would send the same number
    as_verified: bool = True  # the weights and the arithmetic are those of the parity check


class Session(Protocol):
    """A loaded artifact, ready to run. Tensors are raw little-endian bytes in C order, so NumPy is not needed.

    A session that can time compilation separately has `compile_ns: int` too.
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
        """Return the outputs of the last run, in the order of `outputs`."""


class RecipeModule(Protocol):
    """A module of export_recipes. export() and annotate() need the converter, load() needs the engine only.

    A module may have optional functions. `check(options: Mapping[str, str]) -> None` raises ValueError for options that
    export() would refuse, before any folding or conversion. `layers(path, *, threads, tensors, batch, runs) ->
    tuple[LayerTime, ...]` is for engines that time their operators: it opens the payload as load() does, feeds
    `tensors` and returns each operator's median over `runs` runs. `import_engine()` lets the worker time that part of
    load() separately. `import_converter()` imports what export() needs, for a process that serves this target alone.
    """

    RECIPE: Recipe

    def export(
        self,
        model: Any,
        inputs: Mapping[str, Any],
        path: Path,
        *,
        outputs: Sequence[str],
        precision: str,
        dynamic_batch: bool,
        options: Mapping[str, str],
    ) -> tuple[Stage, ...]:
        """Write the payload at `path` for these example inputs by name, and return the stages with their durations.

        `outputs` are the names of the outputs, in the model's order.

        `model` is a module in evaluation mode, or the path of the payload that RECIPE.source made of it.
        Every stage leaves its result in `stages/` beside the payload, in a form that load() opens. So a wrong result
        can be traced to the failing stage.
        """

    def annotate(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write metadata into the payload, or do nothing where the format has none."""

    def operators(self, path: Path) -> Operators:
        """Count the payload's operators, without constants. This needs the converter's distributions."""

    def snippet(self, path: str, inputs: Sequence[TensorSpec]) -> str:
        """Return a few lines of Python that run the payload at `path` without edgevit, and print the top class."""

    def load(self, path: Path, *, threads: int) -> Session:
        """Open the payload with the engine. Raises UnsupportedError where that cannot run on this machine."""


@typing.runtime_checkable
class HostBound(Protocol):
    """The extra interface of a recipe module whose RECIPE.needs names special hardware."""

    def why_unavailable(self, to: Literal["build", "run"]) -> str:
        """Return the hardware that this machine lacks to build or run a payload; empty if it lacks nothing.

        This is quick and imports no engine.
        """


@typing.runtime_checkable
class Quantizing(Protocol):
    """An addition to a recipe module with precisions of QUANTIZED."""

    def dialect(self, precision: str, options: Mapping[str, str]) -> Dialect:
        """Return the numbers and operators that the engine has in a precision, for checked options of export()."""


@typing.runtime_checkable
class ProcessorBound(Protocol):
    """An addition to a recipe module with precisions that not every processor computes: RECIPE.processor_needs."""

    def missing_instructions(self, precision: str) -> str:
        """Return the instruction set that the precision needs and this processor lacks; empty if it lacks none."""
