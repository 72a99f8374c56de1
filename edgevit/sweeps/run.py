"""A sweep as it runs: exports what is missing, then measures it, group after group of requests, until its time ends."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from edgevit.concurrency.lock_file import warn_in_log
from edgevit.devices.device_lock import locked_device
from edgevit.errors import EdgevitError, RowRefusedError
from edgevit.measurement.runner import Progress, Protocol
from edgevit.records.artifact import Artifact, ExportRequest, Source
from edgevit.records.measurement import Device, Epoch, Measurement
from edgevit.sweeps.plan import RowQuery, artifact_for, known_failures, still_to_measure
from edgevit.sweeps.recording import RecordLabels, measure_and_record
from edgevit_runtime.record import Host

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepFailure:
    """A request whose export failed, with the error."""

    request: ExportRequest
    error: EdgevitError


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep measures, where and how. `engines` are the device's, distribution -> version; None: this machine's.

    `again` measures what the database already has, too.
    """

    requests: Sequence[ExportRequest]
    device: Device
    thread_counts: Sequence[int]
    protocol: Protocol
    again: bool = False
    engines: Mapping[str, str] | None = None
    host: Host | None = None  # the device's system now; None: not known
    tag: str = ""  # of the new rows; empty: none

    def row_query(self, threads: int, db: str | None) -> RowQuery:
        """Return the query for the rows that a database has already."""
        return RowQuery(self.device, threads, db, self.protocol, self.engines, self.host)


@dataclass
class SweepRun:
    """The state of a sweep: rows that were added, failures, and labels of what is left. `ends`: by time.monotonic().

    `already_measured` counts the rows that the database had before. `known_failures` are those of them that did not
    run, and whose cause still stands.
    """

    plan: SweepPlan
    db: str | None
    ends: float
    on_export: Callable[[str, int], None] = lambda label, total: None
    on_progress: Callable[[Progress], None] | None = None
    on_wait: Callable[[str], None] = warn_in_log
    rows: list[Measurement] = field(default_factory=list)
    epochs: list[Epoch] = field(default_factory=list)
    failures: list[SweepFailure] = field(default_factory=list)
    already_measured: int = 0
    known_failures: list[Measurement] = field(default_factory=list)
    remaining: list[str] = field(default_factory=list)
    sources: list[Source] = field(default_factory=list)
    refused: list[RowRefusedError] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether the time has ended."""
        return time.monotonic() >= self.ends

    def run(self, groups: Iterable[Sequence[ExportRequest]]) -> None:
        """Export what is missing in each group, then measure it, one thread count after the other."""
        for requests in groups:
            artifacts = self.export(requests)
            for count in self.plan.thread_counts:
                self.measure(artifacts, count)

    def export(self, requests: Sequence[ExportRequest]) -> list[Artifact]:
        """Return the artifacts that exist or could be made."""
        artifacts = []
        for request in requests:
            if self.is_over:
                self.remaining.append(request.label)
                continue
            self.on_export(request.label, len(requests))
            try:
                artifact = artifact_for(request, self.db)
                artifacts.append(artifact)
                self.sources.append(artifact.source)
            except EdgevitError as error:
                _LOG.info("%s failed: %s", request.label, error.what)
                self.failures.append(SweepFailure(request, error))
        return artifacts

    def measure(self, artifacts: Sequence[Artifact], count: int) -> None:
        """Add the rows that the database lacks."""
        missing = self._missing(artifacts, count)
        if not missing or self.is_over:
            self._count(artifacts, missing, count)
            return
        # Another run may have measured some of them while this one waited for the device.
        with locked_device(self.plan.device, self.on_wait):
            missing = self._missing(artifacts, count)
            is_over = self._count(artifacts, missing, count)
            if missing and not is_over:
                self._measure(missing, count)

    def _missing(self, artifacts: Sequence[Artifact], count: int) -> list[Artifact]:
        """Return the artifacts that have no row yet, or all where they are measured again."""
        if self.plan.again:
            return list(artifacts)
        return still_to_measure(artifacts, self.plan.row_query(count, self.db))

    def _count(self, artifacts: Sequence[Artifact], missing: Sequence[Artifact], count: int) -> bool:
        """Count what the database has, and what remains if the time has ended. Return whether it has."""
        rest = [artifact for artifact in artifacts if artifact not in missing]
        self.known_failures += known_failures(rest, self.plan.row_query(count, self.db)) if rest else []
        self.already_measured += len(rest)
        if not self.is_over:
            return False
        self.remaining += [f"{one.model} {one.target} {one.precision}, {count} thread(s)" for one in missing]
        return True

    def _measure(self, missing: Sequence[Artifact], count: int) -> None:
        plan = self.plan
        outcome = measure_and_record(
            missing,
            plan.device,
            count,
            plan.protocol,
            self.db,
            labels=RecordLabels(sweep=True, tag=plan.tag),
            on_progress=self.on_progress,
        )
        self.rows += outcome.rows
        self.epochs += outcome.epochs
        self.refused += outcome.refused


def by_model(requests: Sequence[ExportRequest]) -> list[list[ExportRequest]]:
    """Return requests grouped by model.

    A sweep that is measured in one go has no row before its last round. One that may be ended goes model by model.
    """
    return [list(group) for _, group in itertools.groupby(requests, key=lambda request: request.model)]
