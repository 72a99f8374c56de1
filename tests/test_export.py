"""Export: what the ONNX recipe writes, what an artifact folder holds, and what is left behind when it goes wrong."""

from __future__ import annotations

import copy
import dataclasses
import importlib.metadata
import json
import logging
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nets import Toy, image
from torch import Tensor, nn

from edgevit import pipeline
from edgevit.artifact import MANIFEST, folder_name, open_artifact, publish, seal
from edgevit.errors import (
    ArtifactError,
    ExportError,
    ModelError,
    TargetUnavailableError,
    UnknownNameError,
    UsageError,
)
from edgevit.export import check_request, convert
from edgevit.fold import fold
from edgevit.models import create_model, randomize
from edgevit.pipeline import Order, export_subject
from edgevit.recipes import load_recipe
from edgevit.subject import Subject, load_subject
from edgevit.types import Artifact
from edgevit_runtime.record import Stage, TensorSpec

pytestmark = pytest.mark.onnx
onnx = pytest.importorskip("onnx")
RECIPE = load_recipe("onnx")
TINY = """
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass
class Widths:  # in a file that is imported by hand, a dataclass needs its module to be known
    inner: int = 6
    outer: int = 5


def tiny():
    torch.manual_seed({seed})
    widths = Widths()
    body = (nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.GELU(), nn.Conv2d(4, widths.inner, 1, bias=False),
            nn.BatchNorm2d(widths.inner), nn.GELU(), nn.ReLU(inplace=True), nn.Conv2d(widths.inner, widths.inner, 1))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths.inner, widths.outer))
    return nn.Sequential(*body, *head).eval()


def training():
    return tiny().train()


def not_a_model():
    return 3
"""
SIZE = (16, 12)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def tiny_file(folder: Path, seed: int = 0) -> str:
    file = folder / "tiny.py"
    file.write_text(TINY.format(seed=seed))
    return f"{file}:tiny"


def tiny_subject(folder: Path, seed: int = 0) -> Subject:
    return load_subject(tiny_file(folder, seed), input_size=SIZE)


def as_subject(module: nn.Module, *inputs: TensorSpec) -> Subject:
    source = pipeline.Subject.__annotations__ and load_subject("mobilevig_ti").source if False else None
    raise NotImplementedError(source)


def quick(subject: Subject, inputs: Mapping[str, Tensor], folder: Path, **how: Any) -> Any:
    raise NotImplementedError
