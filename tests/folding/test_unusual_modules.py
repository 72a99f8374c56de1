"""Modules beyond plain Python over dense tensors fold right, or are refused with the module's path and a remedy."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgevit.errors import EdgevitError, FoldError, ModelError
from edgevit.folding import fold
from edgevit.folding.recording import record
from edgevit.models import randomize
from support.nets import Toy, assert_same, image

IMAGE, OTHER = (image(2, 4, 8, 8, seed=seed, dtype=torch.float32) for seed in (1, 2))
FLOAT32 = 1e-5


class OwnError(Exception):
    """An error of a model's own."""


def body() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()).eval()
    randomize(model)
    return model


def toy(compute: Callable[..., Any], **parts: Any) -> nn.Module:
    return Toy(compute, body=body(), **parts).eval()


class Uncopied(nn.Conv2d):
    """A layer that cannot be copied, and says so by an error of its own class."""

    def __deepcopy__(self, memo: Any) -> Any:
        raise OwnError("not copied")


class Called(nn.Module):
    """A module whose call does more than its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.body = body()
        self.eval()

    def __call__(self, x: Tensor) -> Any:
        return 2 * self.body(x)

    def forward(self, x: Tensor) -> Any:
        return self.body(x)


class OwnGradient(torch.autograd.Function):
    """A function with a gradient of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clamp(min=0) * 2


def hooked() -> nn.Module:
    model = body()
    model[0].register_forward_hook(lambda module, inputs, output: output * 2)
    model.register_forward_pre_hook(lambda module, inputs: (3 * inputs[0] + 1,))
    model.register_forward_hook(lambda module, inputs, output: output - 1)
    return model


def parametrized(kind: Callable[[nn.Module], Any]) -> nn.Module:
    model = body()
    kind(model[0])
    return model.eval()


def averaging(net: Any, x: Tensor) -> Any:
    net.mean.mul_(0.9).add_(x.mean() * 0.1)
    return net.body(x) + net.mean


def compiled(function: Any) -> Any:
    return torch.compile(function)


def refuses_meta(net: Any, x: Tensor) -> Any:
    if x.is_meta:
        raise OwnError("no data")
    return net.body(x)


FOLDED: dict[str, Callable[[], nn.Module]] = {
    "a layer that is not copied": lambda: toy(lambda net, x: net.body(net.layer(x)), layer=Uncopied(4, 4, 1)),
    "an error of its own without data": lambda: toy(refuses_meta),
    "a call of its own": Called,
    "a gradient of its own": lambda: toy(lambda net, x: net.body(OwnGradient.apply(x))),  # type: ignore[no-untyped-call]
    "hooks": hooked,
    "weight norm": lambda: parametrized(nn.utils.parametrizations.weight_norm),
    "spectral norm": lambda: parametrized(nn.utils.parametrizations.spectral_norm),
    "orthogonal weights": lambda: parametrized(nn.utils.parametrizations.orthogonal),
    "a running mean of its own": lambda: toy(averaging, mean=torch.zeros(())),
    "complex weights": lambda: toy(
        lambda net, x: net.body((x.to(torch.complex64) @ net.turn).real),
        turn=nn.Parameter(torch.randn(8, 8, dtype=torch.complex64)),
    ),
    "a sparse tensor that is made dense": lambda: toy(
        lambda net, x: net.body(x) + net.mask.to_dense(), mask=torch.eye(8).to_sparse()
    ),
    "copies for many devices": lambda: nn.DataParallel(body()).eval(),
    "a compiled model": lambda: compiled(body()),
    "a compiled function": lambda: toy(lambda net, x: net.body(net.function(x)), function=compiled(torch.sin)),
}
# Modules of torch that choose by their inputs, or by where these lie.
FIXED = ("copies for many devices",)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.parametrize("name", FOLDED)
def test_an_unusual_module_folds_right(name: str) -> None:
    model = FOLDED[name]()
    reference = copy.deepcopy(model) if name == "a running mean of its own" else model
    folded = fold(model, (IMAGE,))
    assert folded.report.batch_is_open == (name not in FIXED)
    assert_same(reference, folded, (OTHER,), FLOAT32)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
def test_a_compiled_model_is_not_compiled_for_a_fold() -> None:
    runs: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        runs.append(graph)
        return graph.forward

    model: Any = torch.compile(body(), backend=backend)
    assert record(model, (IMAGE,)) is not None and not runs
    model(IMAGE)
    assert runs


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 1), nn.BatchNorm2d(4)).eval()


def partly_empty() -> nn.Module:
    model = body()
    model.append(nn.Conv2d(4, 4, 1, device="meta"))
    return model.eval()


def sparse(layout: str) -> nn.Module:
    mask = torch.eye(8)
    mask = mask.to_sparse() if layout == "coo" else mask.to_sparse_csr()
    return toy(lambda net, x: net.body(x) + torch.sparse.mm(net.mask, x[0, 0]), mask=mask)


def quantized() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(256, 4)).eval()
    return torch.ao.quantization.quantize_dynamic(model, {nn.Linear}).eval()  # type: ignore[no-untyped-call,no-any-return]


def raising(net: Any, x: Tensor) -> Any:
    raise OwnError("never ready")


def obstructed() -> nn.Module:
    def fold_obstacle() -> str | None:
        raise OwnError("unknown slope")

    model = body()
    model[1].fold_obstacle = fold_obstacle  # type: ignore[assignment]
    return model


REFUSED: dict[str, tuple[Callable[[], nn.Module], type[EdgevitError], str, str]] = {
    "lazy": (lazy, ModelError, "no weights yet", "0.weight"),
    "partly without numbers": (partly_empty, ModelError, "no numbers", "3.weight"),
    "sparse by coordinates": (lambda: sparse("coo"), FoldError, "sparse", "mask"),
    "sparse by rows": (lambda: sparse("csr"), FoldError, "sparse", "mask"),
    "quantized": (quantized, ModelError, "quantized", "1"),
    "TorchScript": (lambda: torch.jit.script(body()), ModelError, "TorchScript", "RecursiveScriptModule"),
    "TorchScript in a part": (
        lambda: toy(lambda net, x: net.body(net.part(x)), part=torch.jit.script(nn.Conv2d(4, 4, 1))),
        ModelError,
        "TorchScript",
        "part",
    ),
    "an error of its own": (lambda: toy(raising), ModelError, "never ready", ""),
    "an obstacle that fails": (obstructed, FoldError, "unknown slope", "1"),
}


@pytest.mark.filterwarnings(
    "ignore:.*(torch.ao.quantization|torch.quantize_per|torch.jit.script|Lazy modules|Sparse CSR).*"
)
@pytest.mark.parametrize("name", REFUSED)
def test_an_unusual_module_is_refused_with_its_path_and_a_remedy(name: str) -> None:
    build, error, text, path = REFUSED[name]
    model = build()
    before = [(key, type(tensor)) for key, tensor in model.named_parameters()]
    with pytest.raises(error, match=text) as raised:
        fold(model, (IMAGE,))
    assert raised.value.where == path and raised.value.fix
    assert [(key, type(tensor)) for key, tensor in model.named_parameters()] == before


def test_a_model_that_fails_on_noise_is_not_called_one_without_numbers() -> None:
    def compute(net: Any, x: Tensor) -> Any:
        torch._assert_async((x > 7).all())
        return net.body(x)

    with pytest.raises(FoldError, match="the model itself fails"):
        fold(toy(compute), (IMAGE,))
