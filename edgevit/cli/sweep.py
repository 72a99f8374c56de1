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
    OutOption,
    QuickOption,
    QuietOption,
    SeedOption,
    advance,
    parse_input_size,
    print_json,
    progress,
    say,
    split,
)
from edgevit.cli.profile import measure, print_rows, settings, summary

if TYPE_CHECKING:
    from edgevit.errors import EdgevitError
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
    again: Annotated[bool, typer.Option("--again", help="measure what the database already holds, too")] = False,
    db: DbOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Export, verify and measure a set of models; what is already there is not done again."""
    from edgevit.devices import load_device
    from edgevit.errors import EdgevitError
    from edgevit.sweep import artifact_for, plan, still_to_measure

    place = load_device(device)
    counts = _thread_counts(threads)
    requests = plan(
        split(models, "model"),
        split(targets, "target"),
        split(precision, "precision"),
        seed,
        parse_input_size(input_size),
        out,
    )
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
        how = settings(quick)
        wanted = artifacts if again else still_to_measure(artifacts, place, count, db, quick=quick)
        rows += measure(wanted, place, count, how, db, quiet or as_json) if wanted else []
    held = len(artifacts) * len(counts) - len(rows)
    _report(rows, failures, held, as_json)
    if failures or any(row.status != "ok" for row in rows):
        raise typer.Exit(max([error.exit_code for _, error in failures], default=1))


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
