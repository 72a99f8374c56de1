"""All variants in one table: costs and layers before and after folding, the proof, ONNX nodes, latency of both forms.

python benchmarks/zoo_table.py [PATTERN] > zoo.json          random weights, norms, scales; half an hour for all
python benchmarks/zoo_table.py --markdown zoo.json            the table of docs/zoo.md from it

Latencies: ONNX Runtime, one thread, batch 1, both forms of a variant in turns in one process. AFFNet's training form is
exported with its transforms as DFT nodes, which ONNX has and most runtimes do not.
"""

from __future__ import annotations

import json
import logging
import math
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from affnet_fourier import with_dft
from common import report, spread_ms
from torch import Tensor, nn

from edgevit.folding import fold
from edgevit.folding.evidence import examine
from edgevit.models import list_models, model_card
from edgevit.models.source import load_subject
from edgevit.recipes import load_recipe

SECONDS = 3.0  # of running for each form
LEAST, MOST = 15, 200  # runs of each form


def measure(name: str) -> dict[str, object]:
    subject = load_subject(name)
    examined = examine(subject.module, subject.example(batch=2))
    image = subject.example(batch=1)["image"]
    with tempfile.TemporaryDirectory() as out:
        forms = {"folded": fold(subject.module, (image,)), "training": with_dft(subject.module)}
        paths = {form: path for form, module in forms.items() if (path := export(module, image, Path(out) / form))}
        nodes = {form: len(onnx.load(str(path), load_external_data=False).graph.node) for form, path in paths.items()}
        sessions = {form: load_recipe("onnx").load(path, threads=1) for form, path in paths.items()}
        latencies = {form: spread_ms(samples) for form, samples in interleaved(sessions, image).items()}
    return {
        "provenance": model_card(name).provenance,
        "params": [examined.before.params, examined.after.params],
        "macs": [examined.before.macs, examined.after.macs],
        "layers": [examined.before.layers, examined.after.layers],
        "left": len(examined.report.unfolded),
        "float64_max_rel": examined.proof.float64_max_rel,
        "float32_max_rel": examined.proof.float32_max_rel,
        "passed": examined.proof.passed,
        "onnx_nodes": [nodes.get("training"), nodes["folded"]],
        "training": latencies.get("training"),
        "folded": latencies["folded"],
    }


def export(model: nn.Module, image: Tensor, folder: Path) -> Path | None:
    """None where torch has no ONNX for the form: VanillaNet's adaptive pools."""
    folder.mkdir()
    path = folder / "model.onnx"
    try:
        load_recipe("onnx").export(
            model, {"image": image}, path, outputs=["output"], precision="fp32", dynamic_batch=False, options={}
        )
    except RuntimeError as error:
        print(folder.name, str(error).splitlines()[-3:], file=sys.stderr)
        return None
    return path


def interleaved(sessions: Mapping[str, Any], image: Tensor) -> dict[str, list[int]]:
    for session in sessions.values():
        session.feed([image.numpy().tobytes()], 1)
    once = max(sum(timed(session) for _ in range(3)) / 3 for session in sessions.values())
    runs = min(MOST, max(LEAST, math.ceil(SECONDS * 1e9 / once)))
    samples: dict[str, list[int]] = {form: [] for form in sessions}
    for _ in range(runs):
        for form in random.sample(list(sessions), len(sessions)):
            timed(sessions[form])  # the other form has had the caches
            samples[form].append(timed(sessions[form]))
    return samples


def timed(session: Any) -> int:
    start = time.perf_counter_ns()
    session.run()
    return time.perf_counter_ns() - start


def markdown(models: dict[str, dict[str, object]]) -> str:
    head = ("model", "provenance", "params M", "GMACs", "layers", "float64", "float32", "ONNX nodes", "p50 ms", "ratio")
    rows = [head, ("---",) * len(head)]
    for name, entry in models.items():
        before, after = (entry[form] and entry[form]["p50_ms"] for form in ("training", "folded"))  # type: ignore[index]
        rows.append(
            (
                f"`{name}`",
                str(entry["provenance"]),
                " → ".join(f"{value / 1e6:.3f}" for value in entry["params"]),  # type: ignore[attr-defined]
                " → ".join(f"{value / 1e9:.3f}" for value in entry["macs"]),  # type: ignore[attr-defined]
                " → ".join(map(str, entry["layers"])),  # type: ignore[call-overload]
                f"{entry['float64_max_rel']:.1e}",
                f"{entry['float32_max_rel']:.1e}",
                " → ".join(str(number or "none") for number in entry["onnx_nodes"]),  # type: ignore[attr-defined]
                f"{before:.1f} → {after:.1f}" if before else f"none → {after:.1f}",
                f"{before / after:.2f}" if before else "",
            )
        )
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["--markdown"]:
        print(markdown(json.loads(Path(arguments[1]).read_text())["models"]))
        return
    logging.disable(logging.WARNING)
    torch.set_num_threads(2)
    models = {}
    for name in list_models(arguments[0] if arguments else "*"):
        models[name] = measure(name)
        print(name, models[name], file=sys.stderr)
    report("zoo_table", {"threads": 1, "engine": "onnxruntime", "models": models})


if __name__ == "__main__":
    main(sys.argv[1:])
