"""`edgevit choose`: the most accurate model that fits a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import DbOption, DeviceOption, JsonOption, VerboseOption, print_json, print_table, say, split

if TYPE_CHECKING:
    from edgevit.errors import EdgevitError
    from edgevit.store import LatencyDB
    from edgevit.types import Candidate, Choice, Rejection


def run(
    max_latency: Annotated[str | None, typer.Option(help="25ms, 0.025s, 25000us; 25 means ms")] = None,
    device: DeviceOption = "local",
    percentile: Annotated[int, typer.Option(help="of the latency that the budget is for: 50, 90, 99")] = 90,
    min_top1: Annotated[float | None, typer.Option(help="ImageNet top-1 accuracy in percent")] = None,
    max_size_mb: Annotated[float | None, typer.Option(help="of the artifact, 10^6 bytes")] = None,
    target: Annotated[str | None, typer.Option("--target", "-t", help="only these, with commas between")] = None,
    precision: Annotated[str | None, typer.Option(help="only these, with commas between")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="only this thread count")] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Choose the most accurate model whose latency's upper bound fits; exit code 3 if none does."""
    from edgevit.cards import load_cards
    from edgevit.choose import Wanted, check_budget, choose_among, noise_floors, parse_latency
    from edgevit.recipes import load_recipe
    from edgevit.store import LatencyDB
    from edgevit.types import Budget

    limit = parse_latency(max_latency) if max_latency is not None else None
    budget = Budget(limit, percentile, min_top1, max_size_mb)
    targets = [load_recipe(name).RECIPE.target for name in split(target, "target")] if target else None
    precisions = split(precision, "precision") if precision else None
    wanted = Wanted(targets, precisions, threads)
    check_budget(budget)
    with LatencyDB.open(db) as database:
        rows = database.measurements(device=_place(device))
        if not rows:
            raise _not_measured(device, database)
        floors = noise_floors(database, rows)
    choice = choose_among(rows, device, budget, cards=load_cards(), wanted=wanted, floors=floors)
    if as_json:
        print_json(vars(choice))
    else:
        _print(choice, verbose)
    if choice.picked is None:
        raise typer.Exit(3)


def _place(device: str) -> str:
    """`local` is this very unit, not every row that somebody measured on a machine they called local."""
    from edgevit.devices import LOCAL, local_device

    return local_device().device_id if device == LOCAL else device


def _not_measured(device: str, database: LatencyDB) -> EdgevitError:
    from edgevit.errors import UnknownNameError

    known = {name for unit in database.devices() for name in (unit.name, unit.device_class)} - {"local"}
    listing = f"edgevit sweep --models 'mobilevig_*' --targets onnx --device {device}"
    return UnknownNameError("measured device", device, known or ["none yet"], listing=listing)


def _print(choice: Choice, verbose: bool) -> None:
    percentile, picked = choice.budget.percentile, choice.picked
    if picked is None:
        say(f"nothing on {choice.device} fits the budget")
    else:
        say(f"{picked.model}, {picked.target} {picked.precision}, {picked.threads} thread(s), on {choice.device}")
        say("  " + ", ".join(_facts(picked, percentile)))
    rows = [_row(item, "picked" if item is picked else "fits; ranks below the pick") for item in choice.fitting]
    near = {item.candidate.measurement_id for item in choice.nearest_misses}
    shown = [item for item in choice.rejected if verbose or item.kind in ("budget", "unusable")]
    rows += [_row(item.candidate, _reason(item, item.candidate.measurement_id in near)) for item in shown]
    columns = ("model", "target", "prec.", ">thr.", ">top-1 %", f">p{percentile} ms", ">at most", ">MB", "verdict")
    print_table(columns, rows)
    if hidden := len(choice.rejected) - len(shown):
        say(f"{hidden} rows superseded or not asked for are left out; -v shows them")
    if choice.unmeasured:
        say(f"not measured on {choice.device}: {', '.join(choice.unmeasured)}")
    for note in choice.notes:
        say(note)
    say("latency and size: measured; at most: with 99% confidence; top-1: published for the official weights")


def _facts(picked: Candidate, percentile: int) -> list[str]:
    """What is known of the pick, each number with its provenance; nothing is said of what is not known."""
    upper, top1, size = picked.latency_upper_ms, picked.top1_percent, picked.size_mb
    facts = [] if upper is None else [f"p{percentile} at most {upper:.3g} ms ({picked.latency_provenance})"]
    facts += [f"grade {picked.grade}"] if picked.grade else []
    facts += ["top-1 unknown"] if top1 is None else [f"top-1 {top1}% ({picked.top1_provenance})"]
    facts += [] if size is None else [f"{size:.1f} MB"]
    facts += [f"parity {picked.parity_status}"]
    return [*facts, *picked.flags]


def _row(item: Candidate, verdict: str) -> tuple[object, ...]:
    latencies = ("" if value is None else f"{value:.3g}" for value in (item.latency_ms, item.latency_upper_ms))
    size = "" if item.size_mb is None else f"{item.size_mb:.1f}"
    return item.model, item.target, item.precision, item.threads, item.top1_percent, *latencies, size, verdict


def _reason(item: Rejection, near: bool) -> str:
    return f"nearest miss: {item.reason}" if near else item.reason
