"""Trained networks of four families on digits: top-1 and SNR in fp32, w8 and int8 on each engine.

python benchmarks/int8_digits.py [--epochs N] [--targets T,..]   needs 'edgevit[train]'; calibrated on training images
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import report
from torch import Tensor, nn

from edgevit.errors import EdgevitError
from edgevit.exporting.pipeline import export_subject
from edgevit.exporting.preparation import Preparation
from edgevit.models.affnet import AFFNet
from edgevit.models.fmvit import FMViT
from edgevit.models.source import Subject, subject_of
from edgevit.models.vanillanet import SlopeSchedule, VanillaNet
from edgevit.recipes import load_recipe
from edgevit.records.artifact import ExportRequest
from edgevit.records.quantization import QuantizationRequest
from edgevit.verification.compare import snr_db
from edgevit.verification.engine import compute
from edgevit.verification.inputs import Samples

TARGETS = ("onnx", "openvino", "ncnn", "litert", "executorch")
CALIBRATED = 256


def load_example() -> Any:
    """Load docs/examples/train_digits.py as a module."""
    file = Path(__file__).parents[1] / "docs" / "examples" / "train_digits.py"
    spec = importlib.util.spec_from_file_location("train_digits", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def networks(example: Any) -> dict[str, Callable[[], nn.Module]]:
    return {
        "vanillanet": example.vanillanet,
        "mobilevig": example.mobilevig,
        "fmvit": lambda: FMViT((32, 32, 48, 64), (1, 1, 1, 1), classes=10),
        "affnet": lambda: AFFNet(2, (16, 24, 32, 48, 64), classes=10),
    }


def trained(name: str, example: Any, split: Any, epochs: int) -> nn.Module:
    torch.manual_seed(0)
    model = networks(example)[name]()
    if isinstance(model, VanillaNet):
        # Its layers merge two by two while the slope goes to 1.
        slopes, deep = SlopeSchedule(max(1, 2 * epochs // 3)), model
        example.train(deep, split, epochs, lambda epoch: slopes.apply(deep, epoch))
        slopes.apply(deep, epochs)
    else:
        example.train(model, split, epochs, lambda epoch: None)
    return model.eval()


def judged(subject: Subject, prepared: Preparation, target: str, precision: str, data: Path, split: Any) -> Any:
    """Export, and compute the test images by the artifact's own engine."""
    quantization = QuantizationRequest(data)
    with tempfile.TemporaryDirectory() as out:
        request = ExportRequest(target, Path(out), precision, quantization=quantization)
        try:
            artifact = export_subject(subject, request, preparation=prepared)
        except EdgevitError as error:
            return {"refused": f"{error.what}: {error.why}"[:200]}
        images, labels = split.test
        sets = tuple((image[None].numpy(),) for image in images)
        computed = compute(target, artifact.folder / artifact.payload, Samples(sets, "test", 1), threads=1).results
        assert computed is not None and artifact.parity is not None
        logits = np.concatenate([result[0] for result in computed])
        with torch.inference_mode():
            expected = subject.module(images).numpy()
        made = artifact.quantization
        return {
            "status": artifact.parity.status,
            "top1": round(100 * float((logits.argmax(1) == labels.numpy()).mean()), 2),
            "snr_db_on_test": round(snr_db(expected, logits) or float("inf"), 1),
            "kept_in_float": len(made.excluded) if made else None,
            "int8_kernels": artifact.operators.int8,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--targets", default=",".join(TARGETS))
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    example = load_example()
    split = example.digits()
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "training_images.npy"
        np.save(data, split.train[0][:CALIBRATED].contiguous().numpy())
        for name in networks(example):
            model = trained(name, example, split, arguments.epochs)
            image: Tensor = split.test[0][:1].contiguous()
            subject = subject_of(model, {"image": image}, name=f"digits_{name}")
            prepared = Preparation(subject, ExportRequest("", Path()))
            for target in arguments.targets.split(","):
                for precision in ("fp32", "w8", "int8"):
                    if precision in load_recipe(target).RECIPE.precisions:
                        key = f"{name} {target} {precision}"
                        results[key] = judged(subject, prepared, target, precision, data, split)
                        print(key, results[key], flush=True)
    report("int8_digits", {"epochs": arguments.epochs, "cells": results})


if __name__ == "__main__":
    main()
