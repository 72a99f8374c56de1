"""The doors between rooms: frozen records that can be written to JSON and read back (see edgevit_runtime.record)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from edgevit.errors import UsageError
from edgevit_runtime.record import Host, Operators, Snapshot, Status, TensorSpec, Told

Provenance = Literal["published", "measured", "predicted", "reconstructed"]
SCHEMA_VERSION = 1
PROVEN = ("passed", "evaluated")  # the statuses of Parity that say: what the file computes has been compared
EMULATED = "emulated"  # flag of a row whose processor is not a real one: it speaks for no device
SUMMARY_ONLY = "summary_only"  # flag of a row with no samples: a vendor's program told what it made of them
MEAN_ONLY = "mean_only"  # flag of such a row, or of a published one, that has no median either
NOT_AS_VERIFIED = "not_as_verified"  # flag of a row whose program computed otherwise than what parity is checked of
DIGEST = "sha256:"  # begins an engine's version where its program tells none: the digest of the program
IMAGENET = "imagenet-1k val"  # the data set that the cards' accuracies are of
PROTOCOL_VERSION = 1  # of the measurement: rows of different protocols are never compared


@dataclass(frozen=True)
class OperatorCost:
    """One operator of a graph. kind: what it is, and what its speed depends on - a depthwise 3x3 convolution.

    macs: multiply-accumulates; parameters: numbers in its weights; activations: numbers that it reads and writes.
    count: how many such operators there are; the numbers are those of one.
    """

    kind: str
    macs: float
    parameters: float
    activations: float
    count: int = 1


@dataclass(frozen=True)
class Graph:
    """What a folded network computes with at batch 1: its operators, without weights and without their order.

    graph_digest: of the network (edgevit.fold.digest). graph_id is the digest of all the rest (identity.graph_id): two
    versions of a framework may take one network apart into other operators, and then both lists are kept.
    """

    graph_id: str
    graph_digest: str
    operators: tuple[OperatorCost, ...]  # equal ones counted together, in an order of their own


@dataclass(frozen=True)
class ModelOperators:
    """The operators of a zoo model's folded form at its card's input size and batch 1, in the form of a Graph."""

    model: str
    operators: tuple[OperatorCost, ...]


@dataclass(frozen=True)
class PublishedLatency:
    """A latency that somebody else reports. Papers give no spread and no percentiles, so neither do we."""

    device: str
    engine: str
    precision: str
    latency_ms: float
    source: str


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the input: resize so that the crop is `crop_pct` of it, then (pixel/255 - mean) / std.

    interpolation: of the resize, as Pillow calls it: bicubic, bilinear, nearest...
    """

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    crop_pct: float = 0.875
    layout: str = "NCHW"
    colour: str = "RGB"
    range: tuple[float, float] = (0.0, 1.0)
    interpolation: str = "bicubic"


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model. `provenance` says whether the design is the published one or reconstructed.

    `params` and `macs` are of the training form, `folded_*` of the folded one; both are counted by edgevit at the
    card's input size and batch 1. top1_percent is ImageNet-1k, as `source` reports it for the official weights.
    """

    name: str
    family: str
    inputs: tuple[TensorSpec, ...]
    source: str
    licence: str
    provenance: Provenance
    top1_percent: float | None
    top1_source: str
    latencies: tuple[PublishedLatency, ...] = ()
    preprocessing: Preprocessing = Preprocessing()
    params: int | None = None
    macs: int | None = None
    folded_params: int | None = None
    folded_macs: int | None = None


@dataclass(frozen=True)
class ParityCheck:
    """One comparison: which form against which, over how many inputs, and how far apart.

    max_rel is the largest absolute difference over the largest magnitude of the reference, the worst over the inputs;
    snr_db is 10 log10 of signal power over error power, None where the two are equal to the bit.
    """

    stage: str
    against: str
    max_rel: float
    snr_db: float | None
    top1_agreement: float
    tolerance: str
    passed: bool
    how: str = ""  # what computed it: an engine with its version and provider, or a reference evaluator


@dataclass(frozen=True)
class Parity:
    """Whether an artifact computes the model's function, how that was found, and every comparison made.

    passed: its own engine ran it. evaluated: a reference evaluator computed what the file says, its engine did not run.
    built_not_run: nothing here computes it; `how` says what it needs, and which earlier stage is proven.
    The numbers are those of the comparison that `how` names, and None where none could be made at all.
    """

    status: Literal["passed", "failed", "built_not_run", "evaluated"]
    how: str  # "onnxruntime 1.31.1 CPUExecutionProvider, separate process"
    inputs: str  # "4 noise, 3 photographs"
    max_rel: float | None
    snr_db: float | None  # None too where the two are equal to the bit
    top1_agreement: float | None
    tolerance: str  # of that comparison; empty where there is none
    checks: tuple[ParityCheck, ...]
    guilty_stage: str = ""


@dataclass(frozen=True)
class StageTime:
    """What one stage of an export cost."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Source:
    """Where the weights of an artifact come from. Random weights are honest for latency and parity, never accuracy."""

    model: str  # a zoo name, or path/to/file.py:function
    weights: Literal["random", "file", "function"]  # function: as the user's function made them
    seed: int | None = None
    weights_file: str = ""
    weights_sha256: str = ""
    state_sha256: str = ""  # of the tensors themselves, however they were stored


@dataclass(frozen=True)
class Artifact:
    """A folder with an exported model. The manifest in it holds this record, less the folder's own path."""

    folder: Path
    model: str
    family: str
    target: str
    precision: str
    payload: str  # the file or folder inside `folder` that the engine opens
    sha256: str  # of the tree, the manifest left out
    size_bytes: int
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    dynamic_batch: bool
    folded: bool
    fold_summary: str
    params: int
    macs: int
    source: Source
    preprocessing: Preprocessing
    toolchain: dict[str, str]  # distribution -> version
    stages: tuple[StageTime, ...]
    operators: Operators
    created: str  # ISO 8601, UTC
    parity: Parity | None = None
    options: dict[str, str] = field(default_factory=dict)  # of the target
    preprocessing_inside: bool = False  # then the input is uint8 (N, H, W, 3)
    files: dict[str, str] = field(default_factory=dict)  # of the tree, by name: sha256
    labels: tuple[str, ...] = ()  # of the classes, in the order of the output; empty: not told
    graph_digest: str = ""  # of the operators that were exported, without weights and names; see edgevit.fold.digest
    costs: tuple[OperatorCost, ...] = ()  # of those operators, as a Graph has them; empty: not told, or not of batch 1
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Device:
    """A place where artifacts run. `device_id` names one unit, `device_class` all units like it; `name` is a label."""

    name: str
    device_id: str
    device_class: str
    transport: str
    compute_units: tuple[str, ...] = ("cpu",)
    description: str = ""
    options: dict[str, str] = field(default_factory=dict)  # of the transport: host, port, python...


@dataclass(frozen=True)
class Measurement:
    """One row of the latency database: what ran, where, how, and how long it took (None: it did not run).

    The headline is the median of the processes' medians; low and high are the smallest and largest of them. An upper
    bound holds for its percentile with 99% confidence, and is None where too few runs were made to give one.
    """

    measurement_id: str
    measurement_key: str
    status: Status
    error: str
    provenance: Provenance
    model: str
    family: str
    target: str
    precision: str
    artifact_sha256: str
    artifact_bytes: int
    engine: str
    engine_version: str
    provider: str
    device: str
    device_id: str
    device_class: str
    compute_unit: str
    threads: int
    batch: int
    inputs: tuple[TensorSpec, ...]
    parity_status: str
    protocol_version: int
    started: str  # ISO 8601, UTC
    processes: int
    runs: int
    p50_ns: int | None
    p50_low_ns: int | None
    p50_high_ns: int | None
    p90_ns: int | None
    p90_upper_ns: int | None
    p99_ns: int | None
    p99_upper_ns: int | None
    min_ns: int | None
    mean_ns: int | None
    iqr_ns: int | None
    mad_ns: int | None
    load_ns: int | None
    first_ns: int | None
    peak_rss_bytes: int | None
    grade: Literal["A", "B", "C", "D", ""]
    flags: tuple[str, ...]
    host: Host | None
    snapshots: tuple[Snapshot, ...]  # before and after each process, in order
    samples_ns: tuple[tuple[int, ...], ...]  # per process, in order; empty in listings, where nobody reads them
    source: str = ""  # of a published row
    licence: str = ""  # under which the source gives it
    untold: tuple[str, ...] = ()  # what the source of a published row does not say: names of fields, "samples", "host"
    graph_digest: str = ""  # the artifact's: equal for two checkpoints of one architecture; empty: not told
    affinity: tuple[
        int, ...
    ] = ()  # the cores it was held to, as the key has them; identify() reads them off a snapshot
    nonce: str = ""  # random; tells two measurements of one key and one start apart
    rate_hz: float | None = None  # frames of a camera, and samples from their arrival; None: run after run
    missed: int | None = None  # frames that came while another was computed; of a rate only
    discarded: int = 0  # blocks of runs that a gate did not let pass, and that were made again
    import_ns: int | None = None  # of the engine, part of load_ns; of a compilation, the next; None: it cannot be told
    compile_ns: int | None = None
    cold_load_ns: int | None = None  # load_ns with the artifact out of the file cache, and not the engine
    energy_j: float | None = None  # per run, of all that the machine's meter measures; None: no meter to be read
    told: tuple[Told, ...] = ()  # per process, in order, where a vendor's program keeps its samples: then none are


@dataclass(frozen=True)
class Accuracy:
    """How well a model does on a data set, and who says so.

    metric carries its unit: top1_percent, top5_percent. error is half the width of the 95% interval of `value`, in the
    same unit; None where it is not told. Measured: of one artifact in its engine. Published: of a model, with the
    official weights unless `note` says otherwise. accuracy_id is the digest of all the rest (identity.accuracy_id).
    """

    accuracy_id: str
    provenance: Provenance
    model: str
    family: str
    dataset: str  # "imagenet-1k val"
    metric: str
    value: float
    error: float | None
    examples: int | None  # that it was computed from; None: not told
    source: str  # of a published value: where it is; of a measured one: what the data was
    licence: str = ""
    untold: tuple[str, ...] = ()  # what a published source does not say
    target: str = ""  # empty: of the model, in its own framework
    precision: str = ""
    artifact_sha256: str = ""
    graph_digest: str = ""
    weights_sha256: str = ""  # Source.state_sha256 of what was evaluated
    engine: str = ""
    engine_version: str = ""
    input_size: tuple[int, ...] = ()  # height, width in pixels
    dataset_sha256: str = ""  # of the examples, where they were at hand
    started: str = ""  # ISO 8601, UTC
    note: str = ""


@dataclass(frozen=True)
class Epoch:
    """A stretch of time in which a device behaves alike. It opens with a row that repeats an earlier one and differs.

    ratio: the row's headline over the earlier ones' median. limit: the share beyond which that is a jump.
    """

    device_id: str
    device: str  # its name then
    number: int  # 1 is the first one that was opened; 0, before it, has no record
    started: str  # ISO 8601, UTC: of the row that opened it
    measurement_id: str  # that row
    reference_id: str  # the newest row that it repeats
    ratio: float
    limit: float
    reason: str


@dataclass(frozen=True)
class SweepRecord:
    """What one run of `edgevit sweep` was asked for, kept where it ran. sweep_id is random."""

    sweep_id: str
    started: str  # ISO 8601, UTC
    device_id: str
    device: str
    threads: int
    asked: tuple[str, ...]  # "mobilevig_ti onnx fp32", one for each artifact


@dataclass(frozen=True)
class NoiseFloor:
    """How far repeated measurements of one workload differ on a device: what is nearer than that is no difference.

    share: range of the repeats' headlines over their median. p50s_ns: the headlines, in order.
    """

    device_id: str
    device: str  # its name then
    workload: str
    threads: int
    share: float
    p50s_ns: tuple[int, ...]
    started: str  # ISO 8601, UTC
    protocol_version: int = PROTOCOL_VERSION


@dataclass(frozen=True)
class Budget:
    """What an answer must fit. None: no limit. `percentile` is of the latency that the limit is for: 1 to 99."""

    max_latency_ms: float | None = None
    percentile: int = 90
    min_top1_percent: float | None = None
    max_size_mb: float | None = None
    max_memory_mb: float | None = None  # of the process at its largest, 10^6 bytes
    max_energy_mj: float | None = None  # per run


@dataclass(frozen=True)
class Basis:
    """What a predicted latency rests on. With this confidence it is between the ends, and at most the candidate's
    latency_upper_ms. anchors: rows of the device that it rests on; nearest: what else explains those best.
    """

    level: Literal["same graph", "transfer", "features", "refused"]
    confidence: float
    anchors: int = 0
    nearest: str = ""
    lower_ms: float | None = None
    upper_ms: float | None = None


@dataclass(frozen=True)
class Candidate:
    """One model in one runtime and precision, with what is known of it on the device asked about."""

    model: str
    target: str
    precision: str
    threads: int
    engine_version: str
    top1_percent: float | None
    top1_provenance: Provenance
    latency_ms: float | None  # at the percentile asked for
    latency_upper_ms: float | None  # what is held against the budget
    latency_provenance: Provenance
    size_mb: float | None
    parity_status: str
    grade: str
    measured: str  # ISO 8601, UTC; when; empty: predicted
    measurement_id: str
    flags: tuple[str, ...] = ()
    top1_error_percent: float | None = None  # half the width of its 95% interval; None: not told
    engine: str = ""
    device: str = ""  # its name when it was measured; of a prediction: what it is for
    input_shape: tuple[int, ...] = ()  # of the first input, with its batch; empty: not told
    memory_mb: float | None = None  # of the process at its largest, 10^6 bytes
    energy_mj: float | None = None  # per run
    licence: str = ""  # of the model, by its card; empty: not told
    artifact_sha256: str = ""  # of what ran; of a prediction: of what would; empty: not known
    basis: Basis | None = None  # of a predicted latency


@dataclass(frozen=True)
class Rejection:
    """A candidate that was not picked and why. excess: share by which it breaks the limit it breaks most, if any.

    kind: budget (a limit is broken), unusable (it does not run, or is not proven), unmeasured (nothing is known of its
    latency), not_asked (another target, precision, thread count or data set was wanted), superseded (another row speaks
    for the same candidate). is_open: nothing that is known is in the way, so that measuring or evaluating it may show
    that it fits.
    """

    candidate: Candidate
    reason: str
    excess: float | None = None
    kind: Literal["budget", "unusable", "unmeasured", "not_asked", "superseded"] = "budget"
    is_open: bool = False


@dataclass(frozen=True)
class Suggestion:
    """What to do next that may change the answer, why, and the command that does it.

    input_size: height and width in pixels; empty: not known. does: measure its latency, or evaluate its accuracy.
    """

    model: str
    target: str
    precision: str
    threads: int
    why: str
    command: str
    input_size: tuple[int, ...] = ()
    does: Literal["measure", "evaluate"] = "measure"


# What was found. infeasible: what is known does not fit. unmeasured: something may fit, and nobody measured it.
# unsupported: nothing that was asked for runs there.
Outcome = Literal["chosen", "infeasible", "unmeasured", "unsupported"]


@dataclass(frozen=True)
class Choice:
    """The answer: the pick, or None, and why each other candidate was not it.

    front: of those that fit the ones that no other beats in accuracy and in latency, fastest first.
    """

    device: str
    budget: Budget
    picked: Candidate | None
    fitting: tuple[Candidate, ...]
    rejected: tuple[Rejection, ...]
    nearest_misses: tuple[Rejection, ...]
    unmeasured: tuple[str, ...]  # models of the zoo with no row for this device
    notes: tuple[str, ...] = ()
    dataset: str = IMAGENET  # that the accuracies are of
    outcome: Outcome = "chosen"
    front: tuple[Candidate, ...] = ()
    measure_next: tuple[Suggestion, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def to_frame(self) -> Any:
        """Every candidate as a line of a pandas.DataFrame, best first, with `verdict` and `reason`.

        Raises UsageError with the command that installs pandas where it is missing.
        """
        return _frame(_lines_of(self))


@dataclass(frozen=True)
class JointRejection:
    """An artifact that does not fit on all devices, and what is in the way on each of them."""

    model: str
    target: str
    precision: str
    reason: str
    is_open: bool


@dataclass(frozen=True)
class JointChoice:
    """The answer for several devices at once: one artifact that fits on each of them, with its numbers on each.

    picked, and each of fitting and front, has one candidate per device, in the order of `devices`.
    """

    devices: tuple[str, ...]
    budget: Budget
    picked: tuple[Candidate, ...]  # empty: none fits on all
    fitting: tuple[tuple[Candidate, ...], ...]
    rejected: tuple[JointRejection, ...]
    choices: tuple[Choice, ...]  # what each device alone says
    notes: tuple[str, ...] = ()
    outcome: Outcome = "chosen"
    front: tuple[tuple[Candidate, ...], ...] = ()
    schema_version: int = SCHEMA_VERSION

    def to_frame(self) -> Any:
        """Every candidate of every device as a line of a pandas.DataFrame, with `device_asked`; raises as Choice's."""
        lines = ({"device_asked": choice.device, **line} for choice in self.choices for line in _lines_of(choice))
        return _frame(lines)


def _lines_of(choice: Choice) -> Iterator[dict[str, Any]]:
    verdicts = [(item, "picked" if item is choice.picked else "fits", "") for item in choice.fitting]
    verdicts += [(item.candidate, item.kind, item.reason) for item in choice.rejected]
    for candidate, verdict, reason in verdicts:
        basis = vars(candidate.basis) if candidate.basis else dict.fromkeys(item.name for item in fields(Basis))
        plain = {name: value for name, value in vars(candidate).items() if name != "basis"}
        yield {
            **plain,
            **{f"basis_{name}": value for name, value in basis.items()},
            "verdict": verdict,
            "reason": reason,
        }


def _frame(lines: Iterable[dict[str, Any]]) -> Any:
    try:
        import pandas
    except ImportError as error:
        raise UsageError("a frame needs pandas", why=str(error), fix="pip install 'edgevit[pandas]'") from error
    return pandas.DataFrame(list(lines))
