"""`edgevit profile`: measure artifacts on a device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import (
    DbOption,
    DeviceOption,
    JsonOption,
    QuickOption,
    QuietOption,
    ThreadsOption,
    TrustOption,
    ms,
    print_json,
    print_table,
    progress,
    say,
    size,
)

if TYPE_CHECKING:
    from edgevit.profile import Progress, Settings
    from edgevit.types import Artifact, Device, Measurement


def run(
    artifacts: Annotated[list[Path], typer.Argument(metavar="ARTIFACT...", help="folders that `edgevit export` wrote")],
    device: DeviceOption = "local",
    threads: ThreadsOption = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="of a run; an open batch takes any")] = 1,
    quick: QuickOption = False,
    db: DbOption = None,
    trust: TrustOption = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Measure artifacts in fresh processes, in random order, and keep the rows."""
    from edgevit.artifact import open_artifact
    from edgevit.devices import load_device

    opened = [open_artifact(folder) for folder in artifacts]
    rows = measure(opened, load_device(device), threads, settings(quick, batch_size), db, quiet or as_json, trust=trust)
    if as_json:
        print_json({"measurements": [summary(row) for row in rows]})
    else:
        print_rows(rows)
    if any(row.status != "ok" for row in rows):
        raise typer.Exit(1)


def settings(quick: bool, batch: int = 1) -> Settings:
    """The protocol, or its quick form."""
    from edgevit.profile import Settings

    return Settings.quick(batch=batch) if quick else Settings(batch=batch)


def measure(
    artifacts: Sequence[Artifact],
    device: Device,
    threads: int,
    how: Settings,
    db: str | None,
    quiet: bool,
    *,
    trust: bool = False,
) -> list[Measurement]:
    """Measure and keep each row as soon as it is known."""
    from edgevit.profile import profile_all
    from edgevit.store import LatencyDB
    from edgevit.sweep import built_here

    rows = []
    allowed = built_here(artifacts, db, trust=trust)
    with LatencyDB.open(db) as database, progress(quiet) as bars:
        task = bars.add_task("measuring", total=len(artifacts) * how.processes)

        def show(state: Progress) -> None:
            bars.update(task, description=state.artifact.folder.name, completed=state.done, total=state.total)

        for row in profile_all(artifacts, device, threads=threads, settings=how, on_progress=show, built_here=allowed):
            database.add(row)
            rows.append(row)
    return rows


def print_rows(rows: Sequence[Measurement]) -> None:
    """Rows as people read them, fastest first; every number measured here."""
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
                ms(row.p50_ns) or row.status,
                f"{ms(row.p50_low_ns)} .. {ms(row.p50_high_ns)}" if row.p50_ns else "",
                ms(row.p90_ns),
                ms(row.p90_upper_ns),
                ms(row.p99_ns),
                row.grade,
                size(row.artifact_bytes),
                row.parity_status,
                ", ".join(row.flags),
            )
            for row in sorted(rows, key=lambda row: (row.p50_ns or float("inf"), row.model))
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
    from edgevit_runtime.record import to_data

    data: dict[str, object] = to_data(row)
    del data["samples_ns"], data["snapshots"]
    return data
