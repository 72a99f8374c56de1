"""Summaries of a regression gate: a table for terminals, Markdown for a pull request, JUnit XML for CI, and JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from edgevit.measurement.compare import describe_obstacle, times
from edgevit.measurement.regression import JudgedPair, describe_caveat
from edgevit.records.measurement import Measurement
from edgevit.store.jsonl import atomic_write
from edgevit.visible_text import visible

_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~])")
_SUITE = "edgevit db compare"
_NOT_JUDGED = "NOT JUDGED"
_WORST_FIRST = ("SLOWER", "AMBIGUOUS", "SAME", "FASTER")


@dataclass(frozen=True)
class GateSummary:
    """A comparison of rows with rows. fail_if: the verdict that makes the gate fail; None: it is no gate.

    left_out: numbers of rows that have the names too and are of sources without trust, by source.
    """

    pairs: tuple[JudgedPair, ...]
    percentile: int
    fail_if: str | None
    outcome: str
    left_out: Mapping[str, int] = field(default_factory=dict)

    def verdict(self, pair: JudgedPair) -> str:
        """Return the verdict on a pair. A gate has none where an obstacle forbids it; elsewhere a remark tells it."""
        judges = pair.is_judged or self.fail_if is None
        return pair.comparison.verdict if pair.comparison is not None and judges else _NOT_JUDGED

    @property
    def headline(self) -> str:
        """The result in a sentence."""
        judged = [verdict for verdict in map(self.verdict, self.pairs) if verdict != _NOT_JUDGED]
        counts = [f"{judged.count(verdict)} {verdict.lower()}" for verdict in _WORST_FIRST if verdict in judged]
        if undecided := len(self.pairs) - len(judged):
            counts.append(f"{undecided} not judged")
        counted = f"p{self.percentile} of B against A: {', '.join(counts) or 'nothing was compared'}"
        return counted if self.fail_if is None else f"{self.outcome}: {counted} (fails if {self.fail_if})"


def save(path: str, text: str) -> None:
    """Save a summary, which appears under its name only when it is complete. Raises StoreError where it cannot."""
    with atomic_write(Path(path), "the summary") as part:
        part.write_bytes(text.encode("utf-8"))


def table(summary: GateSummary) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Return the columns and lines of a table with one line for each pair."""
    latency = f"p{summary.percentile} ms"
    columns = (
        *("B is", "model", "target", "prec.", ">thr.", "device", f">A's {latency}", "range"),
        *(f">B's {latency}", "range", ">B takes", "grades", "A", "B"),
    )
    return columns, [_cells(pair, summary) for pair in summary.pairs]


def remarks(summary: GateSummary) -> Iterator[str]:
    """Yield what else a reader must know: obstacles and caveats by pair, the resolutions, and the result."""
    for pair in summary.pairs:
        name = _name(pair.row)
        yield from (f"{name}: {visible(text)}" for text in _texts(pair))
        if pair.comparison is not None:
            share, low, high = (_percent(value) for value in _ratios(pair))
            floor = f"{pair.comparison.floor_from}: {pair.comparison.floor:.1%}"
            yield f"{name}: {summary.verdict(pair)}: B takes {share} ({low} .. {high}) of A's time; {floor}"
    for source, count in summary.left_out.items():
        yield visible(f"left out: {count} rows from {source}, which is not trusted (edgevit db trust)")
    yield summary.headline


def markdown(summary: GateSummary) -> str:
    """Return a summary in Markdown, with every name escaped."""
    columns, lines = table(summary)
    mark = [("---:" if name.startswith(">") else "---") for name in columns]
    head = [[name.removeprefix(">") for name in columns], mark]
    body = [[_escaped(cell) for cell in line] for line in lines]
    rows = [f"| {' | '.join(line)} |" for line in (*head, *body)]
    notes = [f"- {_escaped(text)}" for text in list(remarks(summary))[:-1]]
    title = f"### {_escaped(summary.headline)}"
    return "\n\n".join([title, *(["\n".join(rows)] if lines else []), *(["\n".join(notes)] if notes else [])]) + "\n"


def junit(summary: GateSummary) -> str:
    """Return a summary in JUnit XML: a failure for each pair that fails the gate, an error for each not judged."""
    cases = [_case(pair, summary) for pair in summary.pairs]
    if not cases:
        empty = ElementTree.Element("testcase", classname=_SUITE, name="rows")
        ElementTree.SubElement(empty, "error", type="nothing_compared", message="nothing was compared")
        cases = [empty]
    counts = {kind: str(sum(case.find(kind[:-1]) is not None for case in cases)) for kind in ("failures", "errors")}
    counts["tests"] = str(len(cases))
    suite = ElementTree.Element("testsuite", {"name": _SUITE, **counts})
    suite.extend(cases)
    suites = ElementTree.Element("testsuites", counts)
    suites.append(suite)
    ElementTree.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(suites, encoding="unicode")}\n'


def to_data(summary: GateSummary) -> dict[str, Any]:
    """Return a summary as JSON data."""
    return {
        "percentile": summary.percentile,
        "fail_if": summary.fail_if,
        "outcome": summary.outcome if summary.fail_if else None,
        "left_out": dict(summary.left_out),
        "pairs": [_pair_data(pair, summary) for pair in summary.pairs],
    }


def _case(pair: JudgedPair, summary: GateSummary) -> ElementTree.Element:
    row = pair.row
    case = ElementTree.Element("testcase", classname=_xml(f"edgevit.{row.model}"), name=_xml(_name(row)))
    text = _xml("\n".join(_texts(pair)))
    if pair.fails("ambiguous" if summary.fail_if == "ambiguous" else "slower") and summary.fail_if:
        share, low, high = (_percent(value) for value in _ratios(pair))
        message = f"{summary.verdict(pair)}: B takes {share} ({low} .. {high}) of A's p{summary.percentile}"
        ElementTree.SubElement(case, "failure", type=summary.verdict(pair), message=message).text = text
    elif not pair.is_judged:
        code = pair.obstacles[0].code
        message = _xml(visible(describe_obstacle(pair.obstacles[0])))
        ElementTree.SubElement(case, "error", type=code, message=message).text = text
    lines = _texts(pair)
    if pair.comparison is not None:
        lines.append(f"{summary.verdict(pair)}: {_percent(pair.comparison.ratio)}")
    ElementTree.SubElement(case, "system-out").text = _xml("\n".join(lines))
    return case


def _pair_data(pair: JudgedPair, summary: GateSummary) -> dict[str, Any]:
    comparison = pair.comparison
    return {
        "verdict": None if (verdict := summary.verdict(pair)) == _NOT_JUDGED else verdict,
        "comparison": None if comparison is None else vars(comparison),
        "a": _row_data(pair.pair.baseline, summary.percentile),
        "b": _row_data(pair.pair.candidate, summary.percentile),
        "obstacles": [{"code": one.code, "text": describe_obstacle(one)} for one in pair.obstacles],
        "caveats": [{"code": one.code, "text": describe_caveat(one)} for one in pair.caveats],
    }


def _row_data(row: Measurement | None, percentile: int) -> dict[str, Any] | None:
    if row is None:
        return None
    names = (
        *("measurement_id", "status", "provenance", "model", "target", "precision", "engine", "engine_version"),
        *("device", "device_id", "device_class", "threads", "batch", "rate_hz", "started", "grade", "flags"),
    )
    measured = times(row, percentile)
    return {name: getattr(row, name) for name in names} | {"latency": None if measured is None else vars(measured)}


def _cells(pair: JudgedPair, summary: GateSummary) -> list[str]:
    row, before, after = pair.row, pair.pair.baseline, pair.pair.candidate
    share = "" if pair.comparison is None else _percent(pair.comparison.ratio)
    grades = "/".join("-" if one is None else one.grade or one.status for one in (before, after))
    cells = (
        *(summary.verdict(pair), row.model, row.target, row.precision, str(row.threads), row.device),
        *(*_latency(before, summary.percentile), *_latency(after, summary.percentile), share, grades),
        *("" if one is None else one.measurement_id[:12] for one in (before, after)),
    )
    return [visible(cell) for cell in cells]


def _latency(row: Measurement | None, percentile: int) -> tuple[str, str]:
    measured = None if row is None else times(row, percentile)
    if measured is None:
        return ("" if row is None or row.status == "ok" else row.status), ""
    return _ms(measured.ns), f"{_ms(measured.low_ns)} .. {_ms(measured.high_ns)}"


def _name(row: Measurement) -> str:
    shapes = " ".join("x".join(map(str, spec.shape)) for spec in row.inputs)
    rate = f" {row.rate_hz:g} Hz" if row.rate_hz else ""
    return visible(f"{row.model} {row.target} {row.precision} {row.threads} thr. {row.device} {shapes}{rate}")


def _texts(pair: JudgedPair) -> list[str]:
    return [*map(describe_obstacle, pair.obstacles), *map(describe_caveat, pair.caveats)]


def _ratios(pair: JudgedPair) -> tuple[float, float, float]:
    assert pair.comparison is not None
    return pair.comparison.ratio, pair.comparison.ratio_low, pair.comparison.ratio_high


def _percent(ratio: float) -> str:
    return f"{ratio - 1:+.1%}"


def _ms(ns: int) -> str:
    return f"{ns / 1e6:.3g}" if ns < 1e8 else f"{ns / 1e6:.0f}"


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)


def _xml(text: str) -> str:
    """Return a text in which what XML cannot hold is visible."""
    return visible(text, keep="\n")
