"""Motifs of trained networks that the rewrites look for, as steps of random networks; and the networks themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

from support import random_sequences as sequences
from support import random_steps as steps
from support.random_networks import BATCH, Builder, Drawing, RandomNetwork, Vector, fill

# ---- motifs --------------------------------------------------------------------------------------------------------


def branches(b: Builder, i: int) -> bool:
    """Append a sum of convolutions, norms, scales and the map itself, as networks with structural branches have it."""
    shape = b.shape(i)
    if len(shape) != 4:
        return False
    stride = b.choice(1, 1, 2)
    outputs = shape[1] if stride == 1 else b.integer(1, 8)
    kinds = ("conv", "conv", "chain", "norm", "itself") if stride == 1 else ("conv", "conv", "chain")
    drawn = [_branch(b, b.choice(*kinds), shape[1], outputs, stride) for _ in range(b.integer(2, 4))]
    signs = [b.choice(1, 1, 1, -1, 2) for _ in drawn]

    def compute(parts: nn.ModuleList, x: Tensor) -> Tensor:
        total: Tensor | None = None
        for p, sign in zip(drawn, signs, strict=True):
            term = x if p is None else parts[p](x)
            total = sign * term if total is None else total - term if sign < 0 else torch.add(total, term, alpha=sign)
        assert total is not None
        return total

    texts = ["x" if p is None else " ".join(str(b.parts[p]).split()) for p in drawn]
    return b.add(f"sum of {list(zip(signs, texts, strict=True))}", compute, i)


def _branch(b: Builder, kind: str, inputs: int, outputs: int, stride: int) -> int | None:
    if kind == "itself":
        return None
    if kind == "norm":
        return b.part(nn.BatchNorm2d(inputs))
    size = (b.choice(1, 3, 3), b.choice(1, 3))
    dilation = b.choice(1, 1, 2)
    groups = b.choice(*(g for g in (1, 2, inputs) if inputs % g == outputs % g == 0))
    padding = [dilation * (side // 2) for side in size]
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "bias": b.chance()}
    modules: list[nn.Module] = [nn.Conv2d(inputs, outputs, size, **options)]  # type: ignore[arg-type]
    if kind == "chain" and b.chance():
        modules.insert(0, nn.Conv2d(inputs, inputs, 1, bias=b.chance()))
    elif kind == "chain":
        modules.append(nn.Conv2d(outputs, outputs, 1, groups=b.choice(1, outputs)))
    if b.chance():
        modules.append(nn.BatchNorm2d(outputs))
    return b.part(nn.Sequential(*modules))


def body_twice(b: Builder, i: int) -> bool:
    """Append two calls of one layer and norm, on a value and on another one or on the value flipped."""
    shape = b.shape(i)
    if len(shape) not in (3, 4):
        return False
    outputs, is_tokens = b.integer(1, 6), len(shape) == 3
    layer = nn.Conv1d(shape[1], outputs, 1, bias=b.chance()) if is_tokens else nn.Conv2d(shape[1], outputs, 1)
    norm = nn.BatchNorm1d(outputs) if is_tokens else nn.BatchNorm2d(outputs)
    p, q = b.part(layer), b.part(norm)
    relu, second_norm, j = b.chance(), b.chance(), b.choice(*b.alike(i))

    def compute(parts: nn.ModuleList, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        first, second = parts[q](parts[p](x)), parts[p](y.flip(-1))
        second = parts[q](second) if second_norm else second
        return (first.relu(), second.relu()) if relu else (first, second)

    return b.add(f"one {layer} and norm twice, the second {second_norm}", compute, i, j)


def depthwise_mean(b: Builder, i: int) -> bool:
    shape = b.shape(i)
    if len(shape) != 4 or min(shape[2:]) < 3:
        return False
    options: dict[str, Any] = {"padding": b.integer(0, 2), "dilation": b.choice(1, 1, 2), "stride": b.choice(1, 1, 2)}
    if min(shape[2:]) < 5:
        options["dilation"] = 1
    layer = nn.Conv2d(shape[1], shape[1], 3, groups=shape[1], bias=b.chance(), **options)
    p, rank4 = b.part(layer), b.chance()
    return b.add(f"{layer}, then mean", lambda parts, x: parts[p](x).mean((2, 3), keepdim=rank4), i)


def neighbours(b: Builder, i: int) -> bool:
    """Append the maximum of differences to rolls, as graph convolutions have it, and its join with the map."""
    shape = b.shape(i)
    if len(shape) != 4:
        return False
    step, joined = b.integer(1, 3), b.choice("joined", "alone", "paired")
    axes = (2,) if b.chance() else (2, 3)

    def compute(parts: nn.ModuleList, x: Tensor) -> Tensor:
        farthest = torch.zeros_like(x)
        for axis in axes:
            for shift in range(step, x.shape[axis], step):
                farthest = torch.maximum(farthest, x - x.roll(shift, axis))
        if joined == "paired":
            return torch.stack((x, farthest), 2).flatten(1, 2)
        return torch.cat((x, farthest), 1) if joined == "joined" else farthest

    return b.add(f"maximum over rolls by {step} along {axes}, {joined}", compute, i)


def gate(b: Builder, i: int) -> bool:
    """Append a squeeze and excitation."""
    shape = b.shape(i)
    if len(shape) != 4:
        return False
    p, q = b.part(nn.Conv2d(shape[1], 2, 1)), b.part(nn.Conv2d(2, shape[1], 1))
    pool: Callable[[Tensor], Tensor] = (
        (lambda x: F.adaptive_avg_pool2d(x, 1)) if b.chance() else (lambda x: x.mean((2, 3), keepdim=True))
    )
    return b.add("gated", lambda parts, x: x * parts[q](parts[p](pool(x)).relu()).sigmoid(), i)


def joined_projections(b: Builder, i: int) -> bool:
    """Append a pointwise layer of the concatenation of a value, a pointwise map, and a difference."""
    shape = b.shape(i)
    if len(shape) not in (3, 4):
        return False
    if len(shape) == 4:
        first: nn.Module = nn.Conv2d(shape[1], shape[1], 1, groups=b.choice(1, shape[1]), bias=b.chance())
        last: nn.Module = nn.Conv2d(3 * shape[1], b.integer(1, 4), b.choice(1, 1, 2), bias=b.chance())
        axis = 1
    else:
        first, last, axis = nn.Linear(shape[2], shape[2]), nn.Linear(3 * shape[2], b.integer(1, 4)), 2
    p, q, j = b.part(first), b.part(last), b.choice(*b.alike(i))
    if len(shape) == 4 and min(shape[2:]) < 2:
        return False

    def compute(parts: nn.ModuleList, x: Tensor, y: Tensor) -> Tensor:
        result: Tensor = parts[q](torch.cat((x, parts[p](y), x - y), axis))
        return result

    return b.add(f"{last} of the value, {first}, and a difference", compute, i, j)


def computed_weight(b: Builder, i: int) -> bool:
    """Append a layer whose weight is an expression of constants."""
    channels, outputs = b.shape(i)[-1], b.integer(1, 6)
    p, q, scaled = b.part(Vector(outputs, channels)), b.part(Vector(outputs)), b.chance()

    def compute(parts: nn.ModuleList, x: Tensor) -> Any:
        weight: Any = parts[p].weight
        factor: Any = parts[q].weight
        weight = weight * factor[:, None] if scaled else F.normalize(weight, dim=1)
        return F.linear(x, weight, factor) if scaled else x @ weight.t()

    return b.add(f"layer ({outputs}, {channels}) of computed weights, scaled {scaled}", compute, i)


# ---- networks ------------------------------------------------------------------------------------------------------

KINDS: tuple[tuple[steps.Append, ...], ...] = (
    (steps.convolution,),
    (steps.convolution, steps.pointwise, steps.transposed),
    (steps.linear, steps.pointwise, computed_weight),
    (steps.again, steps.tied),
    (steps.batch_norm,),
    (steps.batch_norm, steps.instance_norm, steps.token_norm),
    (steps.vector, steps.number, steps.position),
    (steps.move, steps.divide),
    (steps.move, steps.windows),
    (steps.pool, steps.resize),
    (steps.activation, steps.mixing),
    (steps.join, steps.concatenate, steps.broadcast),
    (steps.join, steps.separate),
    (steps.attention, steps.separate),
    (branches, body_twice, gate),
    (depthwise_mean, neighbours, joined_projections),
    (sequences.affine_before_layer, sequences.layers_in_sequence, sequences.norm_before_average),
    (sequences.token_norm_before_layers, sequences.few_maxima, sequences.few_queries, sequences.regrouped),
    (sequences.fourier, sequences.repeated_layer),
)
INPUTS = ((4, 7, 9), (3, 8, 6), (2, 5, 5), (8, 4, 4), (6, 5), (4, 6), (9,))
_TRIES = 3


@st.composite
def networks(drawing: Drawing) -> tuple[RandomNetwork, tuple[int, ...]]:
    """Return a network with random weights in float64, and the shape of its input without the batch."""
    shape = drawing(st.sampled_from(INPUTS))
    b = Builder(drawing, torch.zeros(BATCH, *shape, dtype=torch.float64))
    for _ in range(drawing(st.integers(6, 14))):
        index = len(b.values) - 1
        if index and not drawing(st.integers(0, 3)):
            index = b.integer(0, index)
        for _ in range(_TRIES):
            append = b.choice(*b.choice(*KINDS))
            if append(b, index):
                break
    last = len(b.values) - 1
    outputs = [last, *(b.integer(0, last) for _ in range(b.choice(0, 0, 1, 2)))]
    network = RandomNetwork(b.steps, b.parts, list(dict.fromkeys(outputs))).eval()
    fill(network, b.integer(0, 2**16))
    return network, shape
