"""Operators between layers in int8, which converters put into int8 by rules of their own: every engine agrees."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgevit.errors import ExportError, ParityError
from edgevit.exporting.pipeline import export_subject
from edgevit.exporting.spelling import spelled
from edgevit.folding import Folded, fold
from edgevit.quantization import CalibrationData, Dialect, quantize
from edgevit.quantization.simulation import QUANTIZE
from edgevit.recipes import list_recipes, load_recipe
from edgevit.records.artifact import ExportRequest
from edgevit.records.quantization import QuantizationRequest
from support.nets import Toy
from support.subjects import as_subject
from support.targets import expected_status, marks

# Of what a layer in int8 gives, each ahead of a layer in int8.
OPERATORS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "pool": lambda net, y: net.last(F.avg_pool2d(y, 2)),
    "pool_of_floats": lambda net, y: net.last(F.avg_pool2d(F.gelu(y) + y, 2)),
    "pool_with_padding": lambda net, y: net.last(F.avg_pool2d(y, 3, 2, 1)),
    "uneven_pool": lambda net, y: net.last(F.avg_pool2d(y, 3, 1, 1, count_include_pad=False) - y),
    "pool_and_relu": lambda net, y: net.last(F.relu(F.avg_pool2d(y, 2))),
    "adaptive_pool": lambda net, y: net.last(F.adaptive_avg_pool2d(y, (4, 3))),
    "joined": lambda net, y: net.wide(torch.cat([y, F.relu(net.next(y))], 1)),
    "joined_for_two": lambda net, y: net.last((z := torch.cat([y[:, :4], F.relu(net.next(y))[:, :4]], 1)) + F.gelu(z)),
    "resized": lambda net, y: net.last(F.interpolate(y, scale_factor=2, mode="bilinear")),
    "softly_chosen": lambda net, y: net.last(y.softmax(1)),
    "clipped": lambda net, y: net.last(net.next(y).clamp(-0.4, 0.5)),
    "clipped_for_one": lambda net, y: net.wide(torch.cat([F.relu(z := net.next(y)), z], 1)),
}  # fmt: skip


class Branch(nn.Module):
    """A layer, an operator of OPERATORS and a layer, which share nothing with other branches."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.first, self.next = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last, self.wide, self.name = nn.Conv2d(8, 5, 1), nn.Conv2d(16, 5, 1), name

    def forward(self, x: Tensor) -> Tensor:
        return OPERATORS[self.name](self, self.first(x))


def network(*names: str) -> nn.Module:
    """Build (B, 3, H, W) -> a map of 5 channels for each name."""
    torch.manual_seed(0)
    branches = {name: Branch(name) for name in names}
    return Toy(lambda net, x: {name: getattr(net, name)(x) for name in names}, **branches)


def request(target: str, out: Path) -> ExportRequest:
    return ExportRequest(target, out, "int8", quantization=QuantizationRequest(floor_db=15.0))


IN_INT8 = [
    pytest.param(recipe.target, marks=marks(recipe.target, slow=recipe.target in ("coreml", "tensorrt")))
    for recipe in list_recipes()
    if "int8" in recipe.precisions
]


@pytest.mark.parametrize("target", IN_INT8)
def test_operators_between_layers_are_computed_as_they_are_simulated(target: str, tmp_path: Path) -> None:
    artifact = export_subject(as_subject(network(*OPERATORS)), request(target, tmp_path))
    assert artifact.parity is not None and artifact.parity.status == expected_status(target, "int8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "name"),
    [
        pytest.param("litert", "pool_of_floats", marks=pytest.mark.litert),
        pytest.param("openvino", "pool_with_padding", marks=pytest.mark.openvino),
    ],
)
def test_a_converter_still_needs_the_spelling_of_pools_in_int8(
    target: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(target)
    monkeypatch.setattr(recipe, "RECIPE", dataclasses.replace(recipe.RECIPE, spellings=()))
    with pytest.raises((ParityError, ExportError)):
        export_subject(as_subject(network(name)), request(target, tmp_path))


X = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def simulation(dialect: Dialect, *names: str) -> Folded:
    data = CalibrationData([(X,)], [(X,)], "noise")
    folded = fold(network(*names).eval(), (X,))
    return quantize(folded, data, dialect, QuantizationRequest(floor_db=-50.0, absorbs=False)).simulation


@pytest.mark.parametrize("name", ["average_in_int8", "padded_in_int8"])
def test_pools_of_a_network_in_int8_are_spelled_and_no_others(name: str) -> None:
    pools = [each for each in OPERATORS if "pool" in each]
    network_in_int8 = simulation(Dialect("int8"), *pools)
    result = spelled(network_in_int8, [name])
    assert result is not network_in_int8
    with torch.no_grad():
        for left, right in zip(network_in_int8(X).values(), result(X).values(), strict=True):
            # A number between two steps is rounded either way.
            assert float((left - right).abs().mean()) < 1e-2 * float(left.abs().mean())
    plain = fold(network(*pools).eval(), (X,))
    assert spelled(plain, [name]) is plain


def grids(net: Folded) -> list[tuple[float, int]]:
    return [tuple(node.args[1:3]) for node in net.net.graph.find_nodes(op="call_function", target=QUANTIZE)]


def test_an_engine_whose_pools_keep_their_grid_gets_one_for_both_sides() -> None:
    """And a pool of floats gets one for what it reads, which is wider than that of its averages."""
    keeps = Dialect("int8", keepers=("uneven_average",))
    free, kept = (grids(simulation(dialect, "uneven_pool")) for dialect in (Dialect("int8"), keeps))
    assert len(kept) == len(free) + 1 and len(set(free)) == len(free)
    assert len(set(kept)) == len(kept) - 1, "the layer ahead of the pool, and the pool"


def test_an_engine_whose_concatenations_have_one_grid_gets_its_operands_there() -> None:
    plain, joined, aligned = (
        grids(simulation(dialect, "joined"))
        for dialect in (
            Dialect("int8"),
            Dialect("int8", keepers=("concatenation",)),
            Dialect("int8", keepers=("concatenation",), aligns=False),
        )
    )
    assert len(joined) == len(plain)
    # The second operand has a narrower grid; the first one's is that of both.
    assert len(aligned) == len(joined) + 1 and set(aligned) == set(joined)


def test_softmax_has_the_grid_that_its_kernel_gives() -> None:
    given = grids(simulation(Dialect("int8", softmax=(1 / 256, -128)), "softly_chosen"))
    assert (1 / 256, -128) in given and (1 / 256, -128) not in grids(simulation(Dialect("int8"), "softly_chosen"))
