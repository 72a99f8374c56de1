"""Records of devices and measurements: the rows of the latency database.

They are frozen, and edgevit_runtime.codec writes them to JSON and reads them back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from edgevit.records.model import Preprocessing, Provenance
from edgevit.records.network import Network, network_id
from edgevit_runtime.record import Host, Snapshot, Status, TensorSpec, VendorSummary

EMULATED = "emulated"  # flag of a row of an emulated processor: it represents no device
SUMMARY_ONLY = "summary_only"  # flag of a row with no samples: a vendor's program printed a summary only
MEAN_ONLY = "mean_only"  # flag of a row with neither samples nor a median
NOT_AS_VERIFIED = "not_as_verified"  # flag of a row whose program computed differently from the parity check
OVERSUBSCRIBED = "oversubscribed"  # flag of a row whose engine had more threads than its process may use
UNVERIFIED = "unverified"  # parity_status of a row of an artifact without a parity check
BUSY = "busy"  # flag of a row of a machine with more threads to run than cores
UNKNOWN_SILICON = "unknown-silicon"  # end of the class of devices whose processor may be of several generations
TASK = "task:"  # prefix of the flag of a published row whose source names the task of the model
# prefix of the flag of a classifier in int8: of how many of its owner's images it gave the class of the float network
AGREEMENT = "agreement:"
DIGEST = "sha256:"  # prefix of an engine's version that is the digest of its program, which prints no version
CLASS_ORDER = "class_order"  # assumed by an accuracy: the order of the classes in the output
# assumed by an accuracy: preprocessing or an order of the classes that the artifact's manifest contradicts
NOT_OF_MANIFEST = "not_of_manifest"
NO_CLASS = -1  # of a Confusion
PROTOCOL_VERSION = 1  # of the measurement: rows of different protocols are never compared


@dataclass(frozen=True)
class Device:
    """A machine that runs artifacts. `device_id` identifies one unit, `device_class` all units like it."""

    name: str
    device_id: str
    device_class: str
    transport: str
    compute_units: tuple[str, ...] = ("cpu",)
    description: str = ""
    options: dict[str, str] = field(default_factory=dict)  # of the transport: host, port, python...


@dataclass(frozen=True)
class Measurement:
    """One row of the latency database: a configuration and its latencies. They are None where it did not run.

    The headline is the median of the processes' medians; low and high are the smallest and largest of them. An upper
    bound holds for its percentile with 99% confidence, and is `None` where there were too few runs.
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
    samples_ns: tuple[tuple[int, ...], ...]  # per process, in order; empty in listings, which do not need them
    source: str = ""  # of a published row
    licence: str = ""  # of the source
    untold: tuple[str, ...] = ()  # unknown in the source of a published row: names of fields, "samples", "host"
    graph_digest: str = ""  # the artifact's: equal for two checkpoints of one architecture; empty: unknown
    affinity: tuple[int, ...] = ()  # cores that the process may run on; identify() takes them from a snapshot
    nonce: str = ""  # random; distinguishes two measurements of one key and one start
    rate_hz: float | None = None  # frames of a camera, with samples from their arrival; None: run after run
    missed: int | None = None  # frames that came while another was computed; with a rate only
    discarded: int = 0  # blocks of runs that were throttled, and were run again
    import_ns: int | None = None  # time to import the engine, part of load_ns; None: unknown
    compile_ns: int | None = None  # time to compile the model, part of load_ns; None: unknown
    cold_load_ns: int | None = None  # load_ns with the artifact, but not the engine, out of the file cache
    energy_j: float | None = None  # per run, of all that the machine's meter measures; None: no readable meter
    told: tuple[
        VendorSummary, ...
    ] = ()  # per process, in order, where a vendor's program keeps its samples: then none are
    network: Network | None = None  # that the artifact was made from; None: not recorded

    @property
    def network_id(self) -> str:
        """What tells apart the networks of one model (records.network)."""
        return network_id(self.model, self.network, self.artifact_sha256)

    def __repr__(self) -> str:
        kind = f"{self.model} {self.target} {self.precision} on {self.device}, {self.threads} thread(s)"
        latency = f"p50 {self.p50_ns / 1e6:.3g} ms, grade {self.grade}" if self.p50_ns else self.status
        return f"Measurement({kind}: {latency})"


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of a model on a data set, with its source.

    metric contains its unit: top1_percent, top5_percent. error is half the width of the 95% interval of `value`, in the
    same unit; None where it is unknown. A measured accuracy belongs to one artifact in its engine. A published one
    belongs to a model, with the official weights unless `note` says otherwise. accuracy_id is the digest of all other
    fields (identity.accuracy_id). assumed: what the value rests on and was not stated, by the names of
    model.STATEABLE, CLASS_ORDER or NOT_OF_MANIFEST.
    """

    accuracy_id: str
    provenance: Provenance
    model: str
    family: str
    dataset: str  # "imagenet-1k val"
    metric: str
    value: float
    error: float | None
    examples: int | None  # number of examples; None: unknown
    source: str  # the publication of a published value; the data of a measured one
    licence: str = ""
    untold: tuple[str, ...] = ()  # fields that are unknown in a published source
    target: str = ""  # empty: the model in its own framework
    precision: str = ""
    artifact_sha256: str = ""
    graph_digest: str = ""
    weights_sha256: str = ""  # Source.state_sha256 of the evaluated model
    engine: str = ""
    engine_version: str = ""
    input_size: tuple[int, ...] = ()  # height, width in pixels
    dataset_sha256: str = ""  # of the examples, where they were available
    started: str = ""  # ISO 8601, UTC
    note: str = ""
    assumed: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None  # of the images; None: not reported
    network: Network | None = None  # that was evaluated; None: not recorded

    @property
    def network_id(self) -> str:
        """What tells apart the networks of one model (records.network)."""
        return network_id(self.model, self.network, self.artifact_sha256)


@dataclass(frozen=True)
class Confusion:
    """The classes that an artifact gave to the images of a data set: the confusion matrix of an accuracy.

    labels: names of the classes, in the order of the output. counts: (class of the images, class that the artifact
    gave, number of images), in order and without zeros; NO_CLASS for scores that are not numbers. confusion_id is the
    digest of the other fields (identity.confusion_id).
    """

    confusion_id: str
    accuracy_id: str  # of the top-1 accuracy
    labels: tuple[str, ...]
    counts: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Epoch:
    """A period of constant behaviour of a device. It starts with a row that repeats an earlier one and differs.

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
    """The request of one run of `edgevit sweep`, stored where it ran. sweep_id is random."""

    sweep_id: str
    started: str  # ISO 8601, UTC
    device_id: str
    device: str
    threads: int
    asked: tuple[str, ...]  # "mobilevig_ti onnx fp32", one for each artifact


@dataclass(frozen=True)
class NoiseFloor:
    """The spread of repeated measurements of one workload on a device. Smaller differences do not count.

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
