"""Notes on an answer: caveats that a reader should know beside the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from edgevit.records.choice import Budget, Candidate, Note, NoteKind, Objective, Rejection
from edgevit.records.measurement import UNKNOWN_SILICON, Measurement
from edgevit.records.network import describe_network, full_name, network_labels
from edgevit.selection.accuracy import is_rounded
from edgevit.selection.constraints import latency_for_budget
from edgevit.selection.ranking import as_accurate, rank, rank_by_speed
from edgevit.selection.wording import OLDER_ENGINE, note

_SINGLE = "fp32"
_AGREEMENT = 0.1  # share beyond which the processes of a grade D disagree


def nearness(fitting: Sequence[Candidate], budget: Budget, noise: tuple[float, str]) -> Iterable[Note]:
    """Yield the notes on the device's noise: a faster candidate, or a limit, that it cannot tell from the pick.

    noise: the share that the device cannot resolve, and its source.
    """
    if not fitting or fitting[0].latency_provenance != "measured" or fitting[0].latency_upper_ms is None:
        return
    share, source = noise
    rated = [candidate for candidate in fitting if candidate.top1_percent is not None] or fitting
    rivals = as_accurate(fitting) if budget.objective == "accurate" else rated
    fastest = min(rivals, key=rank_by_speed)
    is_slower = (latency_for_budget(fastest) or 0.0) < fitting[0].latency_upper_ms
    if is_slower and budget.objective != "smallest":
        kind: NoteKind = "speed_tie" if budget.objective == "accurate" else "speed_tie_accurate"
        yield note(kind, _name(fastest), source, numbers=(share,))
    if budget.max_latency_ms is not None and fitting[0].latency_upper_ms * (1 + share) > budget.max_latency_ms:
        yield note("near_limit", source, numbers=(share,))


def notes_on_precision(candidates: Iterable[Candidate]) -> Iterable[Note]:
    """Yield a note for each network whose int8 form was measured to be slower than its form in fp32."""
    measured = [one for one in candidates if one.latency_provenance == "measured" and one.latency_ms]
    single = {_form(one): one for one in measured if one.precision == _SINGLE}
    for one in measured:
        other = single.get(_form(one))
        if is_rounded(one.precision) and other is not None and one.latency_ms and other.latency_ms:
            times = one.latency_ms / other.latency_ms
            if times > 1:
                yield note("int8_is_slower", _name(one), other.precision, numbers=(times,))


def _form(candidate: Candidate) -> tuple[object, ...]:
    """Return what two files of one network have in common whose precisions are compared."""
    return (candidate.model, candidate.network_id, candidate.target, candidate.threads, candidate.input_shape)


def notes_on_accuracy(fitting: Sequence[Candidate], objective: Objective) -> Iterable[Note]:
    """Yield a note where the pick's accuracy is not known, or where it is not the best by a number of another one."""
    if not fitting:
        return
    picked, best = fitting[0], min(fitting, key=rank)
    if picked.top1_percent is None:
        yield note("pick_accuracy_unknown")
    elif objective == "fastest":
        yield from _better(fitting, latency_for_budget, "faster")
    elif objective == "smallest":
        yield from _better(fitting, lambda candidate: candidate.size_mb, "smaller")
    elif best.top1_percent is not None and best.top1_percent > picked.top1_percent:
        lost = best.top1_percent - picked.top1_percent
        yield note("accuracy_tie", _name(best), numbers=(lost, best.top1_error_percent or 0.0))


def _better(fitting: Sequence[Candidate], number: Callable[[Candidate], float | None], word: str) -> Iterable[Note]:
    """Yield a note on the candidate of unknown accuracy that has the least number, where the pick has more."""
    of_pick = number(fitting[0])
    numbers = ((number(one), rank(one), one) for one in fitting if one.top1_percent is None)
    least = min(((value, key, one) for value, key, one in numbers if value is not None), default=None)
    if least and of_pick is not None and least[0] < of_pick:
        yield note("unrated_is_better", _name(least[2]), word)


def _name(candidate: Candidate) -> str:
    return f"{full_name(candidate)} {candidate.target} {candidate.precision}"


def notes_on_prediction(picked: Candidate | None) -> Iterable[Note]:
    """Yield the notes on the evidence of a predicted pick."""
    if picked is None or picked.basis is None:
        return
    basis = picked.basis
    subjects = (basis.level, basis.nearest) if basis.nearest else (basis.level,)
    yield note("pick_predicted", *subjects, numbers=(basis.anchors, basis.confidence))
    if not picked.parity_status:
        yield note("pick_not_exported")


def notes_on_networks(in_question: Sequence[Candidate], picked: Candidate | None) -> Iterable[Note]:
    """Yield the notes on models that several networks were measured under, and on a pick that is not the newest."""
    built = [one for one in in_question if one.basis is None and one.artifact_sha256]
    labels = network_labels(built)
    for model in sorted({model for model, _ in labels}):
        names = sorted({text for (name, _), text in labels.items() if name == model})
        yield note("several_networks", model, *names, numbers=(len(names),))
    stated: dict[Statement, dict[str, str]] = {}
    for one in built:
        if one.network is not None:
            dates = stated.setdefault(Statement.of(one), {})
            dates[one.network_id] = max(dates.get(one.network_id, ""), one.measured)
    for statement, dates in stated.items():
        if len(dates) > 1:
            yield note("network_changed", statement.model, statement.words, numbers=(len(dates),))
    if picked and (dates := stated.get(Statement.of(picked), {})):
        measured = dates.get(picked.network_id, "")
        if measured and any(measured < other for other in dates.values()):
            yield note("pick_earlier_network", picked.model, describe_network(picked), measured)


class Statement(NamedTuple):
    """What a person states of a network; it gives another network once a file has changed."""

    model: str
    words: str
    input_shape: tuple[int, ...]

    @classmethod
    def of(cls, candidate: Candidate) -> Statement:
        """Return the statement of a candidate."""
        return cls(candidate.model, describe_network(candidate), candidate.input_shape)


def notes_on_omissions(published_rows: int, rejected: Sequence[Rejection]) -> Iterable[Note]:
    """Yield the notes on candidates that an option takes in.

    Those are published rows, models without published weights, and networks whose files were overwritten.
    """
    if published_rows:
        yield note("published_left_out", numbers=(published_rows,))
    of_published = (one for one in rejected if one.candidate.latency_provenance == "published")
    if others := sum(any(reason.code == "other_task" for reason in one.reasons) for one in of_published):
        yield note("other_tasks_left_out", numbers=(others,))
    codes = {(reason.code, rejection.candidate.model) for rejection in rejected for reason in rejection.reasons}
    if models := sorted(model for code, model in codes if code == "no_published_weights"):
        yield note("reconstructed_left_out", *models)
    reasons = (reason for rejection in rejected for reason in rejection.reasons)
    if files := [reason.subject for reason in reasons if reason.code == "file_changed"]:
        yield note("outdated_left_out", *sorted(set(files)), numbers=(len(files),))


def notes_on_medians(
    rows: Sequence[Measurement], fitting: Sequence[Candidate], rejected: Sequence[Rejection], budget: Budget
) -> Iterable[Note]:
    """Yield a note where no candidate has the percentile of the budget, and some have a median."""
    if any(latency_for_budget(candidate) is not None for candidate in fitting):
        return
    in_question = [*fitting, *(rejection.candidate for rejection in rejected if rejection.kind == "budget")]
    without = {one.measurement_id for one in in_question if latency_for_budget(one) is None}
    if count := sum(row.measurement_id in without and _has_median(row) for row in rows):
        yield note("medians_known", numbers=(count, budget.percentile))


def _notes_on_silicon(rows: Sequence[Measurement], device: str) -> Iterable[Note]:
    """Yield the notes on rows whose silicon is not known, and on rows of one device with different silicon."""
    if unknown := sorted({row.device_class for row in rows if row.device_class.endswith(UNKNOWN_SILICON)}):
        yield note("unknown_silicon", *unknown)
    silicon = [row.host.silicon for row in rows if row.host and row.host.silicon]
    if len(sets := {one.instruction_sets for one in silicon}) > 1:
        yield note("mixed_silicon", device, numbers=(len(sets),))


def _has_median(row: Measurement) -> bool:
    """Return whether a budget on the median could be compared with a row."""
    return (row.p50_ns if row.provenance == "published" else row.p50_high_ns) is not None


def notes_on_rows(
    rows: Sequence[Measurement], device: str, picked: Candidate | None, newest: Mapping[object, str]
) -> Iterable[Note]:
    """Yield the notes on the units of the device, and on the row of the pick."""
    yield from _notes_on_silicon(rows, device)
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
