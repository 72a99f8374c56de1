"""`edgevit sweep`: models x targets x precisions, from the zoo to rows in the database."""

from __future__ import annotations

import itertools
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import advance, parse_duration, parse_input_size, print_json, print_table, progress, say, split
from edgevit.cli.options import (
    DbOption,
    DeviceOption,
    InputSizeOption,
    OutOption,
    OutputOptions,
    ProtocolOptions,
    SeedOption,
    grouped,
)
from edgevit.cli.profile import measure, print_rows, protocol, summary

_LEFT_SHOWN = 5

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgevit.errors import EdgevitError
    from edgevit.measurement.runner import Protocol
    from edgevit.records.artifact import Artifact, ExportRequest
    from edgevit.records.measurement import Device, Measurement
    from edgevit.sweeps.estimate import Step


@dataclass(frozen=True)
class GridOptions:
    """What is swept beside models and targets, and how the exports are made."""

    device: DeviceOption = "local"
    precision: Annotated[
        str, typer.Option(help="Precisions with commas between; a target's missing ones are left out")
    ] = "fp32"
    threads: Annotated[str, typer.Option(help="Thread counts with commas between")] = "1"
    seed: SeedOption = 0
    input_size: InputSizeOption = None
    out: OutOption = Path("artifacts")


@dataclass(frozen=True)
class ScheduleOptions:
    """What of a sweep is done, and until when."""

    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan of the sweep and its expected time only")] = False
    max_time: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Time after which nothing new begins, model by model: 90s, 30m, 8h"),
    ] = None
    again: Annotated[bool, typer.Option("--again", help="New measurements of what the database already holds")] = False


@grouped
def run(
    models: Annotated[str, typer.Option(help="Names, patterns or FILE.py:FUNCTION, with commas between")],
    targets: Annotated[str, typer.Option(help="Names from `edgevit targets`, with commas between")],
    grid: GridOptions,
    protocol_options: ProtocolOptions,
    schedule: ScheduleOptions,
    *,
    db: DbOption = None,
    output: OutputOptions,
) -> None:
    """Export, verify and measure a set of models; what is already there is not done again."""
    from edgevit.devices.enroll import detect
    from edgevit.devices.registry import LOCAL, load_device
    from edgevit.sweeps.estimate import forecast
    from edgevit.sweeps.plan import plan

    place = load_device(grid.device)
    # Asked before anything is exported: a board that is switched off is told at once.
    engines = None if place.name == LOCAL else detect(place).detected.engines
    counts = _thread_counts(grid.threads)
    how = protocol(protocol_options)
    seconds = math.inf if schedule.max_time is None else parse_duration(schedule.max_time)
    requests = plan(
        split(models, "model"),
        split(targets, "target"),
        split(grid.precision, "precision"),
        grid.seed,
        parse_input_size(grid.input_size),
        grid.out,
    )
    if schedule.dry_run:
        show_plan(forecast(requests, counts, place, how, db, again=schedule.again, engines=engines), output.as_json)
        return
    work = _Work(place, counts, how, db, schedule.again, engines, output.hides_progress, time.monotonic() + seconds)
    for group in [requests] if schedule.max_time is None else _by_model(requests):
        work.do(group)
    _report(work, output.as_json)
    if work.failures or any(row.status != "ok" for row in work.rows):
        raise typer.Exit(max([error.exit_code for _, error in work.failures], default=1))


def _by_model(requests: Sequence[ExportRequest]) -> list[list[ExportRequest]]:
    """Measured in one go, a sweep has no row before its last round; one that may be ended goes model by model."""
    return [list(group) for _, group in itertools.groupby(requests, key=lambda request: request.model)]


@dataclass
class _Work:
    """What a sweep does with group after group of requests, and what came of it. ends: by time.monotonic()."""

    place: Device
    counts: Sequence[int]
    how: Protocol
    db: str | None
    again: bool
    engines: Mapping[str, str] | None
    quiet: bool
    ends: float
    rows: list[Measurement] = field(default_factory=list)
    failures: list[tuple[ExportRequest, EdgevitError]] = field(default_factory=list)
    held: int = 0
    left: list[str] = field(default_factory=list)

    @property
    def is_over(self) -> bool:
        """Whether the time is."""
        return time.monotonic() >= self.ends

    def do(self, requests: Sequence[ExportRequest]) -> None:
        """Export what is not there, then measure, one thread count after the other; note what is left undone."""
        artifacts = self.export(requests)
        for count in self.counts:
            self.measure(artifacts, count)

    def export(self, requests: Sequence[ExportRequest]) -> list[Artifact]:
        """The artifacts that are there, or could be made."""
        from edgevit.errors import EdgevitError
        from edgevit.sweeps.plan import artifact_for

        artifacts = []
        with progress(self.quiet) as bars:
            task = bars.add_task("", total=len(requests))
            for request in requests:
                if self.is_over:
                    self.left.append(request.label)
                    continue
                advance(bars, task, request.label)
                try:
                    artifacts.append(artifact_for(request, self.db))
                except EdgevitError as error:
                    self.failures.append((request, error))
        return artifacts

    def measure(self, artifacts: Sequence[Artifact], count: int) -> None:
        """Add the rows that are not held."""
        from edgevit.sweeps.plan import still_to_measure

        wanted = list(artifacts)
        if not self.again:
            wanted = still_to_measure(artifacts, self.place, count, self.db, self.how, engines=self.engines)
        self.held += len(artifacts) - len(wanted)
        if self.is_over:
            self.left += [f"{item.model} {item.target} {item.precision}, {count} thread(s)" for item in wanted]
        elif wanted:
            self.rows += measure(wanted, self.place, count, self.how, self.db, self.quiet, sweep=True)


def show_plan(steps: Sequence[Step], as_json: bool) -> None:
    """What a sweep would do, each step with the seconds it may take and where that number comes from."""
    total = sum(step.seconds for step in steps)
    guessed = sum(step.seconds for step in steps if step.is_guess)
    if as_json:
        print_json({"steps": steps, "seconds": total, "guessed_seconds": guessed})
        return
    rows = [(step.says, step.does, f"{step.seconds:.0f}" if step.seconds else "", step.source) for step in steps]
    print_table(("artifact", "to do", ">s", "from"), rows)
    say(f"about {_duration(total)}, {guessed / total:.0%} of it guessed" if total else "nothing to do")


def _duration(seconds: float) -> str:
    return (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )


def _thread_counts(text: str) -> list[int]:
    from edgevit.errors import UsageError

    counts = split(text, "thread count")
    if not all(item.isdigit() and int(item) > 0 for item in counts):
        raise UsageError(f"{text!r} is no list of thread counts", fix="--threads 1,2")
    return [int(item) for item in counts]


def _report(work: _Work, as_json: bool) -> None:
    if as_json:
        failed = [{"request": request.label, "error": error.what, "why": error.why} for request, error in work.failures]
        told = {"measurements": [summary(row) for row in work.rows], "held": work.held, "failures": failed}
        print_json({**told, "left": work.left})
        return
    print_rows(work.rows)
    if work.held:
        say(f"{work.held} already in the database and not measured again (--again does)")
    if work.left:
        more = f" and {len(work.left) - _LEFT_SHOWN} more" if len(work.left) > _LEFT_SHOWN else ""
        say(f"the time is over; left: {'; '.join(work.left[:_LEFT_SHOWN])}{more}. The same command goes on there")
    for request, error in work.failures:
        print(f"failed: {request.label}: {error}", file=sys.stderr)
