"""The check that every fold passes before it is handed over, and what it says where it cannot pass."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgevit.errors import FoldError
from edgevit.folding import fold, graph, max_rel
from edgevit.folding.inference_form import captured
from support.nets import Toy, image, ready
from support.saboteurs import wrong_epsilon

IMAGE = image(1, 3, 8, 8, dtype=torch.float32)


def network() -> nn.Module:
    return ready(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())).float()


def test_a_wrong_fold_is_never_handed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_epsilon(monkeypatch)
    with pytest.raises(FoldError, match="does not compute what the model computes") as caught:
        fold(network(), (IMAGE,))
    assert "in float64" in caught.value.why and caught.value.where == "Sequential"
    assert max_rel(network()(IMAGE), fold(network(), (IMAGE,), check=False)(IMAGE)) > 1e-5


def test_an_error_far_below_the_rounding_of_float32_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = graph.norm_affine  # type: ignore[attr-defined]

    def nearly(norm: Any) -> Any:
        scale, shift = exact(norm)
        return scale * (1 + 1e-9), shift

    monkeypatch.setattr(graph, "norm_affine", nearly)
    with pytest.raises(FoldError, match="does not compute"):
        fold(network(), (IMAGE,))


def test_a_network_that_guesses_is_named_as_that() -> None:
    model = Toy(lambda net, x: F.dropout(net.conv(x), 0.5, training=True), conv=nn.Conv2d(3, 4, 1)).eval()
    with pytest.raises(FoldError, match="two answers to one input") as caught:
        fold(model, (IMAGE,))
    assert "dropout" in caught.value.why


def test_a_network_that_takes_only_some_numbers_is_checked_with_those() -> None:
    roots = Toy(lambda net, x: net.norm(net.conv(x.sqrt())), conv=nn.Conv2d(3, 4, 1), norm=nn.BatchNorm2d(4))
    large = Toy(lambda net, x: net.conv((x - 50).sqrt()), conv=nn.Conv2d(3, 4, 1))
    assert fold(ready(roots).float(), (IMAGE,)).report.unfolded == ()
    fold(ready(large).float(), (100 + IMAGE,))
    with pytest.raises(FoldError, match="cannot be checked") as caught:
        fold(ready(large).float(), (IMAGE,))
    assert "no finite number" in caught.value.why and "check=False" in caught.value.fix
    fold(ready(large).float(), (IMAGE,), check=False)


def test_equal_infinities_agree() -> None:
    def masked(net: Any, x: Tensor) -> Tensor:
        return net.conv(x).mean((2, 3)).masked_fill(net.mask, -torch.inf)  # type: ignore[no-any-return]

    mask = torch.tensor([False, True, False, False])
    folded = fold(Toy(masked, conv=nn.Conv2d(3, 4, 1), mask=mask).eval(), (IMAGE,))
    assert bool(folded(IMAGE)[:, 1].isneginf().all())


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ([1.0, torch.inf], [1.0, torch.inf], 0.0),
        ([2.0, torch.inf], [1.0, torch.inf], 0.5),
        ([1.0, torch.inf], [1.0, -torch.inf], torch.inf),
        ([1.0, torch.inf], [1.0, 1.0], torch.inf),
        ([1.0, torch.nan], [1.0, torch.nan], torch.inf),
        ([-torch.inf], [-torch.inf], 0.0),
        ([0.0], [0.0], 0.0),
        ([0.0], [1.0], torch.inf),
    ],
)
def test_infinities_are_compared_as_such(first: list[float], second: list[float], expected: float) -> None:
    assert max_rel(torch.tensor(first), torch.tensor(second)) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_networks_of_every_dtype_are_checked(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, which holds their weights and hides nothing."""
    model = network().to(dtype)
    assert fold(model, (IMAGE.to(dtype),))(IMAGE.to(dtype)).dtype == dtype
    wrong_epsilon(monkeypatch)
    with pytest.raises(FoldError, match="in float64"):
        fold(model, (IMAGE.to(dtype),))


def test_one_tensor_for_two_inputs_stays_two_inputs() -> None:
    """torch.export takes it for one input, and the fold read the second where the model reads the first."""
    model = ready(Toy(lambda net, x, y: net.conv(x) + 0 * y[:, :1], conv=nn.Conv2d(3, 4, 1)))
    x, y = image(2, 3, 8, 8), image(2, 3, 8, 8, seed=2)
    assert max_rel(model(x, y), fold(model, (x, x), check=False)(x, y)) <= 1e-10


def test_nothing_is_computed_on_the_meta_device() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
        assert fold(model, (torch.zeros(1, 3, 8, 8),)).report.unfolded == ()


def test_the_model_itself_stays_as_it_was() -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fold(model, (IMAGE,))
    assert all(value.dtype == before[name].dtype and torch.equal(value, before[name])
               for name, value in model.state_dict().items())  # fmt: skip


ROUNDED = {
    "a mean of differences": lambda net, x: (
        (y - y.roll(1, 2)).mean((2, 3)) if (y := net.n(net.a(x))) is not None else x
    ),
    "a norm's own mean": lambda net, x: F.layer_norm(net.n(net.a(x)).flatten(2), (36,)).mean(-1),
}


@pytest.mark.parametrize("name", ROUNDED)
def test_an_answer_of_rounding_alone_is_named_as_that(name: str) -> None:
    model = ready(Toy(ROUNDED[name], a=nn.Conv2d(4, 4, 3, padding=1), n=nn.BatchNorm2d(4)))
    with pytest.raises(FoldError, match="rounding alone"):
        fold(model, (image(2, 4, 6, 6),))


def test_the_check_shares_the_weights_of_the_fold_and_copies_what_the_model_counts() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.calls: Tensor
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x: Tensor) -> Tensor:
            self.calls.add_(1)
            result: Tensor = self.conv(x) + self.calls
            return result

    model = ready(Counting()).float()
    net = captured(model, (IMAGE,))
    wide = net.wide()
    shared = {name for name, weight in wide.named_parameters() if any(weight is own for own in net.module.parameters())}
    assert shared == {"conv.weight", "conv.bias"}
    first, second = wide(IMAGE.double()), wide(IMAGE.double())
    assert not torch.equal(first, second)
    assert torch.equal(net.wide()(IMAGE.double()), first)
