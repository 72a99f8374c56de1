"""`edgevit profile`: measure artifacts on a device."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgevit.cli.common import ms, print_json, print_table, progress, say, size
from edgevit.cli.options import (
    ArtifactsArgument,
    DatabaseOptions,
    DeviceOption,
    OutputOptions,
    ProtocolOptions,
    ThreadsOption,
    grouped,
)

_LAYERS_SHOWN, _KINDS_SHOWN, _NAME_CHARACTERS = 20, 6, 60

if TYPE_CHECKING:
    from edgevit.measurement.crosscheck import CrossCheck
    from edgevit.measurement.noise_floor import Peak
    from edgevit.measurement.roofline import LayerTable, RooflinePoint
    from edgevit.measurement.runner import Progress, Protocol
    from edgevit.records.artifact import Artifact
    from edgevit.records.measurement import Device, Measurement


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


@grouped
def run(
    artifacts: ArtifactsArgument,
    device: DeviceOption = "local",
    threads: ThreadsOption = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Batch size of a run; an open batch takes any")] = 1,
    *,
    protocol_options: ProtocolOptions,
    analysis: AnalysisOptions,
    database: DatabaseOptions,
    output: OutputOptions,
) -> None:
    """Measure artifacts in fresh processes, in random order, and keep the rows."""
    from edgevit.artifacts.folder import open_artifact
    from edgevit.devices.registry import load_device

    db, trust = database.db, database.trust
    opened = [open_artifact(folder) for folder in artifacts]
    place = load_device(device)
    how = protocol(protocol_options, batch_size)
    rows = measure(opened, place, threads, how, db, output.hides_progress, trust=trust)
    if output.as_json:
        shown: dict[str, Any] = {"measurements": [summary(row) for row in rows]}
    else:
        print_rows(rows)
    roofline, layers = analysis.roofline, analysis.layers
    if roofline or layers:
        show = not output.as_json
        found = understand(opened, rows, place, threads, batch_size, roofline=roofline, layers=layers, show=show)
        shown = {**shown, **found} if output.as_json else {}
    if analysis.harness:
        checks = held_against_vendors(opened, place, threads, batch_size, db, trust)
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
    how: Protocol,
    db: str | None,
    quiet: bool,
    *,
    trust: bool = False,
    sweep: bool = False,
) -> list[Measurement]:
    """Measure and record artifacts with a progress bar; print the epochs that begin. Return the rows."""
    from edgevit.sweeps.recording import describe_epoch, measure_and_record

    with measuring(quiet, len(artifacts) * how.processes) as show:
        outcome = measure_and_record(artifacts, device, threads, how, db, trust=trust, sweep=sweep, on_progress=show)
    for epoch in outcome.epochs:
        print(describe_epoch(epoch), file=sys.stderr)
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
    threads: int,
    batch: int,
    *,
    roofline: bool,
    layers: bool,
    show: bool,
) -> dict[str, Any]:
    """Why the models are as fast as they are: against the machine's peak, and operator by operator."""
    from edgevit.measurement.noise_floor import measure_peak
    from edgevit.measurement.roofline import layer_times, roofline_point

    by_artifact = {row.artifact_sha256: row for row in rows if row.p50_ns}
    peak = measure_peak(device, threads=threads) if roofline else None
    found: dict[str, Any] = {}
    if peak is not None:
        held = [
            roofline_point(by_artifact[item.sha256], item, peak) for item in artifacts if item.sha256 in by_artifact
        ]
        found |= {"peak": peak, "roofline": held}
        if show:
            print_roofline(peak, held)
    if layers:
        found["layers"] = []
        for artifact in artifacts:
            told = layer_times(artifact, device, threads=threads, batch=batch, peak=peak)
            found["layers"].append(told)
            if show:
                print_layers(told)
    return found


def held_against_vendors(
    artifacts: Sequence[Artifact], device: Device, threads: int, batch: int, db: str | None, trust: bool
) -> list[CrossCheck]:
    """Each artifact in turns by our worker and by the program that its engine's makers measure with."""
    from edgevit.measurement.crosscheck import cross_check
    from edgevit.sweeps.plan import built_here

    allowed = built_here(artifacts, db, trust=trust)
    return [cross_check(item, device, threads=threads, batch=batch, built_here=allowed) for item in artifacts]


def print_checks(checks: Sequence[CrossCheck]) -> None:
    """What both programs say of each artifact."""
    lines = [
        (
            *(item.model, item.target, item.precision, item.threads, item.harness),
            *(_middle(item.ours_ns), _middle(item.theirs_ns)),
            "" if item.ratio is None else f"{item.ratio - 1:+.1%}",
            item.verdict,
        )
        for item in checks
    ]
    print_table(("model", "target", "prec.", ">thr.", "harness", ">ours ms", ">theirs ms", ">ours is", ""), lines)
    for item in checks:
        if item.note:
            say(f"{item.harness or item.target}: {item.note}")


def _middle(medians: Sequence[int]) -> str:
    return f"{ms(statistics.median(medians))} ({ms(min(medians))} .. {ms(max(medians))})" if medians else ""


def print_roofline(peak: Peak, held: Sequence[RooflinePoint]) -> None:
    """Each model against the machine's peak, best share first."""
    say(
        f"peak of {peak.device}, {peak.threads} thread(s), measured with NumPy: {peak.gflops:.0f} GFLOP/s in float32, "
        f"{peak.gb_per_s:.1f} GB/s"
    )
    columns = (">p50 ms", ">GFLOP/s", ">FLOP/byte", "bound by", ">limit GFLOP/s", ">share", ">at best ms", "")
    lines = [
        (
            *(item.model, item.target, item.precision, ms(item.p50_ns), f"{item.gflops:.1f}"),
            *(f"{item.flop_per_byte:.0f}", item.bound_by, f"{item.limit_gflops:.1f}", f"{item.share:.0%}"),
            *(ms(item.least_ns), item.note),
        )
        for item in sorted(held, key=lambda item: -item.share)
    ]
    print_table(("model", "target", "prec.", *columns), lines)


def print_layers(told: LayerTable) -> None:
    """The slowest operators of one artifact."""
    say(f"{told.model} {told.target} {told.precision}: {told.note}")
    if not told.layers:
        return
    lines = [
        (
            *(item.name[-_NAME_CHARACTERS:], item.operator, f"{item.ns / 1e3:.0f}", f"{item.share:.1%}"),
            *("" if item.macs is None else f"{item.macs / 1e6:.1f}", "" if item.bytes is None else size(item.bytes)),
            "" if item.limit_share is None else f"{item.limit_share:.0%}",
        )
        for item in told.layers[:_LAYERS_SHOWN]
    ]
    print_table(("name", "operator", ">us", ">of all", ">MMACs", ">MB", ">of its limit"), lines)
    if len(told.layers) > _LAYERS_SHOWN:
        say(f"{len(told.layers) - _LAYERS_SHOWN} more take less each (--json shows all)")
    by_operator = sorted(told.by_operator.items(), key=lambda item: -item[1])
    say("by operator: " + ", ".join(f"{name} {share:.0%}" for name, share in by_operator[:_KINDS_SHOWN]))


def print_rows(rows: Sequence[Measurement]) -> None:
    """Rows as people read them, fastest first; every number measured here."""
    paced = any(row.rate_hz for row in rows)
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
    """A row as JSON data without its raw samples, which `edgevit db export` gives."""
    from edgevit_runtime.codec import to_data

    data: dict[str, object] = to_data(row)
    del data["samples_ns"], data["snapshots"], data["told"]
    return data
