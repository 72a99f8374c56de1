"""The benchmark of other people's networks judges ratios by their range and by the noise of the same file twice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from stranger_matrix.latency import summary
from stranger_matrix.tables import latencies


def process(folded: float, plain: float, control: float = 1.0, **more: Any) -> dict[str, Any]:
    """Return one process of three turns in which the machine slows down, as a virtual one does."""
    speeds = (1.0, 1.5, 1.1)
    forms = {"folded": folded, "plain": plain, "control": folded / control}
    ns = {form: [ms * 1e6 * speed for speed in speeds] for form, ms in forms.items()}
    return {"ns": ns, "differences": dict.fromkeys(forms, 1e-6), "stolen": 0.01} | more


def test_a_ratio_is_that_of_turns_and_not_of_a_machine_that_slows_down() -> None:
    row = summary("net", [process(8, 10), process(16, 20), process(8, 10)])
    assert (row["rounds"], row["folded_ms"], row["stolen"]) == (3, pytest.approx(12.0), 0.01)
    ratio = row["ratios"]["plain"]
    assert [ratio[key] for key in ("low", "median", "high")] == pytest.approx([0.8] * 3)
    assert ratio["verdict"] == "FASTER"
    assert "timm" not in row["ratios"]


def test_a_ratio_within_the_noise_is_no_difference() -> None:
    row = summary("net", [process(10.2, 10, control=ratio) for ratio in (1.0, 1.06, 0.98)])
    assert row["noise"] == pytest.approx(0.06)
    assert row["ratios"]["plain"]["verdict"] == "SAME"
    slower = summary("net", [process(10.8, 10, control=ratio) for ratio in (1.0, 1.06, 0.98)])
    assert slower["ratios"]["plain"]["verdict"] == "SLOWER"


def test_a_range_that_holds_one_is_called_ambiguous() -> None:
    row = summary("net", [process(8, 10), process(11, 10), process(8.5, 10)])
    assert row["ratios"]["plain"]["verdict"] == "AMBIGUOUS"


def test_too_few_rounds_and_other_functions_are_problems() -> None:
    assert "only 2 rounds" in summary("net", [process(8, 10)] * 2)["problem"]
    other = process(8, 10, differences={"folded": 0.1, "plain": 0.0})
    assert "other functions" in summary("net", [other] * 3)["problem"]


def test_the_table_has_a_line_for_each_network_and_a_remark_for_each_problem() -> None:
    table = latencies([summary("net", [process(8, 10)] * 3), summary("few", [process(8, 10)])])
    assert "| net | 8.80 | 0.800 (0.800-0.800) | faster | - | - |" in "\n".join(table)
    assert table[-1].startswith("- few: only 1 rounds")
