"""`edgevit choose`: the most accurate model that fits a budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import DbOption, DeviceOption, JsonOption, print_json, print_table, say, split

if TYPE_CHECKING:
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
) -> None:
    """Choose the most accurate model whose latency's upper bound fits; exit code 3 if none does."""
    from edgevit.cards import load_cards
    from edgevit.choose import choose, parse_latency
    from edgevit.recipes import load_recipe
    from edgevit.store import LatencyDB
    from edgevit.types import Budget

    limit = parse_latency(max_latency) if max_latency is not None else None
    budget = Budget(limit, percentile, min_top1, max_size_mb)
    targets = [load_recipe(name).RECIPE.target for name in split(target, "target")] if target else None
    precisions = split(precision, "precision") if precision else None
    with LatencyDB.open(db) as database:
        choice = choose(
            database,
            _place(device),
            budget,
            cards=load_cards(),
            targets=targets,
            precisions=precisions,
            threads=threads,
        )
    if as_json:
        print_json({"device": device, **{key: value for key, value in vars(choice).items() if key != "device"}})
    else:
        _print(choice, device)
    if choice.picked is None:
        raise typer.Exit(3)


def _place(device: str) -> str:
    """`local` is this very unit, not every row that somebody measured on a machine they called local."""
    from edgevit.devices import LOCAL, local_device

    return local_device().device_id if device == LOCAL else device


def _print(choice: Choice, device: str) -> None:
    percentile = choice.budget.percentile
    picked = choice.picked
    if picked:
        say(f"{picked.model}, {picked.target} {picked.precision}, {picked.threads} thread(s), on {device}")
        say(
            f"  p{percentile} at most {picked.latency_upper_ms:.3g} ms (measured, grade {picked.grade}), "
            f"top-1 {picked.top1_percent}% ({picked.top1_provenance}), {picked.size_mb:.1f} MB"
        )
        for flag in picked.flags:
            say(f"  note: {flag}")
        rows = [_row(item, "picked" if item is picked else "fits, less accurate or slower") for item in choice.fitting]
    else:
        say(f"nothing on {device} fits the budget")
        rows = []
    near = {id(item.candidate) for item in choice.nearest_misses}
    rows += [_row(item.candidate, _reason(item, id(item.candidate) in near)) for item in choice.rejected]
    print_table(
        ("model", "target", "prec.", ">thr.", ">top-1 %", f">p{percentile} ms", ">at most", ">MB", "verdict"), rows
    )
    if choice.unmeasured:
        say(f"not measured on {device}: {', '.join(choice.unmeasured)}")
    for note in choice.notes:
        say(note)
    say("latency: measured; top-1: published for the official weights")


def _row(item: Candidate, verdict: str) -> tuple[object, ...]:
    def number(value: float | None) -> str:
        return "" if value is None else f"{value:.3g}"

    latencies = number(item.latency_ms), number(item.latency_upper_ms)
    size = "" if item.size_mb is None else f"{item.size_mb:.1f}"
    return item.model, item.target, item.precision, item.threads, item.top1_percent, *latencies, size, verdict


def _reason(item: Rejection, near: bool) -> str:
    return f"nearest miss: {item.reason}" if near else item.reason
