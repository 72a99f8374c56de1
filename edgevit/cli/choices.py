"""How `edgevit choose` shows an answer: the pick, the others with what is in their way, and what to measure next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from edgevit.cli.common import print_table, say, say_wrapped

if TYPE_CHECKING:
    from edgevit.types import Candidate, Choice, JointChoice, Rejection, Suggestion

_SHOWN = 12  # candidates that fit, and others, unless all are asked for
_NOTHING = {
    "infeasible": "nothing on {} fits the budget",
    "unmeasured": "nothing on {} is known to fit the budget, and something may: measure it",
    "unsupported": "nothing that was asked for runs on {}",
}


def print_choice(choice: Choice | JointChoice, *, pareto: bool, why: bool, predicts: bool) -> None:
    """An answer for people."""
    from edgevit.types import Choice

    if isinstance(choice, Choice):
        _print_one(choice, pareto=pareto, why=why, predicts=predicts)
    else:
        _print_joint(choice, pareto=pareto, why=why)


def _print_one(choice: Choice, *, pareto: bool, why: bool, predicts: bool) -> None:
    percentile, picked = choice.budget.percentile, choice.picked
    if pareto:
        say(f"{len(choice.front)} on the front of {choice.device}: nothing else is as accurate and as fast")
    elif picked is None:
        say(_NOTHING[choice.outcome].format(choice.device))
    else:
        say(f"{_name(picked)}, on {choice.device}")
        say("  " + ", ".join(_facts(picked, percentile)))
    verdicts, hidden = _verdicts(choice, pareto=pareto, why=why)
    if verdicts:
        _print_candidates(verdicts, percentile, choice.dataset)
    if hidden:
        say(f"{hidden} more fit worse, do not fit, or were superseded or not asked for; --why shows all")
    predicted = {item.model for item in _candidates(choice) if item.latency_ms is not None}
    if left := [name for name in choice.unmeasured if name not in predicted]:
        say_wrapped(f"not measured on {choice.device}{', nor predicted' if predicts else ''}: {', '.join(left)}")
        if predicts:
            say(f"  edgevit devices calibrate {choice.device} --budget 10min")
    for note in choice.notes:
        if not (pareto and note.startswith("the pick")):
            say(note)
    if not pareto:
        _print_suggestions(choice.measure_next)


def _candidates(choice: Choice) -> Iterable[Candidate]:
    yield from choice.fitting
    yield from (item.candidate for item in choice.rejected)


def _verdicts(choice: Choice, *, pareto: bool, why: bool) -> tuple[list[tuple[Candidate, str]], int]:
    """Candidates with what is said of each, and how many are left out."""
    if pareto:
        return [(item, "on the front") for item in choice.front], 0
    near = {item.candidate.measurement_id for item in choice.nearest_misses}
    fitting = [(item, "picked" if item is choice.picked else "fits; ranks below the pick") for item in choice.fitting]
    rejected = [(item.candidate, _reason(item, item.candidate.measurement_id in near)) for item in choice.rejected]
    if why:
        return fitting + rejected, 0
    told = [
        (item.candidate, _reason(item, item.candidate.measurement_id in near))
        for item in choice.rejected
        if item.kind in ("budget", "unusable")
        and (item.candidate.basis is None or item.candidate.measurement_id in near)
    ]
    shown = fitting[:_SHOWN] + told[:_SHOWN]
    return shown, len(fitting) + len(rejected) - len(shown)


def _name(item: Candidate) -> str:
    threads = f"{item.threads} thread(s)" if item.threads else "threads not told"
    return f"{item.model}, {item.target} {item.precision}, {threads}"


def _print_candidates(verdicts: Sequence[tuple[Candidate, str]], percentile: int, dataset: str) -> None:
    """A line for each, and where its numbers are from: in a column of its own where not all latencies were measured."""
    mixed = any(item.latency_provenance != "measured" for item, _ in verdicts)
    columns = ("model", "target", "prec.", ">thr.", ">top-1 %", f">p{percentile} ms", ">at most", ">MB")
    lines = ((*_cells(item), *([_origin(item)] if mixed else []), verdict) for item, verdict in verdicts)
    print_table((*columns, *(["latency"] if mixed else []), "verdict"), lines)
    provenances = {item.latency_provenance for item, _ in verdicts}
    said = "latency: as its column says, size: of the artifact that was made" if mixed else "latency and size: measured"
    said += ", of published ones without a bound" if "published" in provenances else ""
    confidences = sorted({item.basis.confidence for item, _ in verdicts if item.basis})
    bounds = "at most: with 99% confidence where measured" if confidences else "at most: with 99% confidence"
    bounds += "".join(f", {share:.0%} where predicted" for share in confidences)
    rated = any(item.top1_provenance == "measured" for item, _ in verdicts)
    top1 = f"with its error where it was measured of the artifact on {dataset}, else published"
    say(f"{said}; {bounds}; top-1: {top1 if rated else 'published for the official weights'}")


def _origin(item: Candidate) -> str:
    """Where a latency is from, and of a predicted one what it rests on."""
    basis = item.basis
    if basis is None:
        return item.latency_provenance
    if basis.level == "refused":
        return "unknown"
    ends = "" if basis.lower_ms is None or basis.upper_ms is None else f" {basis.lower_ms:.3g}..{basis.upper_ms:.3g}"
    near = f", nearest {basis.nearest}" if basis.nearest else ""
    return f"predicted{ends} ({basis.level}, {basis.anchors} rows{near})"


def _facts(picked: Candidate, percentile: int) -> list[str]:
    """What is known of the pick, each number with its provenance; nothing is said of what is not known."""
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


def _print_suggestions(suggestions: Iterable[Suggestion]) -> None:
    for item in suggestions:
        say_wrapped(f"measure next: {item.model} {item.target} {item.precision}, {item.why}")
        say(f"  {item.command}")


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
            say(f"  {device}: {', '.join(_facts(item, percentile))}, {item.threads} thread(s)")
    listed = choice.front if pareto else choice.fitting
    columns = ("model", "target", "prec.", ">top-1 %", *(f">{device} at most" for device in choice.devices), "verdict")
    lines = [
        (*_both(found), "picked" if found is choice.picked else "fits") for found in listed[: None if why else _SHOWN]
    ]
    empty = [""] * (1 + len(choice.devices))
    if why:
        lines += [(item.model, item.target, item.precision, *empty, item.reason) for item in choice.rejected]
    if lines:
        print_table(columns, lines)
    if not why and choice.rejected:
        say(f"{len(choice.rejected)} artifacts do not fit on all; --why shows them")
    for note in choice.notes:
        say(note)
    for one in choice.choices:
        _print_suggestions(one.measure_next)


def _both(found: Sequence[Candidate]) -> tuple[object, ...]:
    first = found[0]
    return first.model, first.target, first.precision, _top1(first), *(_held(item) for item in found)


def _held(item: Candidate) -> str:
    value = item.latency_ms if item.latency_upper_ms is None else item.latency_upper_ms
    return "" if value is None else f"{value:.3g} ({item.latency_provenance})"
