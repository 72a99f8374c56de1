"""Whole networks that hypothesis draws fold exactly, at any batch where the report says so, with no norm added."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgevit.count import count
from edgevit.folding import Folded, fold, max_rel
from edgevit.folding.agreement import outputs
from support.nets import FLOAT64, calls, image
from support.random_motifs import networks
from support.random_networks import NORM_MODULES, NORMS, RandomNetwork

_ROUNDING = 1e-9
# `make test-all` tries more.
NETWORKS = 6 * int(os.environ.get("EDGEVIT_EXAMPLES", "8"))


def norms_run(network: nn.Module, x: Tensor) -> int:
    """Return the number of calls of norms in one run."""
    ran: list[nn.Module] = []
    norms = [module for module in network.modules() if isinstance(module, NORM_MODULES)]
    hooks = [module.register_forward_hook(lambda module, *_: ran.append(module)) for module in norms]
    with torch.no_grad():
        network(x)
    for hook in hooks:
        hook.remove()
    return len(ran)


def norms_left(folded: Folded) -> int:
    return sum(node.target in NORMS for node in calls(folded))


def differences(network: nn.Module, folded: Folded, x: Tensor) -> list[float]:
    with torch.no_grad():
        expected, computed = outputs(network, (x.clone(),)), outputs(folded, (x.clone(),))
    return [max_rel(first, second) for first, second in zip(expected, computed, strict=True)]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@given(networks(), st.sampled_from([1, 3]))
@settings(
    deadline=None,
    max_examples=NETWORKS,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
def test_random_networks_fold_exactly(drawn: tuple[RandomNetwork, tuple[int, ...]], batch: int) -> None:
    network, shape = drawn
    note(f"input {batch, *shape}\n{network.describe()}")
    x = image(batch, *shape)
    with torch.no_grad():
        # Of an output that is 0 but for rounding, as the mean of a LayerNorm, nothing can be compared.
        magnitudes = [value.abs().max() for value in outputs(network, (x,))]
    assume(all(bool(magnitude.isfinite() and magnitude > _ROUNDING) for magnitude in magnitudes))
    folded = fold(network, (x,))
    batches = (1, 3) if folded.report.batch_is_open else (batch,)
    for size in batches:
        errors = differences(network, folded, image(size, *shape, seed=size))
        assert max(errors) <= FLOAT64, f"batch {size}: {errors}\n{folded.net.graph}"
    assert norms_left(folded) <= norms_run(network, x)
    # A Fourier transform counts nothing, and its matrices do.
    has_transform = any(step.text.startswith("Fourier") for step in network.steps)
    assert has_transform or count(folded, x).macs <= count(network, x).macs
