"""Fourier transforms and complex numbers in real ones, and the rewrites that came with them, on tiny networks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgevit.folding import Folded, fold
from edgevit.folding.rewrites import fourier
from support.nets import Toy, calls, fold_and_compare, image, operators

TRANSFORMS = ("fft_rfft2", "fft_irfft2", "fft_rfftn", "fft_irfftn")


def is_real(folded: Folded) -> bool:
    """Assert that no transform and no complex tensor remains."""
    values = [node.meta["val"] for node in folded.net.graph.nodes if isinstance(node.meta.get("val"), Tensor)]
    return not any(value.is_complex() for value in values) and not set(TRANSFORMS) & set(operators(folded))


def random(*shape: int, seed: int = 7) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def complex_random(*shape: int) -> Tensor:
    return torch.complex(random(*shape), random(*shape, seed=8))


@pytest.mark.parametrize("pixels", [0, 10**6], ids=["two products", "one product"])
@pytest.mark.parametrize(
    ("height", "width", "norm"),
    [(1, 1, "ortho"), (1, 5, None), (7, 1, "ortho"), (4, 2, "backward"), (5, 6, "forward"), (6, 9, "ortho")],
)
def test_a_mask_that_no_real_map_has_there_and_back(
    monkeypatch: pytest.MonkeyPatch, pixels: int, height: int, width: int, norm: str | None
) -> None:
    """The mask is random at every frequency: no real map has that product, and irfft2 has its own idea of it."""
    monkeypatch.setattr(fourier, "ONE_PRODUCT_PIXELS", pixels)

    def compute(net: Any, x: Tensor) -> Any:
        spectrum = torch.fft.rfft2(x, norm=norm) * net.mask
        return torch.fft.irfft2(spectrum, s=(height, width), norm=norm)

    mask = complex_random(3, height, width // 2 + 1)
    folded = fold_and_compare(Toy(compute, mask=mask), image(2, 3, height, width))
    assert is_real(folded)
    assert operators(folded)["matmul"] == (2 if pixels else 4)


X = image(2, 4, 6, 8)
BACK = {"s": (6, 8)}


def parts(z: Tensor, function: Any) -> Tensor:
    return torch.complex(function(z.real), function(z.imag))


def between(compute: Any, **tensors: Tensor) -> Toy:
    """Apply a function between rfft2 and irfft2."""
    return Toy(lambda net, x: torch.fft.irfft2(compute(net, torch.fft.rfft2(x)), **BACK), **tensors)


REAL = {
    "transform alone": between(lambda net, z: z),
    "mean frequency read": Toy(lambda net, x: torch.fft.rfft2(x).real[..., 0]),
    "imaginary part": Toy(lambda net, x: torch.fft.rfft2(x).imag + 1),
    "function of both parts": between(lambda net, z: parts(z, F.gelu)),
    "functions of both parts": between(lambda net, z: parts(z, lambda part: F.softshrink(F.silu(part), 0.01))),
    "another function of each": between(lambda net, z: torch.complex(z.real.relu(), z.imag.sigmoid())),
    "parts swapped": between(lambda net, z: torch.complex(z.imag, z.real)),
    "the same function, other numbers": between(
        lambda net, z: torch.complex(F.leaky_relu(z.real, 0.1), F.leaky_relu(z.imag, 0.2))
    ),
    "sum with a constant": between(lambda net, z: z + net.c, c=complex_random(4, 1, 1)),
    "difference with a constant of every pixel": between(lambda net, z: z - net.c, c=complex_random(1, 4, 6, 5)),
    "sum with a real constant": between(lambda net, z: z + net.c, c=random(4, 1, 1)),
    "product with numbers": between(lambda net, z: 0.5 * z * net.c, c=random(4, 1, 1)),
    "product with a real map": between(lambda net, z: z * z.real.mean((2, 3), True)),
    "square": between(lambda net, z: z * z),
    "two spectra": Toy(lambda net, x: torch.fft.irfft2(torch.fft.rfft2(x) * torch.fft.rfft2(x.relu()), **BACK)),
    "last axes together": Toy(lambda net, x: torch.fft.irfftn(torch.fft.rfftn(x, dim=(2, 3)), s=(6, 8), dim=(2, 3))),
    "dense layer": between(lambda net, z: torch.einsum("nchf,cd->ndhf", z, net.w), w=complex_random(4, 4)),
    "real weights": between(lambda net, z: torch.einsum("nchf,dc->ndhf", z, net.w.to(z.dtype)), w=random(4, 4)),
    "parts stacked": between(lambda net, z: torch.view_as_complex(F.relu(torch.view_as_real(z)))),
}


@pytest.mark.parametrize("name", REAL)
def test_complex_numbers_become_real(name: str) -> None:
    folded = fold_and_compare(REAL[name], X)
    assert is_real(folded), folded.net.graph


def block_diagonal(net: Any, z: Tensor) -> Tensor:
    """Compute an adaptive Fourier operator, with weights (part, block, in, out) unpacked by assignment."""
    real, imaginary = net.w
    blocks = z.reshape(z.shape[0], 2, 2, *z.shape[2:])
    return torch.einsum("nkihf,kio->nkohf", blocks, torch.complex(real, imaginary)).flatten(1, 2)


def test_a_block_diagonal_layer_is_one_grouped_convolution_without_a_tensor_above_rank_4() -> None:
    model = between(
        lambda net, z: parts(block_diagonal(net, z) + net.b, F.silu), w=random(2, 2, 2, 2), b=complex_random(4, 1, 1)
    )
    folded = fold_and_compare(model, X)
    (layer,) = (node for node in calls(folded) if node.target is torch.ops.aten.conv2d.default)
    assert is_real(folded) and layer.args[6] == 2 and layer.args[2] is not None
    assert operators(folded)["silu"] == 1 and operators(folded)["cat"] == 0
    assert max(node.meta["val"].dim() for node in calls(folded)) == 4


def test_parts_computed_by_hand_go_through_too() -> None:
    """Real and imaginary part mixed as real tensors, as the authors of AFNO write it: two regions, both made real."""

    def compute(net: Any, z: Tensor) -> Tensor:
        real = torch.einsum("nchf,cd->ndhf", z.real, net.w) - torch.einsum("nchf,cd->ndhf", z.imag, net.v)
        imaginary = torch.einsum("nchf,cd->ndhf", z.imag, net.w) + torch.einsum("nchf,cd->ndhf", z.real, net.v)
        return z * torch.view_as_complex(F.softshrink(torch.stack([real.relu(), imaginary.relu()], -1), 0.01))

    assert is_real(fold_and_compare(between(compute, w=random(4, 4), v=random(4, 4)), X))


KEPT = {
    "an operator without a rule": between(lambda net, z: z.exp()),
    "product with a complex number": between(lambda net, z: (1 + 2j) * z),
    "a magnitude": Toy(lambda net, x: torch.fft.rfft2(x).abs()),
    "other axes": Toy(lambda net, x: torch.fft.irfft2(torch.fft.rfft2(x, dim=(1, 2)) * 2, dim=(1, 2), s=(4, 6))),
    "cropped": Toy(lambda net, x: torch.fft.rfft2(x, s=(4, 4)).real),
    "cropped on the way back": Toy(lambda net, x: torch.fft.irfft2(torch.fft.rfft2(x), s=(4, 4))),
    "reshaped across pixels": between(lambda net, z: z.flatten(2).cumsum(2).reshape(z.shape)),
    "weights computed": between(lambda net, z: torch.einsum("nchf,ncd->ndhf", z, z[:, :, :4, 0])),
    "pixels mixed": between(lambda net, z: torch.einsum("nchf,hg->ncgf", z, net.w), w=complex_random(6, 6)),
}


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning")
def test_what_has_no_real_form_here_stays_as_it_was(name: str) -> None:
    folded = fold_and_compare(KEPT[name], X)
    assert not is_real(folded) and operators(folded)["matmul"] == 0


def test_a_spectrum_that_is_an_output_stays() -> None:
    model = Toy(lambda net, x: torch.fft.rfft2(x))
    folded = fold(model.eval(), (X,))
    assert torch.equal(folded(X), model(X)) and operators(folded) == {"fft_rfft2": 1}


def test_float32_keeps_its_precision_and_complex_constants_theirs() -> None:
    for model in (
        between(lambda net, z: z * net.c, c=complex_random(4, 1, 1).to(torch.complex64)),
        KEPT["a magnitude"],
    ):
        model, x = model.float().eval(), X.float()
        out = fold(model, (x,))(x)
        assert out.dtype == torch.float32
        torch.testing.assert_close(out, model(x), rtol=1e-5, atol=1e-5)


# ---- softshrink, norms, concatenations ---------------------------------------------------------------------------


def test_softshrink_is_a_difference_to_the_bit() -> None:
    folded = fold_and_compare(nn.Softshrink(0.25), X)
    assert operators(folded) == {"clamp": 1, "sub": 1}
    edge = torch.tensor([0.25, -0.25, 0.0, float("inf"), -float("inf"), 1e-300, 0.3], dtype=torch.float64)
    edge = edge.repeat(2 * 4 * 6 * 8)[: X.numel()].reshape(X.shape)
    assert torch.equal(folded(edge), F.softshrink(edge, 0.25))


TOKENS = image(2, 5, 6)
NORMS = {
    "group norm": (nn.Sequential(nn.GroupNorm(2, 4), nn.Conv2d(4, 3, 1)), X, True),
    "group norm, strided": (nn.Sequential(nn.GroupNorm(1, 4), nn.Conv2d(4, 3, 3, stride=2)), X, True),
    "layer norm": (nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 3)), TOKENS, True),
    "layer norm without a shift": (nn.Sequential(nn.LayerNorm(6, bias=False), nn.Linear(6, 3)), TOKENS, True),
    "two readers": (
        Toy(lambda net, x: net.a(y := net.n(x)).relu() + net.b(y).tanh(), n=nn.LayerNorm(6), a=nn.Linear(6, 6),
            b=nn.Linear(6, 6, bias=False)), TOKENS, True),
    "padded": (nn.Sequential(nn.GroupNorm(1, 4), nn.Conv2d(4, 3, 3, padding=1)), X, False),
    "a reader that is not linear": (Toy(lambda net, x: net.a(y := net.n(x)).relu() + y, n=nn.LayerNorm(6),
        a=nn.Linear(6, 6)), TOKENS, False),
    "weights used twice": (Toy(lambda net, x: net.a(net.a(net.n(x)).relu()), n=nn.LayerNorm(6), a=nn.Linear(6, 6)),
        TOKENS, False),
    "over two axes": (nn.Sequential(nn.LayerNorm((5, 6)), nn.Linear(6, 3)), TOKENS, False),
    "read along another axis": (nn.Sequential(nn.GroupNorm(1, 4), nn.Linear(8, 3)), X, False),
    "of maps, over columns": (nn.Sequential(nn.LayerNorm(8), nn.Conv2d(4, 3, 1)), X, False),
}  # fmt: skip


@pytest.mark.parametrize("name", NORMS)
def test_scale_and_shift_of_a_norm_go_into_all_that_reads_it_or_stay(name: str) -> None:
    model, x, goes = NORMS[name]
    folded = fold_and_compare(model, x)
    (norm,) = (node for node in calls(folded) if "norm" in str(node.target))
    assert (len(norm.args) < 3 or norm.args[2] is None) == goes


def test_one_norm_read_twice_by_two_calls_keeps_the_constants_of_the_other() -> None:
    compute = lambda net, x: net.b(net.n(net.a(net.n(x)).relu()).relu())  # noqa: E731
    fold_and_compare(Toy(compute, n=nn.LayerNorm(6), a=nn.Linear(6, 6), b=nn.Linear(6, 6)), TOKENS)


def joined(first: nn.Module, reader: nn.Module) -> Toy:
    return Toy(lambda net, x: net.reader(torch.cat((x, net.first(x)), 1)), first=first, reader=reader)


CONCATS = {
    "pointwise": (joined(nn.Conv2d(4, 4, 1), nn.Conv2d(8, 3, 1)), 1),
    "without biases": (joined(nn.Conv2d(4, 4, 1, bias=False), nn.Conv2d(8, 3, 1, bias=False)), 1),
    "grouped": (joined(nn.Conv2d(4, 8, 1, groups=2), nn.Conv2d(12, 3, 1)), 1),
    "both parts": (Toy(lambda net, x: net.r(torch.cat((net.a(x), net.b(x.relu())), 1)), a=nn.Conv2d(4, 5, 1),
        b=nn.Conv2d(4, 5, 1), r=nn.Conv2d(10, 3, 1)), 1),
    "it would cost more": (joined(nn.Conv2d(4, 1, 1), nn.Conv2d(5, 32, 1)), 2),
    "depthwise would become dense": (joined(nn.Conv2d(4, 4, 1, groups=4), nn.Conv2d(8, 3, 1)), 1),
    "wide first": (joined(nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(8, 3, 1)), 2),
    "wide reader": (joined(nn.Conv2d(4, 4, 1), nn.Conv2d(8, 3, 3)), 2),
    "grouped reader": (joined(nn.Conv2d(4, 4, 1), nn.Conv2d(8, 4, 1, groups=2)), 2),
    "activation between": (joined(nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU()), nn.Conv2d(8, 3, 1)), 2),
    "along another axis": (Toy(lambda net, x: net.r(torch.cat((net.a(x), x), 2)), a=nn.Conv2d(4, 4, 1),
        r=nn.Conv2d(4, 3, 1)), 2),
    "read twice": (Toy(lambda net, x: net.r(torch.cat((y := net.a(x), x), 1)).mean() + y.tanh(), a=nn.Conv2d(4, 4, 1),
        r=nn.Conv2d(8, 3, 1)), 2),
}  # fmt: skip


@pytest.mark.parametrize("name", CONCATS)
def test_pointwise_maps_meet_through_a_concatenation_where_that_costs_nothing(name: str) -> None:
    model, layers = CONCATS[name]
    assert operators(fold_and_compare(model, X))["conv2d"] == layers
