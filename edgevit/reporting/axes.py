"""One device's part of the picture of a choice: its points with their bars, the front, the limits and the pick."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgevit.records.choice import Choice
from edgevit.reporting.candidates import origin
from edgevit.reporting.points import Panel, Point, Standing, front

INK, MUTED, GRID = "#17202b", "#55606e", "#e6eaf0"
_PICK, _BUDGET = "#c44e00", "#9a3b00"  # Okabe and Ito's hues, darkened
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
    """All but the names, which are placed when all axes have found their places."""
    choice, drawn = panel.choice, panel.points
    _frame(axes, panel)
    if not drawn:
        axes.text(0.5, 0.5, _NOTHING, transform=axes.transAxes, ha="center", color=MUTED, wrap=True)
        axes.tick_params(bottom=False, labelbottom=False, left=False, labelleft=False)
        return
    ends = [value for point in drawn for value in (point.x, point.low, point.high)]
    left, right = _horizontal(axes, ends, choice, most_ticks)
    line = front(drawn)
    stairs = [*line, line[-1]._replace(x=right)]
    axes.plot([point.x for point in stairs], [point.top1 for point in stairs], drawstyle="steps-post",
              color=INK, linewidth=1.3, alpha=0.75, label="front: beaten by none", zorder=1)  # fmt: skip
    for name in _MARKERS:
        for standing in _COLOURS:
            _points(axes, [p for p in drawn if (origin(p.item), p.standing) == (name, standing)], name, standing)
    _limits(axes, choice)
    axes.set_xlim(left, right)


def draw_names(axes: Any, panel: Panel) -> None:
    """A ring and a name for the pick, and names for the corners of the front that cover no name before them."""
    ring = {"fillstyle": "none", "color": _PICK, "markersize": 15, "markeredgewidth": 2, "linestyle": "none"}
    picked = [point for point in panel.points if point.item == panel.picked]
    for point in picked:
        axes.plot(point.x, point.top1, "o", zorder=3, label="picked", **ring)
    taken: list[Any] = []
    for point in (*picked, *(point for point in front(panel.points) if point not in picked)):
        style = {"color": _PICK, "fontweight": "bold"} if point in picked else {"color": INK}
        beside = {"xytext": (-8, 6), "textcoords": "offset points", "ha": "right", "fontsize": 9}
        name = axes.annotate(point.item.model, (point.x, point.top1), **beside, **style)
        box = name.get_window_extent()
        if any(box.overlaps(other) for other in taken):
            name.remove()
        else:
            taken.append(box)


def _frame(axes: Any, panel: Panel) -> None:
    percentile = f"p{panel.choice.budget.percentile}"
    published = any(point.item.latency_provenance == "published" for point in panel.points)
    itself = f" (published: {percentile} itself)" if published else ""
    axes.set_xlabel(f"latency, ms: what {percentile} is at most{itself}", color=MUTED)
    axes.grid(color=GRID)
    axes.set_axisbelow(True)
    axes.tick_params(colors=MUTED)
    axes.spines[["top", "right"]].set_visible(False)


def _horizontal(axes: Any, values: Sequence[float], choice: Choice, most_ticks: int) -> tuple[float, float]:
    """A logarithmic axis with plain numbers, from a little before the first value to a little beyond the last."""
    limit = choice.budget.max_latency_ms
    values = [*values, *([] if limit is None else [limit])]
    room = max(1.3, (max(values) / min(values)) ** 0.12)
    left, right = min(values) / room**1.4, max(values) * room
    axes.set_xscale("log")
    series = (_ticks(digits, left, right) for digits in _TICKS)
    ticks = [found for found in series if len(found) <= most_ticks][-1]  # the finest that leaves room; one has few
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    return left, right


def _ticks(digits: Sequence[float], left: float, right: float) -> list[float]:
    every = (float(f"{digit}e{power}") for power in range(-6, 9) for digit in digits)
    return [tick for tick in every if left <= tick <= right]


def _points(axes: Any, found: Sequence[Point], name: str, standing: Standing) -> None:
    if not found:
        return
    marker, filling = _MARKERS[name]
    colour = _COLOURS[standing]
    xs, ys = [point.x for point in found], [point.top1 for point in found]
    bars = [[point.x - point.low for point in found], [point.high - point.x for point in found]]
    look = {"fmt": marker, "fillstyle": filling, "color": colour, "markersize": 7, "elinewidth": 1, "capsize": 2.5}
    edge = "white" if filling == "full" else colour  # points that overlap stay two points
    axes.errorbar(xs, ys, xerr=bars, markeredgecolor=edge, zorder=2, label=f"{name}, {standing}", **look)


def _limits(axes: Any, choice: Choice) -> None:
    budget = choice.budget
    if budget.max_latency_ms is not None:
        label = f"budget: p{budget.percentile} at most {budget.max_latency_ms:g} ms"
        axes.axvline(budget.max_latency_ms, color=_BUDGET, linestyle="--", linewidth=1.4, label=label, zorder=1)
    if budget.min_top1_percent is not None:
        label = f"at least {budget.min_top1_percent:g}%"
        axes.axhline(budget.min_top1_percent, color=_BUDGET, linestyle=":", linewidth=1.4, label=label, zorder=1)
