"""The bench of a search for forms: it exports sites and networks, runs them on a device, and keeps their times."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from edgevit.errors import EdgevitError, ParityError, TuningError
from edgevit.exporting.pipeline import export_subject
from edgevit.exporting.preparation import Preparation
from edgevit.folding import Folded
from edgevit.measurement.compare import resolution, verdict
from edgevit.measurement.runner import Protocol, profile_all
from edgevit.models.source import Subject, subject_of
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit.records.identity import identify_operator_time, identify_tuning
from edgevit.records.measurement import PROTOCOL_VERSION, Device, Measurement, NoiseFloor
from edgevit.records.tuning import PORTABLE, TUNED, OperatorTime, TimeRatio, TriedVerdict, Tuning, configuration_of
from edgevit.tuning.places import inputs_of
from edgevit.tuning.search import PLAIN, Combination, Failure, Place, Span

# Of single sites, and of whole networks: fresh processes in turns.
SITE_PROTOCOL = Protocol(processes=3, min_runs=10, min_ns=100_000_000, percentile=None, warmup_ns=100_000_000)
_FLOAT_BYTES = 4
NETWORK_PROTOCOL = Protocol(processes=5, min_runs=10, min_ns=500_000_000, percentile=None)


@dataclasses.dataclass
class RaceBench:
    """A bench for one network, target and device.

    prepared: of the whole network; request: that of its export. sites: a site of each place as a network of its own.
    stored: times of operators from the database. floor: noise floor of the device. out: a folder for the artifacts.
    budget_s: seconds from `began`. keep: stores times as soon as they are taken, so that a killed search loses none.
    """

    prepared: Preparation
    request: ExportRequest
    sites: Mapping[str, Folded]
    device: Device
    threads: int
    stored: Sequence[OperatorTime]
    floor: NoiseFloor | None
    out: Path
    budget_s: float
    keep: Callable[[Sequence[OperatorTime]], object]
    began: float = dataclasses.field(default_factory=time.monotonic)
    baseline: Measurement | None = None

    def judge(self, ratio: TimeRatio) -> TriedVerdict:
        """Return whether a time is below another one beyond what the device resolves."""
        floors = [] if self.floor is None else [self.floor]
        return verdict(ratio.low, ratio.value, ratio.high, resolution(floors)[0])

    def is_over(self, share: float) -> bool:
        """Return whether this share of the budget is used up."""
        return time.monotonic() - self.began > share * self.budget_s

    def start(self) -> Measurement:
        """Measure the network without forms, which tells the engine's version. Raises TuningError where it fails."""
        [row] = self._rows([self._network(())], Protocol.quick(percentile=None))
        if row.status != "ok":
            where = f"{self.request.model} for {self.request.target} on {self.device.name}"
            raise TuningError("the network does not run there", where=where, why=row.error or row.status)
        self.baseline = row
        return row

    def known(self, place: Place) -> Mapping[str, Span]:
        """Return the times of the last race at this place in just this configuration."""
        assert self.baseline is not None
        same = [one for one in self._of_place(place) if one.device_id == self.device.device_id]
        version = (self.baseline.engine_version, self.baseline.provider, PROTOCOL_VERSION)
        same = [one for one in same if (one.engine_version, one.provider, one.protocol_version) == version]
        last = max((one.started for one in same), default="")
        race = {one.form: _span_of(one) for one in same if one.started == last}
        return race if {PLAIN, *place.forms} <= race.keys() else {}

    def prior(self, place: Place) -> Mapping[str, float]:
        """Return ratios of earlier races on devices of the class."""
        races: dict[tuple[str, str], dict[str, int]] = {}
        for one in self._of_place(place):
            if self.device.device_class and one.device_class == self.device.device_class:
                races.setdefault((one.started, one.device_id), {})[one.form] = one.p50_ns
        ratios: dict[str, float] = {}
        for _, times in sorted(races.items()):
            ratios |= {form: ns / times[PLAIN] for form, ns in times.items() if form and PLAIN in times}
        return ratios

    def _of_place(self, place: Place) -> list[OperatorTime]:
        settings = (place.site, self.request.target, self.request.precision, self.threads, self.request.batch, "alone")
        return [
            one
            for one in self.stored
            if (one.site, one.target, one.precision, one.threads, one.batch, one.kind) == settings
        ]

    def time_place(self, place: Place, forms: Sequence[str]) -> Mapping[str, Span | Failure]:
        """Export a site as it is and in these forms, each verified, and measure all in turns."""
        subject, prepared = self._alone(place)
        artifacts: dict[str, Artifact] = {}
        times: dict[str, Span | Failure] = {}
        for form in (PLAIN, *forms):
            request = dataclasses.replace(
                self.request, model=subject.name, form=form or PORTABLE, tuning=None, out=self.out / place.site
            )
            exported = self._exported(subject, request, prepared)
            if isinstance(exported, Failure):
                times[form] = exported
            else:
                artifacts[form] = exported
        if PLAIN not in artifacts or len(artifacts) == 1:
            return times
        started = datetime.now(UTC).isoformat(timespec="microseconds")
        rows = self._rows(list(artifacts.values()), SITE_PROTOCOL)
        measured = []
        for (form, artifact), row in zip(artifacts.items(), rows, strict=True):
            times[form] = _span(row)
            if row.status == "ok":
                ends = sum(spec.nbytes for spec in (*artifact.inputs, *artifact.outputs))
                moved = ends + _FLOAT_BYTES * artifact.params
                measured.append(_operator_time(place, form, row, moved, started))
        self.keep(measured)
        return times

    def time_networks(self, combinations: Sequence[Combination]) -> Mapping[Combination, Span | Failure]:
        """Export the whole network without forms and in these combinations, each verified, and measure all in turns."""
        times: dict[Combination, Span | Failure] = {}
        artifacts: dict[Combination, Artifact] = {}
        for combination in ((), *combinations):
            try:
                artifacts[combination] = self._network(combination)
            except EdgevitError as error:
                times[combination] = _failure(error)
        rows = self._rows(list(artifacts.values()), NETWORK_PROTOCOL)
        return times | {combination: _span(row) for combination, row in zip(artifacts, rows, strict=True)}

    def _network(self, combination: Combination) -> Artifact:
        """Export the network with these forms. Raises what an export raises."""
        number = f"network-{len(list(self.out.glob('network-*')))}"
        request = dataclasses.replace(self.request, out=self.out / number, form=PORTABLE, tuning=None)
        if combination:
            request = dataclasses.replace(request, form=TUNED, tuning=self._draft(combination))
        return export_subject(self.prepared.subject, request, preparation=self.prepared)

    def _draft(self, combination: Combination) -> Tuning:
        """Return a tuning that says these forms, for an export of them."""
        assert self.baseline is not None
        return tuning_of(self.baseline, self.prepared.graph_sha256, combination)

    def _alone(self, place: Place) -> tuple[Subject, Preparation]:
        folded, batch = self.sites[place.site], self.request.batch
        subject = subject_of(folded, inputs_of(folded, batch), name=f"site {place.site[:8]}")
        return subject, Preparation(subject, self.request, folded=folded)

    def _exported(self, subject: Subject, request: ExportRequest, prepared: Preparation) -> Artifact | Failure:
        try:
            return export_subject(subject, request, preparation=prepared)
        except EdgevitError as error:
            return _failure(error)

    def _rows(self, artifacts: Sequence[Artifact], protocol: Protocol) -> list[Measurement]:
        """Measure artifacts in turns, and return their rows in order."""
        protocol = dataclasses.replace(protocol, batch=self.request.batch)
        own = frozenset(artifact.sha256 for artifact in artifacts)
        rows = profile_all(artifacts, self.device, threads=self.threads, protocol=protocol, built_here=own)
        by_digest = {row.artifact_sha256: row for row in rows}
        return [by_digest[artifact.sha256] for artifact in artifacts]


def tuning_of(row: Measurement, graph_digest: str, forms: Combination) -> Tuning:
    """Return a tuning of the configuration of a row, with these forms and nothing else known."""
    tuning = Tuning(
        tuning_id="",
        model=row.model,
        family=row.family,
        graph_digest=graph_digest,
        forms=tuple(sorted(forms)),
        gain=None,
        over_default=None,
        tried=(),
        complete=False,
        started=row.started,
        **configuration_of(row),
    )
    return identify_tuning(tuning)


def _operator_time(place: Place, form: str, row: Measurement, moved_bytes: int, started: str) -> OperatorTime:
    assert row.p50_ns is not None and row.p50_low_ns is not None and row.p50_high_ns is not None
    return identify_operator_time(
        OperatorTime(
            operator_time_id="",
            kind="alone",
            site=place.site,
            operator=place.operator,
            form=form,
            macs=place.macs,
            moved_bytes=moved_bytes,
            p50_ns=row.p50_ns,
            p50_low_ns=row.p50_low_ns,
            p50_high_ns=row.p50_high_ns,
            processes=row.processes,
            runs=row.runs,
            started=started,
            **configuration_of(row),
        )
    )


def _span(row: Measurement) -> Span | Failure:
    if row.status != "ok" or row.p50_ns is None:
        return Failure("failed", row.error or row.status)
    return Span(row.p50_low_ns or row.p50_ns, row.p50_ns, row.p50_high_ns or row.p50_ns)


def _span_of(time_: OperatorTime) -> Span:
    return Span(time_.p50_low_ns, time_.p50_ns, time_.p50_high_ns)


def _failure(error: EdgevitError) -> Failure:
    refused = isinstance(error, TuningError | ParityError)
    return Failure("refused" if refused else "failed", f"{error.what}: {error.why}" if error.why else error.what)
