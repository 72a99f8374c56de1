"""graph_digest: two checkpoints of one architecture agree, and one changed attribute differs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgevit.folding import fold, graph_digest
from edgevit.models import create_model, list_models
from edgevit.models.random_weights import randomize

IMAGE = (torch.zeros(1, 3, 32, 32),)


class Net(nn.Module):
    """A few of everything, each setting an argument."""

    def __init__(
        self, stride: int = 2, padding: int = 1, groups: int = 1, act: type[nn.Module] = nn.ReLU, width: int = 8,
        pool: int = 2, eps: float = 1e-5, slope: float | None = None, kernel: int = 3, dilation: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stem = nn.Conv2d(3, width, kernel, stride, padding, dilation=dilation)
        self.act = nn.LeakyReLU(slope) if slope is not None else act()
        self.mix = nn.Conv2d(width, width, 3, padding=1, groups=groups)
        self.pool, self.norm, self.head = nn.AvgPool2d(pool), nn.GroupNorm(2, width, eps), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem(x))
        x = self.norm(self.pool(self.mix(x) + x))
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


def digest(module: nn.Module, inputs: tuple[Tensor, ...] = IMAGE) -> str:
    return graph_digest(fold(module.eval(), inputs))


CHANGES: dict[str, dict[str, object]] = {
    "stride": {"stride": 1}, "padding": {"padding": 0}, "groups": {"groups": 2}, "activation": {"act": nn.GELU},
    "another activation": {"act": nn.SiLU}, "width": {"width": 16}, "pool": {"pool": 4}, "eps": {"eps": 1e-3},
    "slope": {"slope": 0.1}, "kernel": {"kernel": 5, "padding": 2}, "dilation": {"dilation": 2, "padding": 2},
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_one_changed_attribute_differs(change: str) -> None:
    assert digest(Net()) != digest(Net(**CHANGES[change]))  # type: ignore[arg-type]


def test_the_slope_itself_is_an_attribute() -> None:
    assert digest(Net(slope=0.1)) != digest(Net(slope=0.2))


def test_the_size_of_the_input_is_part_of_it() -> None:
    assert digest(Net()) != digest(Net(), (torch.zeros(1, 3, 64, 64),))


def test_weights_and_names_are_not_part_of_it() -> None:
    class Renamed(Net):
        # None, except while forward() runs.
        stem: Any

        def __init__(self) -> None:
            super().__init__()
            self.other, self.stem = self.stem, None

        def forward(self, image: Tensor) -> Tensor:
            self.stem, stem = self.other, self.stem
            result = super().forward(image)
            self.stem = stem
            return result

    torch.manual_seed(1)
    first = digest(Net())
    torch.manual_seed(2)
    assert digest(Net()) == first == digest(Renamed())


def test_the_batch_it_was_folded_at_is_not_part_of_it() -> None:
    assert digest(Net()) == digest(Net(), (torch.zeros(4, 3, 32, 32),))


SMALL = ("affnet_et", "mobilevig_ti")  # folded in seconds
FOLDED = [pytest.param(name, marks=() if name in SMALL else pytest.mark.slow) for name in list_models()]


@pytest.mark.parametrize("name", FOLDED)
def test_two_checkpoints_of_each_architecture_agree(name: str) -> None:
    digests = set()
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = create_model(name)
        randomize(model, seed=seed)
        digests.add(graph_digest(fold(model.eval())))
    assert len(digests) == 1 and len(digests.pop()) == 64


class Branches(nn.Module):
    """Two branches, computed in this order or the other, that share a convolution or have one each."""

    def __init__(self, *, swapped: bool = False, shared: bool = False, crossed: bool = False) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)
        self.swapped, self.shared, self.crossed = swapped, shared, crossed

    def forward(self, x: Tensor) -> Tensor:
        if self.shared:
            first = second = self.left(x)
        elif self.swapped:
            second = self.right(x)
            first = self.left(x)
        else:
            first = self.left(x)
            second = self.right(x)
        first, second = first.relu(), second.sigmoid()
        return torch.cat([second, first] if self.crossed else [first, second], 1)


def test_topology_is_part_of_it_and_the_order_of_capture_is_not() -> None:
    plain = digest(Branches())
    assert digest(Branches(swapped=True)) == plain
    assert digest(Branches(shared=True)) != plain
    assert digest(Branches(crossed=True)) != plain


class Gather(nn.Module):
    """Indices are part of the architecture; a buffer of floats is a weight."""

    order: Tensor
    scale: Tensor

    def __init__(self, order: list[int], scale: float) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor(order))
        self.register_buffer("scale", torch.full((3, 1, 1), scale))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.scale)[:, self.order].relu()


def test_indices_count_and_scales_do_not() -> None:
    assert digest(Gather([2, 0, 1], 0.5)) == digest(Gather([2, 0, 1], 0.25))
    assert digest(Gather([2, 0, 1], 0.5)) != digest(Gather([1, 0, 2], 0.5))


def test_what_is_not_folded_has_one_too() -> None:
    assert (
        graph_digest(Net().eval(), IMAGE)
        == graph_digest(Net().eval(), IMAGE)
        != graph_digest(Net(stride=1).eval(), IMAGE)
    )


@pytest.mark.parametrize("make", [Net, Branches, lambda: Gather([2, 1, 0], 2.0)])
def test_dtypes_count(make: Callable[[], nn.Module]) -> None:
    assert digest(make()) != digest(make().double(), (IMAGE[0].double(),))
