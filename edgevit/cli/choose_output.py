"""How `edgevit choose` shows an answer: the pick, the others with what is in their way, and what to do next.

A table fits a terminal of 100 columns, and has a dozen lines: what fits best, and what misses the budget by least. All
candidates, each with the whole reason and with what a prediction rests on, are there with --why.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgevit.cli.common import print_table, say, say_wrapped

if TYPE_CHECKING:
    from edgevit.records.choice import Basis, Candidate, Choice, JointChoice, Reason, Rejection, Suggestion

_SHOWN, _MISSES = 10, 4  # lines of a table, and of these for what does not fit, unless all are asked for
_NOTHING = {
    "infeasible": "nothing on {} fits the budget",
    "unmeasured": "nothing on {} is known to fit the budget, and something may",
    "unsupported": "nothing that was asked for runs on {}",
}


class _Line(NamedTuple):
    """A candidate, what is said of it in a word or two, and in full."""

    candidate: Candidate
    verdict: str
    reason: str


def print_choice(choice: Choice | JointChoice, *, pareto: bool, why: bool, predicts: bool) -> None:
    """An answer for people."""
    from edgevit.records.choice import Choice

    if isinstance(choice, Choice):
        _print_one(choice, pareto=pareto, why=why, predicts=predicts)
    else:
        _print_joint(choice, pareto=pareto, why=why)


def _print_one(choice: Choice, *, pareto: bool, why: bool, predicts: bool) -> None:
    if pareto:
        say(f"{len(choice.front)} on the front of {choice.device}: nothing else is as accurate and as fast")
    elif choice.picked is None:
        say(_NOTHING[choice.outcome].format(choice.device))
    else:
        say(f"{_name(choice.picked)}, on {choice.device}")
        say_wrapped("  " + ", ".join(_facts(choice.picked, choice.budget.percentile)))
    lines = list(_lines(choice, pareto=pareto, why=why))
    if lines:
        _print_lines(lines, choice, pareto=pareto, why=why)
    if not (pareto or why):
        _print_hidden(choice, lines)
    _print_unmeasured(choice, predicts=predicts)
    for note in choice.notes:
        if not (pareto and note.about_pick):
            say_wrapped(note.text)
    if not pareto:
        _print_suggestions(choice.measure_next, "")


# Which candidates are shown


def _lines(choice: Choice, *, pareto: bool, why: bool) -> Iterator[_Line]:
    said = ["picked" if item is choice.picked else "fits" for item in choice.fitting]
    fits = [_Line(item, verdict, verdict) for item, verdict in zip(choice.fitting, said, strict=True)]
    if pareto:
        yield from (_Line(item, "", "") for item in choice.front)
    elif why:
        yield from fits
        yield from (_Line(item.candidate, "", item.reason) for item in choice.rejected)
    else:
        misses = _misses(choice.rejected)
        room = max(_SHOWN - len(fits), min(_MISSES, len(misses)))
        yield from fits[: _SHOWN - min(room, len(misses))]
        yield from (_Line(item.candidate, _in_short(item), item.reason) for item in misses[:room])


def _misses(rejected: Collection[Rejection]) -> list[Rejection]:
    """What was asked for and does not fit, nearest to fitting first; then where a number is missing, then what can be
    held against no budget.
    """
    from edgevit.selection.ranking import rank

    def order(item: Rejection) -> tuple[object, ...]:
        return (item.kind != "budget", math.inf if item.excess is None else item.excess, rank(item.candidate))

    return sorted((item for item in rejected if item.kind in ("budget", "unusable")), key=order)


def _in_short(rejection: Rejection) -> str:
    """Return `p90 +12%`: the share by which a limit is broken; else the reason in a few words."""
    from edgevit.selection.wording import summarise

    if rejection.kind != "budget":
        return ", ".join(map(summarise, rejection.reasons))
    return ", ".join(f"{reason.subject} {_share(reason)}" for reason in rejection.reasons)


def _share(reason: Reason) -> str:
    from edgevit.selection.constraints import excess_of

    excess = excess_of(reason)
    if excess is None:
        return "unknown"
    if reason.code == "accuracy_below":
        return f"-{excess:.0%}"
    return f"+{excess:.0%}" if excess < 9.995 else f"x{1 + excess:.3g}"


def _print_hidden(choice: Choice, lines: Collection[_Line]) -> None:
    shown = {line.candidate.measurement_id for line in lines}
    fit = sum(item.measurement_id not in shown for item in choice.fitting)
    left = [item for item in choice.rejected if item.candidate.measurement_id not in shown]
    unasked = sum(item.kind in ("not_asked", "superseded") for item in left)
    counts = ((fit, "that fit"), (len(left) - unasked, "that do not"), (unasked, "not asked for or superseded"))
    told = [f"{count} {what}" for count, what in counts if count]
    if told:
        say(f"not shown: {', '.join(told)}; --why shows all")


def _print_unmeasured(choice: Choice, *, predicts: bool) -> None:
    candidates = [*choice.fitting, *(item.candidate for item in choice.rejected)]
    known = {item.model for item in candidates if item.latency_ms is not None}
    left = [name for name in choice.unmeasured if name not in known]
    if left:
        say_wrapped(f"not measured on {choice.device}{', nor predicted' if predicts else ''}: {', '.join(left)}")
        if predicts:
            say(f"  {shlex.join(('edgevit', 'devices', 'calibrate', choice.device, '--budget', '10min'))}")


# The table


def _print_lines(lines: Sequence[_Line], choice: Choice, *, pareto: bool, why: bool) -> None:
    """A line for each, and where its latency is from unless all are measured; with `why` the whole reason below it."""
    verdicts, why = not (pareto or why), why and not pareto
    mixed = any(line.candidate.latency_provenance != "measured" for line in lines)
    columns = ["model", "target", "prec.", ">thr.", ">top-1 %", f">p{choice.budget.percentile} ms", ">at most"]
    columns += [*(["latency"] if mixed else []), ">MB", *(["verdict"] if verdicts else [])]
    rows = [(*_cells(line.candidate, mixed), *([line.verdict] if verdicts else [])) for line in lines]
    print_table(columns, rows, tight=True, below=[_in_full(line) for line in lines] if why else None)
    _print_legend([line.candidate for line in lines], choice, mixed, why)


def _cells(item: Candidate, mixed: bool) -> tuple[object, ...]:
    latencies = ("" if value is None else f"{value:.3g}" for value in (item.latency_ms, item.latency_upper_ms))
    size = "" if item.size_mb is None else f"{item.size_mb:.1f}"
    origin = [_origin(item)] if mixed else []
    return item.model, item.target, item.precision, item.threads or "", _top1(item), *latencies, *origin, size


def _origin(item: Candidate) -> str:
    """Where a latency is from, in a word."""
    return "unknown" if item.basis and item.basis.level == "refused" else item.latency_provenance


def _in_full(line: _Line) -> str:
    """The whole reason, what a prediction rests on, and all else that is to be known of a candidate."""
    from edgevit.selection.wording import remarks

    basis = line.candidate.basis
    ends = basis and basis.lower_ms is not None and basis.upper_ms is not None
    between = f"predicted between {basis.lower_ms:.3g} and {basis.upper_ms:.3g} ms {_rests_on(basis)}" if (
        basis and ends) else ""  # fmt: skip
    return "; ".join(filter(None, (line.reason, between, *remarks(line.candidate))))


def _rests_on(basis: Basis) -> str:
    near = f", nearest {basis.nearest}" if basis.nearest else ""
    return f"by {basis.level} from {basis.anchors} row(s) of the device{near}"


def _print_legend(items: Sequence[Candidate], choice: Choice, mixed: bool, why: bool) -> None:
    """What the columns are, and what the predictions among them rest on, once, where it is not told of each."""
    bases = {item.basis for item in items if item.basis and item.basis.level != "refused"}
    rated = any(item.top1_provenance == "measured" for item in items)
    top1 = f"with its error where it was measured of the artifact on {choice.dataset}, else published"
    what = "size: measured" if mixed else "latency and size: measured"
    say_wrapped(f"{what}; at most: {_bounds(items)}; top-1: {top1 if rated else 'published for the official weights'}")
    if bases and not why:
        say_wrapped(_predictions(bases))


def _bounds(items: Sequence[Candidate]) -> str:
    """How sure the upper bounds are, and where which of them is so."""
    shares = {item.latency_provenance: item.basis.confidence if item.basis else 0.99 for item in items}
    told = [(shares[name], name) for name in ("measured", "predicted") if name in shares]
    if len(shares) == len(told) == 1:
        return f"with {told[0][0]:.0%} confidence"
    sure = ", ".join(f"{share:.0%} where {name}" for share, name in told)
    said = [
        *([f"confidence {sure}"] if sure else []),
        *(["published ones have no bound"] if "published" in shares else []),
    ]
    return ", ".join(said)


def _predictions(bases: Collection[Basis]) -> str:
    """What they rest on: in full where that is the same for all of them."""
    said = {_rests_on(basis) for basis in bases}
    if len(said) == 1:
        return f"predicted {said.pop()}"
    levels = " or ".join(sorted({basis.level for basis in bases}))
    least, most = min(basis.anchors for basis in bases), max(basis.anchors for basis in bases)
    rows = f"{most}" if least == most else f"{least} to {most}"
    return f"predicted by {levels} from {rows} rows of the device; --why tells of each"


# The pick, and what to do next


def _name(item: Candidate) -> str:
    threads = f"{item.threads} thread(s)" if item.threads else "threads not told"
    return f"{item.model}, {item.target} {item.precision}, {threads}"


def _facts(picked: Candidate, percentile: int) -> list[str]:
    """What is known of the pick, each number with its provenance; nothing is said of what is not known."""
    from edgevit.selection.wording import remarks

    upper, top1, size = picked.latency_upper_ms, picked.top1_percent, picked.size_mb
    told, name = picked.latency_ms, f"p{percentile}"
    facts = [] if told is None else [f"{name} {told:.3g} ms ({picked.latency_provenance}), no bound"]
    facts = facts if upper is None else [f"{name} at most {upper:.3g} ms ({_origin(picked)})"]
    facts += [f"grade {picked.grade}"] if picked.grade else []
    facts += ["top-1 unknown"] if top1 is None else [f"top-1 {_top1(picked)}% ({picked.top1_provenance})"]
    facts += [] if size is None else [f"{size:.1f} MB"]
    facts += [] if picked.memory_mb is None else [f"{picked.memory_mb:.0f} MB of memory"]
    facts += [] if picked.energy_mj is None else [f"{picked.energy_mj:.3g} mJ"]
    facts += [f"parity {picked.parity_status or 'unknown'}"]
    return [*facts, *remarks(picked)]


def _top1(item: Candidate) -> str | float | None:
    """As it is published, to two digits; what was measured with its error."""
    if item.top1_percent is None or item.top1_error_percent is None:
        return None if item.top1_percent is None else round(item.top1_percent, 2)
    return f"{item.top1_percent:.2f} ± {item.top1_error_percent:.2f}"


def _print_suggestions(suggestions: Iterable[Suggestion], where: str) -> None:
    for item in suggestions:
        say_wrapped(f"{where}{item.does} next: {item.model} {item.target} {item.precision}, {item.why}")
        say(f"  {item.command}")


# Several devices


def _print_joint(choice: JointChoice, *, pareto: bool, why: bool) -> None:
    percentile, names = choice.budget.percentile, " and ".join(choice.devices)
    if pareto:
        say(f"{len(choice.front)} on the front of {names}: nothing else is as accurate and as fast")
    elif not choice.picked:
        say(_NOTHING[choice.outcome].format(names))
    else:
        first = choice.picked[0]
        say(f"{first.model}, {first.target} {first.precision}, on each of {names}")
        for device, item in zip(choice.devices, choice.picked, strict=True):
            say_wrapped(f"  {device}: {', '.join(_facts(item, percentile))}, {item.threads} thread(s)")
    _print_fitting(choice, pareto=pareto, why=why)
    if not why and not pareto and choice.rejected:
        say(f"not shown: {len(choice.rejected)} artifacts do not fit on all; --why shows them")
    for note in choice.notes:
        say_wrapped(note.text)
    for one in [] if pareto else choice.choices:
        _print_suggestions(one.measure_next, f"for {one.device} alone, ")


def _print_fitting(choice: JointChoice, *, pareto: bool, why: bool) -> None:
    listed, why = choice.front if pareto else choice.fitting, why and not pareto
    columns = ["model", "target", "prec.", ">top-1 %", *(f">{device} at most" for device in choice.devices), "verdict"]
    shown = listed if why or pareto else listed[:_SHOWN]
    rows = [(*_both(found), "picked" if found is choice.picked else "fits") for found in shown]
    below = ["" for _ in rows]
    if why:
        empty = [""] * (1 + len(choice.devices))
        rows += [(item.model, item.target, item.precision, *empty, "rejected") for item in choice.rejected]
        below += [item.reason for item in choice.rejected]
    if rows:
        print_table(columns, rows, tight=True, below=below if why else None)


def _both(found: Sequence[Candidate]) -> tuple[object, ...]:
    first = found[0]
    return first.model, first.target, first.precision, _top1(first), *(_held(item) for item in found)


def _held(item: Candidate) -> str:
    value = item.latency_ms if item.latency_upper_ms is None else item.latency_upper_ms
    return "" if value is None else f"{value:.3g} ({item.latency_provenance})"
