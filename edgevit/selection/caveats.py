"""What a reader of an answer should know beside the numbers."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

from edgevit.records.choice import Budget, Candidate, Rejection
from edgevit.records.measurement import Measurement
from edgevit.selection.candidates import NO_WEIGHTS
from edgevit.selection.constraints import held
from edgevit.selection.ranking import as_accurate, rank, rank_by_speed


def nearness(fitting: Sequence[Candidate], budget: Budget, floor: tuple[float, str]) -> Iterable[str]:
    """What the device's noise leaves open about the pick, the first of these."""
    if not fitting or fitting[0].latency_provenance != "measured" or fitting[0].latency_upper_ms is None:
        return
    says = f"{floor[0]:.1%} ({floor[1]})"
    fastest = min(as_accurate(fitting), key=rank_by_speed)
    if (held(fastest) or 0.0) < fitting[0].latency_upper_ms:
        yield f"{_name(fastest)} is faster by less than {says}: the smaller one is picked"
    if budget.max_latency_ms is not None and fitting[0].latency_upper_ms * (1 + floor[0]) > budget.max_latency_ms:
        yield f"the pick is nearer to the limit than {says}, so another measurement may break it"


def on_accuracy(fitting: Sequence[Candidate]) -> Iterable[str]:
    """That the pick's accuracy is not known, or not the highest, and why it is picked nevertheless."""
    if not fitting:
        return
    picked, best = fitting[0], min(fitting, key=rank)
    if picked.top1_percent is None:
        yield "the accuracy of the pick is not known, nor that of anything else that fits"
    elif best.top1_percent is not None and best.top1_percent > picked.top1_percent:
        yield (
            f"{_name(best)} is {best.top1_percent - picked.top1_percent:.2f} points more accurate, which is within the "
            f"error of its evaluation ({best.top1_error_percent:.2f}): the faster one is picked"
        )


def is_about_pick(note: str) -> bool:
    """Whether a note tells something of the pick alone, so that it means nothing where another one is picked."""
    return "the pick" in note or note.endswith("is picked")


def _name(item: Candidate) -> str:
    return f"{item.model} {item.target} {item.precision}"


def on_prediction(picked: Candidate | None) -> Iterable[str]:
    """What a predicted pick rests on."""
    if picked is None or picked.basis is None:
        return
    basis = picked.basis
    near = f", nearest {basis.nearest}" if basis.nearest else ""
    yield (
        f"the pick is predicted ({basis.level}, {basis.anchors} rows of the device{near}): with {basis.confidence:.0%} "
        "confidence its latency is at most what is shown; --measure tells"
    )
    if not picked.parity_status:
        yield "the pick has not been exported yet: --export exports and verifies it"


def left_out(
    rows: Sequence[Measurement], counted: Sequence[Measurement], rejected: Sequence[Rejection]
) -> Iterable[str]:
    """What was not asked for, and may be: published rows, and models without published weights."""
    if left := len(rows) - len(counted):
        yield f"{left} published row(s) left out: others measured those, and --published takes them in"
    if models := sorted({item.candidate.model for item in rejected if item.reason == NO_WEIGHTS}):
        yield (
            f"left out: {', '.join(models)}, reconstructed from papers that published no weights; "
            "--reconstructed takes them in by the papers' accuracies"
        )


def notes_on(
    rows: Sequence[Measurement], device: str, picked: Candidate | None, newest: Mapping[Hashable, str]
) -> Iterable[str]:
    """What the rows and the pick are, where that may surprise."""
    units = {row.device_id for row in rows}
    if len(units) > 1:
        yield f"{len(units)} units answer to {device!r}; for each candidate the slowest one counts"
    if picked and "older engine" in picked.flags:
        row = next(row for row in rows if row.measurement_id == picked.measurement_id)
        latest = newest[row.device_id, row.target, row.engine]
        yield f"the pick was measured with {row.engine} {row.engine_version}; {latest} is on the device: measure again"
    if picked and picked.grade == "D":
        yield "runs of the pick did not agree within 10% (grade D): measure again on an idle device"
    if picked and picked.parity_status == "evaluated":
        yield f"{picked.target}'s own engine has not been compared: the pick's file was evaluated instead"
    if not any(row.status == "ok" for row in rows):
        yield f"no run on {device!r} succeeded yet"
