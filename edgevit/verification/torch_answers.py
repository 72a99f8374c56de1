"""Answers of a module in torch to samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from edgevit.folding.agreement import outputs
from edgevit.verification.inputs import Arrays, Samples


def torch_answers(module: Callable[..., Any], samples: Samples) -> list[Arrays]:
    """Return the outputs of a module on every set of samples, in float32."""
    with torch.inference_mode():
        results = [outputs(module, list(map(torch.from_numpy, sample_set))) for sample_set in samples.sets]
    return [tuple(leaf.float().numpy() for leaf in result) for result in results]
