"""Records of a choice: the budget, the candidates, the reasons against each, and the answer.

They are frozen, and can be written to JSON and read back (see edgevit_runtime.codec). Programs decide by the codes of
a Reason and the kinds of a Note; the English beside them is for people, and comes from edgevit.selection.wording.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from edgevit.records import choice_views
from edgevit.records.model import IMAGENET, Preprocessing, Provenance
from edgevit.records.network import Network

# Of Choice and JointChoice. Since 2 notes are records, and flags are codes. Since 3 an answer without a known accuracy
# is no_accuracy, a command may be empty, and the zoo is in question only where it was measured or named. Since 4
# candidates have networks, and two networks of one model are two candidates.
SCHEMA_VERSION = 4

# The number by which candidates that fit rank.
Objective = Literal["accurate", "fastest", "smallest"]


@dataclass(frozen=True)
class Budget:
    """The limits of an answer, and the number by which candidates within them rank.

    None means no limit. `percentile` is that of the latency: 1 to 99.
    """

    max_latency_ms: float | None = None
    percentile: int = 90
    min_top1_percent: float | None = None
    max_size_mb: float | None = None
    # Memory of the process at its largest, 10^6 bytes.
    max_memory_mb: float | None = None
    # Energy of one run.
    max_energy_mj: float | None = None
    objective: Objective = "accurate"


@dataclass(frozen=True)
class Basis:
    """The evidence behind a predicted latency.

    With this confidence the latency lies between the ends, and is at most the candidate's latency_upper_ms. `anchors`
    counts the rows of the device that it rests on. `nearest` names the other column that explains those rows best.
    `percentile` is the one that was predicted, where rows do not keep the one of the budget.
    """

    level: Literal["same graph", "transfer", "features", "refused"]
    confidence: float
    anchors: int = 0
    nearest: str = ""
    lower_ms: float | None = None
    upper_ms: float | None = None
    percentile: int | None = None


@dataclass(frozen=True)
class Candidate:
    """One model in one runtime and precision, with its numbers on the device of the question."""

    model: str
    target: str
    precision: str
    threads: int
    engine_version: str
    top1_percent: float | None
    top1_provenance: Provenance
    # The latency at the budget's percentile, and its upper bound, which is compared with the budget.
    latency_ms: float | None
    latency_upper_ms: float | None
    latency_provenance: Provenance
    size_mb: float | None
    parity_status: str
    grade: str
    # When it was measured, ISO 8601, UTC; empty for a prediction.
    measured: str
    measurement_id: str
    flags: tuple[str, ...] = ()
    # Half the width of the 95% interval of top1_percent; None: not reported.
    top1_error_percent: float | None = None
    engine: str = ""
    # The device's name when it was measured; for a prediction the device that it is made for.
    device: str = ""
    # Of the first input, with its batch; empty: not reported.
    input_shape: tuple[int, ...] = ()
    # Of the process at its largest, 10^6 bytes.
    memory_mb: float | None = None
    # Of one run.
    energy_mj: float | None = None
    # Of the model, by its card; empty: not reported.
    licence: str = ""
    # Of the artifact that ran, or would run; empty: not known.
    artifact_sha256: str = ""
    basis: Basis | None = None
    # The source of a published accuracy that is not the card's.
    top1_source: str = ""
    # What the model does: classify, detect...; empty: not known.
    task: str = ""
    # What the accuracy rests on and was not stated, as records.measurement.Accuracy has it.
    top1_assumed: tuple[str, ...] = ()
    # That the numbers are of; None: not recorded, or never built.
    network: Network | None = None
    # What tells apart the networks of one model, as records.network has it.
    network_id: str = ""
    # Of the artifact whose accuracy counts, where that is not the one that ran.
    top1_artifact_sha256: str = ""
    # Of the images of a measured accuracy.
    top1_preprocessing: Preprocessing | None = None
    # Where the row came from, as records.origin.Origin labels it; empty: measured here, or predicted.
    origin: str = ""


# Why the predictor says nothing of a model on a column.
RefusalCode = Literal["measured_nowhere", "few_rows", "unseen_family", "unlinked", "contradictory_rows"]

# The codes of a Reason, grouped by the kind of rejection that they belong to.
ReasonCode = Literal[
    # budget
    "latency_bound_above",
    "published_latency_above",
    "predicted_latency_above",
    "latency_not_published",
    "latency_bound_unknown",
    "mean_only",
    "no_bound_reported",
    "too_few_runs",
    "size_above",
    "size_unknown",
    "memory_above",
    "memory_unknown",
    "energy_above",
    "energy_unknown",
    "accuracy_below",
    "accuracy_unknown",
    # unusable
    "cannot_run",
    "throttled",
    "other_protocol",
    "emulated",
    "not_as_verified",
    "batched",
    "not_proven",
    # unmeasured
    "few_rows_of_configuration",
    "no_shared_rows",
    RefusalCode,
    # not_asked
    "published_by_others",
    "frame_rate",
    "other_target",
    "other_precision",
    "other_threads",
    "other_engine",
    "other_licence",
    "other_model",
    "other_task",
    "no_published_weights",
    "not_evaluated",
    # superseded
    "earlier_epoch",
    "newer_row",
    "older_engine",
    "slower_unit",
    "file_changed",
]
RejectionKind = Literal["budget", "unusable", "unmeasured", "not_asked", "superseded"]


@dataclass(frozen=True)
class Reason:
    """One reason against a candidate, by its code.

    `subject` names the thing that the reason is about: a limit (`p90`, `size`), a target, a status, a row. `detail` is
    a second name, or the text of an error. `value` is the number that was compared with `limit`.
    """

    code: ReasonCode
    subject: str = ""
    detail: str = ""
    value: float | None = None
    limit: float | None = None


@dataclass(frozen=True)
class Rejection:
    """A candidate that is no answer, with every reason for that; `reason` is their English.

    Kinds: budget (a limit is broken), unusable (it does not run, or is not proven), unmeasured (its latency is not
    known). not_asked: the filter or the data set excludes it. superseded: another row counts for the same candidate.
    excess: the share by which it breaks the limit that it breaks most, if any. is_open: a measurement or an evaluation
    may show that it fits.
    """

    candidate: Candidate
    reasons: tuple[Reason, ...]
    reason: str
    excess: float | None = None
    kind: RejectionKind = "budget"
    is_open: bool = False


@dataclass(frozen=True)
class Suggestion:
    """A measurement or an evaluation that may change the answer, with its reason and its command.

    command: runs as it is printed; empty where no command does, because the device or a folder is not known here.
    input_size: height and width in pixels; empty: not known. does: measure the latency, or evaluate the accuracy.
    artifact: the folder of what is to be evaluated, where that is known here. network and artifact_sha256: as of the
    candidate.
    """

    model: str
    target: str
    precision: str
    threads: int
    why: str
    command: str
    input_size: tuple[int, ...] = ()
    does: Literal["measure", "evaluate"] = "measure"
    artifact: str = ""
    network: Network | None = None
    artifact_sha256: str = ""


# How a question ends. infeasible: all known numbers break the budget. unmeasured: a candidate without numbers may fit.
# unsupported: no candidate of the filter runs there. no_accuracy: candidates fit, and the accuracy of none is known.
Outcome = Literal["chosen", "infeasible", "unmeasured", "unsupported", "no_accuracy"]

# Kinds of notes that concern the pick alone.
PickNoteKind = Literal[
    "pick_older_engine",
    "pick_runs_disagree",
    "pick_evaluated_not_run",
    "pick_predicted",
    "pick_not_exported",
    "pick_accuracy_unknown",
    "pick_accuracy_assumed",
    "pick_not_evaluated",
    "pick_earlier_network",
    "pick_file_changed",
    "pick_imported",
    "pick_accuracy_imported",
    "accuracy_tie",
    "speed_tie",
    "speed_tie_accurate",
    "unrated_is_better",
    "near_limit",
]
NoteKind = Literal[
    # About the device and its rows.
    "not_your_device",
    "imported_left_out",
    "noise_imported",
    "unknown_silicon",
    "mixed_silicon",
    "other_silicon",
    "several_units",
    "int8_is_slower",
    "nothing_succeeded",
    "published_left_out",
    "other_tasks_left_out",
    "medians_known",
    "reconstructed_left_out",
    "outdated_left_out",
    "published_accuracies",
    "none_evaluated",
    "images_differ",
    "several_networks",
    "network_changed",
    PickNoteKind,
]


@dataclass(frozen=True)
class Note:
    """A caveat beside the numbers, by its kind; `text` is its English.

    about_pick: it concerns the pick alone, and means nothing where another candidate is picked. `subjects` and
    `numbers` are the names and figures of the text, in its order. devices: those of a JointChoice that it concerns.
    """

    kind: NoteKind
    text: str
    about_pick: bool = False
    subjects: tuple[str, ...] = ()
    numbers: tuple[float, ...] = ()
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Choice:
    """The answer: the pick, or None, and the reasons against every other candidate.

    outcome: only `chosen` makes the pick a choice; with `no_accuracy` it leads those that fit, by the other numbers.
    fitting: best first; the pick leads. front: of those the ones that no other beats in accuracy and in latency,
    fastest first. unmeasured: models of the zoo that are in question, without a row on this device. dataset: that of
    the accuracies.
    """

    device: str
    budget: Budget
    picked: Candidate | None
    fitting: tuple[Candidate, ...]
    rejected: tuple[Rejection, ...]
    nearest_misses: tuple[Rejection, ...]
    unmeasured: tuple[str, ...]
    notes: tuple[Note, ...] = ()
    dataset: str = IMAGENET
    outcome: Outcome = "chosen"
    front: tuple[Candidate, ...] = ()
    measure_next: tuple[Suggestion, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def to_frame(self) -> Any:
        """Return a pandas.DataFrame with a line for each candidate, best first, with `verdict` and `reason`.

        Raises UsageError with the command that installs pandas where it is missing.
        """
        return choice_views.frame_of(choice_views.choice_lines(self))

    def __repr__(self) -> str:
        return choice_views.choice_repr(self)

    def _repr_html_(self) -> str:
        """Return a small table for notebooks: the pick, other candidates that fit, and the nearest misses."""
        return choice_views.choice_html(self)


@dataclass(frozen=True)
class JointRejection:
    """An artifact that does not fit on all devices; `reason` is the English of `reasons`.

    reasons: for each device in their order; empty where the artifact fits there, or where it is not known there.
    """

    model: str
    target: str
    precision: str
    reasons: tuple[tuple[Reason, ...], ...]
    reason: str
    is_open: bool
    input_shape: tuple[int, ...] = ()
    network: Network | None = None
    network_id: str = ""


@dataclass(frozen=True)
class JointChoice:
    """The answer for several devices at once: one artifact that fits on each of them, with its numbers on each.

    picked, and each of fitting and front, has one candidate per device, in the order of `devices`. picked is empty
    where no artifact fits on all. choices: the answers of the single devices.
    """

    devices: tuple[str, ...]
    budget: Budget
    picked: tuple[Candidate, ...]
    fitting: tuple[tuple[Candidate, ...], ...]
    rejected: tuple[JointRejection, ...]
    choices: tuple[Choice, ...]
    notes: tuple[Note, ...] = ()
    outcome: Outcome = "chosen"
    front: tuple[tuple[Candidate, ...], ...] = ()
    schema_version: int = SCHEMA_VERSION

    def to_frame(self) -> Any:
        """Return a pandas.DataFrame of every device's candidates, with `device_asked`; raises as Choice.to_frame."""
        lines = ((choice.device, line) for choice in self.choices for line in choice_views.choice_lines(choice))
        return choice_views.frame_of({"device_asked": device, **line} for device, line in lines)

    def __repr__(self) -> str:
        return choice_views.joint_repr(self)

    def _repr_html_(self) -> str:
        """Return tables for notebooks: the artifacts that fit on all devices, then each device alone."""
        return choice_views.joint_html(self)
