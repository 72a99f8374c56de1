"""The predictor on a search space: FBNet's 22 blocks, NASFLAT's six tasks, 20 measured samples on the target device.

python benchmarks/predict_fbnet.py [SEEDS]   samples are drawn so often for each target device (default 3)

Data: help_fbnet.npz, 5,000 architectures on 27 devices, from HayeonLee/HELP (MIT). The tasks - which devices are known
and which are targets - are those of NASFLAT (Akhauri and Abdelfattah, MLSys 2024), as its repository
abdelfattah-lab/nasflat_latency lists them in correlation_trainer/device_task_list.py, "fbnet" 0 to 5; the paper calls
them FD, F1 to F4 and FA. As there, the known devices have rows for 800 architectures; all others are known by their
structure alone, and the 20 samples of a target are among the 800. Tested are all other architectures, of which 1,000
are drawn; Spearman's rank correlation is averaged over the targets of a task, and the geometric mean is over tasks.

Features are those of `structural_features`, of the operators that the space's definition gives each architecture: wider
or narrower blocks of the published shapes (Wu et al., CVPR 2019, table 1), at an input of 224 x 224.
"""

from __future__ import annotations

import sys
import time
from typing import Any, NamedTuple

import numpy as np
from common import reference_file, report
from predict_common import Trial, hold_out, summary

from edgevit.prediction import OperatorCost, Row, structural_features


class Task(NamedTuple):
    """Devices with rows, and devices to predict."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]


def _task(known_devices: str, targets: str) -> Task:
    return Task(tuple(known_devices.split()), tuple(targets.split()))


TASKS = {
    "FD": _task(
        "1080ti_1 1080ti_32 1080ti_64 silver_4114 silver_4210r samsung_a50 pixel3 essential_ph_1 samsung_s7",
        "fpga raspi4 eyeriss",
    ),
    "F1": _task(
        "2080ti_1 essential_ph_1 silver_4114 titan_rtx_1 titan_rtx_32", "eyeriss fpga raspi4 samsung_a50 samsung_s7"
    ),
    "F2": _task(
        "essential_ph_1 gold_6226 gold_6240 pixel3 raspi4", "1080ti_1 1080ti_32 2080ti_32 titan_rtx_1 titanxp_1"
    ),
    "F3": _task(
        "essential_ph_1 pixel2 pixel3 raspi4 samsung_s7", "1080ti_1 1080ti_32 2080ti_1 titan_rtx_1 titan_rtx_32"
    ),
    "F4": _task(
        "1080ti_64 2080ti_1 eyeriss gold_6226 gold_6240 raspi4 samsung_s7 silver_4210r titan_rtx_1 titan_rtx_32",
        "1080ti_1 pixel2 essential_ph_1",
    ),
    "FA": _task(
        "1080ti_1 1080ti_32 1080ti_64 2080ti_1 2080ti_32 2080ti_64 titan_rtx_1 titan_rtx_32 titan_rtx_64 titanx_1"
        " titanx_32 titanx_64 titanxp_1 titanxp_32 titanxp_64",
        "gold_6226 essential_ph_1 samsung_s7 pixel2",
    ),
}
SAMPLES, KNOWN, TESTED = 20, 800, 1000
STAGES = (
    (16, 1, 1),
    (24, 4, 2),
    (32, 4, 2),
    (64, 4, 2),
    (112, 4, 1),
    (184, 4, 2),
    (352, 1, 1),
)  # channels, blocks, stride
CHOICES = ((3, 1, 1), (3, 1, 2), (3, 3, 1), (3, 6, 1), (5, 1, 1), (5, 1, 2), (5, 3, 1), (5, 6, 1), None)  # k, e, groups


def positions() -> list[tuple[int, int, int, int]]:
    """Of each block: channels in and out, side of its input and output."""
    channels, side, blocks_seen = 16, 112, []
    for out, blocks, stride in STAGES:
        for number in range(blocks):
            after = side // (stride if number == 0 else 1)
            blocks_seen.append((channels, out, side, after))
            channels, side = out, after
    return blocks_seen


def convolution(kind: str, channels: int, out: int, before: int, after: int, kernel: int, groups: int) -> OperatorCost:
    weights = kernel**2 * channels * out / groups
    return OperatorCost(kind, weights * after**2, weights, channels * before**2 + out * after**2)


def block(position: tuple[int, int, int, int], choice: tuple[int, int, int] | None) -> list[OperatorCost]:
    """An inverted residual block: widen, convolve by channel, narrow; groups bring a shuffle. None: the input."""
    channels, out, before, after = position
    if choice is None:
        same = (channels, before) == (out, after)
        return [] if same else [convolution("1x1", channels, out, before, after, 1, 1)]
    kernel, expansion, groups = choice
    wide = channels * expansion
    operators = [
        convolution("1x1", channels, wide, before, before, 1, groups),
        convolution(f"depthwise {kernel}x{kernel}", wide, wide, before, after, kernel, wide),
        convolution("1x1", wide, out, after, after, 1, groups),
    ]
    shuffle = [OperatorCost("shuffle", 0, 0, 2 * wide * before**2)] if groups > 1 else []
    add = [OperatorCost("add", 0, 0, 3 * out * after**2)] if (channels, before) == (out, after) else []
    return operators + shuffle + add


def features_of(architectures: np.ndarray[Any, np.dtype[np.int64]]) -> list[dict[str, float]]:
    table = [[block(position, choice) for choice in CHOICES] for position in positions()]
    return [
        structural_features(operator for position, choice in enumerate(row) for operator in table[position][choice])
        for row in architectures.tolist()
    ]


def ranks(values: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Equal values share the mean of their ranks: phones are timed in whole milliseconds."""
    _, rank_index, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[rank_index]


def spearman(trial: Trial) -> float:
    predicted = np.array([prediction.latency_ns for prediction in trial.predictions])
    return float(np.corrcoef(ranks(predicted), ranks(np.array(trial.truths)))[0, 1])


def run(task: Task, target: str, seed: int, times: dict[str, Any], features: list[dict[str, float]]) -> Trial:
    """One target of a task, with the architectures and samples of this seed."""
    drawn = np.random.default_rng(seed).permutation(len(features))[: KNOWN + TESTED]
    names = {i: f"{i:04d}" for i in drawn.tolist()}
    pretrain = drawn[:KNOWN].tolist()
    tested = [*pretrain[:SAMPLES], *drawn[KNOWN:].tolist()]
    known_rows = [Row(names[i], device, 1e6 * times[device][i]) for device in task.sources for i in pretrain]
    held_out_rows = [Row(names[i], target, 1e6 * times[target][i]) for i in tested]
    anchors = [names[i] for i in pretrain[:SAMPLES]]
    return hold_out(known_rows, held_out_rows, anchors, features={names[i]: features[i] for i in drawn.tolist()})


def main(seeds: int = 3) -> None:
    file = reference_file("help_fbnet.npz")
    if file is None:
        return report("predict_fbnet", {"skipped": "reference data absent"})
    with np.load(file) as arrays:
        times = {name: arrays[name] for name in arrays.files}
    features = features_of(times.pop("__arch__"))
    tasks: dict[str, Any] = {}
    start = time.perf_counter()
    for name, task in TASKS.items():
        trials = [run(task, target, seed, times, features) for target in task.targets for seed in range(seeds)]
        each = {
            target: float(np.mean([spearman(trial) for trial in trials if trial.column == target]))
            for target in task.targets
        }
        tasks[name] = {
            "spearman": round(float(np.mean(list(each.values()))), 4),
            "by_device": {target: round(value, 4) for target, value in each.items()},
            **summary(trials),
        }
    geometric = float(np.exp(np.mean([np.log(task["spearman"]) for task in tasks.values()])))
    worst = min((value, target) for task in tasks.values() for target, value in task["by_device"].items())
    figures = {
        "split": "NASFLAT's tasks FD, F1-F4, FA",
        "samples": SAMPLES,
        "known_architectures": KNOWN,
        "tested_architectures": TESTED,
        "seeds": seeds,
        "geometric_mean_spearman": round(geometric, 4),
        "worst_device": {worst[1]: worst[0]},
        "covered": round(float(np.mean([task["covered"] for task in tasks.values()])), 4),
        "seconds": round(time.perf_counter() - start, 1),
        "tasks": tasks,
    }
    return report("predict_fbnet", figures)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
