"""Views of a choice for notebooks: a short repr, an HTML table, and the lines of a pandas frame."""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from edgevit.errors import UsageError
from edgevit.records.network import describe_network, full_name
from edgevit.visible_text import visible

if TYPE_CHECKING:
    from edgevit.records.choice import Candidate, Choice, JointChoice

_FITTING, _MISSES = 5, 3  # lines of an HTML table beside the pick


def describe(candidate: Candidate, percentile: int) -> str:
    """Return a candidate in a line: its artifact, its latency and its accuracy."""
    upper, latency, top1 = candidate.latency_upper_ms, candidate.latency_ms, candidate.top1_percent
    bound = f"p{percentile} unknown" if latency is None else f"p{percentile} {latency:.3g} ms"
    bound = bound if upper is None else f"p{percentile} <= {upper:.3g} ms"
    accuracy = "top-1 unknown" if top1 is None else f"top-1 {top1:.4g}%{' (assumed)' * bool(candidate.top1_assumed)}"
    return f"{full_name(candidate)} {candidate.target} {candidate.precision}, {bound}, {accuracy}"


def choice_repr(choice: Choice) -> str:
    """Return a choice in a line."""
    picked = None if choice.picked is None else describe(choice.picked, choice.budget.percentile)
    counts = f"fitting={len(choice.fitting)}, rejected={len(choice.rejected)}"
    return f"Choice(device={choice.device!r}, outcome={choice.outcome!r}, picked={picked!r}, {counts})"


def joint_repr(choice: JointChoice) -> str:
    """Return a joint choice in a line."""
    picked = [describe(candidate, choice.budget.percentile) for candidate in choice.picked]
    counts = f"fitting={len(choice.fitting)}, rejected={len(choice.rejected)}"
    return f"JointChoice(devices={choice.devices!r}, outcome={choice.outcome!r}, picked={picked!r}, {counts})"


def choice_html(choice: Choice) -> str:
    """Return a small HTML table: the pick, other candidates that fit, and the nearest misses."""
    lines = [_cells(candidate, _verdict(choice, candidate)) for candidate in choice.fitting[: 1 + _FITTING]]
    missed = (rejection for rejection in choice.rejected if rejection.excess is not None)
    nearest = sorted(missed, key=lambda rejection: (rejection.excess or 0.0, rejection.candidate.measurement_id))
    lines += [_cells(rejection.candidate, rejection.reason) for rejection in nearest[:_MISSES]]
    columns = ["model", "target", "precision", "threads", "top-1 %"]
    columns += [f"p{choice.budget.percentile} ms", "at most", "latency", "verdict"]
    counts = f"{len(choice.fitting)} fit, {len(choice.rejected)} do not"
    return _table(f"{choice.device}: {_outcome(choice)}, {counts}", columns, lines)


def joint_html(choice: JointChoice) -> str:
    """Return the HTML tables of a joint choice: the artifacts that fit on all devices, then each device alone."""
    columns = ["model", "target", "precision", *(f"{device}: at most, ms" for device in choice.devices), "verdict"]
    lines = []
    for candidates in choice.fitting[: 1 + _FITTING]:
        first, bounds = candidates[0], [_number(one.latency_upper_ms or one.latency_ms) for one in candidates]
        verdict = "picked" if candidates == choice.picked and choice.outcome == "chosen" else "fits"
        lines.append([full_name(first), first.target, first.precision, *bounds, verdict])
    caption = f"{' and '.join(choice.devices)}: {_outcome(choice)}, {len(choice.fitting)} fit on all"
    return "\n".join([_table(caption, columns, lines), *map(choice_html, choice.choices)])


def _verdict(choice: Choice, candidate: Candidate) -> str:
    """Return whether a candidate that fits is the choice: nothing of unknown accuracy is."""
    return "picked" if candidate == choice.picked and choice.outcome == "chosen" else "fits"


def _outcome(choice: Choice | JointChoice) -> str:
    """Return the outcome, with the objective where that is not the usual one."""
    objective = choice.budget.objective
    return choice.outcome if objective == "accurate" else f"{choice.outcome} ({objective})"


def _cells(candidate: Candidate, verdict: str) -> list[str]:
    top1 = "" if candidate.top1_percent is None else f"{candidate.top1_percent:.4g}"
    top1 += " assumed" * bool(top1 and candidate.top1_assumed)
    latencies = [_number(candidate.latency_ms), _number(candidate.latency_upper_ms), candidate.latency_provenance]
    identity = [full_name(candidate), candidate.target, candidate.precision, str(candidate.threads or "")]
    return [*identity, top1, *latencies, verdict]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _table(caption: str, columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [_row("th", columns), *(_row("td", line) for line in lines)]
    return "\n".join(["<table>", f"<caption>{html.escape(visible(caption))}</caption>", *rows, "</table>"])


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(visible(cell))}</{tag}>" for cell in cells) + "</tr>"


def choice_lines(choice: Choice) -> Iterator[dict[str, Any]]:
    """Yield a line of a frame for each candidate, best first."""
    from edgevit.records.choice import Basis

    verdicts = [(one, _verdict(choice, one), "") for one in choice.fitting]
    verdicts += [(rejection.candidate, rejection.kind, rejection.reason) for rejection in choice.rejected]
    for candidate, verdict, reason in verdicts:
        basis = vars(candidate.basis) if candidate.basis else dict.fromkeys(field.name for field in fields(Basis))
        nested = ("basis", "network", "top1_preprocessing")
        plain = {name: value for name, value in vars(candidate).items() if name not in nested}
        yield {
            **plain,
            "weights": describe_network(candidate),
            **{f"basis_{name}": value for name, value in basis.items()},
            "verdict": verdict,
            "reason": reason,
        }


def frame_of(lines: Iterable[dict[str, Any]]) -> Any:
    """Return a pandas.DataFrame of these lines. Raises UsageError where pandas is missing."""
    try:
        import pandas
    except ImportError as error:
        raise UsageError("a frame needs pandas", why=str(error), fix="pip install 'edgevit[pandas]'") from error
    return pandas.DataFrame(list(lines))
