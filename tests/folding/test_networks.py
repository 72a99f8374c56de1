"""Whole networks: blocks of well-known ones, and random ones that hypothesis draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgevit.count import count
from support.fold_cases import assert_no_foldable_norm, chain, conv, norm, norms_left, parameter
from support.nets import Toy, fold_and_compare, image, operators, ready

Value = TypeVar("Value")


# ---- blocks of well-known networks -------------------------------------------------------------------------------


def resnet(net: Any, x: Tensor) -> Tensor:
    out = net.second(F.relu(net.first(x), inplace=True))
    out += net.down(x)
    return F.relu(out, inplace=True)


def squeeze_excite(net: Any, x: Tensor) -> Any:
    y = net.depthwise(x)
    weights = F.adaptive_avg_pool2d(y, 1)
    weights = F.hardsigmoid(net.up(F.relu(net.down(weights), inplace=True)), inplace=True)
    return net.point(F.hardswish(y * weights, inplace=True)) + x


def shuffle(net: Any, x: Tensor) -> Tensor:
    unchanged, changed = x.chunk(2, 1)
    out = torch.cat([unchanged, net.branch(changed)], 1)
    batch, channels, height, width = out.shape
    out = out.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
    return out.view(batch, channels, height, width)


def convnext(net: Any, x: Tensor) -> Any:
    y = net.depthwise(x).permute(0, 2, 3, 1)
    y = net.scale * net.down(F.gelu(net.up(net.norm(y))))
    return x + y.permute(0, 3, 1, 2)


def vit(net: Any, x: Tensor) -> Any:
    tokens = net.patch(x).flatten(2).transpose(1, 2)
    tokens = torch.cat([net.token.expand(x.shape[0], -1, -1), tokens], 1) + net.position
    return net.head(net.encoder(tokens)[:, 0])


def plain_head(net: Any, x: Tensor) -> Any:
    y = net.norm(net.conv(x))
    return net.head(y.view(y.size(0), -1))


def bottleneck(inputs: int, outputs: int, **options: Any) -> nn.Module:
    return chain(conv(inputs, outputs, 3, padding=1, bias=False, **options), norm(outputs))


STRANGERS: dict[str, tuple[nn.Module, int]] = {
    "resnet": (Toy(resnet, first=bottleneck(4, 6, stride=2), second=bottleneck(6, 6),
                   down=chain(conv(4, 6, stride=2, bias=False), norm(6))), 0),
    "mobilenet v3": (Toy(squeeze_excite, depthwise=chain(bottleneck(4, 4, groups=4), nn.Hardswish(inplace=True)),
                         down=conv(4, 2), up=conv(2, 4), point=chain(conv(4, 4, bias=False), norm(4))), 0),
    "shufflenet": (Toy(shuffle, branch=chain(bottleneck(2, 2), nn.ReLU(inplace=True), bottleneck(2, 2, groups=2),
                                             conv(2, 2), norm(2), nn.ReLU(inplace=True))), 0),
    "densenet": (Toy(lambda net, x: net.end(torch.cat([x, net.layer(x)], 1)),
                     layer=chain(norm(4), nn.ReLU(inplace=True), bottleneck(4, 6), nn.ReLU(inplace=True), conv(6, 3)),
                     end=chain(norm(7), nn.ReLU(inplace=True), conv(7, 4, bias=False), nn.AvgPool2d(2))), 2),
    "convnext": (Toy(convnext, depthwise=conv(4, 4, 7, padding=3, groups=4), norm=nn.LayerNorm(4), up=nn.Linear(4, 8),
                     down=nn.Linear(8, 4), scale=parameter(4)), 0),
    "vit": (Toy(vit, patch=conv(4, 8, 2, stride=2), token=parameter(1, 1, 8), position=parameter(1, 17, 8),
                encoder=nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True),
                head=nn.Linear(8, 3)), 0),
    "vgg": (Toy(plain_head, conv=conv(4, 4, 3), norm=norm(4), head=nn.Linear(144, 3)), 0),
    "unet": (Toy(lambda net, x: net.end(torch.cat([y := net.a(x), net.up(net.b(F.max_pool2d(y, 2)))], 1)),
                 a=bottleneck(4, 4), b=bottleneck(4, 6), up=nn.ConvTranspose2d(6, 4, 2, stride=2), end=conv(8, 1)), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGERS)
def test_blocks_of_well_known_networks(name: str) -> None:
    model, norms_that_stay = STRANGERS[name]
    folded = fold_and_compare(model, image(2, 4, 8, 8))
    assert operators(folded)["batch_norm"] == len(norms_left(folded)) == norms_that_stay
    assert_no_foldable_norm(folded)
    assert "relu_" not in operators(folded)


# ---- random networks ---------------------------------------------------------------------------------------------


ACTIVATIONS: list[Callable[[Tensor], Tensor]] = [F.relu, F.gelu, Tensor.clone, lambda x: F.leaky_relu(x, 1.0)]


class Draw(Protocol):
    """hypothesis' function that draws a value of a strategy."""

    def __call__(self, strategy: st.SearchStrategy[Value], /) -> Value: ...


class RandomNetwork(nn.Module):
    """Steps drawn by hypothesis; each appends a map, computed from the ones before it."""

    def __init__(self, draw: Draw) -> None:
        super().__init__()
        self.parts, self.steps = nn.ModuleList(), list[Callable[[list[Tensor]], Tensor]]()
        maps = [torch.empty(2, 4, draw(st.integers(6, 9)), draw(st.integers(6, 9)), device="meta")]
        self.size = maps[0].shape
        for _ in range(draw(st.integers(2, 9))):
            step = self._draw_step(draw, maps)
            maps.append(step(maps))
            self.steps.append(step)
        self.steps.append(self._draw_head(draw, maps[-1].shape[1]))

    def forward(self, x: Tensor) -> Any:
        maps = [x]
        for step in self.steps:
            maps.append(step(maps))
        return maps[-1]

    def _part(self, module: nn.Module) -> int:
        self.parts.append(module.to("meta").eval())
        return len(self.parts) - 1

    def _draw_step(self, draw: Draw, maps: list[Tensor]) -> Callable[[list[Tensor]], Tensor]:
        i = draw(st.integers(max(0, len(maps) - 3), len(maps) - 1))
        alike = [k for k, other in enumerate(maps) if other.shape == maps[i].shape]
        aligned = [k for k, other in enumerate(maps) if other.shape[2:] == maps[i].shape[2:]]
        j = draw(st.sampled_from(alike))
        kind = draw(st.sampled_from(["conv", "conv", "conv", "norm", "pointwise", "act", "pool", "cat", "add", "max",
                                     "difference", "roll", "scale"]))  # fmt: skip
        channels, height, width = maps[i].shape[1:]
        if kind in ("conv", "pointwise"):
            return self._draw_conv(draw, maps[i], i, pointwise=kind == "pointwise")
        if kind in ("norm", "scale"):
            part = norm(channels) if kind == "norm" else Toy(lambda net, x: x * net.s, s=parameter(channels, 1, 1))
            p = self._part(part)
            return lambda maps: self.parts[p](maps[i])
        if kind == "act":
            act = draw(st.sampled_from(ACTIVATIONS))
            return lambda maps: act(maps[i])
        if kind == "pool" and min(height, width) > 2:
            pool = draw(st.sampled_from([nn.MaxPool2d(2, 1), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, 1),
                                         nn.AdaptiveMaxPool2d(2), nn.AdaptiveAvgPool2d(2)]))  # fmt: skip
            return lambda maps: pool(maps[i])
        if kind == "cat" and channels < 24:
            k = draw(st.sampled_from(aligned))
            return lambda maps: torch.cat([maps[i], maps[k]], 1)
        if kind == "add":
            alpha = draw(st.sampled_from([1, 1, 2]))
            return lambda maps: torch.add(maps[i], maps[j], alpha=alpha)
        if kind == "max":
            return lambda maps: torch.maximum(maps[i], maps[j])
        if kind == "difference":
            return lambda maps: maps[i] - maps[j]
        shift, axis = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        return lambda maps: torch.roll(maps[i], shift, axis)

    def _draw_conv(self, draw: Draw, like: Tensor, i: int, *, pointwise: bool) -> Callable[[list[Tensor]], Tensor]:
        channels, size = like.shape[1], 1 if pointwise else draw(st.integers(1, min(3, *like.shape[2:])))
        groups = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
        outputs = groups * draw(st.integers(1, max(1, 8 // groups)))
        options = {} if pointwise else {"stride": draw(st.integers(1, 2)), "padding": draw(st.integers(0, 1))}
        layer: nn.Module = conv(channels, outputs, size, groups=groups, bias=draw(st.booleans()), **options)
        ends: dict[str, list[nn.Module]] = {"norm": [norm(outputs)], "none": []}
        ends["relu"] = [norm(outputs), nn.ReLU(inplace=True)]
        p = self._part(chain(layer, *ends[draw(st.sampled_from(list(ends)))]))
        return lambda maps: self.parts[p](maps[i])

    def _draw_head(self, draw: Draw, channels: int) -> Callable[[list[Tensor]], Tensor]:
        kind = draw(st.sampled_from(["none", "mean", "flat mean", "linear"]))
        p = self._part(chain(nn.Linear(channels, 3), nn.BatchNorm1d(3)))
        heads: dict[str, Callable[[list[Tensor]], Tensor]] = {
            "none": lambda maps: maps[-1],
            "mean": lambda maps: F.adaptive_avg_pool2d(maps[-1], 1).flatten(1),
            "flat mean": lambda maps: maps[-1].mean((2, 3)),
            "linear": lambda maps: self.parts[p](maps[-1].mean((2, 3), keepdim=True).flatten(1)),
        }
        return heads[kind]


@given(st.data())
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_random_networks(data: st.DataObject) -> None:
    network = RandomNetwork(data.draw).to_empty(device="cpu")
    for tensor in network.parameters():
        nn.init.normal_(tensor)
    x = image(*network.size)
    # The mean of a map less itself rolled is 0 but for rounding.
    assume(float(ready(network)(x).detach().abs().max()) > 1e-9)
    folded = fold_and_compare(network, x)
    assert_no_foldable_norm(folded)
    assert len(norms_left(folded)) == operators(folded)["batch_norm"]
    before, after = count(network, x), count(folded, x)
    assert after.macs <= before.macs
    assert after.layers <= before.layers
