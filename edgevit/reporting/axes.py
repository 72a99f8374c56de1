"""The axes of one device in the picture of a choice: points with bars, the front, the limits and the pick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgevit.records.choice import Choice
from edgevit.reporting.candidates import origin
from edgevit.reporting.points import Panel, Point, Standing
from edgevit.visible_text import visible

INK, MUTED, GRID = "#17202b", "#55606e", "#e6eaf0"
# Okabe and Ito's hues, darkened.
_PICK, _BUDGET = "#c44e00", "#9a3b00"
_COLOURS: dict[Standing, str] = {
    "fits": "#0072b2",
    "fits on all": "#0072b2",
    "fits here only": "#8a6500",
    "does not fit": "#767f8b",
}
# Shape and filling say the origin, so that the picture can be read without colours.
_MARKERS = {
    "measured": ("o", "full"),
    "reconstructed": ("^", "full"),
    "predicted": ("s", "none"),
    "published": ("D", "none"),
}
_TICKS = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), tuple(step / 4 for step in range(4, 40)))
_NOTHING = "nothing to draw: no candidate has both an accuracy and a latency"


def draw_panel(axes: Any, panel: Panel, most_ticks: int) -> None:
    """Draw all but the names, which are placed when all axes have their final size."""
    choice, drawn = panel.choice, panel.points
    _frame(axes, panel)
    if not drawn:
        axes.text(0.5, 0.5, _NOTHING, transform=axes.transAxes, ha="center", color=MUTED, wrap=True)
        axes.tick_params(bottom=False, labelbottom=False, left=False, labelleft=False)
        return
    ends = [value for point in drawn for value in (point.x, point.low, point.high)]
    x_min, x_max = _horizontal(axes, ends, choice, most_ticks)
    _front(axes, panel, x_max)
    for provenance in _MARKERS:
        for standing in _COLOURS:
            alike = [p for p in drawn if (origin(p.candidate), p.standing) == (provenance, standing)]
            _points(axes, alike, provenance, standing)
    _limits(axes, choice)
    axes.set_xlim(x_min, x_max)


def draw_names(axes: Any, panel: Panel) -> None:
    """Draw a ring and a name for the pick, and a name for each corner of the front that covers no earlier name."""
    ring = {"fillstyle": "none", "color": _PICK, "markersize": 15, "markeredgewidth": 2, "linestyle": "none"}
    picked = [point for point in panel.points if point.candidate == panel.picked]
    for point in picked:
        axes.plot(point.x, point.top1, "o", zorder=3, label="picked", **ring)
    boxes: list[Any] = []
    for point in (*picked, *(point for point in panel.front if point not in picked)):
        style = {"color": _PICK, "fontweight": "bold"} if point in picked else {"color": INK}
        beside = {"xytext": (-8, 6), "textcoords": "offset points", "ha": "right", "fontsize": 9}
        name = axes.annotate(visible(point.candidate.model), (point.x, point.top1), **beside, **style)
        box = name.get_window_extent()
        if any(box.overlaps(other) for other in boxes):
            name.remove()
        else:
            boxes.append(box)


def _front(axes: Any, panel: Panel, x_max: float) -> None:
    """Draw the chooser's front as steps that end at the budget, or without a budget at the edge."""
    corners = panel.front
    if corners:
        limit = panel.choice.budget.max_latency_ms
        stairs = [*corners, corners[-1]._replace(x=x_max if limit is None else limit)]
        axes.plot([point.x for point in stairs], [point.top1 for point in stairs], drawstyle="steps-post",
                  color=INK, linewidth=1.3, alpha=0.75, label="front of what fits", zorder=1)  # fmt: skip


def _frame(axes: Any, panel: Panel) -> None:
    percentile = f"p{panel.choice.budget.percentile}"
    published = any(point.candidate.latency_provenance == "published" for point in panel.points)
    exception = f" (published: {percentile} itself)" if published else ""
    axes.set_xlabel(f"latency, ms: upper bound of {percentile}{exception}", color=MUTED)
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED)
    axes.spines[["top", "right"]].set_visible(False)


def _horizontal(axes: Any, values: Sequence[float], choice: Choice, most_ticks: int) -> tuple[float, float]:
    """Scale an axis logarithmically with plain numbers as ticks; return its ends, a little beyond the values'."""
    limit = choice.budget.max_latency_ms
    values = [*values, *([] if limit is None else [limit])]
    room = max(1.3, (max(values) / min(values)) ** 0.12)
    x_min, x_max = min(values) / room**1.4, max(values) * room
    axes.set_xscale("log")
    series = (_ticks(digits, x_min, x_max) for digits in _TICKS)
    # The finest series that leaves room; the coarsest one always does.
    ticks = [candidates for candidates in series if len(candidates) <= most_ticks][-1]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    return x_min, x_max


def _ticks(digits: Sequence[float], x_min: float, x_max: float) -> list[float]:
    numbers = (float(f"{digit}e{power}") for power in range(-6, 9) for digit in digits)
    return [tick for tick in numbers if x_min <= tick <= x_max]


def _points(axes: Any, points: Sequence[Point], provenance: str, standing: Standing) -> None:
    if not points:
        return
    marker, filling = _MARKERS[provenance]
    colour = _COLOURS[standing]
    xs, ys = [point.x for point in points], [point.top1 for point in points]
    bars = [[point.x - point.low for point in points], [point.high - point.x for point in points]]
    look = {"fmt": marker, "fillstyle": filling, "color": colour, "markersize": 7, "elinewidth": 1, "capsize": 2.5}
    # With an edge points that overlap stay two points.
    edge = "white" if filling == "full" else colour
    axes.errorbar(xs, ys, xerr=bars, markeredgecolor=edge, zorder=2, label=f"{provenance}, {standing}", **look)


def _limits(axes: Any, choice: Choice) -> None:
    budget = choice.budget
    if budget.max_latency_ms is not None:
        label = f"budget: p{budget.percentile} at most {budget.max_latency_ms:g} ms"
        axes.axvline(budget.max_latency_ms, color=_BUDGET, linestyle="--", linewidth=1.4, label=label, zorder=1)
    if budget.min_top1_percent is not None:
        label = f"at least {budget.min_top1_percent:g}%"
        axes.axhline(budget.min_top1_percent, color=_BUDGET, linestyle=":", linewidth=1.4, label=label, zorder=1)
