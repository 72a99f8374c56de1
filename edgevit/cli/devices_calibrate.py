"""`edgevit devices calibrate`: measure the few models that say most of all others on a device."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import parse_duration, print_json, print_table, say, split, warn
from edgevit.cli.options import DbOption, OutOption, OutputOptions, ProtocolOptions, QuickOption, ThreadsOption, grouped

if TYPE_CHECKING:
    from edgevit.measurement.runner import Protocol
    from edgevit.records.artifact import Artifact, ExportRequest
    from edgevit.records.model import OperatorCost
    from edgevit.sweeps.calibrate import Column


@dataclass(frozen=True)
class ColumnOptions:
    """What is calibrated: a target in a precision on so many threads, at one percentile."""

    target: Annotated[str, typer.Option("--target", "-t", help="Name from `edgevit targets`")] = "onnx"
    precision: Annotated[str, typer.Option(help="Precision of the target")] = "fp32"
    threads: ThreadsOption = 1
    percentile: Annotated[int, typer.Option(help="Latency percentile of the predictions, 50, 90 or 99")] = 90
    confidence: Annotated[float, typer.Option(help="Confidence of predicted upper bounds")] = 0.9


@dataclass(frozen=True)
class CalibrationOptions:
    """What may be measured for it, and how."""

    models: Annotated[
        str, typer.Option(help="Names, patterns, FILE.py:FUNCTION or artifact folders, with commas between")
    ] = "*"
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan of the measurements only")] = False
    out: OutOption = Path("artifacts")
    quick: QuickOption = False


@grouped
def run(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the device")],
    budget: Annotated[str, typer.Option(metavar="DURATION", help="Time for exports and measurements: 90s, 10min, 1h")],
    column: ColumnOptions,
    calibration: CalibrationOptions,
    *,
    db: DbOption = None,
    output: OutputOptions,
) -> None:
    """Measure the models that shrink the intervals of all others most, within a budget of time."""
    from edgevit.artifacts.folder_lock import locked_folder
    from edgevit.cli.profile import protocol
    from edgevit.devices.registry import load_device
    from edgevit.recipes import load_recipe
    from edgevit.selection.limits import check_confidence
    from edgevit.store import LatencyDB
    from edgevit.sweeps.calibrate import Column, Knowledge, calibrate

    check_confidence(column.confidence)
    unit = load_device(name)
    target = load_recipe(column.target).RECIPE.target
    calibrated = Column(unit, target, column.precision, column.threads, column.percentile)
    protocol_used = protocol(ProtocolOptions(calibration.quick, 99 if column.percentile == 99 else None))
    seconds = parse_duration(budget)
    work = _Work(calibrated, protocol_used, db, output.hides_progress, time.monotonic() + seconds)
    work.take(split(calibration.models, "model"), calibration.out)
    costs = work.costs()
    with LatencyDB.open(db) as database:
        if calibration.dry_run:
            _show_plan(
                Knowledge(database.trusting("trusted"), calibrated, work.operators).anchors(costs, seconds),
                costs,
                output.as_json,
            )
            return
        with locked_folder(calibration.out, warn):
            calibration_result = calibrate(
                database,
                calibrated,
                costs,
                seconds,
                work.measure,
                operators=work.operators,
                confidence=column.confidence,
            )
    if output.as_json:
        print_json({"calibrated": calibration_result, "failures": work.failures})
        return
    measured = ", ".join(calibration_result.anchors) or "nothing"
    say(f"{unit.name}, {target} {column.precision}, {column.threads} thread(s): measured {measured}")
    if calibration_result.not_measured:
        say(f"planned and not measured: {', '.join(calibration_result.not_measured)}")
    for failure in work.failures:
        warn(f"failed: {failure}")
    say(calibration_result.summary)


def _show_plan(anchors: Sequence[str], costs: dict[str, float], as_json: bool) -> None:
    steps = [{"model": name, "seconds": round(costs[name], 1)} for name in anchors]
    if as_json:
        print_json({"anchors": steps})
        return
    print_table(("model", ">s"), [(step["model"], f"{step['seconds']:.0f}") for step in steps])
    say(f"{len(anchors)} of {len(costs)} models, the one that helps most first")


class _Work:
    """What can be measured, what that costs, and the doing of it. ends: by time.monotonic()."""

    def __init__(self, column: Column, protocol_used: Protocol, db: str | None, quiet: bool, ends: float) -> None:
        self.unit, self.target, self.precision = column.device, column.target, column.precision
        self.threads = column.threads
        self.protocol_used, self.db, self.quiet, self.ends = protocol_used, db, quiet, ends
        self.requests: dict[str, ExportRequest] = {}
        self.artifacts: dict[str, Artifact] = {}
        self.failures: list[str] = []

    def take(self, models: Sequence[str], out: Path) -> None:
        """Take models: folders are finished artifacts, all else is exported where it is missing."""
        from edgevit.artifacts.folder import MANIFEST, open_artifact
        from edgevit.errors import UsageError
        from edgevit.records.artifact import ExportRequest
        from edgevit.sweeps.plan import plan

        folders = [Path(text) for text in models if (Path(text) / MANIFEST).is_file()]
        for artifact in map(open_artifact, folders):
            if (artifact.target, artifact.precision) != (self.target, self.precision):
                why = f"it is {artifact.target} {artifact.precision}, and {self.target} {self.precision} is calibrated"
                raise UsageError("an artifact of another kind", where=str(artifact.folder), why=why)
            self.artifacts[artifact.model] = artifact
        names = [text for text in models if Path(text) not in folders]
        if names:
            for request in plan(names, [self.target], [self.precision], ExportRequest("", out)):
                self.requests.setdefault(request.model, request)

    @property
    def operators(self) -> dict[str, tuple[OperatorCost, ...]]:
        """Of the artifacts in folders, by model, as far as their manifests tell."""
        return {name: artifact.costs for name, artifact in self.artifacts.items() if artifact.costs}

    def costs(self) -> dict[str, float]:
        """Return the seconds that each model takes: its export where it is not there, and its measurement."""
        from edgevit.records.artifact import ExportRequest
        from edgevit.store import LatencyDB
        from edgevit.sweeps.estimate import export_step, measure_step
        from edgevit.sweeps.plan import held_artifact

        with LatencyDB.open(self.db) as database:
            rows = [
                row
                for row in database.trusting("trusted").measurements(device=self.unit.device_id)
                if row.p50_ns or row.mean_ns
            ]
        calibration_result = {}
        for name in sorted(self.requests.keys() | self.artifacts.keys()):
            request = self.requests.get(name) or ExportRequest(self.target, Path(), self.precision, name)
            seconds = measure_step(request.label, request, self.threads, self.protocol_used, rows).seconds
            if name not in self.artifacts and held_artifact(request) is None:
                seconds += export_step(request, list(self.requests.values())).seconds
            calibration_result[name] = seconds
        return calibration_result

    def measure(self, name: str) -> bool:
        """Export and measure one model, unless the time is over or it fails."""
        from edgevit.cli.profile import measure
        from edgevit.errors import EdgevitError
        from edgevit.sweeps.plan import artifact_for
        from edgevit.sweeps.recording import RecordLabels

        if time.monotonic() >= self.ends:
            return False
        try:
            artifact = self.artifacts.get(name) or artifact_for(self.requests[name], self.db)
        except EdgevitError as error:
            self.failures.append(f"{name}: {'; '.join(error.lines())}")
            return False
        rows = measure(
            [artifact],
            self.unit,
            self.threads,
            self.protocol_used,
            self.db,
            self.quiet,
            labels=RecordLabels(sweep=True),
        )
        self.failures += [f"{row.model}: {row.status}: {row.error}" for row in rows if row.status != "ok"]
        return all(row.status == "ok" for row in rows)
