"""Reads and drives the report's page in a browser, and makes rows whose percentiles and bounds all differ."""

from __future__ import annotations

from typing import Any

from edgevit.records.measurement import Measurement
from support.measured import measured

MS = 1_000_000
_TRACES = """chart => chart.data.map(({name, x, y, customdata, hovertext, marker, error_x: bars, line}) =>
  ({name, x, y, rows: customdata, hovertext, symbols: marker && marker.symbol, up: bars && bars.array,
    down: bars && bars.arrayminus, colour: line && line.color}))"""


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
    page.locator(f"input[name={name}][value='{value}'] + span").click()


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
