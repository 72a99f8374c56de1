"""How long a sweep will take: from what its models took before, else a guess that is marked as one."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from edgevit.artifacts.folder import open_artifact
from edgevit.cards import load_cards
from edgevit.errors import ArtifactError
from edgevit.measurement.runner import Protocol
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit.records.measurement import Measurement
from edgevit.store import LatencyDB
from edgevit.sweeps.plan import artifact_folder, held_artifact, still_to_measure
from edgevit.sweeps.run import SweepPlan
from edgevit_runtime.record import Job

EXPORT_GUESS_S = 40.0  # what the zoo's smaller models take here, folding and verification included
MACS_PER_SECOND_GUESS = 2e10  # of one thread of a recent processor
MACS_GUESS = 10**9  # of a model that nobody has counted
START_GUESS_S = 0.5  # interpreter, digest, engine, first run


@dataclass(frozen=True)
class SweepStep:
    """One thing a sweep would do, and the seconds it may take. does: export, measure, or nothing if it is held."""

    label: str
    does: str
    seconds: float
    source: str
    is_guess: bool = False


def forecast(plan: SweepPlan, db: str | None) -> list[SweepStep]:
    """Return the steps of a sweep in their order: the exports, then the measurements for each thread count.

    Nothing is exported, measured or imported from torch. An artifact of a person's own file counts as current: whether
    it is only the file itself can tell.  Raises StoreError.
    """
    requests, device, protocol = plan.requests, plan.device, plan.protocol
    existing = [(request, held_artifact(request)) for request in requests]
    steps = [export_step(request, requests) for request, artifact in existing if artifact is None]
    with LatencyDB.open(db) as database:
        rows = [row for row in database.trusting("trusted").measurements(device=device.device_id) if _run_ns(row)]
    artifacts = [artifact for _, artifact in existing if artifact is not None]
    for count in plan.thread_counts:
        missing = artifacts if plan.again else still_to_measure(artifacts, plan.row_query(count, db))
        for request, artifact in existing:
            label = f"{request.label}, {count} thread(s)"
            if artifact is None or artifact in missing:
                steps.append(measure_step(label, request, count, protocol, rows))
            else:
                steps.append(SweepStep(label, "nothing", 0.0, "held by the database"))
    return steps


def export_step(request: ExportRequest, requests: Sequence[ExportRequest]) -> SweepStep:
    """Return the step that exports one artifact; `requests` are all whose folders may tell what an export takes."""
    own_seconds = _export_seconds(request)
    if own_seconds is not None:
        return SweepStep(request.label, "export", own_seconds, "its last export")
    same_target = (other for other in requests if other.target == request.target)
    others = [seconds for other in same_target if (seconds := _export_seconds(other)) is not None]
    if others:
        return SweepStep(request.label, "export", statistics.median(others), "exports of other models", is_guess=True)
    return SweepStep(request.label, "export", EXPORT_GUESS_S, "a guess", is_guess=True)


def _export_seconds(request: ExportRequest) -> float | None:
    """Return what the stages of the existing artifact took, whether it is current or not."""
    try:
        artifact: Artifact = open_artifact(artifact_folder(request))
    except ArtifactError:
        return None
    return sum(stage.seconds for stage in artifact.stages) or None


def measure_step(
    label: str, request: ExportRequest, threads: int, protocol: Protocol, rows: Sequence[Measurement]
) -> SweepStep:
    """Return the step that measures one artifact, whose folder need not exist; `rows` are the device's that ran."""
    of_model = [row for row in rows if row.model == request.model]
    for source, similar in (
        ("an earlier row", [row for row in of_model if _is_like(row, request, threads)]),
        ("a row of the model in another form", of_model),
    ):
        if similar:
            run_s = _run_ns(similar[-1]) / 1e9
            start_s = ((similar[-1].load_ns or 0) + (similar[-1].first_ns or 0)) / 1e9
            seconds = _protocol_seconds(protocol, run_s, START_GUESS_S + start_s)
            return SweepStep(label, "measure", seconds, source, is_guess=similar is of_model)
    macs = _macs(request.model)
    speeds = [macs_of_row / _run_ns(row) * 1e9 for row in rows if (macs_of_row := _macs(row.model))]
    speed = statistics.median(speeds) if speeds else MACS_PER_SECOND_GUESS
    source = "other models' speed here" if speeds and macs else "a guess"
    return SweepStep(
        label,
        "measure",
        _protocol_seconds(protocol, (macs or MACS_GUESS) / speed, START_GUESS_S),
        source,
        is_guess=True,
    )


def _run_ns(row: Measurement) -> int:
    """Return what a run took; the mean where no median is told. 0: it did not run."""
    return row.p50_ns or row.mean_ns or 0


def _is_like(row: Measurement, request: ExportRequest, threads: int) -> bool:
    return (row.target, row.precision, row.threads) == (request.target, request.precision, threads)


def _macs(model: str) -> int | None:
    card = load_cards().get(model)
    return None if card is None else card.folded_macs or card.macs


def _protocol_seconds(protocol: Protocol, run_s: float, start_s: float) -> float:
    """Return the time of all processes of one artifact, as runtime/edgevit_runtime/timing.py would make them."""
    step_s = max(run_s, math.ceil(run_s * protocol.rate_hz) / protocol.rate_hz) if protocol.rate_hz else run_s
    warm_up_s = max(Job.warmup_min_ns / 1e9, Job.warmup_min_runs * step_s)
    return protocol.processes * (start_s + warm_up_s + max(protocol.min_ns / 1e9, protocol.runs_per_process * step_s))
