"""Notes on an answer: caveats that a reader should know beside the numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from edgevit.records.choice import Budget, Candidate, Note, Rejection
from edgevit.records.measurement import Measurement
from edgevit.selection.constraints import latency_for_budget
from edgevit.selection.ranking import as_accurate, rank, rank_by_speed
from edgevit.selection.wording import OLDER_ENGINE, note

_AGREEMENT = 0.1  # share beyond which the processes of a grade D disagree


def nearness(fitting: Sequence[Candidate], budget: Budget, noise: tuple[float, str]) -> Iterable[Note]:
    """Yield the notes on the device's noise: a faster candidate, or a limit, that it cannot tell from the pick.

    noise: the share that the device cannot resolve, and its source.
    """
    if not fitting or fitting[0].latency_provenance != "measured" or fitting[0].latency_upper_ms is None:
        return
    share, source = noise
    fastest = min(as_accurate(fitting), key=rank_by_speed)
    if (latency_for_budget(fastest) or 0.0) < fitting[0].latency_upper_ms:
        yield note("speed_tie", _name(fastest), source, numbers=(share,))
    if budget.max_latency_ms is not None and fitting[0].latency_upper_ms * (1 + share) > budget.max_latency_ms:
        yield note("near_limit", source, numbers=(share,))


def notes_on_accuracy(fitting: Sequence[Candidate]) -> Iterable[Note]:
    """Yield a note where the pick's accuracy is not known, or where it is not the highest."""
    if not fitting:
        return
    picked, best = fitting[0], min(fitting, key=rank)
    if picked.top1_percent is None:
        yield note("pick_accuracy_unknown")
    elif best.top1_percent is not None and best.top1_percent > picked.top1_percent:
        lost = best.top1_percent - picked.top1_percent
        yield note("accuracy_tie", _name(best), numbers=(lost, best.top1_error_percent or 0.0))


def _name(candidate: Candidate) -> str:
    return f"{candidate.model} {candidate.target} {candidate.precision}"


def notes_on_prediction(picked: Candidate | None) -> Iterable[Note]:
    """Yield the notes on the evidence of a predicted pick."""
    if picked is None or picked.basis is None:
        return
    basis = picked.basis
    subjects = (basis.level, basis.nearest) if basis.nearest else (basis.level,)
    yield note("pick_predicted", *subjects, numbers=(basis.anchors, basis.confidence))
    if not picked.parity_status:
        yield note("pick_not_exported")


def notes_on_omissions(published_rows: int, rejected: Sequence[Rejection]) -> Iterable[Note]:
    """Yield the notes on candidates that an option takes in: published rows, models without published weights."""
    if published_rows:
        yield note("published_left_out", numbers=(published_rows,))
    codes = {(reason.code, rejection.candidate.model) for rejection in rejected for reason in rejection.reasons}
    if models := sorted(model for code, model in codes if code == "no_published_weights"):
        yield note("reconstructed_left_out", *models)


def notes_on_rows(
    rows: Sequence[Measurement], device: str, picked: Candidate | None, newest: Mapping[object, str]
) -> Iterable[Note]:
    """Yield the notes on the units of the device, and on the row of the pick."""
    units = {row.device_id for row in rows}
    if len(units) > 1:
        yield note("several_units", device, numbers=(len(units),))
    if picked and OLDER_ENGINE in picked.flags:
        row = next(row for row in rows if row.measurement_id == picked.measurement_id)
        latest = newest[row.device_id, row.target, row.engine]
        yield note("pick_older_engine", row.engine, row.engine_version, latest)
    if picked and picked.grade == "D":
        yield note("pick_runs_disagree", picked.grade, numbers=(_AGREEMENT,))
    if picked and picked.parity_status == "evaluated":
        yield note("pick_evaluated_not_run", picked.target)
    if not any(row.status == "ok" for row in rows):
        yield note("nothing_succeeded", device)
