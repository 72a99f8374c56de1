"""Subjects for tests of export and verification: small networks with what they take, from memory or from a file."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from edgevit.models import randomize
from edgevit.models.source import Subject, load_subject, state_sha256
from edgevit.records.artifact import Source
from edgevit.records.model import Preprocessing
from edgevit_runtime.record import TensorSpec

SIZE = (16, 12)
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
    torch.manual_seed(SEED)
    widths = Widths()
    body = (nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.GELU(), nn.Conv2d(4, widths.inner, 1, bias=False),
            nn.BatchNorm2d(widths.inner), nn.GELU(), nn.ReLU(inplace=True), nn.Conv2d(widths.inner, widths.inner, 1))
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths.inner, widths.outer))
    return nn.Sequential(*body, *head).eval()


def training():
    return tiny().train()


class Pairs(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = tiny()

    def forward(self, x):
        return self.inner(x).view(2, 5).flatten()


def two_at_a_time():
    return Pairs().eval()


def not_a_model():
    return 3


SEED = 0
"""


def tiny_file(folder: Path, seed: int = 0) -> Path:
    """Write a person's own file: two GELUs, two norms, and a seed that decides the weights."""
    file = folder / "tiny.py"
    file.write_text(TINY.replace("SEED = 0", f"SEED = {seed}"))
    return file


def tiny_subject(folder: Path, seed: int = 0, function: str = "tiny") -> Subject:
    return load_subject(f"{tiny_file(folder, seed)}:{function}", input_size=SIZE)


def as_subject(module: nn.Module, *inputs: TensorSpec, name: str = "net") -> Subject:
    """Return a module as a subject with random weights, in eval mode. Its input is an RGB image by default."""
    randomize(module.eval())
    source = Source(name, "random", 0, state_sha256=state_sha256(module))
    input_specs = inputs or (TensorSpec("image", (-1, 3, *SIZE)),)
    return Subject(name, "custom", module, input_specs, source, Preprocessing(), None)
