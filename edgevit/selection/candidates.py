"""Rows as candidates, those that are asked for, and those that can be held against a budget at all."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping
from typing import Literal, NamedTuple

from edgevit.records.artifact import PROVEN
from edgevit.records.choice import Basis, Candidate
from edgevit.records.measurement import EMULATED, NOT_AS_VERIFIED, PROTOCOL_VERSION, Measurement
from edgevit.records.model import ModelCard
from edgevit.selection.accuracy import Top1
from edgevit.selection.limits import Reading
from edgevit.selection.versions import is_older


class Verdict(NamedTuple):
    """What a Rejection says of its candidate."""

    reason: str
    excess: float | None
    kind: Literal["budget", "unusable", "unmeasured", "not_asked", "superseded"]
    is_open: bool = False


class Wanted(NamedTuple):
    """Which candidates are in question; None: all of them."""

    targets: Collection[str] | None = None
    precisions: Collection[str] | None = None
    threads: int | None = None
    published: bool = False  # rows that others published, too
    engines: Collection[str] | None = None
    licences: Collection[str] | None = None  # of the model, by its card
    reconstructed: bool = False  # accuracies of papers that published no weights, too
    unrated: bool = False  # models without a known accuracy on the data set that is asked about, too


EVERYTHING = Wanted()


class Predicted(NamedTuple):
    """A row that nobody measured: what would run where, without times. `reading` is what is predicted of it.

    Where that is refused both of its numbers are None, and `why` says what is missing.
    """

    row: Measurement
    reading: Reading
    basis: Basis
    why: str = ""


def candidate_of(
    row: Measurement,
    top1: Top1,
    reading: Reading,
    newest: Mapping[Hashable, str],
    card: ModelCard | None = None,
    basis: Basis | None = None,
) -> Candidate:
    """What a row says of its candidate. reading: at the percentile asked for; basis: of a predicted row."""
    flags = dict.fromkeys((*row.flags, *top1.flags))  # a set that keeps its order
    if row.engine_version and is_older(row.engine_version, newest[row.device_id, row.target, row.engine]):
        flags["older engine"] = None
    latency_ns, upper_ns = reading
    return Candidate(
        model=row.model,
        target=row.target,
        precision=row.precision,
        threads=row.threads,
        engine_version=row.engine_version,
        top1_percent=top1.percent,
        top1_provenance=top1.provenance,
        top1_error_percent=top1.error_percent,
        latency_ms=None if latency_ns is None else latency_ns / 1e6,
        latency_upper_ms=None if upper_ns is None else upper_ns / 1e6,
        latency_provenance=row.provenance,
        size_mb=row.artifact_bytes / 1e6 if row.artifact_bytes else None,
        parity_status=row.parity_status,
        grade=row.grade,
        measured=row.started,
        measurement_id=row.measurement_id,
        flags=tuple(flags),
        engine=row.engine,
        device=row.device,
        input_shape=row.inputs[0].shape if row.inputs else (),
        memory_mb=None if row.peak_rss_bytes is None else row.peak_rss_bytes / 1e6,
        energy_mj=None if row.energy_j is None else row.energy_j * 1e3,
        licence=card.licence if card else "",
        artifact_sha256=row.artifact_sha256,
        basis=basis,
    )


def hindrance(
    row: Measurement, candidate: Candidate, wanted: Wanted, spoken_for: Mapping[str, str], former: Collection[str]
) -> Verdict | None:
    """Why a measured or published row is not even held against the budget. `former`: ids of earlier epochs."""
    if no := unwanted(row, wanted) or unasked(candidate, wanted):
        return Verdict(no, None, "not_asked")
    if row.measurement_id in former:
        return Verdict("measured before the device changed: edgevit db epochs", None, "superseded")
    if superseded := spoken_for.get(row.measurement_id):
        return Verdict(superseded, None, "superseded")
    if unusable := _unusable(row):
        return Verdict(unusable, None, "unusable")
    return None


def unwanted(row: Measurement, wanted: Wanted) -> str:
    """Why what a row ran is not what was asked for; empty where it is."""
    if row.provenance == "published" and not wanted.published:
        return f"not asked for: published by {row.source}"
    if row.rate_hz is not None:
        return f"not asked for: at {row.rate_hz:g} frames a second, which is no measure of run after run"
    if wanted.targets is not None and row.target not in wanted.targets:
        return f"not asked for: target {row.target}"
    if wanted.precisions is not None and row.precision not in wanted.precisions:
        return f"not asked for: precision {row.precision}"
    if wanted.threads is not None and row.threads != wanted.threads:
        return f"not asked for: {row.threads} threads"
    if wanted.engines is not None and row.engine.lower() not in {name.lower() for name in wanted.engines}:
        return f"not asked for: engine {row.engine or 'unknown'}"
    return ""


def unasked(candidate: Candidate, wanted: Wanted) -> str:
    """Why its model is not what was asked for; empty where it is."""
    if wanted.licences is not None and candidate.licence.lower() not in {name.lower() for name in wanted.licences}:
        return f"not asked for: licence {candidate.licence or 'unknown'}"
    if candidate.top1_provenance == "reconstructed" and not wanted.reconstructed:
        return NO_WEIGHTS
    return ""


def _unusable(row: Measurement) -> str:
    """Why a row can meet no budget at all."""
    error = f": {row.error.splitlines()[0]}" if row.error.strip() else ""
    if row.status == "throttled":
        return f"not measured: the device was throttled{error}"
    if row.status != "ok":
        return f"{CANNOT_RUN}: {row.status}{error}"
    if row.provenance == "measured" and row.protocol_version != PROTOCOL_VERSION:
        return f"measured by protocol {row.protocol_version}, not {PROTOCOL_VERSION}: measure again"
    if EMULATED in row.flags:
        return "measured under emulation, which says nothing of a real device"
    if NOT_AS_VERIFIED in row.flags:
        return f"{row.engine} computed with other weights or in another arithmetic than what was verified"
    if row.batch != 1:
        return f"measured in batches of {row.batch}; a budget is for one input"
    if row.provenance != "published" and row.parity_status not in PROVEN:
        return f"parity {row.parity_status or 'unknown'}: the artifact is not proven to compute the model"
    return ""


NO_WEIGHTS = "not asked for: reconstructed from its paper, and nobody published weights"
CANNOT_RUN = "cannot run here"  # begins the reason of a candidate whose run failed: nothing to be measured again
