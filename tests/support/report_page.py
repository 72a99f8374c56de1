"""Reads and drives the report's page in a browser, and makes rows whose percentiles and bounds all differ."""

from __future__ import annotations

from typing import Any

from edgevit.records.measurement import Measurement
from support.measured import measured

MS = 1_000_000
_TRACES = """chart => chart.data.map(({name, x, y, customdata, hovertext, marker, error_x: bars, line}) =>
  ({name, x, y, rows: customdata, hovertext, symbols: marker && marker.symbol, up: bars && bars.array,
    down: bars && bars.arrayminus, colour: line && line.color}))"""

# Sets controls as presses would, without the drawing on the screen after each: a pair of a selector and a value, or a
# truth for what is checked. What stands right already is left alone.
_SET = """controls => {
  for (const [selector, value] of controls) {
    const control = document.querySelector(selector);
    if (!control) continue;
    if (typeof value === 'boolean') {
      if (control.checked !== value) control.click();
    } else if (control.value !== value) {
      control.value = value;
      control.dispatchEvent(new Event(control.matches('select') ? 'change' : 'input', { bubbles: true }));
    }
  }
}"""


def timed(ms: float, spread: float, **changes: Any) -> Measurement:
    """Return a row of two processes, the second one slower, with a tail; its percentiles and bounds all differ."""
    samples = [
        [round(ms * MS * (1 + spread * (process / 4 + (run / 20) ** 3))) for run in range(20)] for process in (0, 1)
    ]
    *_, tail, p90_upper, p99, p99_upper = sorted(samples[0] + samples[1])
    assert tail < p90_upper < p99 < p99_upper
    return measured(samples, **{"p90_upper_ns": p90_upper, "p99_ns": p99, "p99_upper_ns": p99_upper} | changes)


def press(page: Any, name: str, value: str) -> None:
    """Select one of several buttons in a row."""
    page.locator(f"{radio(name, value)} + span").click()


def set_controls(page: Any, values: dict[str, str | bool]) -> None:
    """Give controls these values, by their selectors, as far as the page has them. Tests that press are test_page's."""
    page.evaluate(_SET, list(values.items()))


def radio(name: str, value: object) -> str:
    """Return the selector of one of several buttons in a row."""
    return f"input[name={name}][value='{value}']"


def traces(page: Any) -> list[dict[str, Any]]:
    """Return what Plotly was told to draw."""
    return list(page.eval_on_selector("#chart", _TRACES))


def drawn_fronts(page: Any) -> dict[str, list[tuple[float, float]]]:
    """Return the corners of each device's line, without the end at the edge of the chart."""
    lines = [trace for trace in traces(page) if trace["name"].startswith("front ")]
    return {t["name"].removeprefix("front "): list(zip(t["x"], t["y"], strict=True))[:-1] for t in lines}


def points(page: Any) -> dict[int, tuple[float, float]]:
    """Return where each row of the report is drawn, by its index."""
    drawn = [trace for trace in traces(page) if trace["name"] == "rows"]
    return {row: (x, y) for t in drawn for row, x, y in zip(t["rows"], t["x"], t["y"], strict=True)}


def row_indices(page: Any, within: str) -> list[int]:
    """Return the indices of the rows whose names are buttons inside an element, in order."""
    return [int(index) for index in page.eval_on_selector_all(f"{within} .pick", "all => all.map(e => e.dataset.row)")]


def paragraphs(page: Any, within: str) -> dict[str, str]:
    """Return the paragraphs inside an element that begin with the name of a device, by that name."""
    texts = page.locator(f"{within} p:has(> b:first-child)").all_inner_texts()
    return dict(text.split(": ", 1) for text in texts)
