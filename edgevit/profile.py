"""Artifact + device -> Measurement: the protocol of docs/measure.md, one fresh process after another.

In a sweep the processes of all artifacts are interleaved in random order, so that what drifts (heat, a neighbour's
load) falls on all of them alike. What one artifact does, crash or hang, costs its own row and nothing else.
"""

from __future__ import annotations

import dataclasses
import math
import random
import secrets
import statistics
import tempfile
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgevit.errors import UsageError
from edgevit.identity import identify
from edgevit.pack import pack
from edgevit.provenance import require_built_here
from edgevit.recipes import load_recipe
from edgevit.statistics import (
    PROTOCOL_MIN_NS,
    PROTOCOL_MIN_RUNS,
    PROTOCOL_PROCESSES,
    Summary,
    runs_needed,
    summarise,
)
from edgevit.transports import WORKER, Transport, load_transport
from edgevit.types import PROTOCOL_VERSION, Artifact, Device, Measurement
from edgevit_runtime.record import Job, Reply, Timing

UNVERIFIED = "unverified"  # parity_status of an artifact that nobody has checked
_ARTIFACT = "artifact"  # the folder's name in the worker's directory
STOLEN_SHARE = 0.01  # of the ticks of a process, taken by the hypervisor: as large as the differences we tell apart


@dataclass(frozen=True)
class Settings:
    """How long and how often to measure. The defaults are the protocol; less of them is flagged and graded so."""

    processes: int = PROTOCOL_PROCESSES
    min_runs: int = PROTOCOL_MIN_RUNS  # per process
    min_ns: int = PROTOCOL_MIN_NS  # per process
    percentile: int | None = 99  # runs are added until its upper bound exists; None: do not add any
    batch: int = 1
    timeout_s: float = 300.0  # per process

    @classmethod
    def quick(cls, *, batch: int = 1) -> Settings:
        """A first look: two processes, just enough runs to bound a p90; flagged as such and graded C at best."""
        return cls(processes=2, min_runs=1, min_ns=0, percentile=90, batch=batch)

    @property
    def runs_per_process(self) -> int:
        """Runs that each process makes at least."""
        if self.percentile is None:
            return self.min_runs
        return max(self.min_runs, math.ceil(runs_needed(self.percentile / 100) / self.processes))


@dataclass(frozen=True)
class Progress:
    """A process that has just ended: which artifact's, how, and how far the sweep is."""

    artifact: Artifact
    status: str
    done: int
    total: int  # processes; falls when an artifact fails, because its other processes are not run


def profile(
    artifact: Artifact,
    device: Device,
    *,
    threads: int,
    settings: Settings | None = None,
    seed: int = 0,
    built_here: Container[str] = (),
) -> Measurement:
    """Measure one artifact. The row's status says if it could not run; raises as `profile_all` does."""
    [measurement] = profile_all(
        [artifact], device, threads=threads, settings=settings, seed=seed, built_here=built_here
    )
    return measurement


def profile_all(
    artifacts: Sequence[Artifact],
    device: Device,
    *,
    threads: int,
    settings: Settings | None = None,
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
    built_here: Container[str] = (),
) -> Iterator[Measurement]:
    """Measure artifacts in interleaved rounds; each row comes as soon as it is known, failures first.

    `seed` decides the order within the rounds; `built_here` are the digests of artifacts that may run their own code.
    Raises UnknownNameError for a target or transport nobody has, UsageError for settings that measure nothing,
    ArtifactError for code of unknown origin, DeviceError if the device itself is lost; the rows that came before stay
    good.
    """
    settings = settings or Settings()
    _check(settings, threads)
    sweep = _Sweep(device, load_transport(device.transport), threads, settings, random.Random(seed))
    rows = [_Row(artifact, load_recipe(artifact.target).RECIPE.target) for artifact in artifacts]
    for artifact in artifacts:
        require_built_here(artifact, load_recipe(artifact.target).RECIPE, built_here)
    return sweep.rounds(rows, on_progress or (lambda _: None))


def _check(settings: Settings, threads: int) -> None:
    if min(settings.processes, settings.min_runs, settings.batch, threads) < 1 or settings.timeout_s <= 0:
        raise UsageError("processes, runs, batch, threads and timeout must be positive", why=f"{settings}, {threads=}")
    if settings.percentile is not None and not 50 <= settings.percentile <= 99:
        raise UsageError(f"percentile {settings.percentile} cannot be asked for", fix="ask for one from 50 to 99")


@dataclass
class _Row:
    """One artifact on its way through the rounds."""

    artifact: Artifact
    target: str
    started: str = ""
    replies: list[Reply] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        return bool(self.replies) and self.replies[-1].status != "ok"


@dataclass(frozen=True)
class _Sweep:
    """What all processes of a sweep have in common."""

    device: Device
    transport: Transport
    threads: int
    settings: Settings
    order: random.Random

    def rounds(self, rows: list[_Row], on_progress: Callable[[Progress], None]) -> Iterator[Measurement]:
        processes, done = self.settings.processes, 0
        with tempfile.TemporaryDirectory(prefix="edgevit-") as folder:
            workers = {row.target: pack(row.target, Path(folder) / f"{row.target}.pyz") for row in rows}
            for turn in range(processes):
                total = done + len(rows) * (processes - turn)
                for row in self.order.sample(rows, len(rows)):
                    self.run_once(row, workers[row.target])
                    done += 1
                    on_progress(Progress(row.artifact, row.replies[-1].status, done, total))
                    if row.failed or turn == processes - 1:
                        yield self.measurement(row)
                rows = [row for row in rows if not row.failed]

    def run_once(self, row: _Row, worker: Path) -> None:
        row.started = row.started or datetime.now(UTC).isoformat(timespec="microseconds")
        job = Job(
            task="time",
            target=row.target,
            folder=_ARTIFACT,
            payload=row.artifact.payload,
            sha256=row.artifact.sha256,
            threads=self.threads,
            batch=self.settings.batch,
            min_runs=self.settings.runs_per_process,
            min_ns=self.settings.min_ns,
        )
        files = {WORKER: worker, _ARTIFACT: row.artifact.folder}
        row.replies.append(self.transport.run(self.device, files, job, timeout_s=self.settings.timeout_s))

    def measurement(self, row: _Row) -> Measurement:
        """The row with its key and id. A failed one keeps the samples of the processes that finished before."""
        artifact, last, device = row.artifact, row.replies[-1], self.device
        timings = [reply.timing for reply in row.replies if reply.timing]
        measurement = Measurement(
            measurement_id="",
            measurement_key="",
            status=last.status,
            error=last.error,
            provenance="measured",
            model=artifact.model,
            family=artifact.family,
            target=artifact.target,
            precision=artifact.precision,
            artifact_sha256=artifact.sha256,
            artifact_bytes=artifact.size_bytes,
            engine=last.engine or load_recipe(row.target).RECIPE.engine,
            engine_version=last.engine_version,
            provider=last.provider,
            device=device.name,
            device_id=device.device_id,
            device_class=device.device_class,
            compute_unit=device.compute_units[0],
            threads=self.threads,
            batch=self.settings.batch,
            inputs=tuple(spec.at_batch(self.settings.batch) for spec in artifact.inputs),
            parity_status=artifact.parity.status if artifact.parity else UNVERIFIED,
            protocol_version=PROTOCOL_VERSION,
            started=row.started,
            host=last.host,
            snapshots=tuple(snapshot for timing in timings for snapshot in (timing.before, timing.after)),
            samples_ns=tuple(timing.samples_ns for timing in timings),
            nonce=secrets.token_hex(8),
            **(_summary(timings) if last.status == "ok" else _no_summary(timings)),
        )
        return identify(measurement)


def _summary(timings: Sequence[Timing]) -> dict[str, Any]:
    """The fields of a row that its processes' timings decide."""
    summary = summarise([timing.samples_ns for timing in timings], [timing.warm for timing in timings])
    peaks = [timing.peak_rss_bytes for timing in timings if timing.peak_rss_bytes is not None]
    stolen = ("stolen",) if any(_stolen_share(timing) > STOLEN_SHARE for timing in timings) else ()
    return dataclasses.asdict(summary) | {
        "flags": (*summary.flags, *stolen),
        "load_ns": round(statistics.median(timing.load_ns for timing in timings)),
        "first_ns": round(statistics.median(timing.first_ns for timing in timings)),
        "peak_rss_bytes": max(peaks, default=None),
    }


def _no_summary(timings: Sequence[Timing]) -> dict[str, Any]:
    names = [item.name for item in dataclasses.fields(Summary)] + ["load_ns", "first_ns", "peak_rss_bytes"]
    runs = sum(len(timing.samples_ns) for timing in timings)
    return dict.fromkeys(names) | {"processes": len(timings), "runs": runs, "grade": "", "flags": ()}


def _stolen_share(timing: Timing) -> float:
    """Share of the machine's ticks during a process that went to other guests of its host; 0 where nobody tells."""
    stolen = _growth(timing.before.steal_ticks, timing.after.steal_ticks)
    return stolen / max(1, _growth(timing.before.total_ticks, timing.after.total_ticks))


def _growth(before: int | None, after: int | None) -> int:
    return 0 if before is None or after is None else after - before
