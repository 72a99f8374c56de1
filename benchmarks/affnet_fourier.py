"""Filters as real products against DFT nodes, in ONNX Runtime on one thread, interleaved in one run, same weights.

python benchmarks/affnet_fourier.py [MODEL...]   random weights. `one_product_up_to_N` is the folded form with maps
of up to N pixels transformed by one product and larger ones by two: the measurement behind fourier.ONE_PRODUCT_PIXELS.
"""

from __future__ import annotations

import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import torch
from common import report, spread_ms
from torch import Tensor, nn

from edgevit.folding import fold, max_rel
from edgevit.folding.rewrites import fourier
from edgevit.models import affnet, create_model, randomize
from edgevit.recipes import load_recipe

PIXELS = (0, 64, 256, 1024)  # the maps of an input of 256 have 64, 256 and 1024
ROUNDS = 80


class RealLayers(affnet.FrequencyFilter):
    """The filter with its complex layers in real einsums, as in the official code: torch exports no complex ones."""

    def _layer(self, z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        real, imaginary = (part.reshape(len(z), affnet.FILTER_GROUPS, -1, *z.shape[2:]) for part in (z.real, z.imag))
        mix = [[torch.einsum("nkihf,kio->nkohf", x, w) for w in weight] for x in (real, imaginary)]
        mixed = (mix[0][0] - mix[1][1], mix[0][1] + mix[1][0])
        parts = (part + b[..., None, None] for part, b in zip(mixed, bias, strict=True))
        return torch.complex(*(part.flatten(1, 2) for part in parts))


def with_dft(model: nn.Module) -> nn.Module:
    """The same model, its filters exportable as DFT nodes."""
    for module in model.modules():
        if type(module) is affnet.FrequencyFilter:
            module.__class__ = RealLayers
    return model


def export(model: nn.Module, image: Tensor, path: Path) -> dict[str, object]:
    path.parent.mkdir()
    load_recipe("onnx").export(
        model, {"image": image}, path, outputs=["output"], precision="fp32", dynamic_batch=False, options={}
    )
    results = Counter(node.op_type for node in onnx.load(str(path)).graph.node)
    return {"nodes": sum(results.values()), "dft_nodes": results["DFT"], "size_mb": round(path.stat().st_size / 1e6, 2)}


def measure(name: str, out: Path) -> dict[str, dict[str, object]]:
    model, image = create_model(name), torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    randomize(model)
    with torch.no_grad():
        expected = model(image)
    forms = {}
    for pixels in PIXELS:
        fourier.ONE_PRODUCT_PIXELS = pixels
        forms[f"one_product_up_to_{pixels}"] = fold(model, (image,))
    forms["dft_nodes"] = with_dft(model)  # type: ignore[assignment]
    results = {form: export(module, image, out / f"{name}_{form}" / "model.onnx") for form, module in forms.items()}
    sessions = {form: load_recipe("onnx").load(out / f"{name}_{form}" / "model.onnx", threads=1) for form in forms}
    for form, session in sessions.items():
        session.feed([image.numpy().tobytes()], 1)
        session.run()
        logits = torch.frombuffer(bytearray(session.fetch()[0]), dtype=torch.float32)
        results[form]["max_rel"] = max_rel(expected[0], logits)
    samples = interleaved(sessions)
    return {form: values | spread_ms(samples[form]) for form, values in results.items()}


def interleaved(sessions: Mapping[str, Any]) -> dict[str, list[int]]:
    samples: dict[str, list[int]] = {form: [] for form in sessions}
    for _ in range(ROUNDS):
        for form in random.sample(list(sessions), len(sessions)):
            start = time.perf_counter_ns()
            sessions[form].run()
            samples[form].append(time.perf_counter_ns() - start)
    return {form: times[5:] for form, times in samples.items()}  # the first few warm up


def main(models: list[str]) -> None:
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as out:
        results = {name: measure(name, Path(out)) for name in models}
    report("affnet_fourier", {"threads": 1, "engine": "onnxruntime", "rounds": ROUNDS, "models": results})


if __name__ == "__main__":
    main(sys.argv[1:] or ["affnet_et"])
