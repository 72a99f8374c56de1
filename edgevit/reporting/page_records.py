"""The records of a report. Their JSON is the data block of the page, whose scripts read these names."""

from __future__ import annotations

from dataclasses import dataclass

from edgevit.records.artifact import SCHEMA_VERSION, ParityCheck
from edgevit.records.choice import Basis
from edgevit.records.model import Provenance

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Latency:
    """One percentile of one candidate, in milliseconds; None: not known.

    upper_ms: its upper bound. held_ms: the number that `edgevit choose` compares with a budget, which is the upper
    bound, or for a published row the source's number. low_ms to high_ms: the bar that is drawn. For a median it goes
    from the fastest to the slowest process, for another percentile from itself to its upper bound, and for a prediction
    along its interval. basis: the evidence of a prediction.
    """

    ms: float | None
    low_ms: float | None
    high_ms: float | None
    upper_ms: float | None
    held_ms: float | None
    basis: Basis | None = None


@dataclass(frozen=True)
class Entry:
    """A row of the page: one candidate on one device, as the chooser sees it, with the facts of its measurement.

    provenance: that of the point as a whole, the weaker of its two numbers (candidates.origin). usable: it may be
    chosen; otherwise `reason` says why not. A prediction has no measurement: no date, no grade, no runs. remarks: the
    flags in words, and the source of the accuracy.
    """

    # For a prediction a text that names its cell.
    measurement_id: str
    # The place in Report.devices.
    device: int
    model: str
    family: str
    target: str
    precision: str
    # 0: not reported.
    threads: int
    top1_percent: float | None
    top1_error_percent: float | None
    top1_provenance: Provenance
    # What the accuracy rests on and was not stated.
    top1_assumed: tuple[str, ...]
    latency_provenance: Provenance
    provenance: Provenance
    p50: Latency
    p90: Latency
    p99: Latency
    size_mb: float | None
    parity_status: str
    grade: str
    flags: tuple[str, ...]
    remarks: tuple[str, ...]
    usable: bool
    reason: str
    engine: str
    engine_version: str
    provider: str
    # ISO 8601, UTC; empty: not reported, or predicted.
    measured: str
    # At the time of the report.
    age_days: int | None
    # The epoch of the device at the time of the measurement; None: the date is not known.
    epoch: int | None
    processes: int
    runs: int
    peak_memory_mb: float | None
    source: str
    # As in Candidate: empty where the row was measured here, or is predicted.
    origin: str
    licence: str
    artifact_sha256: str
    # What tells apart the networks of one model.
    network_id: str
    # The weights and the form in a few words; empty: random weights of the zoo, or not built.
    weights: str


@dataclass(frozen=True)
class Jump:
    """An epoch of a device: from `started` on its latencies differ from the earlier ones by `ratio`."""

    number: int
    started: str
    ratio: float
    reason: str


@dataclass(frozen=True)
class View:
    """The chooser's answer to one setting of the page's filters on one device; candidates are places in Report.entries.

    picks[i] is the pick of every latency budget from from_ms[i] on, up to the next; below the first no candidate fits.
    front: by the latency that is compared with a budget; front_by_value: by the percentile itself. Fastest first.
    """

    from_ms: tuple[float, ...]
    picks: tuple[int, ...]
    front: tuple[int, ...]
    front_by_value: tuple[int, ...]


@dataclass(frozen=True)
class DeviceAnswers:
    """The views of a device, as places in `distinct`. Both tables are in row-major order, the last axis the fastest.

    predicted: percentile, reconstructed models (without, with); predictions are candidates, and published rows where
    the report has them. measured: percentile, reconstructed (without, with), published (without, with), target (all,
    then each of `targets` where there are several), precision, threads (the same way); predictions are no candidates.
    """

    targets: tuple[str, ...]
    precisions: tuple[str, ...]
    threads: tuple[int, ...]
    predicted: tuple[int, ...]
    measured: tuple[int, ...]
    distinct: tuple[View, ...]


@dataclass(frozen=True)
class DevicePart:
    """A unit with rows: its hardware, its noise, the dates of its rows, and how many rows the page leaves out.

    label: unique in this report. hosts: as devices.describe says it, newest first. first and last: ISO 8601; empty: not
    reported. usable and unusable count rows. predicted counts the candidates that are predicted at one percentile at
    least, unpredicted the others by reason, the most frequent first. unmeasured: models of the zoo.
    """

    device_id: str
    label: str
    device_class: str
    hosts: tuple[str, ...]
    compute_units: tuple[str, ...]
    engines: tuple[str, ...]
    first: str
    last: str
    grades: dict[str, int]
    noise_share: float | None
    noise_measured: str
    epochs: tuple[Jump, ...]
    usable: int
    unusable: int
    predicted: int
    unpredicted: tuple[tuple[str, int], ...]
    superseded: int
    not_asked: int
    published_left_out: int
    unmeasured: tuple[str, ...]
    answers: DeviceAnswers


@dataclass(frozen=True)
class ArtifactPart:
    """The fold and the proof of an artifact, from its manifest, which is on this machine and not in the database.

    status: of its parity; empty: it was never verified. in_rows: rows of this report were measured of it.
    """

    target: str
    precision: str
    sha256: str
    created: str
    weights: str
    fold_summary: str
    status: str
    how: str
    inputs: str
    failing_stage: str
    checks: tuple[ParityCheck, ...]
    in_rows: bool


@dataclass(frozen=True)
class Proof:
    """A parity status of a model in one target and precision, and the number of its rows; empty: not reported."""

    target: str
    precision: str
    status: str
    rows: int


@dataclass(frozen=True)
class ClassPart:
    """The right answers on the images of one class, and the class that most of its other images were given."""

    label: str
    right: int
    images: int
    taken_for: str
    taken: int


@dataclass(frozen=True)
class EvaluationPart:
    """A measured accuracy with its confusion matrix. assumed: what it rests on, in words; empty: nothing assumed.

    matrix: numbers of images, a row for the class of the images and a column for the class that was given, in the order
    of `labels`; empty for more classes than a table shows. classes: the worst first.
    """

    target: str
    precision: str
    artifact_sha256: str
    weights: str
    dataset: str
    percent: float
    error_percent: float | None
    images: int
    assumed: str
    measured: str
    labels: tuple[str, ...]
    matrix: tuple[tuple[int, ...], ...]
    classes: tuple[ClassPart, ...]


@dataclass(frozen=True)
class ModelPart:
    """A model with rows: the facts of its card, if it has one, its cost after folding, its proofs and evaluations."""

    name: str
    family: str
    carded: bool
    provenance: str
    source: str
    licence: str
    top1_percent: float | None
    top1_source: str
    params: int | None
    macs: int | None
    folded_params: int | None
    folded_macs: int | None
    proofs: tuple[Proof, ...]
    artifacts: tuple[ArtifactPart, ...]
    evaluations: tuple[EvaluationPart, ...] = ()


@dataclass(frozen=True)
class Report:
    """The content of one page.

    command: the command that makes it again. created: ISO 8601, UTC. evaluated: a data set was asked for, so that
    models without an accuracy on it are never picked. confidence: of measured upper bounds; predicted_confidence: of
    predictions, None where the report has none. problems: artifacts that could not be read. choose_options: the options
    of `edgevit choose` that give answers of the same database in the same way.
    """

    command: str
    created: str
    edgevit: str
    dataset: str
    evaluated: bool
    published: bool
    confidence: float
    predicted_confidence: float | None
    devices: tuple[DevicePart, ...]
    entries: tuple[Entry, ...]
    models: tuple[ModelPart, ...]
    artifacts_read: bool
    problems: tuple[str, ...]
    choose_options: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION
