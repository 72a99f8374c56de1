"""The picture of a choice, PNG or SVG: candidates, front, budget and pick, with one panel per device.

Matplotlib draws it, because Plotly's images need a browser (kaleido drives Chrome). Matplotlib writes the same bytes
for the same choice and version. The user's matplotlibrc is not read, and names are never taken for formulae.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgevit.errors import TargetUnavailableError, UsageError
from edgevit.records.choice import Candidate, Choice, JointChoice, Outcome
from edgevit.records.network import full_name
from edgevit.reporting.axes import GRID, INK, MUTED, draw_names, draw_panel
from edgevit.reporting.points import Panel, panels
from edgevit.store.jsonl import atomic_write
from edgevit.visible_text import visible

_METADATA: dict[str, dict[str, str | None]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": "edgevit"}}
_SIZE_INCHES, _DPI = (9.0, 5.4), 150
_MOST_TICKS, _MOST_TICKS_BESIDE = 15, 10
# Of several devices so many panels stand in a row, each of this size.
_BESIDE, _BESIDE_INCHES = 2, (6.2, 4.6)
_LEGEND_INCHES = 0.9
_SETTINGS = {
    "svg.hashsalt": "edgevit",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 10,
    "axes.edgecolor": MUTED,
}


def plot(choice: Choice | JointChoice, path: Path) -> None:
    """Draw a choice into a file, which appears only when it is complete. Several devices have a panel each.

    Raises UsageError for a name that ends neither in .png nor in .svg, TargetUnavailableError without Matplotlib,
    StoreError where the file cannot be written.
    """
    form = path.suffix.lower().removeprefix(".")
    if form not in _METADATA:
        raise UsageError(
            f"{path.name} is no picture", why="its name ends neither in .png nor in .svg", fix="--plot FILE.png"
        )
    with _drawing() as figure:
        if isinstance(choice, Choice):
            _draw_one(figure, choice)
        else:
            _draw_several(figure, choice)
        with atomic_write(path, "the picture") as part:
            figure.savefig(part, format=form, metadata=_METADATA[form])


@contextmanager
def _drawing() -> Iterator[Any]:
    """Yield a figure while the settings of this module are in force, without those of the user."""
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


def _draw_one(figure: Any, choice: Choice) -> None:
    [panel] = panels(choice)
    axes = figure.subplots()
    threads = _threads(choice.picked) if choice.outcome == "chosen" else ""
    _title(axes, f"{choice.device}: {_answer(choice.picked, choice.outcome)}{threads}")
    _draw_all(figure, [axes], [panel], _MOST_TICKS)
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        axes.legend(handles, labels, loc="lower right", **_legend())


def _draw_several(figure: Any, choice: JointChoice) -> None:
    """Draw a panel per device; panels in a row share the axis of accuracies and have latencies of their own."""
    device_panels = panels(choice)
    across = min(_BESIDE, len(device_panels))
    down = -(-len(device_panels) // across)
    width, height = _BESIDE_INCHES
    figure.set_size_inches(width * across, height * down + _LEGEND_INCHES)
    grid = figure.subplots(down, across, squeeze=False, sharey=True)
    cells = list(grid.flat)
    for spare in cells[len(device_panels) :]:
        spare.set_visible(False)
    picked = choice.picked[0] if choice.picked else None
    answer = _answer(picked, choice.outcome) if picked else "nothing fits on all"
    style = {"x": 0.01, "ha": "left", "color": INK, "fontsize": 13, "fontweight": "bold"}
    figure.suptitle(f"{' and '.join(choice.devices)}: {answer}", **style)
    for axes, panel in zip(cells, device_panels, strict=False):
        _title(axes, f"{panel.choice.device}{_pick_on(panel)}", fontweight="normal")
    _draw_all(figure, cells[: len(device_panels)], device_panels, _MOST_TICKS_BESIDE)
    handle_by_label: dict[str, Any] = {}
    for axes in cells[: len(device_panels)]:
        handles, labels = axes.get_legend_handles_labels()
        handle_by_label |= dict(zip(labels, handles, strict=True))
    labels = handle_by_label.keys()
    figure.legend(handle_by_label.values(), labels, loc="outside lower center", ncols=4, **_legend())


def _draw_all(figure: Any, cells: Sequence[Any], device_panels: Sequence[Panel], most_ticks: int) -> None:
    for axes, panel in zip(cells, device_panels, strict=True):
        draw_panel(axes, panel, most_ticks)
        axes.margins(y=0.12)
        if axes.get_subplotspec().is_first_col():
            axes.set_ylabel(f"top-1 accuracy, % ({panel.choice.dataset})", color=MUTED)
    # Names can be placed once the axes have their final size.
    figure.draw_without_rendering()
    for axes, panel in zip(cells, device_panels, strict=True):
        draw_names(axes, panel)


def _title(axes: Any, text: str, fontweight: str = "bold") -> None:
    axes.set_title(text, loc="left", color=INK, fontsize=12, fontweight=fontweight)


def _answer(picked: Candidate | None, outcome: Outcome) -> str:
    """Return the pick in words; nothing of unknown accuracy is one."""
    if outcome == "no_accuracy":
        return "nothing chosen, as no accuracy is known"
    return "nothing fits" if picked is None else visible(f"{full_name(picked)}, {picked.target} {picked.precision}")


def _threads(picked: Candidate | None) -> str:
    return f", {picked.threads} thread{'s' * (picked.threads != 1)}" if picked and picked.threads else ""


def _pick_on(panel: Panel) -> str:
    """Return the thread count and the latency of the joint pick on a device."""
    point = next((point for point in panel.points if point.candidate == panel.picked), None)
    latency = "" if point is None else f", {point.x:.3g} ms ({point.candidate.latency_provenance})"
    return f"{_threads(panel.picked)}{latency}"


def _legend() -> dict[str, Any]:
    return {"fontsize": 9, "frameon": True, "framealpha": 0.92, "edgecolor": GRID}
