"""Records about a choice: the budget, the candidates, why each was rejected, and the answer.

They are frozen, and can be written to JSON and read back (see edgevit_runtime.record).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

from edgevit.errors import UsageError
from edgevit.records.artifact import SCHEMA_VERSION
from edgevit.records.model import IMAGENET, Provenance


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
