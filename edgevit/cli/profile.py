"""`edgevit profile`: measure artifacts on a device."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgevit.cli.common import ms, print_json, print_table, progress, say, size, warn
from edgevit.cli.options import (
    ArtifactsArgument,
    DatabaseOptions,
    DeviceOption,
    OutputOptions,
    ProtocolOptions,
    TagOption,
    ThreadsOption,
    grouped,
)
from edgevit.records.artifact import WeightsRequest

_LAYERS_SHOWN, _KINDS_SHOWN, _NAME_CHARACTERS = 20, 6, 60

if TYPE_CHECKING:
    from edgevit.measurement.crosscheck import CrossCheck
    from edgevit.measurement.noise_floor import Peak
    from edgevit.measurement.roofline import LayerTable, RooflinePoint
    from edgevit.measurement.runner import Progress, Protocol
    from edgevit.records.artifact import Artifact
    from edgevit.records.measurement import Device, Measurement
    from edgevit.sweeps.recording import RecordLabels


@dataclass(frozen=True)
class AnalysisOptions:
    """What is found out beside the latencies."""

    roofline: Annotated[
        bool, typer.Option("--roofline", help="Each model's share of the machine's peak, which is measured")
    ] = False
    layers: Annotated[bool, typer.Option("--layers", help="Time of each operator, from engines that tell")] = False
    harness: Annotated[
        bool, typer.Option("--harness", help="Comparison with the engine vendor's own program, in turns with it")
    ] = False


@dataclass(frozen=True)
class OriginOptions(DatabaseOptions):
    """What artifacts must have been made from, and the database."""

    weights: Annotated[
        Path | None, typer.Option(help="Checkpoint that the artifacts must be made from; default: any")
    ] = None
    weights_key: Annotated[
        str, typer.Option(metavar="KEY", help="Set of weights that the artifacts must be made from; default: any")
    ] = ""
    labels: Annotated[
        Path | None, typer.Option(help="Text file with the labels that the artifacts must have; default: any")
    ] = None
    tag: TagOption = ""


@grouped
def run(
    artifacts: ArtifactsArgument,
    device: DeviceOption = "local",
    threads: ThreadsOption = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Batch size of a run; an open batch takes any")] = 1,
    *,
    protocol_options: ProtocolOptions,
    analysis: AnalysisOptions,
    database: OriginOptions,
    output: OutputOptions,
) -> None:
    """Measure artifacts in fresh processes, in random order, and keep the rows."""
    from edgevit.artifacts.folder import open_artifact
    from edgevit.artifacts.origin import require_origin
    from edgevit.devices.device_lock import locked_device
    from edgevit.devices.registry import load_device
    from edgevit.records.tag import require_tag
    from edgevit.sweeps.recording import RecordLabels

    db, trust = database.db, database.trust
    labels = RecordLabels(tag=database.tag and require_tag(database.tag))
    opened = [open_artifact(folder) for folder in artifacts]
    unit = load_device(device)
    protocol_used = protocol(protocol_options, batch_size)
    for artifact in opened:
        require_origin(artifact, WeightsRequest(database.weights, database.weights_key), database.labels)
    with locked_device(unit, warn):
        rows = measure(opened, unit, threads, protocol_used, db, output.hides_progress, trust=trust, labels=labels)
        if output.as_json:
            shown: dict[str, Any] = {"measurements": [summary(row) for row in rows]}
        else:
            print_rows(rows)
        if analysis.roofline or analysis.layers:
            show, quick = not output.as_json, protocol_options.quick
            analyses = understand(opened, rows, unit, analysis, db, quick=quick, show=show)
            shown = {**shown, **analyses} if output.as_json else {}
        if analysis.harness:
            checks = held_against_vendors(opened, unit, threads, batch_size, db, trust)
            if output.as_json:
                shown["harness"] = checks
            else:
                print_checks(checks)
    if output.as_json:
        print_json(shown)
    if any(row.status != "ok" for row in rows):
        raise typer.Exit(1)


def protocol(options: ProtocolOptions, batch: int = 1) -> Protocol:
    """Return the measuring protocol that the options describe."""
    from edgevit.verbs.profile import protocol_of

    return protocol_of(
        batch,
        quick=options.quick,
        percentile=options.percentile,
        rate=options.rate,
        max_memory_gb=options.max_memory_gb,
    )


def measure(
    artifacts: Sequence[Artifact],
    device: Device,
    threads: int,
    protocol_used: Protocol,
    db: str | None,
    quiet: bool,
    *,
    trust: bool = False,
    labels: RecordLabels | None = None,
) -> list[Measurement]:
    """Measure and record artifacts with a progress bar; print the epochs that begin. Return the rows.

    Raises RowRefusedError for a row that cannot be true, after all others are in the database.
    """
    from edgevit.devices.device_lock import locked_device
    from edgevit.sweeps.recording import NO_LABELS, describe_epoch, measure_and_record

    labels = labels or NO_LABELS
    with locked_device(device, warn), measuring(quiet, len(artifacts) * protocol_used.processes) as show:
        outcome = measure_and_record(
            artifacts, device, threads, protocol_used, db, trust=trust, labels=labels, on_progress=show
        )
    for epoch in outcome.epochs:
        warn(describe_epoch(epoch))
    outcome.require_all()
    return outcome.rows


@contextmanager
def measuring(quiet: bool, processes: int | None = None) -> Iterator[Callable[[Progress], None]]:
    """Draw a progress bar of measuring processes; yield the function that moves it."""
    with progress(quiet) as bars:
        task = bars.add_task("measuring", total=processes)

        def show(state: Progress) -> None:
            bars.update(task, description=state.artifact.folder.name, completed=state.finished, total=state.total)

        yield show


def understand(
    artifacts: Sequence[Artifact],
    rows: Sequence[Measurement],
    device: Device,
    analysis: AnalysisOptions,
    db: str | None,
    *,
    quick: bool,
    show: bool,
) -> dict[str, Any]:
    """Explain latencies: against the machine's peak, and operator by operator. The operators' times are kept."""
    from edgevit.measurement.noise_floor import measure_peak
    from edgevit.measurement.roofline import layer_times, roofline_point

    by_artifact = {row.artifact_sha256: row for row in rows if row.p50_ns}
    threads, batch = rows[0].threads, rows[0].batch
    peak = measure_peak(device, threads=threads, quick=quick) if analysis.roofline else None
    analyses: dict[str, Any] = {}
    if peak is not None:
        comparisons = [
            roofline_point(by_artifact[entry.sha256], entry, peak) for entry in artifacts if entry.sha256 in by_artifact
        ]
        analyses |= {"peak": peak, "roofline": comparisons}
        if show:
            print_roofline(peak, comparisons)
    if analysis.layers:
        analyses["layers"] = []
        for artifact in artifacts:
            table = layer_times(artifact, device, threads=threads, batch=batch, peak=peak)
            analyses["layers"].append(table)
            if (row := by_artifact.get(artifact.sha256)) is not None:
                keep_layers(table, row, db)
            if show:
                print_layers(table)
    return analyses


def keep_layers(table: LayerTable, row: Measurement, db: str | None) -> None:
    """Store operators' times. row: of the same artifact."""
    from edgevit.measurement.layer_records import layer_records
    from edgevit.store import LatencyDB

    with LatencyDB.open(db) as database:
        database.add_operator_times(layer_records(table, row))


def held_against_vendors(
    artifacts: Sequence[Artifact], device: Device, threads: int, batch: int, db: str | None, trust: bool
) -> list[CrossCheck]:
    """Measure each artifact in turns by our worker and by the program that its engine's makers measure with."""
    from edgevit.measurement.crosscheck import cross_check
    from edgevit.sweeps.plan import built_here

    allowed = built_here(artifacts, db, trust=trust)
    return [cross_check(entry, device, threads=threads, batch=batch, built_here=allowed) for entry in artifacts]


def print_checks(checks: Sequence[CrossCheck]) -> None:
    """Print both programs' latencies of each artifact."""
    lines = [
        (
            *(entry.model, entry.target, entry.precision, entry.threads, entry.harness),
            *(_middle(entry.ours_ns), _middle(entry.theirs_ns)),
            "" if entry.ratio is None else f"{entry.ratio - 1:+.1%}",
            entry.verdict,
        )
        for entry in checks
    ]
    print_table(("model", "target", "prec.", ">thr.", "harness", ">ours ms", ">theirs ms", ">ours is", ""), lines)
    for entry in checks:
        if entry.note:
            say(f"{entry.harness or entry.target}: {entry.note}")


def _middle(medians: Sequence[int]) -> str:
    return f"{ms(statistics.median(medians))} ({ms(min(medians))} .. {ms(max(medians))})" if medians else ""


def print_roofline(peak: Peak, comparisons: Sequence[RooflinePoint]) -> None:
    """Print each model against the machine's peak, best share first."""
    say(
        f"peak of {peak.device}, {peak.threads} thread(s), measured with NumPy: {peak.gflops:.0f} GFLOP/s in float32, "
        f"{peak.gb_per_s:.1f} GB/s"
    )
    columns = (">p50 ms", ">GFLOP/s", ">FLOP/byte", "bound by", ">limit GFLOP/s", ">share", ">at best ms", "")
    lines = [
        (
            *(entry.model, entry.target, entry.precision, ms(entry.p50_ns), f"{entry.gflops:.1f}"),
            *(f"{entry.flop_per_byte:.0f}", entry.bound_by, f"{entry.limit_gflops:.1f}", f"{entry.share:.0%}"),
            *(ms(entry.least_ns), entry.note),
        )
        for entry in sorted(comparisons, key=lambda entry: -entry.share)
    ]
    print_table(("model", "target", "prec.", *columns), lines)


def print_layers(table: LayerTable) -> None:
    """Print the slowest operators of one artifact."""
    say(f"{table.model} {table.target} {table.precision}: {table.note}")
    if not table.layers:
        return
    lines = [
        (
            *(entry.name[-_NAME_CHARACTERS:], entry.operator, f"{entry.ns / 1e3:.0f}", f"{entry.share:.1%}"),
            *(
                "" if entry.macs is None else f"{entry.macs / 1e6:.1f}",
                "" if entry.bytes is None else size(entry.bytes),
            ),
            "" if entry.limit_share is None else f"{entry.limit_share:.0%}",
        )
        for entry in table.layers[:_LAYERS_SHOWN]
    ]
    print_table(("name", "operator", ">us", ">of all", ">MMACs", ">MB", ">of its limit"), lines)
    if len(table.layers) > _LAYERS_SHOWN:
        say(f"{len(table.layers) - _LAYERS_SHOWN} more take less each (--json shows all)")
    by_operator = sorted(table.by_operator.items(), key=lambda entry: -entry[1])
    say("by operator: " + ", ".join(f"{name} {share:.0%}" for name, share in by_operator[:_KINDS_SHOWN]))


def print_rows(rows: Sequence[Measurement], origins: Mapping[str, str] = MappingProxyType({})) -> None:
    """Print rows as people read them, fastest first. origins: of rows that were not measured here, by id."""
    paced, has_origins = any(row.rate_hz for row in rows), any(row.measurement_id in origins for row in rows)
    columns = (
        "model",
        "target",
        "prec.",
        ">thr.",
        ">p50 ms",
        "of processes",
        ">p90 ms",
        ">at most",
        ">p99 ms",
        *((">at Hz", ">missed") if paced else ()),
        "grade",
        ">MB",
        "parity",
        *(["from"] if has_origins else []),
    )
    print_table(
        (*columns, "flags"),
        (
            (
                row.model,
                row.target,
                row.precision,
                row.threads,
                ms(row.p50_ns) or (f"mean {ms(row.mean_ns)}" if row.mean_ns and row.status == "ok" else row.status),
                f"{ms(row.p50_low_ns)} .. {ms(row.p50_high_ns)}" if row.p50_ns else "",
                ms(row.p90_ns),
                ms(row.p90_upper_ns),
                ms(row.p99_ns),
                *((f"{row.rate_hz:g}" if row.rate_hz else "", row.missed) if paced else ()),
                row.grade,
                size(row.artifact_bytes),
                row.parity_status,
                *([origins.get(row.measurement_id, "here")] if has_origins else []),
                ", ".join(row.flags),
            )
            for row in sorted(rows, key=lambda row: (row.p50_ns or row.mean_ns or float("inf"), row.model))
        ),
    )
    for row in rows:
        if row.status != "ok":
            say(f"{row.status}: {row.model} {row.target} {row.precision}: {row.error.strip().splitlines()[-1:]}")
    if rows:
        kind = {f"{row.engine} {row.engine_version}, {row.device_class}" for row in rows}
        say(f"measured: {'; '.join(sorted(kind))}; at most: with 99% confidence")


def summary(row: Measurement) -> dict[str, object]:
    """Return a row as JSON data without its raw samples, which `edgevit db export` gives."""
    from edgevit_runtime.codec import to_data

    data: dict[str, object] = to_data(row)
    del data["samples_ns"], data["snapshots"], data["told"]
    return data
