"""`edgevit doctor`: what works on this machine, and the command for what does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import print_json, print_table, progress, say, say_wrapped, split
from edgevit.cli.options import DbOption, OutputOptions, grouped
from edgevit.errors import TargetUnavailableError

if TYPE_CHECKING:
    from edgevit.doctor import Diagnosis, TargetCells

_STAGES = 4  # of a trial, that a progress bar can name: fold, export, verify, profile


@grouped
def run(
    target: Annotated[
        str | None,
        typer.Option("--target", "-t", help="Names from `edgevit targets`, with commas between; default: all"),
    ] = None,
    really: Annotated[
        bool, typer.Option("--try", help="Trial: export, verify and time a tiny network, some seconds per target")
    ] = False,
    *,
    db: DbOption = None,
    output: OutputOptions,
) -> None:
    """Show what each target can do here, and the command or machine that enables what it cannot.

    \b
    convert   the converter's packages import, so the intermediate form can be made
    build     the final payload can be written, and verified
    run       the engine loads and computes
    profile   the engine can be timed, in a worker process of its own

    yes, no, or elsewhere: no installation enables it on this machine. Exit code 5 if a target named with --target
    has a no.
    """
    import dataclasses

    from edgevit.doctor import examine, try_targets

    targets = split(target, "target") if target is not None else []
    with progress(output.hides_progress) as bars:
        looking = bars.add_task("importing what is installed", total=None)
        diagnosis = examine(targets, db)
        bars.remove_task(looking)
        if really:
            task = bars.add_task("trying", total=_STAGES * len(diagnosis.targets))
            tried = try_targets(diagnosis.targets, lambda stage: bars.update(task, description=stage, advance=1))
            diagnosis = dataclasses.replace(diagnosis, targets=tried)
    if output.as_json:
        print_json({"host": diagnosis.host, "targets": diagnosis.targets, "checks": diagnosis.checks})
    else:
        show(diagnosis, really=really)
    if target is not None and not all(row.complete for row in diagnosis.targets):
        raise typer.Exit(TargetUnavailableError.exit_code)


def show(diagnosis: Diagnosis, *, really: bool) -> None:
    """Print the matrix, the checks, the results of a trial, and what would enable the rest."""
    from edgevit.doctor import ABILITIES

    cells = ((row.target, *(cell.state for cell in row.cells.values()), _versions(row)) for row in diagnosis.targets)
    print_table(("target", *ABILITIES, "with"), cells)
    print_table(
        ("here", "works", "detail"), ((c.component, "yes" if c.works else "no", c.detail) for c in diagnosis.checks)
    )
    for row in diagnosis.targets if really else ():
        if row.build.state == "yes":
            details = (cell.detail for cell in (row.convert, row.build, row.profile) if cell.state == "yes")
            say_wrapped(f"{row.target}: {'; '.join(details)}")
    lacking = list(to_enable(diagnosis))
    say("")
    say("What is not here, and what would enable it:" if lacking else "all of it works here")
    if lacking:
        say("")
    for subject, why, fix in lacking:
        say_wrapped(f"{subject}: {why}")
        say(f"    {fix}")


def to_enable(diagnosis: Diagnosis) -> Iterator[tuple[str, str, str]]:
    """Yield what does not work, why, and what enables it; cells with the same reason together."""
    for row in diagnosis.targets:
        reasons: dict[tuple[str, str, str], list[str]] = {}
        for ability, cell in row.cells.items():
            if cell.state != "yes":
                reasons.setdefault((cell.state, cell.detail, cell.fix), []).append(ability)
        for (state, detail, fix), abilities in reasons.items():
            yield f"{row.target} {', '.join(abilities)}", f"{state}, {detail}", fix
        for precision, instructions in row.missing_instructions.items():
            enabled_by = f"a device with {instructions}: edgevit profile ARTIFACT --device NAME"
            yield (
                f"{row.target} {precision} run, profile",
                f"elsewhere, this processor lacks {instructions}",
                enabled_by,
            )
    yield from ((check.component, check.detail, check.fix) for check in diagnosis.checks if not check.works)


def _versions(row: TargetCells) -> str:
    """Return versions of the target's own converter and engine; torch has a line of its own."""
    from edgevit.recipes import MODELS_NEED, load_recipe

    recipe = load_recipe(row.target).RECIPE
    packages = {*recipe.requires, recipe.engine, *recipe.engine_choices} - set(MODELS_NEED)
    versions = {
        name: version for cell in row.cells.values() for name, version in cell.versions.items() if name in packages
    }
    return ", ".join(f"{name} {version}" for name, version in versions.items())
