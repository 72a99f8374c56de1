"""`edgevit choose`: the most accurate model that fits a budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from edgevit.cli.common import DbOption, DeviceOption, JsonOption, VerboseOption, print_json, print_table, say, split

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgevit.errors import EdgevitError
    from edgevit.store import LatencyDB
    from edgevit.types import Candidate, Choice, Measurement, Rejection


def run(
    max_latency: Annotated[str | None, typer.Option(help="25ms, 0.025s, 25000us; 25 means ms")] = None,
    device: DeviceOption = "local",
    percentile: Annotated[int, typer.Option(help="of the latency that the budget is for: 50, 90, 99")] = 90,
    min_top1: Annotated[float | None, typer.Option(help="top-1 accuracy in percent")] = None,
    max_size_mb: Annotated[float | None, typer.Option(help="of the artifact, 10^6 bytes")] = None,
    target: Annotated[str | None, typer.Option("--target", "-t", help="only these, with commas between")] = None,
    precision: Annotated[str | None, typer.Option(help="only these, with commas between")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="only this thread count")] = None,
    published: Annotated[bool, typer.Option("--published", help="rows that others published count, too")] = False,
    reconstructed: Annotated[
        bool, typer.Option("--reconstructed", help="models count whose papers published no weights, too")
    ] = False,
    dataset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="by what `edgevit evaluate` measured on it; default: published, ImageNet"),
    ] = None,
    db: DbOption = None,
    as_json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Choose the most accurate model whose latency's upper bound fits; exit code 3 if none does."""
    from edgevit.cards import load_cards
    from edgevit.choose import Wanted, check_budget, choose_among, noise_floors, parse_latency
    from edgevit.ratings import TOP1, Ratings
    from edgevit.recipes import load_recipe
    from edgevit.store import LatencyDB
    from edgevit.types import Budget

    limit = parse_latency(max_latency) if max_latency is not None else None
    budget = Budget(limit, percentile, min_top1, max_size_mb)
    targets = [load_recipe(name).RECIPE.target for name in split(target, "target")] if target else None
    precisions = split(precision, "precision") if precision else None
    wanted = Wanted(targets, precisions, threads, published, reconstructed)
    check_budget(budget)
    with LatencyDB.open(db) as database:
        rows = database.measurements(device=unit_or_class(device))
        if not rows:
            raise not_measured(device, database)
        floors, ratings = noise_floors(database, rows), Ratings.of(database.accuracies(metric=TOP1), dataset)
    choice = choose_among(rows, device, budget, cards=load_cards(), wanted=wanted, floors=floors, ratings=ratings)
    choice = dataclasses.replace(choice, notes=(*_whose(rows), *choice.notes))
    if as_json:
        print_json(vars(choice))
    else:
        _print(choice, verbose)
    if choice.picked is None:
        raise typer.Exit(3)


def _whose(rows: Sequence[Measurement]) -> Iterator[str]:
    """That no row is of this machine or of a device enrolled here: such rows ship with edgevit, or were merged."""
    from edgevit.devices import list_devices

    units = {row.device_id for row in rows}
    if not units & {device.device_id for device in list_devices()}:
        classes = ", ".join(sorted({row.device_class for row in rows}))
        yield f"not measured on a device of yours, but on {len(units)} other unit(s) of {classes}: yours may differ"


def unit_or_class(device: str) -> str:
    """What rows are looked up by: `local` is this very unit, not every machine that somebody called local."""
    from edgevit.devices import LOCAL, local_device

    return local_device().device_id if device == LOCAL else device


def not_measured(device: str, database: LatencyDB) -> EdgevitError:
    """The error for a device without a row, with those that have some."""
    from edgevit.errors import UnknownNameError

    known = {name for unit in database.devices() for name in (unit.name, unit.device_class)} - {"local"}
    listing = f"edgevit sweep --models 'mobilevig_*' --targets onnx --device {device}"
    return UnknownNameError("measured device", device, known or ["none yet"], listing=listing)


def _print(choice: Choice, verbose: bool) -> None:
    percentile, picked = choice.budget.percentile, choice.picked
    if picked is None:
        say(f"nothing on {choice.device} fits the budget")
    else:
        threads = f"{picked.threads} thread(s)" if picked.threads else "threads not told"
        say(f"{picked.model}, {picked.target} {picked.precision}, {threads}, on {choice.device}")
        say("  " + ", ".join(_facts(picked, percentile)))
    near = {item.candidate.measurement_id for item in choice.nearest_misses}
    shown = [item for item in choice.rejected if verbose or item.kind in ("budget", "unusable")]
    verdicts = [(item, "picked" if item is picked else "fits; ranks below the pick") for item in choice.fitting]
    verdicts += [(item.candidate, _reason(item, item.candidate.measurement_id in near)) for item in shown]
    _print_candidates(verdicts, percentile, choice.dataset)
    if hidden := len(choice.rejected) - len(shown):
        say(f"{hidden} rows superseded or not asked for are left out; -v shows them")
    if choice.unmeasured:
        say(f"not measured on {choice.device}: {', '.join(choice.unmeasured)}")
    for note in choice.notes:
        say(note)


def _print_candidates(verdicts: Sequence[tuple[Candidate, str]], percentile: int, dataset: str) -> None:
    """A line for each, and where its numbers are from: in a column of its own where not all latencies were measured."""
    mixed = any(item.latency_provenance != "measured" for item, _ in verdicts)
    columns = ("model", "target", "prec.", ">thr.", ">top-1 %", f">p{percentile} ms", ">at most", ">MB")
    lines = ((*_cells(item), *([item.latency_provenance] if mixed else []), verdict) for item, verdict in verdicts)
    print_table((*columns, *(["latency"] if mixed else []), "verdict"), lines)
    said = "latency: as its column says, of others without a bound" if mixed else "latency and size: measured"
    rated = any(item.top1_provenance == "measured" for item, _ in verdicts)
    top1 = f"with its error where it was measured of the artifact on {dataset}, else published"
    say(f"{said}; at most: with 99% confidence; top-1: {top1 if rated else 'published for the official weights'}")


def _facts(picked: Candidate, percentile: int) -> list[str]:
    """What is known of the pick, each number with its provenance; nothing is said of what is not known."""
    upper, top1, size = picked.latency_upper_ms, picked.top1_percent, picked.size_mb
    told, name = picked.latency_ms, f"p{percentile}"
    facts = [] if told is None else [f"{name} {told:.3g} ms ({picked.latency_provenance}), no bound"]
    facts = facts if upper is None else [f"{name} at most {upper:.3g} ms ({picked.latency_provenance})"]
    facts += [f"grade {picked.grade}"] if picked.grade else []
    facts += ["top-1 unknown"] if top1 is None else [f"top-1 {_top1(picked)}% ({picked.top1_provenance})"]
    facts += [] if size is None else [f"{size:.1f} MB"]
    facts += [f"parity {picked.parity_status or 'unknown'}"]
    return [*facts, *picked.flags]


def _cells(item: Candidate) -> tuple[object, ...]:
    latencies = ("" if value is None else f"{value:.3g}" for value in (item.latency_ms, item.latency_upper_ms))
    size = "" if item.size_mb is None else f"{item.size_mb:.1f}"
    return item.model, item.target, item.precision, item.threads or "", _top1(item), *latencies, size


def _top1(item: Candidate) -> str | float | None:
    """As it is published; what was measured with its error, and with no more digits than that allows."""
    if item.top1_percent is None or item.top1_error_percent is None:
        return item.top1_percent
    return f"{item.top1_percent:.2f} ± {item.top1_error_percent:.2f}"


def _reason(item: Rejection, near: bool) -> str:
    return f"nearest miss: {item.reason}" if near else item.reason
