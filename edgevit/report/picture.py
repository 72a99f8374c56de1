"""A choice as a picture, PNG or SVG: what fits, what does not, the front, the budget and the pick.

Matplotlib draws it: it is a library alone, where Plotly's own images need a browser (kaleido drives Chrome), and it
writes the same bytes for the same choice and version. The user's matplotlibrc is not read, and names are never taken
for formulae.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from edgevit.errors import TargetUnavailableError, UsageError
from edgevit.report.candidates import held_ms, origin
from edgevit.store.jsonl import appearing
from edgevit.types import Candidate, Choice

_METADATA: dict[str, dict[str, str | None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": "edgevit"}}
_SIZE_INCHES, _DPI = (9.0, 5.4), 150
_INK, _MUTED, _GRID = "#17202b", "#55606e", "#e6eaf0"
_FITS, _MISSES, _PICK, _BUDGET = "#0072b2", "#767f8b", "#c44e00", "#9a3b00"  # Okabe and Ito's hues, darkened
# Shape and filling say the origin, so that the picture can be read without colours.
_MARKERS = {
    "measured": ("o", "full"),
    "reconstructed": ("^", "full"),
    "predicted": ("s", "none"),
    "published": ("D", "none"),
}
_SETTINGS = {
    "svg.hashsalt": "edgevit",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "axes.edgecolor": _MUTED,
}
_TICKS = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8), tuple(step / 4 for step in range(4, 40)))
_MOST_TICKS = 15


class Point(NamedTuple):
    """A candidate that can be drawn: milliseconds that are held against the budget, and where its bar begins."""

    item: Candidate
    x: float
    low: float
    fits: bool

    @property
    def top1(self) -> float:
        """In percent; a candidate without an accuracy is no point."""
        assert self.item.top1_percent is not None
        return self.item.top1_percent


def plot(choice: Choice, path: Path) -> None:
    """Draw a choice into a file, which appears only when it is complete.

    Raises UsageError for a name that ends neither in .png nor in .svg, TargetUnavailableError without Matplotlib,
    StoreError where the file cannot be written.
    """
    form = path.suffix.lower().removeprefix(".")
    if form not in _METADATA:
        raise UsageError(
            f"{path.name} is no picture", why="its name ends neither in .png nor in .svg", fix="--plot FILE.png"
        )
    with _drawing() as figure:
        _draw(figure, choice, points(choice))
        with appearing(path, "the picture") as part:
            figure.savefig(part, format=form, metadata=_METADATA[form])


def points(choice: Choice) -> list[Point]:
    """What can be drawn of a choice: candidates that were held against the budget, with an accuracy and a latency.

    A point stands at what the budget is held against, the bound; of a published row at what its source tells. Its bar
    goes back to the percentile itself.
    """
    items = [(item, True) for item in choice.fitting]
    items += [(rejection.candidate, False) for rejection in choice.rejected if rejection.kind == "budget"]
    found = []
    for item, fits in items:
        held, told = held_ms(item), item.latency_ms
        if held is not None and item.top1_percent is not None:
            found.append(Point(item, held, held if told is None else told, fits))
    return found


def front(drawn: Sequence[Point]) -> list[Point]:
    """Those that no other one beats, fastest first, each more accurate than all before it."""
    found: list[Point] = []
    for point in sorted(drawn, key=lambda point: (point.x, -point.top1)):
        if not found or point.top1 > found[-1].top1:
            found.append(point)
    return found


@contextmanager
def _drawing() -> Iterator[Any]:
    """A figure, while the settings are ours and nobody else's."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        fix = "pip install 'edgevit[report]'"
        raise TargetUnavailableError(
            "this needs matplotlib, which is not installed", why=str(error), fix=fix
        ) from error
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")


def _draw(figure: Any, choice: Choice, drawn: Sequence[Point]) -> None:
    axes = figure.subplots()
    line = front(drawn)
    _frame(axes, choice)
    if not drawn:
        said = "nothing to draw: no candidate has both an accuracy and a latency"
        axes.text(0.5, 0.5, said, transform=axes.transAxes, ha="center", color=_MUTED)
        axes.set(xticks=[], yticks=[])
        return
    left, right = _horizontal(axes, [*(point.x for point in drawn), *(point.low for point in drawn)], choice)
    stairs = [*line, line[-1]._replace(x=right)]
    axes.plot([point.x for point in stairs], [point.top1 for point in stairs], drawstyle="steps-post",
              color=_INK, linewidth=1.3, alpha=0.75, label="front: beaten by none", zorder=1)  # fmt: skip
    for name in _MARKERS:
        for fits in (True, False):
            _points(axes, [point for point in drawn if (origin(point.item), point.fits) == (name, fits)], name, fits)
    _limits(axes, choice)
    axes.set_xlim(left, right)
    axes.margins(y=0.12)
    figure.draw_without_rendering()  # names are placed where the axes have found theirs
    _names(axes, line, [point for point in drawn if point.item == choice.picked])
    axes.legend(loc="lower right", fontsize=9, frameon=True, framealpha=0.92, edgecolor=_GRID)


def _frame(axes: Any, choice: Choice) -> None:
    budget, picked = choice.budget, choice.picked
    answer = "nothing fits" if picked is None else f"{picked.model}, {picked.target} {picked.precision}"
    answer += f", {picked.threads} thread{'s' * (picked.threads != 1)}" if picked and picked.threads else ""
    axes.set_title(f"{choice.device}: {answer}", loc="left", color=_INK, fontsize=12, fontweight="bold")
    axes.set_xlabel(
        f"latency, ms: what p{budget.percentile} is at most (published: p{budget.percentile} itself)", color=_MUTED
    )
    axes.set_ylabel(f"top-1 accuracy, % ({choice.dataset})", color=_MUTED)
    axes.grid(color=_GRID)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED)
    axes.spines[["top", "right"]].set_visible(False)


def _horizontal(axes: Any, values: Sequence[float], choice: Choice) -> tuple[float, float]:
    """A logarithmic axis with plain numbers, from a little before the first value to a little beyond the last."""
    limit = choice.budget.max_latency_ms
    values = [*values, *([] if limit is None else [limit])]
    room = max(1.3, (max(values) / min(values)) ** 0.12)
    left, right = min(values) / room**1.4, max(values) * room
    axes.set_xscale("log")
    series = (_ticks(digits, left, right) for digits in _TICKS)
    ticks = [found for found in series if len(found) <= _MOST_TICKS][-1]  # the finest that leaves room; one has few
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    return left, right


def _ticks(digits: Sequence[float], left: float, right: float) -> list[float]:
    every = (float(f"{digit}e{power}") for power in range(-6, 9) for digit in digits)
    return [tick for tick in every if left <= tick <= right]


def _points(axes: Any, found: Sequence[Point], name: str, fits: bool) -> None:
    if not found:
        return
    marker, filling = _MARKERS[name]
    colour = _FITS if fits else _MISSES
    xs, ys = [point.x for point in found], [point.top1 for point in found]
    bars = [[max(0.0, point.x - point.low) for point in found], [0.0] * len(found)]
    look = {"fmt": marker, "fillstyle": filling, "color": colour, "markersize": 7, "elinewidth": 1, "capsize": 2.5}
    edge = "white" if filling == "full" else colour  # points that overlap stay two points
    label = f"{name}, {'fits' if fits else 'does not fit'}"
    axes.errorbar(xs, ys, xerr=bars, markeredgecolor=edge, zorder=2, label=label, **look)


def _limits(axes: Any, choice: Choice) -> None:
    budget = choice.budget
    if budget.max_latency_ms is not None:
        label = f"budget: p{budget.percentile} at most {budget.max_latency_ms:g} ms"
        axes.axvline(budget.max_latency_ms, color=_BUDGET, linestyle="--", linewidth=1.4, label=label, zorder=1)
    if budget.min_top1_percent is not None:
        label = f"at least {budget.min_top1_percent:g}%"
        axes.axhline(budget.min_top1_percent, color=_BUDGET, linestyle=":", linewidth=1.4, label=label, zorder=1)


def _names(axes: Any, line: Sequence[Point], picked: Sequence[Point]) -> None:
    """A ring and a name for the pick, and names for the corners of the front that cover no name before them."""
    ring = {"fillstyle": "none", "color": _PICK, "markersize": 15, "markeredgewidth": 2, "linestyle": "none"}
    for point in picked:
        axes.plot(point.x, point.top1, "o", zorder=3, label="picked", **ring)
    taken: list[Any] = []
    for point in (*picked, *(point for point in line if point not in picked)):
        style = {"color": _PICK, "fontweight": "bold"} if point in picked else {"color": _INK}
        beside = {"xytext": (-8, 6), "textcoords": "offset points", "ha": "right", "fontsize": 9}
        name = axes.annotate(point.item.model, (point.x, point.top1), **beside, **style)
        box = name.get_window_extent()
        if any(box.overlaps(other) for other in taken):
            name.remove()
        else:
            taken.append(box)
