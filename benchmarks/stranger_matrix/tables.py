"""Tables of the stranger matrix in Markdown, with what was refused below them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


def folds(rows: Sequence[Row]) -> list[str]:
    """Return the table of folds and ONNX exports."""
    heads = ("network", "layers", "params M", "GMACs", "norms left", "by timm", "float64", "fold CPU s", "onnx")
    lines, remarks = _heading(heads), []
    for row in rows:
        name = row["name"]
        if "layers" not in row:
            remarks.append(f"- {name}: {row.get('refused') or row.get('crashed') or 'no end in time'}")
            continue
        pairs = [" -> ".join(map(str, row["layers"]))]
        scales = (("params", 1e6), ("macs", 1e9))
        pairs += [" -> ".join(f"{value / scale:.2f}" for value in row[key]) for key, scale in scales]
        timm = row["norms_left_by_timm"]
        cells = [name, *pairs, str(row["norms_left"]), "-" if timm is None else str(timm), f"{row['float64']:.0e}"]
        text, remark = _cell(row["onnx"])
        remarks += [f"- {name}, onnx: {remark}"] if remark else []
        lines.append(_line([*cells, f"{row['fold_cpu_s']:.1f}", text]))
    return [*lines, "", *remarks]


def targets(rows: Sequence[Row]) -> list[str]:
    """Return the table of networks by target."""
    names = list(rows[0]["targets"])
    lines, remarks = _heading(("network", *names)), []
    for row in rows:
        cells = [_cell(row["targets"][target]) for target in names]
        lines.append(_line([row["name"], *(text for text, _ in cells)]))
        remarks += [
            f"- {row['name']}, {target}: {remark}" for target, (_, remark) in zip(names, cells, strict=True) if remark
        ]
    return [*lines, "", *remarks]


def latencies(rows: Sequence[Row]) -> list[str]:
    """Return the table of latencies: milliseconds of the folded export, and its ratios to the plain one and timm's."""
    heads = ("network", "folded ms", "to plain", "verdict", "to timm's", "verdict", "noise", "rounds")
    lines, remarks = _heading(heads), []
    for row in rows:
        if "rounds" not in row:
            remarks.append(f"- {row['name']}: {row['problem']}")
            continue
        ratios = [text for form in ("plain", "timm") for text in _ratio(row["ratios"].get(form))]
        lines.append(
            _line([row["name"], f"{row['folded_ms']:.2f}", *ratios, f"{row['noise']:.1%}", str(row["rounds"])])
        )
    return [*lines, "", *remarks]


def _ratio(ratio: Row | None) -> tuple[str, str]:
    if ratio is None:
        return "-", "-"
    return f"{ratio['median']:.3f} ({ratio['low']:.3f}-{ratio['high']:.3f})", ratio["verdict"].lower()


def _cell(cell: Row) -> tuple[str, str]:
    """Return what a table shows of an export, and the remark below it."""
    if "max_rel" in cell:
        error = cell["max_rel"]
        return f"{cell['status']} {error:.0e}" if error is not None else cell["status"], ""
    return f"{cell['status']} (below)", cell["why"]


def _heading(heads: Sequence[str]) -> list[str]:
    return [_line(heads), "|" + "---|" * len(heads)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
