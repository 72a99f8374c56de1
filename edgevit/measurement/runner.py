"""Measurement of artifacts on a device by the protocol of docs/measure.md, one fresh process after another.

In a sweep the processes of all artifacts are interleaved in random order. So drift (heat, a neighbour's load) falls on
all of them alike. An artifact that crashes or hangs costs its own row only.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import random
import secrets
import statistics
import time
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgevit.artifacts.trust import require_built_here
from edgevit.concurrency.scratch import scratch_folder
from edgevit.devices.transports import WORKER, Transport, load_transport
from edgevit.devices.worker_archive import pack
from edgevit.errors import UsageError
from edgevit.measurement.summary import (
    PROTOCOL_MIN_NS,
    PROTOCOL_MIN_RUNS,
    PROTOCOL_PROCESSES,
    Summary,
    runs_needed,
    summarise,
    summarise_reported,
)
from edgevit.measurement.throttling import (
    COOL_DOWN_S,
    MAX_RETRIES,
    STOLEN_SHARE,
    circumstances,
    stolen_share,
    why_discarded,
)
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact
from edgevit.records.identity import identify
from edgevit.records.measurement import (
    AGREEMENT,
    EMULATED,
    NOT_AS_VERIFIED,
    PROTOCOL_VERSION,
    UNVERIFIED,
    Device,
    Measurement,
)
from edgevit_runtime.record import Job, Reply, Timing

_LOG = logging.getLogger(__name__)

_ARTIFACT = "artifact"  # the folder's name in the worker's directory
PERCENTILES = (90, 99)  # that a protocol may bound: the rows keep bounds of these


@dataclass(frozen=True)
class Protocol:
    """The length and number of runs of a measurement. The defaults are the full protocol; shorter ones are flagged."""

    processes: int = PROTOCOL_PROCESSES
    min_runs: int = PROTOCOL_MIN_RUNS  # per process
    min_ns: int = PROTOCOL_MIN_NS  # per process
    percentile: int | None = 99  # runs are added until its upper bound exists; None: no runs are added
    batch: int = 1
    timeout_s: float = 300.0  # per process
    rate_hz: float | None = None  # frames of a camera; None: one run after the other
    max_memory_bytes: int | None = None  # of a process; None: the watchdog's share of the device's memory
    cool_down_s: float = COOL_DOWN_S
    warmup_ns: int = 500_000_000  # at least, per process

    @classmethod
    def quick(cls, **others: Any) -> Protocol:
        """Return a short protocol: two processes, just enough runs to bound a p90; flagged and graded C at best."""
        return cls(**{"processes": 2, "min_runs": 1, "min_ns": 0, "percentile": 90, **others})

    @property
    def runs_per_process(self) -> int:
        """The least number of runs of each process."""
        if self.percentile is None:
            return self.min_runs
        return max(self.min_runs, math.ceil(runs_needed(self.percentile / 100) / self.processes))


@dataclass(frozen=True)
class Progress:
    """The state of a sweep after a process ended: its artifact, its status, and the processes finished so far."""

    artifact: Artifact
    status: str
    finished: int
    total: int  # processes; it falls when an artifact fails, because its other processes are not run


def profile(
    artifact: Artifact,
    device: Device,
    *,
    threads: int,
    protocol: Protocol | None = None,
    seed: int = 0,
    built_here: Container[str] = (),
) -> Measurement:
    """Measure one artifact. The row's status tells whether it ran. Raises the errors of `profile_all`."""
    [measurement] = profile_all(
        [artifact], device, threads=threads, protocol=protocol, seed=seed, built_here=built_here
    )
    return measurement


def profile_all(
    artifacts: Sequence[Artifact],
    device: Device,
    *,
    threads: int,
    protocol: Protocol | None = None,
    seed: int = 0,
    on_progress: Callable[[Progress], None] | None = None,
    built_here: Container[str] = (),
) -> Iterator[Measurement]:
    """Measure artifacts in interleaved rounds, and yield each row as soon as it is complete, failures first.

    `seed` decides the order within the rounds. `built_here` are the digests of artifacts that may run their own code.
    Raises UnknownNameError for an unknown target or transport, UsageError for a protocol that measures nothing,
    ArtifactError for code of unknown origin, and DeviceError if the device itself is lost. Rows yielded before an error
    stay valid.
    """
    protocol = protocol or Protocol()
    _check(protocol, threads)
    sweep = _Sweep(device, load_transport(device.transport), threads, protocol, random.Random(seed))
    rows = [_Row(artifact, load_recipe(artifact.target).RECIPE.target) for artifact in artifacts]
    for artifact in artifacts:
        require_built_here(artifact, load_recipe(artifact.target).RECIPE, built_here)
    return sweep.rounds(rows, on_progress or (lambda _: None))


def _check(protocol: Protocol, threads: int) -> None:
    if min(protocol.processes, protocol.min_runs, protocol.batch, threads) < 1 or protocol.timeout_s <= 0:
        raise UsageError("processes, runs, batch, threads and timeout must be positive", why=f"{protocol}, {threads=}")
    if protocol.percentile not in (None, *PERCENTILES):
        raise UsageError(f"percentile {protocol.percentile} cannot be bounded", fix="use 90 or 99")
    for name in ("rate_hz", "max_memory_bytes"):
        limit = getattr(protocol, name)
        if limit is not None and not 0 < limit < math.inf:
            raise UsageError(f"{name} is {limit}", why="it must be positive", fix="leave it out for none")


def run_unthrottled(run: Callable[[], Reply], cool_down_s: float) -> tuple[Reply, int]:
    """Run until a block counts, and return its reply and the number of discarded blocks.

    The status is `throttled` after MAX_RETRIES retries.
    """
    for discarded in range(MAX_RETRIES + 1):
        reply = run()
        why = why_discarded(reply.timing) if reply.timing else ""
        if not why:
            return reply, discarded
        _LOG.debug("block discarded: %s", why)
        if discarded < MAX_RETRIES:
            _LOG.debug("retry %d of %d in %g s", discarded + 1, MAX_RETRIES, cool_down_s)
            time.sleep(cool_down_s)
    error = f"{MAX_RETRIES + 1} blocks in a row do not count: {why}"
    return dataclasses.replace(reply, status="throttled", error=error, timing=None), MAX_RETRIES + 1


@dataclass
class _Row:
    """The replies of one artifact so far."""

    artifact: Artifact
    target: str
    started: str = ""
    replies: list[Reply] = field(default_factory=list)
    discarded: int = 0  # blocks that ran on a throttled processor

    @property
    def failed(self) -> bool:
        return bool(self.replies) and self.replies[-1].status != "ok"


@dataclass(frozen=True)
class _Sweep:
    """The settings that all processes of a sweep share."""

    device: Device
    transport: Transport
    threads: int
    protocol: Protocol
    order: random.Random

    def rounds(self, rows: list[_Row], on_progress: Callable[[Progress], None]) -> Iterator[Measurement]:
        processes, finished = self.protocol.processes, 0
        with scratch_folder() as folder:
            workers = {row.target: pack(row.target, Path(folder) / f"{row.target}.pyz") for row in rows}
            for turn in range(processes):
                total = finished + len(rows) * (processes - turn)
                for row in self.order.sample(rows, len(rows)):
                    self.run_once(row, workers[row.target], cold=turn == 0 and processes > 1)
                    finished += 1
                    on_progress(Progress(row.artifact, row.replies[-1].status, finished, total))
                    if row.failed or turn == processes - 1:
                        yield self.measurement(row)
                rows = [row for row in rows if not row.failed]

    def run_once(self, row: _Row, worker: Path, *, cold: bool) -> None:
        """Run one process until its block of runs counts, or the retries are used up."""
        row.started = row.started or datetime.now(UTC).isoformat(timespec="microseconds")
        files = {WORKER: worker, _ARTIFACT: row.artifact.folder}
        job, timeout_s = self.job(row, cold=cold), self.protocol.timeout_s
        reply, discarded = run_unthrottled(
            lambda: self.transport.run(self.device, files, job, timeout_s=timeout_s), self.protocol.cool_down_s
        )
        row.discarded += discarded
        row.replies.append(reply)

    def job(self, row: _Row, *, cold: bool) -> Job:
        artifact, protocol = row.artifact, self.protocol
        return Job(
            task="time",
            target=row.target,
            folder=_ARTIFACT,
            payload=artifact.payload,
            sha256=artifact.sha256,
            threads=self.threads,
            batch=protocol.batch,
            min_runs=protocol.runs_per_process,
            min_ns=protocol.min_ns,
            warmup_min_ns=protocol.warmup_ns,
            rate_hz=protocol.rate_hz,
            cold=cold,
            max_memory_bytes=protocol.max_memory_bytes,
        )

    def measurement(self, row: _Row) -> Measurement:
        """Return the row with its key and id. A failed one keeps the samples of the processes that finished before."""
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
            batch=self.protocol.batch,
            inputs=tuple(spec.at_batch(self.protocol.batch) for spec in artifact.inputs),
            parity_status=artifact.parity.status if artifact.parity else UNVERIFIED,
            protocol_version=PROTOCOL_VERSION,
            started=row.started,
            host=last.host,
            snapshots=tuple(snapshot for timing in timings for snapshot in (timing.before, timing.after)),
            samples_ns=tuple(timing.samples_ns for timing in timings if timing.summary is None),
            told=tuple(timing.summary for timing in timings if timing.summary is not None),
            nonce=secrets.token_hex(8),
            rate_hz=self.protocol.rate_hz,
            discarded=row.discarded,
            graph_digest=artifact.graph_digest,
            network=artifact.network,
            **(_summary(timings, self.protocol.rate_hz) if last.status == "ok" else _no_summary(timings)),
        )
        more = {EMULATED: bool(last.emulated), NOT_AS_VERIFIED: not last.as_verified}
        raised = [name for name, is_raised in more.items() if is_raised]
        if artifact.quantization is not None and artifact.quantization.agreement is not None:
            raised.append("{}{}/{}".format(AGREEMENT, *artifact.quantization.agreement))
        raised += circumstances(self.threads, last.host, measurement.snapshots)
        return identify(dataclasses.replace(measurement, flags=(*measurement.flags, *raised)))


_PARTS = ("load_ns", "cold_load_ns", "import_ns", "compile_ns", "first_ns", "peak_rss_bytes", "missed", "energy_j")


def _summary(timings: Sequence[Timing], rate_hz: float | None) -> dict[str, Any]:
    """Return the fields of a row that its processes' timings decide."""
    reported = [timing.summary for timing in timings if timing.summary is not None]
    samples, warm = [timing.samples_ns for timing in timings], [timing.warm for timing in timings]
    summary = summarise_reported(reported) if reported else summarise(samples, warm, paced=rate_hz is not None)
    stolen = any(stolen_share(timing.before, timing.after) > STOLEN_SHARE for timing in timings)
    usual = [timing for timing in timings if not timing.cold] or timings
    return dataclasses.asdict(summary) | {
        "flags": (*summary.flags, *(("stolen",) if stolen else ())),
        "load_ns": _median([timing.load_ns for timing in usual]),
        "cold_load_ns": _median([timing.load_ns for timing in timings if timing.cold]),
        "import_ns": _median([timing.import_ns for timing in usual]),
        "compile_ns": _median([timing.compile_ns for timing in usual]),
        "first_ns": _median([timing.first_ns for timing in timings]),
        "peak_rss_bytes": max(_reported([timing.peak_rss_bytes for timing in timings]), default=None),
        "missed": sum(_reported([timing.missed for timing in timings])) if rate_hz else None,
        "energy_j": _energy_j(timings),
    }


def _no_summary(timings: Sequence[Timing]) -> dict[str, Any]:
    names = [summary_field.name for summary_field in dataclasses.fields(Summary)] + list(_PARTS)
    runs = sum((timing.summary.runs or 0) if timing.summary else len(timing.samples_ns) for timing in timings)
    return dict.fromkeys(names) | {"processes": len(timings), "runs": runs, "grade": "", "flags": ()}


def _reported(values: Sequence[int | None]) -> list[int]:
    return [value for value in values if value is not None]


def _median(values: Sequence[int | None]) -> int | None:
    """Return the median of the reported values; None where no process reports one."""
    reported = _reported(values)
    return round(statistics.median(reported)) if reported else None


def _energy_j(timings: Sequence[Timing]) -> float | None:
    """Return the joules of a run. None unless every process reports them: a mean over some would pass for all."""
    joules = [timing.energy_j for timing in timings if timing.energy_j is not None]
    return sum(joules) / sum(len(timing.samples_ns) for timing in timings) if len(joules) == len(timings) else None
