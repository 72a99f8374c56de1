"""Latency of three ONNX files of one network in ONNX Runtime, one thread, interleaved.

`folded` is edgevit's export, `plain` its export with `--unfolded`. `timm` is timm's own: reparameterize_model, fuse,
then torch.onnx.export at the same opset. `control` is the folded file once more, and how far its ratio to itself is
from 1 is the noise of a row. A process times all of them in turns of blocks, in random order within each turn.
Processes of all networks run in rounds, in fresh order each. A process's ratio is the median of its turns. A row's
ratio is the median of its processes' ratios, and its range their least and largest.
"""

from __future__ import annotations

import math
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stranger_matrix.networks import build, fused_by_timm
from stranger_matrix.parts import run_part

FOLDED, CONTROL = "folded", "control"
OTHERS = ("plain", "timm")
SAMPLE = "image.npy"
# Of one process.
TURNS, BLOCK_NS, BLOCK_RUNS = 5, 100_000_000, 3
ROUNDS, LEAST_ROUNDS = 9, 3
# Relative to the largest number of the plain file's output: the files compute the same function.
AGREEMENT = 1e-3


def write_files(name: str, folder: Path) -> dict[str, Any]:
    """Write a network's ONNX files and the image they are timed on, and return the forms that there are."""
    import numpy as np
    import torch

    from edgevit.exporting.convert import convert
    from edgevit.folding import fold
    from edgevit.recipes import load_recipe

    recipe = load_recipe("onnx")
    model, size = build(name)
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    forms = {FOLDED: fold(model, (image,)), "plain": model}
    for form, module in forms.items():
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / f"{form}.onnx"
            convert(module, recipe, file, inputs={"image": image}, precision="fp32", allow_unfolded=True)
            (folder / file.name).write_bytes(file.read_bytes())
    fused = fused_by_timm(name)
    if fused is not None:
        torch.onnx.export(
            fused, (image,), folder / "timm.onnx", dynamo=True, opset_version=20, external_data=False, verbose=False
        )
    np.save(folder / SAMPLE, image.numpy())
    return {"forms": sorted(file.stem for file in folder.glob("*.onnx"))}


def time_files(folder: Path, seed: int) -> dict[str, Any]:
    """Time the files of a folder in turns; return each form's median nanoseconds per turn, and how the forms differ."""
    import numpy as np

    from edgevit.measurement.throttling import stolen_share
    from edgevit.recipes import load_recipe
    from edgevit_runtime.environment import snapshot

    image = np.load(folder / SAMPLE)
    files = {file.stem: file for file in sorted(folder.glob("*.onnx"))}
    sessions = {form: load_recipe("onnx").load(file, threads=1) for form, file in files.items()}
    sessions[CONTROL] = load_recipe("onnx").load(files[FOLDED], threads=1)
    outputs = {}
    for form, session in sessions.items():
        session.feed([image.tobytes()], 1)
        _block(session)
        outputs[form] = np.frombuffer(session.fetch()[0], "float32")
    plain = outputs["plain"]
    differences = {form: float(abs(output - plain).max() / abs(plain).max()) for form, output in outputs.items()}
    order, medians = random.Random(seed), {form: list[float]() for form in sessions}
    before = snapshot()
    for _ in range(TURNS):
        for form in order.sample(sorted(sessions), len(sessions)):
            medians[form].append(_block(sessions[form]))
    return {"ns": medians, "differences": differences, "stolen": stolen_share(before, snapshot())}


def _block(session: Any) -> float:
    """Return the median nanoseconds of a block of runs, the first of which warms the caches and does not count."""
    session.run()
    times: list[int] = []
    while len(times) < BLOCK_RUNS or sum(times) < BLOCK_NS:
        begin = time.perf_counter_ns()
        session.run()
        times.append(time.perf_counter_ns() - begin)
    return statistics.median(times)


def measure_latencies(
    names: Sequence[str], packages: Path | None, *, minutes: float, files: Path | None = None, seed: int = 0
) -> dict[str, Any]:
    """Write the files of all networks, two at a time, then time them in rounds until the minutes are used up.

    `files` is a folder that keeps them: a network that has its files there is not exported again.
    """
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        root = files or Path(scratch)
        with ThreadPoolExecutor(2) as pool:
            problems = list(pool.map(lambda name: _written(name, root, packages), names))
        problem_of = {name: problem for name, problem in zip(names, problems, strict=True) if problem}
        written_s = time.monotonic() - begin
        timed: dict[str, list[dict[str, Any]]] = {name: [] for name in names if name not in problem_of}
        order, longest_s = random.Random(seed), 0.0
        for turn in range(ROUNDS):
            for name in order.sample(sorted(timed), len(timed)):
                start = time.monotonic()
                if start - begin + longest_s > 60 * minutes or name in problem_of:
                    continue
                options = ("--files", str(root / name), "--seed", str(turn))
                result = run_part(name, "time", None, *options)
                longest_s = max(longest_s, time.monotonic() - start)
                if "ns" in result:
                    timed[name].append(result)
                else:
                    problem_of[name] = result["why"]
    rows = [
        {"name": name, "problem": problem_of[name]} if name in problem_of else summary(name, timed[name])
        for name in names
    ]
    return {"threads": 1, "writing_s": round(written_s), "wall_s": round(time.monotonic() - begin), "latencies": rows}


def _written(name: str, root: Path, packages: Path | None) -> str:
    """Write a network's files unless they are there, and return what went wrong."""
    folder = root / name
    if (folder / SAMPLE).exists():
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    result = run_part(name, "files", packages, "--files", str(folder))
    return "" if "forms" in result else str(result["why"])


def summary(name: str, processes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return a network's row: the folded form's milliseconds, its ratios to the others, and the noise of the ratios.

    A ratio below the noise, or one whose range holds 1, is not called a difference.
    """
    from edgevit.measurement.compare import LEAST_DIFFERENCE, verdict

    if len(processes) < LEAST_ROUNDS:
        return {"name": name, "problem": f"only {len(processes)} rounds fit into the time; {LEAST_ROUNDS} are needed"}
    differences = {form: value for form, value in processes[0]["differences"].items() if value > AGREEMENT}
    if differences:
        return {"name": name, "problem": f"the files compute other functions than the plain one: {differences}"}
    control = [_ratio(process, CONTROL) for process in processes]
    noise = max(LEAST_DIFFERENCE, math.exp(max(abs(math.log(ratio)) for ratio in control)) - 1)
    row: dict[str, Any] = {"name": name, "rounds": len(processes), "noise": noise, "ratios": {}}
    row["folded_ms"] = statistics.median(value for process in processes for value in process["ns"][FOLDED]) / 1e6
    row["stolen"] = max(process["stolen"] for process in processes)
    for form in OTHERS:
        if form in processes[0]["ns"]:
            ratios = [_ratio(process, form) for process in processes]
            low, median, high = min(ratios), statistics.median(ratios), max(ratios)
            judged = verdict(low, median, high, noise)
            row["ratios"][form] = {"low": low, "median": median, "high": high, "verdict": judged}
    return row


def _ratio(process: dict[str, Any], form: str) -> float:
    """Return how many times as long as a form the folded form takes in a process."""
    pairs = zip(process["ns"][FOLDED], process["ns"][form], strict=True)
    return float(statistics.median(folded / other for folded, other in pairs))
