"""Folding as a whole: what it refuses, what it leaves alone, its inputs and outputs, and uses of a Folded."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgevit.errors import FoldError, ModelError
from edgevit.folding import fold, max_rel
from edgevit.models import randomize
from support.fold_cases import ROW, TOKENS, X, chain, conv, norm, parameter, repvgg
from support.nets import Toy, assert_same, fold_and_compare, image, operators, ready

TORCH_WARNS_OF_ITSELF = pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning")


# ---- what may not be folded, and what folding leaves alone -------------------------------------------------------


@pytest.mark.parametrize("path", ["", "0", "1.0"])
def test_training_mode_anywhere_is_refused(path: str) -> None:
    model = chain(conv(4, 4), chain(norm(4), nn.ReLU()), nn.Dropout()).eval()
    model.get_submodule(path).training = True
    with pytest.raises(FoldError, match="training mode") as caught:
        fold(model, (X.float(),))
    assert caught.value.where == (path or "Sequential")
    assert caught.value.fix == "model.eval()"


def test_an_obstacle_that_a_module_names_is_refused() -> None:
    class Fading(nn.Module):
        obstacle: str | None = "slope is 0.5"

        def fold_obstacle(self) -> str | None:
            return self.obstacle

        def forward(self, x: Tensor) -> Tensor:
            return x

    fading = Fading()
    model = chain(conv(4, 4), fading).eval()
    with pytest.raises(FoldError, match=r"(?s)cannot be folded yet.*where: 1.*slope is 0\.5"):
        fold(model, (X.float(),))
    fading.obstacle = None
    fold(model, (X.float(),))


def test_a_model_without_a_card_needs_inputs() -> None:
    with pytest.raises(FoldError, match="has no card"):
        fold(conv(4, 4).eval())
    with pytest.raises(ModelError, match="no inputs"):
        fold(conv(4, 4).eval(), ())


@pytest.mark.parametrize(
    "compute",
    [
        lambda net, x: net.c(x) if x.sum() > 0 else x,  # depends on data
        lambda net, x: net.c(x[:, :3]),  # wrong sizes
        lambda net, x: net.c(x.numpy()),
        lambda net, x: [x][3],
        lambda net, x: net.missing(x),
    ],
)
def test_what_cannot_be_captured_is_refused_with_the_reason(compute: Callable[..., Any]) -> None:
    with pytest.raises(ModelError, match="Toy cannot be captured") as caught:
        fold(Toy(compute, c=conv(4, 4)).eval(), (X.float(),))
    assert len(caught.value.why) > 3
    assert "\n" not in caught.value.why


def test_the_model_is_left_as_it_was() -> None:
    tied = conv(4, 4, 3, padding=1)
    tying = conv(4, 4, 3, padding=1)
    model = ready(chain(tied, norm(4), nn.ReLU(inplace=True), tying, norm(4)))
    tying.weight = tied.weight
    model.register_buffer("steps", torch.zeros(3, dtype=torch.int64))
    state = copy.deepcopy(model.state_dict())
    strides = [tensor.stride() for tensor in model.state_dict().values()]
    pointers = [tensor.data_ptr() for tensor in model.state_dict().values()]
    gradients = [parameter.requires_grad for parameter in model.parameters()]
    folded = fold(model, (X,), memory_format=torch.channels_last)
    for parameter_ in folded.parameters():
        parameter_.fill_(7.0)
    after = model.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[name], state[name]) for name in state)
    assert [tensor.stride() for tensor in after.values()] == strides
    assert [tensor.data_ptr() for tensor in after.values()] == pointers
    assert [parameter.requires_grad for parameter in model.parameters()] == gradients
    assert not any(module.training for module in model.modules())
    assert not {id(tensor) for tensor in model.parameters()} & {id(tensor) for tensor in folded.parameters()}


def test_nothing_of_the_folded_form_lies_in_the_models_memory() -> None:
    model = ready(Toy(lambda net, x: net.c(x)[:, net.order] * net.scale.relu(), c=conv(4, 4), order=torch.arange(4),
                      scale=parameter(1)))  # fmt: skip
    folded = fold(model, (X,))
    storages = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    assert not storages & {tensor.untyped_storage().data_ptr() for tensor in (*folded.parameters(), *folded.buffers())}
    assert [tensor.dtype for tensor in folded.buffers()] == [torch.int64]


def test_folding_twice_is_folding_once() -> None:
    model = ready(chain(repvgg(), conv(4, 6, 3), norm(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)))
    once = fold(model, (X,))
    twice = fold(once, (X,))
    assert twice.report.rewrites == {}
    assert operators(twice) == operators(once)
    assert torch.equal(once(X), twice(X))


def test_dead_code_and_unused_inputs_do_not_hold_a_fold_back() -> None:
    def compute(net: Any, x: Tensor, unused: Tensor) -> Any:
        y = net.c(x)
        y.relu().sum()
        return net.n(y)

    folded = fold_and_compare(Toy(compute, c=conv(4, 6), n=norm(6)), X, X)
    assert operators(folded) == {"conv2d": 1}


# ---- inputs and outputs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "compute",
    [
        lambda net, x: {"logits": net.a(x), "features": (x.relu(), [net.n(net.a(x))])},
        lambda net, x: (net.a(x), None, 3),
        lambda net, x: [net.n(net.a(x))],
        lambda net, x: x,
        lambda net, x: F.dropout(x, 0.5, training=False),
        lambda net, x: (x, x, net.a(x)),
        lambda net, x: (net.a(x), net.s),
    ],
)
def test_outputs_of_any_structure(compute: Callable[..., Any]) -> None:
    model = Toy(compute, a=conv(4, 4), n=norm(4), s=parameter(3))
    folded = fold_and_compare(model, X)
    assert torch.utils._pytree.tree_structure(folded(X)) == torch.utils._pytree.tree_structure(model(X))


def test_several_inputs() -> None:
    model = Toy(lambda net, x, y, z: net.a(x) * y.mean() + net.b(z).mean(), a=conv(4, 4), b=nn.Linear(6, 5))
    folded = fold_and_compare(model, X, TOKENS, ROW)
    with pytest.raises(ModelError, match="3 inputs, given 2"):
        folded(X, TOKENS)


def test_pixels_of_eight_bits_normalised_inside() -> None:
    model = ready(Toy(lambda net, x: net.c((x / 255.0 - net.mean) / net.std), c=conv(3, 4), mean=torch.rand(3, 1, 1),
                      std=torch.rand(3, 1, 1) + 0.5)).float()  # fmt: skip
    x = torch.randint(0, 256, (2, 3, 6, 6), dtype=torch.uint8)
    folded = fold(model, (x,))
    assert_same(model, folded, (x,), 1e-5)
    assert operators(folded) == {"div": 1, "conv2d": 1}


def test_a_network_of_buffers_alone_keeps_their_dtype() -> None:
    model = Toy(lambda net, x: x * (net.s * 2), s=torch.rand(3, 1, 1)).eval()
    x = torch.randint(0, 256, (2, 3, 6, 6), dtype=torch.uint8)
    assert_same(model, fold(model, (x,)), (x,), 1e-6)


def test_constants_of_two_dtypes_keep_theirs() -> None:
    model = Toy(lambda net, x: net.n(net.c(x)) * net.s.relu(), c=conv(4, 4), n=norm(4), s=torch.rand(1).double()).eval()
    x = X.float()
    folded = fold(model, (x,))
    assert model(x).dtype == folded(x).dtype
    assert_same(model, folded, (x,), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_models_in_half_precision(dtype: torch.dtype) -> None:
    model = chain(conv(4, 6, 3), norm(6), nn.ReLU(), conv(6, 6), norm(6)).eval().requires_grad_(False)
    randomize(model)
    exact = fold(copy.deepcopy(model).to(dtype).double(), (X,))
    folded = fold(model.to(dtype), (X.to(dtype),))
    assert {parameter_.dtype for parameter_ in folded.parameters()} == {dtype}
    assert operators(folded) == {"conv2d": 2, "relu": 1}
    for mine, rounded in zip(folded.parameters(), exact.parameters(), strict=True):
        assert torch.equal(mine, rounded.to(dtype))  # each constant is rounded once
    assert max_rel(model(X.to(dtype)).double(), folded(X.to(dtype)).double()) < 16 * torch.finfo(dtype).eps


def test_a_batch_that_the_model_fixes_is_kept() -> None:
    model = Toy(lambda net, x: net.n(net.c(x)).reshape(2, 288), c=conv(4, 4), n=norm(4))
    folded = fold_and_compare(model, X, fixed=True)
    assert operators(folded)["batch_norm"] == 0
    with pytest.raises(ModelError, match=r"folded for inputs of \(2, 4, 9, 8\), given \(3, 4, 9, 8\)"):
        folded(image(3, 4, 9, 8))


def test_a_model_that_takes_one_image_at_a_time() -> None:
    folded = fold_and_compare(
        Toy(lambda net, x: net.c(x.view(4, 9, 8)[None])[0].view(6, 72), c=conv(4, 6)), X[:1], fixed=True
    )
    assert operators(folded)["conv2d"] == 1


def test_an_open_batch_is_open_whatever_the_example_had() -> None:
    model = ready(chain(conv(4, 4), norm(4), nn.Flatten(), nn.Linear(288, 3)))
    for batch in (1, 2, 5):
        folded = fold(model, (X[:1].repeat(batch, 1, 1, 1),))
        assert folded.report.batch_is_open
        assert_same(model, folded, (image(7, 4, 9, 8),))


@pytest.mark.parametrize("shape", [(2, 4, 9, 9), (2, 4, 8, 8), (2, 5, 9, 8), (2, 4, 9), (2, 4, 9, 8, 1)])
def test_another_size_is_refused(shape: tuple[int, ...]) -> None:
    folded = fold(ready(chain(conv(4, 4, 3, padding=1, groups=4), nn.AdaptiveAvgPool2d(1))), (X,))
    with pytest.raises(ModelError, match=r"(?s)folded for inputs of \(-1, 4, 9, 8\).*fix: fold at that size"):
        folded(torch.zeros(shape, dtype=torch.float64))


def test_a_copy_that_arranges_memory_for_its_reader_stays() -> None:
    def compute(net: Any, x: Tensor) -> Any:
        y = net.n(net.c(x)).permute(0, 2, 3, 1)
        pairs = torch.view_as_real(torch.view_as_complex(y.reshape(x.shape[0], -1, 2).contiguous()) * 1j)
        return y.contiguous().view(x.shape[0], -1, 4), torch.as_strided(y.contiguous(), (4, 3), (3, 1)), pairs

    fold_and_compare(Toy(compute, c=conv(4, 4), n=norm(4)), X)


# ---- a Folded as a module ----------------------------------------------------------------------------------------


def small() -> nn.Module:
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    body = (conv(4, 4, 3, groups=4, padding=1), norm(4), nn.ReLU(), conv(4, 6), norm(6), nn.LeakyReLU(1.0), conv(6, 6))
    return ready(chain(*body, norm(6), nn.GELU(), conv(6, 6, 3), *head))


@TORCH_WARNS_OF_ITSELF
def test_a_folded_network_can_be_copied_saved_and_converted() -> None:
    model = small()
    folded = fold(model, (X,))
    twin = copy.deepcopy(folded)
    assert torch.equal(folded(X), twin(X))
    file = io.BytesIO()
    torch.save(folded.state_dict(), file)
    file.seek(0)
    for parameter_ in twin.parameters():
        parameter_.zero_()
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(folded(X), twin(X))
    assert folded(X.float().double()).dtype == torch.float64
    assert twin.float()(X.float()).dtype == torch.float32
    assert max_rel(model(X).float(), twin(X.float())) < 1e-5
    assert not any(parameter_.requires_grad for parameter_ in folded.parameters())


def test_a_cast_inside_does_not_tie_a_folded_network_to_its_dtype() -> None:
    model = Toy(lambda net, x: net.c(x.float()).relu().float(), c=conv(4, 4)).eval()
    folded = fold(model, (X.float(),))
    assert folded.double()(X).dtype == torch.float64


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_every_weight_has_the_memory_format_asked_for(memory_format: torch.memory_format) -> None:
    model = small()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    folded = fold(model, (X,), memory_format=memory_format)
    weights = [tensor for tensor in folded.parameters() if tensor.dim() == 4]
    assert {tuple(weight.shape[2:]) for weight in weights} == {(1, 1), (3, 3)}
    assert all(weight.is_contiguous(memory_format=memory_format) for weight in weights)
    assert not all(weight.is_contiguous() for weight in weights) or memory_format is torch.contiguous_format
    if memory_format is torch.contiguous_format:  # sizes of 1 satisfy both: look at the strides themselves
        assert all(weight.stride() == torch.empty(weight.shape).stride() for weight in weights)
    assert_same(model, folded, (X,))


def test_views_survive_channels_last() -> None:
    model = ready(Toy(lambda net, x: net.b(net.a(x).relu()).view(x.shape[0], 6, -1), a=conv(4, 6, 3), b=conv(6, 6, 3)))
    assert_same(model, fold(model, (X,), memory_format=torch.channels_last), (X,))
