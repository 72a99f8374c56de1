"""`edgevit sweep`: models x targets x precisions, from the zoo to rows in the database."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import (
    DbOption,
    DeviceOption,
    InputSizeOption,
    JsonOption,
    MemoryOption,
    OutOption,
    PercentileOption,
    QuickOption,
    QuietOption,
    RateOption,
    SeedOption,
    advance,
    parse_input_size,
    print_json,
    print_table,
    progress,
    say,
    split,
)
from edgevit.cli.profile import measure, print_rows, settings, summary

if TYPE_CHECKING:
    from edgevit.errors import EdgevitError
    from edgevit.forecast import Step
    from edgevit.sweep import Request
    from edgevit.types import Artifact


def run(
    models: Annotated[str, typer.Option(help="names, patterns or FILE.py:FUNCTION, with commas between")],
    targets: Annotated[str, typer.Option(help="names of `edgevit targets`, with commas between")],
    device: DeviceOption = "local",
    precision: Annotated[str, typer.Option(help="with commas between; those a target lacks are left out")] = "fp32",
    threads: Annotated[str, typer.Option(help="thread counts, with commas between")] = "1",
    seed: SeedOption = 0,
    input_size: InputSizeOption = None,
    out: OutOption = Path("artifacts"),
    quick: QuickOption = False,
    percentile: PercentileOption = None,
    rate: RateOption = None,
    max_memory_gb: MemoryOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only say what would be done, and how long it may take")
    ] = False,
    again: Annotated[bool, typer.Option("--again", help="measure what the database already holds, too")] = False,
    db: DbOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Export, verify and measure a set of models; what is already there is not done again."""
    from edgevit.devices import LOCAL, load_device
    from edgevit.enroll import detect
    from edgevit.errors import EdgevitError
    from edgevit.forecast import forecast
    from edgevit.sweep import artifact_for, plan, still_to_measure

    place = load_device(device)
    # Asked before anything is exported: a board that is switched off is told at once.
    engines = None if place.name == LOCAL else detect(place).detected.engines
    counts = _thread_counts(threads)
    how = settings(quick, 1, percentile, rate, max_memory_gb)
    requests = plan(
        split(models, "model"),
        split(targets, "target"),
        split(precision, "precision"),
        seed,
        parse_input_size(input_size),
        out,
    )
    if dry_run:
        show_plan(forecast(requests, counts, place, how, db, again=again, engines=engines), as_json)
        return
    artifacts: list[Artifact] = []
    failures: list[tuple[Request, EdgevitError]] = []
    with progress(quiet or as_json) as bars:
        task = bars.add_task("", total=len(requests))
        for request in requests:
            advance(bars, task, request.says)
            try:
                artifacts.append(artifact_for(request, db))
            except EdgevitError as error:
                failures.append((request, error))
    rows = []
    for count in counts:
        wanted = artifacts if again else still_to_measure(artifacts, place, count, db, how, engines=engines)
        rows += measure(wanted, place, count, how, db, quiet or as_json, sweep=True) if wanted else []
    held = len(artifacts) * len(counts) - len(rows)
    _report(rows, failures, held, as_json)
    if failures or any(row.status != "ok" for row in rows):
        raise typer.Exit(max([error.exit_code for _, error in failures], default=1))


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


def _report(rows: Sequence[object], failures: Sequence[tuple[Request, EdgevitError]], held: int, as_json: bool) -> None:
    measured = [row for row in rows if row is not None]
    if as_json:
        failed = [{"request": request.says, "error": error.what, "why": error.why} for request, error in failures]
        print_json({"measurements": [summary(row) for row in measured], "held": held, "failures": failed})  # type: ignore[arg-type]
        return
    print_rows(measured)  # type: ignore[arg-type]
    if held:
        say(f"{held} already in the database and not measured again (--again does)")
    for request, error in failures:
        print(f"failed: {request.says}: {error}", file=sys.stderr)
