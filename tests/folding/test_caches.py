"""Networks that fill caches in forward, or compute buffers of weights: folded or refused, and never changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgevit.errors import FoldError, ModelError
from edgevit.folding import fold, graph_digest, prove
from edgevit.folding.agreement import compare, copied
from edgevit.folding.evidence import examine
from edgevit.folding.restoration import State
from support.nets import Toy, image, ready
from support.present_attributes import attributes

IMAGE, OTHER = (image(2, 3, 9, 8, seed=seed, dtype=torch.float32) for seed in (1, 2))


def remembered(net: Any, x: Tensor) -> Any:
    net.cache = net.norm(net.conv(x))
    return net.cache.relu()


def once(net: Any, x: Tensor) -> Any:
    y = net.norm(net.conv(x))
    if not hasattr(net, "grid"):
        net.grid = torch.linspace(0, 1, y.shape[-1])
    return y + net.grid


def by_size(net: Any, x: Tensor) -> Any:
    y = net.norm(net.conv(x))
    key = tuple(y.shape[2:])
    if key not in net.grids:
        net.grids[key] = torch.linspace(0, 1, key[0] * key[1]).reshape(key)
    return y * net.grids[key]


def in_a_buffer(net: Any, x: Tensor) -> Any:
    y = net.norm(net.conv(x))
    if not net.position.numel():
        net.position = torch.linspace(0, 1, y.shape[-1])
    return y + net.position


def counted(net: Any, x: Tensor) -> Any:
    net.calls += 1
    net.number += 1
    return net.norm(net.conv(x))


def scaled(net: Any, x: Tensor) -> Any:
    return net.norm(net.conv(x)) * net.scale


def with_memory(net: Any, x: Tensor) -> Any:
    y = net.norm(net.conv(x))
    result = y if net.last is None else y + 0.5 * net.last
    net.last = y
    return result


def network(compute: Callable[..., Any], **attributes_: Any) -> nn.Module:
    model = ready(Toy(compute, conv=nn.Conv2d(3, 4, 3), norm=nn.BatchNorm2d(4))).float()
    for name, value in attributes_.items():
        setattr(model, name, value)
    return model


def cached_buffer() -> nn.Module:
    model = network(in_a_buffer)
    model.register_buffer("position", torch.empty(0))
    return model


def counting() -> nn.Module:
    model = network(counted, number=0)
    model.register_buffer("calls", torch.zeros(()))
    return model


def computed_buffer() -> nn.Module:
    """The buffer has the history of its gradient, so that torch does not copy it."""
    model = network(scaled)
    model.register_parameter("raw", nn.Parameter(torch.linspace(-1, 1, 4)[:, None, None]))
    model.register_buffer("scale", model.raw.sigmoid() * 2)  # type: ignore[operator]
    return model


def computed_attribute() -> nn.Module:
    model = network(scaled)
    model.register_parameter("raw", nn.Parameter(torch.linspace(-1, 1, 4)[:, None, None]))
    model.scale = model.raw.sigmoid() * 2  # type: ignore[operator]
    return model


def weight_normed() -> nn.Module:
    model = network(lambda net, x: net.norm(net.conv(x)))
    nn.utils.parametrizations.weight_norm(model.conv)  # type: ignore[arg-type]
    return model.eval()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "what it computed": lambda: network(remembered),
    "a grid, from the first call on": lambda: network(once),
    "a grid for each size": lambda: network(by_size, grids={}),
    "a grid in a buffer": cached_buffer,
    "the number of its calls": counting,
    "a buffer computed of a weight": computed_buffer,
    "an attribute computed of a weight": computed_attribute,
    "a normed weight": weight_normed,
}
VERBS: dict[str, Callable[[nn.Module], Any]] = {
    "fold": lambda model: fold(model, (IMAGE,)),
    "prove": lambda model: prove(model, (IMAGE,)),
    "examine": lambda model: examine(model, {"image": IMAGE}),
    "digest": lambda model: graph_digest(model, (IMAGE,)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_keeps_something_folds_with_proof(name: str) -> None:
    model = NETWORKS[name]()
    folded = fold(model, (IMAGE,))
    assert folded.report.unfolded == () and compare(NETWORKS[name](), folded, (OTHER,)) < 1e-5
    assert prove(model, (IMAGE,)).passed


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_module_is_the_same_afterwards(name: str, verb: str) -> None:
    """Attributes, buffers, modes and gradients; torch.export alone leaves tensors without numbers in a cache."""
    model = NETWORKS[name]()
    loss = model(IMAGE).sum()
    gradients = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad], allow_unused=True)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        parameter.grad = gradient
    before = attributes(model)
    VERBS[verb](model)
    assert attributes(model) == before
    state = State(model)
    assert not state.has_changed() and type(model(IMAGE)) is Tensor


MEMORIES = {
    "fold": (FoldError, "depends on the inputs that it had before"),
    "examine": (ModelError, "two answers to one input"),
}


@pytest.mark.parametrize("verb", MEMORIES)
def test_a_network_with_a_memory_is_refused(verb: str) -> None:
    model = network(with_memory, last=None)
    error, problem = MEMORIES[verb]
    with pytest.raises(error, match=problem):
        VERBS[verb](model)
    assert model.last is None


def test_a_network_that_cannot_be_copied_keeps_its_dtype() -> None:
    """Its proof needs a copy in float64; without one, the proof in float32 is all there is."""
    model = network(lambda net, x: net.norm(net.conv(x)), generator=(number for number in range(3)))
    assert copied(model) is None
    proof = prove(model, (IMAGE,))
    assert proof.passed and proof.float64_max_rel is None
    assert {tensor.dtype for tensor in model.parameters()} == {torch.float32}
    assert fold(model, (IMAGE,)).report.unfolded == ()
