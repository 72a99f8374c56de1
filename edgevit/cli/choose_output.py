"""The text of `edgevit choose`: the pick, the other candidates with the reasons against them, and suggestions.

A table fits a terminal of 100 columns, and has a dozen lines. It shows the candidates that fit best, and those that
miss the budget by least. --why shows all candidates, each with every reason and with the evidence of its prediction.
"""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgevit.cli.common import describe_size, print_table, say, say_wrapped

if TYPE_CHECKING:
    from edgevit.records.choice import (
        Basis,
        Candidate,
        Choice,
        JointChoice,
        JointRejection,
        Reason,
        Rejection,
        Suggestion,
    )

_SHOWN, _MISSES = 10, 4  # lines of a table, and of these for what does not fit, unless all are asked for
_HERE, _LONGEST = "here", 24  # the origin of own rows, and characters of a source
_NO_PICK = {
    "infeasible": "nothing on {} fits the budget",
    "unmeasured": "nothing on {} is known to fit the budget, and something may",
    "unsupported": "nothing that was asked for runs on {}",
    "no_accuracy": "nothing on {} is chosen: no accuracy is known of what fits the other limits",
}
# Above the first of those that fit, where the accuracy of none is known.
_NO_ACCURACY = "nothing on {} is chosen: no accuracy is known of what fits; the {} is"
_SUPERLATIVES = {"accurate": "fastest", "fastest": "fastest", "smallest": "smallest"}


class _Line(NamedTuple):
    """A candidate with its verdict in a word or two, and in full."""

    candidate: Candidate
    verdict: str
    reason: str


def print_choice(choice: Choice | JointChoice, *, pareto: bool, why: bool, predicts: bool) -> None:
    """Print an answer for people."""
    from edgevit.records.choice import Choice

    if isinstance(choice, Choice):
        _print_one(choice, pareto=pareto, why=why, predicts=predicts)
    else:
        _print_joint(choice, pareto=pareto, why=why)


def _print_one(choice: Choice, *, pareto: bool, why: bool, predicts: bool) -> None:
    if pareto:
        say(f"{len(choice.front)} on the front of {choice.device}: nothing else is as accurate and as fast")
    elif choice.picked is None:
        say(_NO_PICK[choice.outcome].format(choice.device))
    else:
        if choice.outcome == "no_accuracy":
            say(_NO_ACCURACY.format(choice.device, _SUPERLATIVES[choice.budget.objective]))
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
    chosen = choice.picked if choice.outcome == "chosen" else None
    verdicts = ["picked" if candidate is chosen else "fits" for candidate in choice.fitting]
    fits = [_Line(candidate, verdict, verdict) for candidate, verdict in zip(choice.fitting, verdicts, strict=True)]
    if pareto:
        yield from (_Line(candidate, "", "") for candidate in choice.front)
    elif why:
        yield from fits
        yield from (_Line(rejection.candidate, "", rejection.reason) for rejection in choice.rejected)
    else:
        misses = _misses(choice.rejected)
        room = max(_SHOWN - len(fits), min(_MISSES, len(misses)))
        yield from fits[: _SHOWN - min(room, len(misses))]
        yield from (_Line(miss.candidate, _in_short(miss), miss.reason) for miss in misses[:room])


def _misses(rejected: Collection[Rejection]) -> list[Rejection]:
    """Return the misses in question: nearest to fitting first, then those with a missing number, then unusable ones."""
    from edgevit.selection.ranking import rank

    def order(miss: Rejection) -> tuple[object, ...]:
        return (miss.kind != "budget", math.inf if miss.excess is None else miss.excess, rank(miss.candidate))

    return sorted((miss for miss in rejected if miss.kind in ("budget", "unusable")), key=order)


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
    fit = sum(candidate.measurement_id not in shown for candidate in choice.fitting)
    hidden = [rejection for rejection in choice.rejected if rejection.candidate.measurement_id not in shown]
    excluded = sum(rejection.kind in ("not_asked", "superseded") for rejection in hidden)
    counts = ((fit, "that fit"), (len(hidden) - excluded, "that do not"), (excluded, "not asked for or superseded"))
    parts = [f"{count} {group}" for count, group in counts if count]
    if parts:
        say(f"not shown: {', '.join(parts)}; --why shows all")


def _print_unmeasured(choice: Choice, *, predicts: bool) -> None:
    candidates = [*choice.fitting, *(rejection.candidate for rejection in choice.rejected)]
    with_latency = {candidate.model for candidate in candidates if candidate.latency_ms is not None}
    unknown = [name for name in choice.unmeasured if name not in with_latency]
    if unknown:
        say_wrapped(f"not measured on {choice.device}{', nor predicted' if predicts else ''}: {', '.join(unknown)}")
        from edgevit.devices.registry import reached_as

        if predicts and (name := reached_as(choice.device)):
            say(f"  {shlex.join(('edgevit', 'devices', 'calibrate', name, '--budget', '10min'))}")


# The table


def _print_lines(lines: Sequence[_Line], choice: Choice, *, pareto: bool, why: bool) -> None:
    """Print a line for each candidate, with its provenance unless all are measured; with `why` every reason below."""
    verdicts, why = not (pareto or why), why and not pareto
    mixed = any(line.candidate.latency_provenance != "measured" for line in lines)
    identify = _Identities.of([line.candidate for line in lines])
    columns = [*identify.columns, ">thr.", ">top-1 %", f">p{choice.budget.percentile} ms", ">at most"]
    columns += [*(["latency"] if mixed else []), ">MB"]
    # Where anything but own rows is shown.
    has_origins = any(line.candidate.origin for line in lines)
    columns += [*(["from"] if has_origins else []), *(["verdict"] if verdicts else [])]
    verdict = [[line.verdict] if verdicts else [] for line in lines]
    rows = [
        (*identify.cells(line.candidate), *_cells(line.candidate, mixed), *_origin(line.candidate, has_origins), *cell)
        for line, cell in zip(lines, verdict, strict=True)
    ]
    print_table(columns, rows, tight=True, below=[_in_full(line) for line in lines] if why else None)
    _print_legend([line.candidate for line in lines], choice, mixed, why)


class _Identities(NamedTuple):
    """The columns that name a candidate: its weights and its input only where these are not the same in all lines."""

    labels: Mapping[tuple[str, str], str]
    has_inputs: bool

    @classmethod
    def of(cls, candidates: Sequence[Candidate | JointRejection]) -> _Identities:
        """Return the columns of a table with these candidates."""
        from edgevit.records.network import network_labels

        return cls(network_labels(candidates), len({one.input_shape for one in candidates} - {()}) > 1)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return ["model", *["weights"] * bool(self.labels), *["input"] * self.has_inputs, "target", "prec."]

    def cells(self, candidate: Candidate | JointRejection) -> tuple[str, ...]:
        """Return the cells of a candidate."""
        weights = [self.labels.get((candidate.model, candidate.network_id), "")] if self.labels else []
        size = [describe_size(candidate.input_shape)] if self.has_inputs else []
        return (candidate.model, *weights, *size, candidate.target, candidate.precision)


def _cells(candidate: Candidate, mixed: bool) -> tuple[object, ...]:
    numbers = (candidate.latency_ms, candidate.latency_upper_ms)
    latencies = ("" if value is None else f"{value:.3g}" for value in numbers)
    size = "" if candidate.size_mb is None else f"{candidate.size_mb:.1f}"
    provenance = [_provenance(candidate)] if mixed else []
    return candidate.threads or "", _top1(candidate), *latencies, *provenance, size


def _origin(candidate: Candidate, has_origins: bool) -> list[str]:
    """Return the cell of a row's origin, if there is such a column: its kind, and the name of a file alone."""
    if not has_origins or candidate.basis:
        return [""] * has_origins
    kind, _, source = (candidate.origin or _HERE).partition(" ")
    name = re.split(r"[/\\]", source)[-1]
    short = name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..."
    return [f"{kind} {short}".strip()]


def _provenance(candidate: Candidate) -> str:
    """Return the provenance of a latency in a word."""
    return "unknown" if candidate.basis and candidate.basis.level == "refused" else candidate.latency_provenance


def _in_full(line: _Line) -> str:
    """Return every reason, the evidence of a prediction, and all remarks on a candidate."""
    from edgevit.selection.wording import remarks

    basis, between = line.candidate.basis, ""
    if basis and basis.lower_ms is not None and basis.upper_ms is not None:
        between = f"predicted between {basis.lower_ms:.3g} and {basis.upper_ms:.3g} ms {_evidence(basis)}"
    return "; ".join(filter(None, (line.reason, between, *remarks(line.candidate))))


def _evidence(basis: Basis) -> str:
    nearest = f", nearest {basis.nearest}" if basis.nearest else ""
    return f"by {basis.level} from {basis.anchors} row(s) of the device{nearest}"


def _print_legend(candidates: Sequence[Candidate], choice: Choice, mixed: bool, why: bool) -> None:
    """Print the meaning of the columns, and the evidence of predictions, once, where it is not below each of them."""
    bases = {one.basis for one in candidates if one.basis and one.basis.level != "refused"}
    rated = any(one.top1_provenance == "measured" for one in candidates)
    top1 = f"with its error where it was measured of the artifact on {choice.dataset}, else published"
    columns = "size: measured" if mixed else "latency and size: measured"
    source = top1 if rated else "published for the official weights"
    say_wrapped(f"{columns}; at most: {_bounds(candidates)}; top-1: {source}")
    if bases and not why:
        say_wrapped(_predictions(bases))


def _bounds(candidates: Sequence[Candidate]) -> str:
    """Return the confidence of the upper bounds, for each provenance where they differ."""
    shares = {one.latency_provenance: one.basis.confidence if one.basis else 0.99 for one in candidates}
    bounded = [(shares[name], name) for name in ("measured", "predicted") if name in shares]
    if len(shares) == len(bounded) == 1:
        return f"with {bounded[0][0]:.0%} confidence"
    confidences = ", ".join(f"{share:.0%} where {name}" for share, name in bounded)
    parts = [f"confidence {confidences}"] if confidences else []
    parts += ["published ones have no bound"] if "published" in shares else []
    return ", ".join(parts)


def _predictions(bases: Collection[Basis]) -> str:
    """Return the evidence of predictions: in full where it is the same for all of them."""
    evidence = {_evidence(basis) for basis in bases}
    if len(evidence) == 1:
        return f"predicted {evidence.pop()}"
    levels = " or ".join(sorted({basis.level for basis in bases}))
    counts = sorted({basis.anchors for basis in bases})
    rows = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"predicted by {levels} from {rows} rows of the device; --why tells of each"


# The pick, and what to do next


def _name(candidate: Candidate) -> str:
    from edgevit.records.network import full_name

    threads = f"{candidate.threads} thread(s)" if candidate.threads else "threads not told"
    return f"{full_name(candidate)}, {candidate.target} {candidate.precision}, {threads}"


def _facts(picked: Candidate, percentile: int) -> list[str]:
    """Return the facts of the pick, each number with its provenance; facts that are not known are left out."""
    from edgevit.selection.wording import remarks

    facts = [*_latency_fact(picked, f"p{percentile}")]
    facts += [f"grade {picked.grade}"] if picked.grade else []
    facts += [
        f"top-1 {_top1(picked, mark='')}% ({picked.top1_provenance}{', assumed' * bool(picked.top1_assumed)})"
        if picked.top1_percent is not None
        else "top-1 unknown"
    ]
    facts += [] if picked.size_mb is None else [f"{picked.size_mb:.1f} MB"]
    facts += [] if picked.memory_mb is None else [f"{picked.memory_mb:.0f} MB of memory"]
    facts += [] if picked.energy_mj is None else [f"{picked.energy_mj:.3g} mJ"]
    facts += [f"parity {picked.parity_status or 'unknown'}"]
    return [*facts, *remarks(picked)]


def _latency_fact(picked: Candidate, percentile: str) -> Iterator[str]:
    if picked.latency_upper_ms is not None:
        yield f"{percentile} at most {picked.latency_upper_ms:.3g} ms ({_provenance(picked)})"
    elif picked.latency_ms is not None:
        yield f"{percentile} {picked.latency_ms:.3g} ms ({picked.latency_provenance}), no bound"


def _top1(candidate: Candidate, mark: str = " assumed") -> str | float | None:
    """Return a published accuracy to two digits, or a measured one with its error."""
    if candidate.top1_percent is None or candidate.top1_error_percent is None:
        return None if candidate.top1_percent is None else round(candidate.top1_percent, 2)
    return f"{candidate.top1_percent:.2f} ± {candidate.top1_error_percent:.2f}{mark * bool(candidate.top1_assumed)}"


def _print_suggestions(suggestions: Iterable[Suggestion], prefix: str) -> None:
    for one in suggestions:
        weights = f" with {one.network.label}" if one.network is not None and one.network.weights == "file" else ""
        say_wrapped(f"{prefix}{one.does} next: {one.model}{weights} {one.target} {one.precision}, {one.why}")
        if one.command:
            say(f"  {one.command}")
        if one.artifact:
            say(f"  its artifact is in {one.artifact}")


# Several devices


def _print_joint(choice: JointChoice, *, pareto: bool, why: bool) -> None:
    from edgevit.records.network import full_name

    percentile, names = choice.budget.percentile, " and ".join(choice.devices)
    if pareto:
        say(f"{len(choice.front)} on the front of {names}: nothing else is as accurate and as fast")
    elif not choice.picked:
        say(_NO_PICK[choice.outcome].format(names))
    else:
        first = choice.picked[0]
        if choice.outcome == "no_accuracy":
            say(_NO_ACCURACY.format(names, _SUPERLATIVES[choice.budget.objective]))
        say(f"{full_name(first)}, {first.target} {first.precision}, on each of {names}")
        for device, candidate in zip(choice.devices, choice.picked, strict=True):
            say_wrapped(f"  {device}: {', '.join(_facts(candidate, percentile))}, {candidate.threads} thread(s)")
    _print_fitting(choice, pareto=pareto, why=why)
    if not why and not pareto and choice.rejected:
        say(f"not shown: {len(choice.rejected)} artifacts do not fit on all; --why shows them")
    for note in choice.notes:
        say_wrapped(note.text)
    for one in [] if pareto else choice.choices:
        _print_suggestions(one.measure_next, f"for {one.device} alone, ")


def _print_fitting(choice: JointChoice, *, pareto: bool, why: bool) -> None:
    listed, why = choice.front if pareto else choice.fitting, why and not pareto
    identify = _Identities.of([*(one[0] for one in choice.fitting), *(choice.rejected if why else ())])
    columns = [*identify.columns, ">top-1 %", *(f">{device} at most" for device in choice.devices), "verdict"]
    shown = listed if why or pareto else listed[:_SHOWN]
    chosen = choice.picked if choice.outcome == "chosen" else None
    rows = [
        (*identify.cells(one[0]), _top1(one[0]), *map(_latency, one), "picked" if one is chosen else "fits")
        for one in shown
    ]
    below = ["" for _ in rows]
    if why:
        empty = [""] * (1 + len(choice.devices))
        rows += [(*identify.cells(one), *empty, "rejected") for one in choice.rejected]
        below += [rejection.reason for rejection in choice.rejected]
    if rows:
        print_table(columns, rows, tight=True, below=below if why else None)


def _latency(candidate: Candidate) -> str:
    value = candidate.latency_ms if candidate.latency_upper_ms is None else candidate.latency_upper_ms
    return "" if value is None else f"{value:.3g} ({candidate.latency_provenance})"
