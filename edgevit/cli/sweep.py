"""`edgevit sweep`: models x targets x precisions, from the zoo to rows in the database."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import (
    parse_duration,
    print_json,
    print_table,
    progress,
    say,
    say_weights,
    split,
    warn,
    warn_error,
)
from edgevit.cli.logs import logged_to
from edgevit.cli.options import (
    DbOption,
    DeviceOption,
    InputOptions,
    LabelsOption,
    OutOption,
    OutputOptions,
    PreprocessingOptions,
    ProtocolOptions,
    QuantizationOptions,
    RangeOptions,
    SeedOption,
    TagOption,
    WeightsKeyOption,
    WeightsOption,
    grouped,
)
from edgevit.cli.profile import print_rows, protocol, summary

_LEFT_SHOWN = 5
NOTHING_MEASURED = 6  # exit code: not known enough, as that of `edgevit choose`

if TYPE_CHECKING:
    from edgevit.measurement.runner import Progress
    from edgevit.records.artifact import ExportRequest
    from edgevit.sweeps.estimate import SweepStep
    from edgevit.sweeps.run import SweepPlan, SweepRun
    from edgevit.verbs.sweep import SweepResult


@dataclass(frozen=True)
class GridOptions(InputOptions, PreprocessingOptions, RangeOptions, QuantizationOptions):
    """What is swept beside models and targets, and how the exports are made."""

    device: DeviceOption = "local"
    precision: Annotated[
        str, typer.Option(help="Precisions with commas between; a target's missing ones are left out")
    ] = "fp32"
    threads: Annotated[str, typer.Option(help="Thread counts with commas between")] = "1"
    weights: WeightsOption = None
    weights_key: WeightsKeyOption = ""
    seed: SeedOption = 0
    labels: LabelsOption = None
    out: OutOption = Path("artifacts")

    def template(self) -> ExportRequest:
        """Return what all exports have in common. Raises UsageError for an option that makes no sense."""
        from edgevit.records.artifact import ExportRequest, SampleRequest

        return ExportRequest(
            "",
            self.out,
            weights=self.weights,
            weights_key=self.weights_key,
            seed=self.seed,
            input_size=self.size,
            input_shapes=self.shapes,
            preprocessing=self.stated,
            labels=self.labels,
            samples=SampleRequest(self.value_range),
            quantization=self.quantization,
        )


@dataclass(frozen=True)
class ScheduleOptions:
    """What of a sweep is done, and until when."""

    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan of the sweep and its expected time only")] = False
    max_time: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="Time after which nothing new begins, model by model: 90s, 30m, 8h"),
    ] = None
    tag: TagOption = ""
    again: Annotated[bool, typer.Option("--again", help="New measurements of what the database already holds")] = False
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Log file with time stamps, to which every step is appended")
    ] = None


@grouped
def run(
    models: Annotated[
        str, typer.Option(help="Names, patterns, FILE.py:FUNCTION, timm:NAME or hf:FOLDER, with commas between")
    ],
    targets: Annotated[str, typer.Option(help="Names from `edgevit targets`, with commas between")],
    grid: GridOptions,
    protocol_options: ProtocolOptions,
    schedule: ScheduleOptions,
    *,
    db: DbOption = None,
    output: OutputOptions,
) -> None:
    """Export, verify and measure a set of models; what is already there is not done again."""
    with logged_to(schedule.log):
        _sweep(models, targets, grid, protocol_options, schedule, db, output)


def _sweep(
    models: str,
    targets: str,
    grid: GridOptions,
    protocol_options: ProtocolOptions,
    schedule: ScheduleOptions,
    db: str | None,
    output: OutputOptions,
) -> None:
    """Plan a sweep, then show the plan or run it and print the result."""
    from edgevit.sweeps.estimate import forecast
    from edgevit.sweeps.plan import plan
    from edgevit.sweeps.recording import describe_epoch
    from edgevit.verbs.sweep import finish, sweep_plan

    counts = _thread_counts(grid.threads)
    seconds = math.inf if schedule.max_time is None else parse_duration(schedule.max_time)
    names = (split(models, "model"), split(targets, "target"), split(grid.precision, "precision"))
    requests = plan(*names, grid.template())
    swept = sweep_plan(
        requests, grid.device, counts, protocol(protocol_options), again=schedule.again, tag=schedule.tag
    )
    if schedule.dry_run:
        show_plan(forecast(swept, db), output.as_json)
        return
    with _running(swept, db, time.monotonic() + seconds, output.hides_progress) as run:
        result = finish(run, in_turns=schedule.max_time is not None)
    for epoch in run.epochs:
        warn(describe_epoch(epoch))
    _report(result, output.as_json)
    if not output.as_json:
        say_weights(run.sources)
    if code := exit_code(result):
        raise typer.Exit(code)


def exit_code(result: SweepResult) -> int:
    """Return 0 where everything ran, else what failed; NOTHING_MEASURED where the time ended before a latency."""
    if result.failures:
        return max(failure.error.exit_code for failure in result.failures)
    if result.refused or result.known_failures or any(row.status != "ok" for row in result.measurements):
        return 1
    return 0 if result.has_measurement else NOTHING_MEASURED


@contextmanager
def _running(swept: SweepPlan, db: str | None, ends: float, quiet: bool) -> Iterator[SweepRun]:
    """Draw a progress bar of a sweep; yield the run that moves it."""
    from edgevit.sweeps.run import SweepRun

    with progress(quiet) as bars:
        task = bars.add_task("", total=None)

        def show_export(label: str, total: int) -> None:
            bars.update(task, description=label, total=total)
            bars.advance(task)

        def show_process(state: Progress) -> None:
            bars.update(task, description=state.artifact.folder.name, completed=state.finished, total=state.total)

        yield SweepRun(swept, db, ends, show_export, show_process, warn)


def show_plan(steps: Sequence[SweepStep], as_json: bool) -> None:
    """Print what a sweep would do, each step with the seconds it may take and where that number comes from."""
    total = sum(step.seconds for step in steps)
    guessed = sum(step.seconds for step in steps if step.is_guess)
    if as_json:
        print_json({"steps": steps, "seconds": total, "guessed_seconds": guessed})
        return
    rows = [(step.label, step.does, f"{step.seconds:.0f}" if step.seconds else "", step.source) for step in steps]
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
    if not all(count.isdigit() and int(count) > 0 for count in counts):
        raise UsageError(f"{text!r} is no list of thread counts", fix="--threads 1,2")
    return [int(count) for count in counts]


def _report(result: SweepResult, as_json: bool) -> None:
    """Print what a sweep added, what failed and what is left."""
    if as_json:
        failures = [
            {"request": one.request.label, "error": one.error.what, "why": one.error.why} for one in result.failures
        ]
        failures += [{"request": one.where, "error": one.what, "why": one.why} for one in result.refused]
        measurements = [summary(row) for row in result.measurements]
        known = [summary(row) for row in result.known_failures]
        counts = {"held": result.already_measured, "failures": failures, "remaining": result.remaining}
        counts["known_failures"] = known
        print_json({"measurements": measurements, **counts})
        return
    print_rows(result.measurements)
    measured_before = result.already_measured - len(result.known_failures)
    if measured_before:
        say(f"{measured_before} already in the database and not measured again (--again does)")
    for row in result.known_failures:
        name = f"{row.model} {row.target} {row.precision}, {row.threads} thread(s)"
        say(f"{row.status} before, and nothing changed since: {name} (--again tries it)")
    if not result.has_measurement:
        say("nothing was measured")
    if result.remaining:
        more = f" and {len(result.remaining) - _LEFT_SHOWN} more" if len(result.remaining) > _LEFT_SHOWN else ""
        say(
            f"the time is over; left: {'; '.join(result.remaining[:_LEFT_SHOWN])}{more}. The same command goes on there"
        )
    for failure in result.failures:
        warn_error(f"failed: {failure.request.label}", failure.error)
    for refusal in result.refused:
        warn_error("failed", refusal)
