"""Candidates from rows and cells, and the reasons that keep them from being compared with a budget at all."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import NamedTuple

from edgevit.records.artifact import PROVEN
from edgevit.records.choice import Basis, Candidate, Reason, RejectionKind
from edgevit.records.measurement import EMULATED, NOT_AS_VERIFIED, PROTOCOL_VERSION, Measurement
from edgevit.records.model import ANY_TASK, CLASSIFY, ModelCard, Provenance
from edgevit.selection.accuracy import Top1
from edgevit.selection.cells import Cell, Run
from edgevit.selection.limits import PercentileEstimate
from edgevit.selection.versions import is_older
from edgevit.selection.wording import OLDER_ENGINE, TOP1_OF_ANOTHER


class Exclusion(NamedTuple):
    """The facts of a Rejection, but for its candidate."""

    reasons: tuple[Reason, ...]
    excess: float | None
    kind: RejectionKind
    is_open: bool = False


@dataclass(frozen=True)
class CandidateFilter:
    """The candidates in question; None means all of them.

    licences: of the model, by its card. published: rows that others published count. reconstructed: models count
    whose papers published no weights. unrated: models count without an accuracy on the data set of the question.
    models: patterns of names. task: what the models do. A measured model of unknown task is in question for each task,
    a published one for ANY_TASK only. outdated: networks count whose files hold another one now. unevaluated: networks
    in int8 count by a bound on what they lose, where they were not evaluated.
    """

    targets: Collection[str] | None = None
    precisions: Collection[str] | None = None
    threads: int | None = None
    published: bool = False
    engines: Collection[str] | None = None
    licences: Collection[str] | None = None
    reconstructed: bool = False
    unrated: bool = False
    models: Collection[str] | None = None
    task: str = CLASSIFY
    outdated: bool = False
    unevaluated: bool = False

    def names(self, model: str) -> bool:
        """Return whether a model of this name is in question; a pattern may leave out the folder of a file."""
        short = model.rsplit("/", 1)[-1]
        return self.models is None or any(
            fnmatchcase(model, pattern) or fnmatchcase(short, pattern) for pattern in self.models
        )


EVERYTHING = CandidateFilter()


class PredictedCell(NamedTuple):
    """A cell with its predicted percentile. Where it is refused both numbers are None, and `refusal` says why."""

    cell: Cell
    estimate: PercentileEstimate
    basis: Basis
    refusal: Reason | None = None


def zoo_in_question(
    rows: Collection[Measurement], cards: Mapping[str, ModelCard], candidate_filter: CandidateFilter
) -> frozenset[str]:
    """Return the models of the zoo that may be candidates on a device without a row of their own.

    rows: the device's. Where all measured ones are of other models, the zoo is in question only if a pattern names it.
    All of its models are classifiers.
    """
    if candidate_filter.task not in (ANY_TASK, CLASSIFY):
        return frozenset()
    measured = {row.model for row in rows if row.provenance == "measured"}
    if candidate_filter.models is None and measured and not measured & cards.keys():
        return frozenset()
    return frozenset(filter(candidate_filter.names, cards))


def measured_candidate(
    row: Measurement,
    top1: Top1,
    estimate: PercentileEstimate,
    newest: Mapping[Hashable, str],
    card: ModelCard | None = None,
) -> Candidate:
    """Return the candidate of a measured or published row. estimate: at the percentile of the budget."""
    older = row.engine_version and is_older(row.engine_version, newest[row.device_id, row.target, row.engine])
    flags = dict.fromkeys((*row.flags, *top1.flags, *([OLDER_ENGINE] if older else [])))
    return replace(
        _candidate(row, top1, estimate, card, row.provenance),
        engine_version=row.engine_version,
        grade=row.grade,
        measured=row.started,
        measurement_id=row.measurement_id,
        flags=tuple(flags),
        memory_mb=None if row.peak_rss_bytes is None else row.peak_rss_bytes / 1e6,
        energy_mj=None if row.energy_j is None else row.energy_j * 1e3,
    )


def predicted_candidate(prediction: PredictedCell, top1: Top1, card: ModelCard | None = None) -> Candidate:
    """Return the candidate of a predicted cell."""
    cell, estimate, basis, _ = prediction
    candidate = _candidate(cell, top1, estimate, card, "predicted")
    return replace(candidate, measurement_id=cell.cell_id, flags=top1.flags, basis=basis)


def _candidate(
    run: Run, top1: Top1, estimate: PercentileEstimate, card: ModelCard | None, provenance: Provenance
) -> Candidate:
    latency_ns, upper_ns = estimate
    measured = top1.measured
    # A row that has the accuracy of trained weights, or of other labels, stands for those.
    borrowed = measured if set(TOP1_OF_ANOTHER) & set(top1.flags) else None
    return Candidate(
        model=run.model,
        target=run.target,
        precision=run.precision,
        threads=run.threads,
        engine_version="",
        top1_percent=top1.percent,
        top1_provenance=top1.provenance,
        top1_error_percent=top1.error_percent,
        top1_source=top1.source,
        task=top1.task,
        top1_assumed=top1.assumed,
        latency_ms=None if latency_ns is None else latency_ns / 1e6,
        latency_upper_ms=None if upper_ns is None else upper_ns / 1e6,
        latency_provenance=provenance,
        size_mb=run.artifact_bytes / 1e6 if run.artifact_bytes else None,
        parity_status=run.parity_status,
        grade="",
        measured="",
        measurement_id="",
        engine=run.engine,
        device=run.device,
        input_shape=run.inputs[0].shape if run.inputs else (),
        licence=card.licence if card else "",
        artifact_sha256=run.artifact_sha256,
        network=(borrowed or run).network,
        network_id=(borrowed or run).network_id,
        top1_artifact_sha256=""
        if measured is None or measured.artifact_sha256 == run.artifact_sha256
        else measured.artifact_sha256,
        top1_preprocessing=None if measured is None else measured.preprocessing,
    )


def why_row_excluded(
    row: Measurement,
    candidate: Candidate,
    candidate_filter: CandidateFilter,
    superseded: Mapping[str, Reason],
    former: Collection[str],
) -> Exclusion | None:
    """Return the exclusion of a row before it is compared with a budget. `former`: ids of earlier epochs."""
    reason = why_excluded_by_filter(row, candidate_filter) or why_model_excluded(candidate, candidate_filter)
    reason = reason or why_task_excluded(candidate, candidate_filter, published=row.provenance == "published")
    if reason:
        return Exclusion((reason,), None, "not_asked")
    if row.measurement_id in former:
        return Exclusion((Reason("earlier_epoch"),), None, "superseded")
    if reason := superseded.get(row.measurement_id):
        return Exclusion((reason,), None, "superseded")
    if reason := _why_unusable(row):
        return Exclusion((reason,), None, "unusable")
    return None


def why_excluded_by_filter(run: Run, candidate_filter: CandidateFilter) -> Reason | None:
    """Return the reason why a row or a cell is not in question; None where it is."""
    if isinstance(run, Measurement):
        if run.provenance == "published" and not candidate_filter.published:
            return Reason("published_by_others", run.source)
        if run.rate_hz is not None:
            return Reason("frame_rate", value=run.rate_hz)
    if candidate_filter.targets is not None and run.target not in candidate_filter.targets:
        return Reason("other_target", run.target)
    if candidate_filter.precisions is not None and run.precision not in candidate_filter.precisions:
        return Reason("other_precision", run.precision)
    if candidate_filter.threads is not None and run.threads != candidate_filter.threads:
        return Reason("other_threads", value=run.threads)
    if candidate_filter.engines is not None and not _is_named(run.engine, candidate_filter.engines):
        return Reason("other_engine", run.engine or "unknown")
    return None


def why_model_excluded(candidate: Candidate, candidate_filter: CandidateFilter) -> Reason | None:
    """Return the reason why a candidate's model is not in question; None where it is."""
    if not candidate_filter.names(candidate.model):
        return Reason("other_model", candidate.model)
    if candidate_filter.licences is not None and not _is_named(candidate.licence, candidate_filter.licences):
        return Reason("other_licence", candidate.licence or "unknown")
    if candidate.top1_provenance == "reconstructed" and not candidate_filter.reconstructed:
        return Reason("no_published_weights")
    return None


def why_task_excluded(candidate: Candidate, candidate_filter: CandidateFilter, *, published: bool) -> Reason | None:
    """Return the reason why a candidate's task is not in question; None where it is.

    published: all that is known of the model was published by others, so that it may do anything.
    """
    if candidate_filter.task in (ANY_TASK, candidate.task) or not (candidate.task or published):
        return None
    return Reason("other_task", candidate.task or "unknown")


def _is_named(name: str, names: Collection[str]) -> bool:
    return name.lower() in {one.lower() for one in names}


def _why_unusable(row: Measurement) -> Reason | None:
    error = row.error.splitlines()[0] if row.error.strip() else ""
    if row.status == "throttled":
        return Reason("throttled", detail=error)
    if row.status != "ok":
        return Reason("cannot_run", row.status, error)
    if row.provenance == "measured" and row.protocol_version != PROTOCOL_VERSION:
        return Reason("other_protocol", value=row.protocol_version, limit=PROTOCOL_VERSION)
    if EMULATED in row.flags:
        return Reason("emulated")
    if NOT_AS_VERIFIED in row.flags:
        return Reason("not_as_verified", row.engine)
    if row.batch != 1:
        return Reason("batched", value=row.batch)
    if row.provenance != "published" and row.parity_status not in PROVEN:
        return Reason("not_proven", row.parity_status or "unknown")
    return None
