"""Hiera in the form of its official code, in ours and folded, and folded without one of the rewrites it needs most.

python benchmarks/hiera_forms.py [MODEL...]   random weights; ONNX Runtime, one thread, all forms in turns in one run

`official`: windows as an axis of their own (tensors of rank 6) and queries scaled, as the official code computes.
`with Add`: sums ahead of norms as the exporter spells them, see export_recipes/onnx.py.
"""

from __future__ import annotations

import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import onnx
import torch
from common import report, spread_ms
from torch import Tensor, nn

from edgevit.count import count
from edgevit.folding import fold, max_rel
from edgevit.folding.rewrites import REWRITES
from edgevit.models import create_model, hiera, randomize
from edgevit.recipes import load_recipe

ROUNDS = 80
WITHOUT = (
    "keys and values of pooled queries never projected",
    "maxima of few as maxima of two",
    "pointwise layers after their average",
)


def official(self: hiera.Attention, x: Tensor, units: int) -> Tensor:
    """(N, L, C) -> (N, L or L / 4, C'), units as an axis."""
    channels = self.proj.in_features
    size = channels // self.heads
    qkv = self.qkv(x).reshape(len(x), -1, units, 3, self.heads, size).permute(3, 0, 4, 2, 1, 5)
    query, key, value = qkv[0], qkv[1], qkv[2]
    if self.pools:
        query = query.reshape(len(x), self.heads, units, 4, -1, size).amax(3)
    weights = torch.softmax(query * size**-0.5 @ key.transpose(-1, -2), -1)
    out: Tensor = self.proj((weights @ value).transpose(1, 3).reshape(len(x), -1, channels))
    return out


@contextmanager
def folding_without(rewrite_name: str) -> Iterator[None]:
    remaining = tuple(rewrite for rewrite in REWRITES if rewrite.label != rewrite_name)
    with mock.patch("edgevit.folding.inference_form.REWRITES", remaining):
        yield


def export(model: nn.Module, image: Tensor, path: Path) -> Path:
    path.parent.mkdir(parents=True)
    load_recipe("onnx").export(
        model, {"image": image}, path, outputs=["output"], precision="fp32", dynamic_batch=False, options={}
    )
    return path


def with_add(path: Path) -> Path:
    model = onnx.load(str(path))
    for node in model.graph.node:
        node.op_type = {"Sum": "Add"}.get(node.op_type, node.op_type)
    other = path.with_name("with_add.onnx")
    onnx.save(model, str(other))
    return other


def forms(model: nn.Module, image: Tensor, out: Path) -> dict[str, tuple[nn.Module, Path]]:
    """Each form as a module and as ONNX."""
    folded = fold(model, (image,))
    path = export(folded, image, out / "folded" / "model.onnx")
    forms_by_name = {"folded": (folded, path), "folded, with Add": (folded, with_add(path))}
    for i, rewrite_name in enumerate(WITHOUT):
        with folding_without(rewrite_name):
            other = fold(model, (image,))
        forms_by_name[f"folded without: {rewrite_name}"] = (other, export(other, image, out / str(i) / "model.onnx"))
    forms_by_name["training"] = (model, export(model, image, out / "training" / "model.onnx"))  # type: ignore[assignment]
    with mock.patch.object(hiera.Attention, "forward", official):
        forms_by_name["official"] = (model, export(model, image, out / "official" / "model.onnx"))  # type: ignore[assignment]
    return forms_by_name  # type: ignore[return-value]


def measure(name: str, out: Path) -> dict[str, dict[str, object]]:
    model, image = create_model(name), torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    randomize(model)
    with torch.no_grad():
        expected = model(image)
    results: dict[str, dict[str, Any]] = {}
    sessions = {}
    for form, (module, path) in forms(model, image, out).items():
        session = load_recipe("onnx").load(path, threads=1)
        session.feed([image.numpy().tobytes()], 1)
        session.run()
        logits = torch.frombuffer(bytearray(session.fetch()[0]), dtype=torch.float32)
        nodes = Counter(node.op_type for node in onnx.load(str(path)).graph.node)
        macs = count(module, image).macs
        results[form] = {"macs": macs, "nodes": sum(nodes.values()), "max_rel": max_rel(expected[0], logits)}
        sessions[form] = session
    samples: dict[str, list[int]] = {form: [] for form in sessions}
    for _ in range(ROUNDS):
        for form in random.sample(list(sessions), len(sessions)):
            start = time.perf_counter_ns()
            sessions[form].run()
            samples[form].append(time.perf_counter_ns() - start)
    return {form: values | spread_ms(samples[form][5:]) for form, values in results.items()}


def main(models: list[str]) -> None:
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as out:
        results = {name: measure(name, Path(out) / name) for name in models}
    report("hiera_forms", {"threads": 1, "engine": "onnxruntime", "rounds": ROUNDS, "models": results})


if __name__ == "__main__":
    main(sys.argv[1:] or ["turbovit"])
