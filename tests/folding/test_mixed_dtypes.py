"""Networks of several floating dtypes are folded, and their algebra is proven in one dtype, where no rounding hides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgevit.errors import FoldError
from edgevit.folding import fold, prove
from edgevit.folding.agreement import compare
from support.narrowing import present
from support.nets import Toy, image, ready
from support.saboteurs import wrong_epsilon

IMAGE = image(2, 3, 9, 8, dtype=torch.float32)


def body(**parts: Any) -> dict[str, Any]:
    return {"stem": nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)), **parts}


def block() -> nn.Module:
    return nn.Sequential(nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), nn.ReLU())


def in_half(net: Any, x: Tensor) -> Any:
    return net.head(net.block(net.stem(x).half()).float())


def in_bfloat(net: Any, x: Tensor) -> Any:
    return net.head(net.block(net.stem(x).to(torch.bfloat16)).type_as(x))


def in_double(net: Any, x: Tensor) -> Any:
    return net.head(net.stem(x).relu().mean((2, 3)).double())


def under_autocast(net: Any, x: Tensor) -> Any:
    with torch.autocast("cpu", torch.bfloat16):
        y = net.stem(x)
    return net.head(y.float())


def half_block() -> nn.Module:
    return single(Toy(in_half, **body(block=block(), head=nn.Conv2d(6, 4, 1))), "block", torch.float16)


def bfloat_block() -> nn.Module:
    return single(Toy(in_bfloat, **body(block=block(), head=nn.Conv2d(6, 4, 1))), "block", torch.bfloat16)


def double_head() -> nn.Module:
    return single(Toy(in_double, **body(head=nn.Linear(6, 4))), "head", torch.float64)


def autocast_stem() -> nn.Module:
    return ready(Toy(under_autocast, **body(head=nn.Conv2d(6, 4, 1)))).float()


def single(model: nn.Module, part: str, dtype: torch.dtype) -> nn.Module:
    """Return the model in float32, with one part in another dtype."""
    model = ready(model).float()
    model.get_submodule(part).to(dtype)
    return model


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "a block in half precision": half_block,
    "a block in bfloat16": bfloat_block,
    "a head in float64": double_head,
    "a stem under autocast": autocast_stem,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_mixed_network_folds_with_proof(name: str) -> None:
    model = NETWORKS[name]()
    proof = prove(model, (IMAGE,))
    assert proof.passed and present(proof.float64_max_rel) < 1e-13 and present(proof.float32_max_rel) < 1e-5
    folded = fold(model, (IMAGE,))
    assert folded.report.unfolded == () and folded(IMAGE).dtype == model(IMAGE).dtype
    assert compare(model, folded, (IMAGE,)) < 2e-2, "rounding of a half precision, which is its own"


@pytest.mark.parametrize("name", NETWORKS)
def test_a_mistake_in_a_mixed_network_is_not_taken_for_rounding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_epsilon(monkeypatch)
    with pytest.raises(FoldError, match="does not compute what the model computes") as caught:
        fold(NETWORKS[name](), (IMAGE,))
    assert "in float64" in caught.value.why
    assert not prove(NETWORKS[name](), (IMAGE,)).passed
