"""Records about devices and what was measured on them: the rows of the latency database.

They are frozen, and can be written to JSON and read back (see edgevit_runtime.record).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from edgevit.records.model import Provenance
from edgevit_runtime.record import Host, Snapshot, Status, TensorSpec, VendorSummary

EMULATED = "emulated"  # flag of a row whose processor is not a real one: it speaks for no device
SUMMARY_ONLY = "summary_only"  # flag of a row with no samples: a vendor's program told what it made of them
MEAN_ONLY = "mean_only"  # flag of such a row, or of a published one, that has no median either
NOT_AS_VERIFIED = "not_as_verified"  # flag of a row whose program computed otherwise than what parity is checked of
DIGEST = "sha256:"  # begins an engine's version where its program tells none: the digest of the program
PROTOCOL_VERSION = 1  # of the measurement: rows of different protocols are never compared


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
    told: tuple[
        VendorSummary, ...
    ] = ()  # per process, in order, where a vendor's program keeps its samples: then none are


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
