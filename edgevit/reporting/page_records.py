"""What the page shows, as records. Their JSON is the data block of the page: its scripts read these names."""

from __future__ import annotations

from dataclasses import dataclass

from edgevit.records.artifact import SCHEMA_VERSION, ParityCheck
from edgevit.records.choice import Basis
from edgevit.records.model import Provenance

PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Latency:
    """One percentile of one candidate, in milliseconds; None: not known.

    upper_ms: what it is at most. held_ms: what `edgevit choose` holds against a budget: the upper bound, or of a
    published row what its source tells. low_ms to high_ms is what is drawn as a bar: of a median the fastest to the
    slowest process, of another percentile from itself to its upper bound, of a prediction its interval. basis: what a
    prediction rests on.
    """

    ms: float | None
    low_ms: float | None
    high_ms: float | None
    upper_ms: float | None
    held_ms: float | None
    basis: Basis | None = None


@dataclass(frozen=True)
class Entry:
    """A line of the page: one candidate on one device, as the chooser sees it, and what its measurement tells.

    provenance: of the point as a whole, the weakest of its two numbers (candidates.origin). usable: it may be
    chosen; else `reason` says why not. What is predicted has no measurement: no date, no grade, no runs.
    """

    measurement_id: str  # of a prediction a text that names it
    device: int  # place in Report.devices
    model: str
    family: str
    target: str
    precision: str
    threads: int  # 0: not told
    top1_percent: float | None
    top1_error_percent: float | None
    top1_provenance: Provenance
    latency_provenance: Provenance
    provenance: Provenance
    p50: Latency
    p90: Latency
    p99: Latency
    size_mb: float | None
    parity_status: str
    grade: str
    flags: tuple[str, ...]
    remarks: tuple[str, ...]  # the flags in words, and the source of the accuracy
    usable: bool
    reason: str
    engine: str
    engine_version: str
    provider: str
    measured: str  # ISO 8601, UTC; empty: nobody says, or predicted
    age_days: int | None  # at the time of the report
    epoch: int | None  # of the device, when it was measured; None: not of this machine kind's record
    processes: int
    runs: int
    peak_memory_mb: float | None
    source: str
    licence: str
    artifact_sha256: str


@dataclass(frozen=True)
class Jump:
    """Where a device began to behave otherwise."""

    number: int
    started: str
    ratio: float
    reason: str


@dataclass(frozen=True)
class View:
    """The chooser's answer to one setting of the page's filters on one device; candidates are places in Report.entries.

    picks[i] is the pick of every latency budget from from_ms[i] on, up to the next; below the first nothing fits.
    front: by the latency that a budget is held against; front_by_value: by the percentile itself. Fastest first.
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
    """A unit with rows: what it is, how noisy, when it was measured, and what the page leaves out of its rows.

    usable and unusable count rows, predicted the candidates that are predicted at one percentile at least, unpredicted
    the others, by the reason.
    """

    device_id: str
    label: str  # one of a kind in this report
    device_class: str
    hosts: tuple[str, ...]  # as devices.describe says it, newest first
    compute_units: tuple[str, ...]
    engines: tuple[str, ...]
    first: str  # ISO 8601; empty: nobody says
    last: str
    grades: dict[str, int]
    noise_share: float | None
    noise_measured: str
    epochs: tuple[Jump, ...]
    usable: int
    unusable: int
    predicted: int
    unpredicted: tuple[tuple[str, int], ...]  # the most frequent reason first
    superseded: int
    not_asked: int
    published_left_out: int
    unmeasured: tuple[str, ...]  # models of the zoo
    answers: DeviceAnswers


@dataclass(frozen=True)
class ArtifactPart:
    """What an artifact's manifest tells of its fold and of the proof. It is on this machine, not in the database."""

    target: str
    precision: str
    sha256: str
    created: str
    weights: str
    fold_summary: str
    status: str  # of its parity; empty: it was never verified
    how: str
    inputs: str
    failing_stage: str
    checks: tuple[ParityCheck, ...]
    in_rows: bool  # rows of this report were measured of it


@dataclass(frozen=True)
class Proof:
    """What the rows of a model say of parity in one target and precision: a status and of how many rows."""

    target: str
    precision: str
    status: str  # empty: the row does not tell
    rows: int


@dataclass(frozen=True)
class ModelPart:
    """A model with rows: its card as far as it has one, what folding it leaves, and the proofs."""

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


@dataclass(frozen=True)
class Report:
    """All that one page holds. command: the one that makes it again. problems: what could not be read.

    confidence: of measured upper bounds; predicted_confidence: of what is predicted, None where nothing was to be.
    evaluated: a data set was asked for, so that models without an accuracy on it are never picked. choose_options: the
    options of `edgevit choose` that give answers of the same database in the same way.
    """

    command: str
    made: str  # ISO 8601, UTC
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
