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

    yes, no, or elsewhere: not on this machine, whatever is installed. Exit code 5 if a target named with --target has
    a no.
    """
    import dataclasses

    from edgevit.doctor import examine, try_targets

    wanted = split(target, "target") if target is not None else []
    with progress(output.hides_progress) as bars:
        looking = bars.add_task("importing what is installed", total=None)
        found = examine(wanted, db)
        bars.remove_task(looking)
        if really:
            task = bars.add_task("trying", total=_STAGES * len(found.targets))
            tried = try_targets(found.targets, lambda says: bars.update(task, description=says, advance=1))
            found = dataclasses.replace(found, targets=tried)
    if output.as_json:
        print_json({"host": found.host, "targets": found.targets, "checks": found.checks})
    else:
        show(found, really=really)
    if target is not None and not all(row.complete for row in found.targets):
        raise typer.Exit(TargetUnavailableError.exit_code)


def show(found: Diagnosis, *, really: bool) -> None:
    """The matrix, the checks, what a trial found, and what would enable the rest."""
    from edgevit.doctor import ABILITIES

    cells = ((row.target, *(cell.state for cell in row.cells.values()), _versions(row)) for row in found.targets)
    print_table(("target", *ABILITIES, "with"), cells)
    print_table(
        ("here", "works", "detail"), ((c.component, "yes" if c.works else "no", c.detail) for c in found.checks)
    )
    for row in found.targets if really else ():
        if row.build.state == "yes":
            done = (cell.detail for cell in (row.convert, row.build, row.profile) if cell.state == "yes")
            say_wrapped(f"{row.target}: {'; '.join(done)}")
    lacking = list(to_enable(found))
    say("\nWhat is not here, and what would enable it:\n" if lacking else "\nall of it works here")
    for what, why, fix in lacking:
        say_wrapped(f"{what}: {why}")
        say(f"    {fix}")


def to_enable(found: Diagnosis) -> Iterator[tuple[str, str, str]]:
    """What does not work, why, and the command or machine that enables it; cells with the same reason together."""
    for row in found.targets:
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
    yield from ((check.component, check.detail, check.fix) for check in found.checks if not check.works)


def _versions(row: TargetCells) -> str:
    """Of the target's own converter and engine; torch has a line of its own."""
    from edgevit.recipes import MODELS_NEED, load_recipe

    recipe = load_recipe(row.target).RECIPE
    own = {*recipe.requires, recipe.engine, *recipe.engine_choices} - set(MODELS_NEED)
    versions = {name: version for cell in row.cells.values() for name, version in cell.versions.items() if name in own}
    return ", ".join(f"{name} {version}" for name, version in versions.items())
