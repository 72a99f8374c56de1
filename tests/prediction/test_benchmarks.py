"""The predictor's benchmarks: no tested row leaks into a prediction, and splits are disjoint.

The data are other people's and not in this repository; where they are absent, what needs them is skipped.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import predict_aihub
import predict_fbnet
import predict_mlperf
import predict_timm
from common import reference_file
from predict_common import hold_out, random_anchors, summary

from edgevit.prediction import Row
from support.columns import MODELS, world


def data(name: str) -> Path:
    """Return a file of reference data, or skip the test where it is absent."""
    file = reference_file(name)
    if file is None:
        pytest.skip("reference data absent")
    return file


def test_predictions_do_not_know_what_is_tested() -> None:
    """The rows that are held out are permuted: no prediction changes, and the figures do."""
    rows = world(0)
    known_rows, tested = ([row for row in rows if (row.column == "board0") == new] for new in (False, True))
    anchors = random_anchors(tested, 8, seed=0)
    latencies = [row.latency_ns for row in tested if row.model not in anchors]
    moved = iter(random.Random(0).sample(latencies, len(latencies)))
    other = [row if row.model in anchors else row._replace(latency_ns=next(moved)) for row in tested]
    one, two = hold_out(known_rows, tested, anchors), hold_out(known_rows, other, anchors)
    assert one.predictions == two.predictions and one.truths != two.truths
    assert one.within > two.within


def test_figures_are_those_of_a_hand_made_trial() -> None:
    known_rows = [Row(name, "y", 1e6 * (i + 1)) for i, name in enumerate(MODELS)]
    tested = [Row(row.model, "x", row.latency_ns * (2 if row.model != "m29" else 4)) for row in known_rows]
    trial = hold_out(known_rows, tested, MODELS[:10])
    assert trial.within == pytest.approx(19 / 20) and trial.covered == pytest.approx(19 / 20)
    assert trial.errors[-1] == pytest.approx(-0.5)
    assert summary([trial])["worst_within"] == {"x": 0.95}


@pytest.mark.parametrize("tell", [predict_timm.by_prefix, predict_timm.merged])
def test_families_are_in_one_fold_each(tell: Callable[[str], str]) -> None:
    models = sorted(predict_timm.read(data(predict_timm.FILES["i9"])))
    families = {model: tell(model) for model in models}
    fold = predict_timm.folds(families)
    assert len({(families[model], fold[model]) for model in models}) == len(set(families.values()))
    assert set(fold.values()) == set(range(predict_timm.FOLDS))


def test_merged_families_are_the_stricter_ones() -> None:
    names = ["seresnext50_32x4d.x 224", "wide_resnet50_2.y 224", "cs3se_edgenet_x.z 256", "tf_efficientnet_b0.ns 224"]
    assert [predict_timm.merged(name) for name in names] == ["resnet", "resnet", "cs", "efficientnet"]
    assert [predict_timm.by_prefix(name) for name in names] == ["seresnext", "wide", "cs", "tf"]


def test_selection_counts_what_it_says() -> None:
    truth = {"small": 10.0, "middle": 20.0, "large": 30.0}
    accuracy = {"small": 60.0, "middle": 70.0, "large": 80.0}
    assert predict_mlperf.select(truth, truth, accuracy) == [(False, 0.0)] * 3
    optimist = {**truth, "large": 20.0}
    assert predict_mlperf.select(truth, optimist, accuracy) == [(False, 0.0), (True, -10.0), (False, 0.0)]
    pessimist = {**truth, "small": 15.0, "large": 31.0}
    assert predict_mlperf.select(truth, pessimist, accuracy) == [(False, 0.0), (False, 10.0)]


def test_the_mlperf_slice_is_the_one_that_is_meant() -> None:
    cells = predict_mlperf.read(data("mlperf_edge_krai.csv"))
    assert (
        len({model for model, _ in cells}) == 84 and len({system for _, system in cells}) == 14 and len(cells) == 1176
    )
    named = {model: predict_mlperf.named(model) for model, _ in cells}
    assert named["mobilenet-v2-0.75-160-quantized"]["log resolution"] == pytest.approx(math.log(160))
    assert named["mobilenet-v2-0.75-160-quantized"]["log width"] == pytest.approx(math.log(0.75))
    assert {name for name, each in named.items() if each["quantised"]} == {
        name for name in named if ("quantized" in name or "uint8" in name) and "non-" not in name
    }


def test_another_runtime_of_a_held_out_board_is_not_known() -> None:
    """In the stricter split: what a board's other runtimes took changes no prediction."""
    rows = predict_mlperf.rows_of(predict_mlperf.read(data("mlperf_edge_krai.csv")), "p50")
    chosen = {name: rows[name] for name in sorted(rows) if predict_mlperf.board(name) in ("odroid", "vim4", "orin")}
    trials = predict_mlperf.trials(chosen, {}, 10, seeds=1, alike=predict_mlperf.board)
    other = {
        name: [row._replace(latency_ns=row.latency_ns * (1 + len(row.model) % 7)) for row in each]
        if name == "odroid-tflite-v2.11.0-ruy"
        else each
        for name, each in chosen.items()
    }
    again = predict_mlperf.trials(other, {}, 10, seeds=1, alike=predict_mlperf.board)
    same = {one.column for one, two in zip(trials, again, strict=True) if one.predictions == two.predictions}
    assert {"odroid-armnn-v22.11-neon", "odroid-armnn-v22.11-opencl"} <= same
    assert not {name for name in same if name.startswith("vim4")}


def test_tasks_know_no_target() -> None:
    with np.load(data("help_fbnet.npz")) as arrays:
        devices = set(arrays.files) - {"__arch__"}
    for task in predict_fbnet.TASKS.values():
        assert not set(task.sources) & set(task.targets)
        assert set(task.sources) | set(task.targets) <= devices


def test_blocks_of_the_search_space_cost_what_they_cost() -> None:
    """Position 1 of the space is 16 channels at 112 to 24 at 56, the first of four."""
    positions = predict_fbnet.positions()
    assert len(positions) == 22 and positions[1] == (16, 24, 112, 56) and positions[-1] == (184, 352, 7, 7)
    widen, depthwise, narrow = predict_fbnet.block(positions[1], (3, 6, 1))
    assert widen.macs == 16 * 96 * 112**2 and widen.parameters == 16 * 96
    assert depthwise.macs == 96 * 9 * 56**2 and depthwise.activations == 96 * (112**2 + 56**2)
    assert narrow.macs == 96 * 24 * 56**2
    assert predict_fbnet.block(positions[2], None) == [] and len(predict_fbnet.block(positions[1], None)) == 1
    assert predict_fbnet.block(positions[2], (3, 1, 2))[0].macs == 24 * 24 * 56**2 / 2


def test_ranks_share_ties() -> None:
    assert predict_fbnet.ranks(np.array([3.0, 1.0, 3.0, 2.0])).tolist() == [3.5, 1.0, 3.5, 2.0]


def test_no_row_of_a_held_out_device_and_no_copy_is_known() -> None:
    jobs = predict_aihub.read(data("aihub_v0.47.0_perf.csv"))
    pairs = predict_aihub.columns(jobs)
    assert len(pairs) > 50
    copies = 0
    for mine, others in pairs:
        devices = {job.device for job in mine}
        assert len(devices) == 1 and len({job.setting for job in [*mine, *others]}) == 1
        assert not devices & {job.device for job in others}
        kept_rows, clean = predict_aihub.without_copies(mine, others)
        ids = {job.job_id for job in mine}
        copies += len(others) - len(clean)
        assert not ids & {job.job_id for job in clean}
        assert {job.model for job in kept_rows} <= {job.model for job in clean}
    assert copies > 400
