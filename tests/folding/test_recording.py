"""Recordings show the same graph as torch.export, and what they cannot show is left to it."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from edgevit.errors import FoldError, ModelError
from edgevit.folding import capture, fold
from edgevit.folding.agreement import register_records
from edgevit.folding.digest import operator_list
from edgevit.folding.graph import aten
from edgevit.folding.in_place import drop_dropouts, write_nothing
from edgevit.folding.inference_form import example_inputs
from edgevit.folding.recording import record
from edgevit.folding.sizes import BatchDecidesError
from edgevit.folding.torch_export import exported
from edgevit.folding.values import BATCHES, size_of
from edgevit.models import create_model
from support.nets import Toy, assert_same, image, ready

MAP = image(2, 4, 6, 6)
LARGE = BATCHES[1]


@dataclass
class Scores:
    """A record that a model returns."""

    logits: Tensor
    count: int


def batch_in_shapes(net: Any, x: Tensor) -> Any:
    rows = net.a(x).reshape(x.shape[0] * 4, -1)
    return net.token.expand(x.shape[0], -1, -1), rows.view(x.shape[0], 4, 6, 6)


def windows(net: Any, x: Tensor) -> Any:
    parts = net.a(x).view(x.shape[0], 4, 2, 3, 2, 3).permute(0, 2, 4, 1, 3, 5)
    return parts.reshape(-1, 4, 3, 3).chunk(2, 1)


def made_of_numbers(net: Any, x: Tensor) -> Any:
    mean = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=x.dtype)
    return net.a(x - mean[:, None, None]) + torch.arange(6).to(x.dtype) + torch.linspace(0, 1, 6, dtype=x.dtype)


def written_in_place(net: Any, x: Tensor) -> Any:
    y = net.a(x)
    y += net.b(x)
    return F.relu(y, inplace=True)


def lists_of_results(net: Any, x: Tensor) -> Any:
    first, second = net.a(x).split([1, 3], 1)
    top, _ = torch.topk(second.flatten(1), 5, 1)
    return [first, top, *x.unbind(1)]


def kept_from_the_first_call(net: Any, x: Tensor) -> Any:
    if not hasattr(net, "grid"):
        net.grid = torch.ones_like(x[:1]) * 2
    return net.a(x) * net.grid


def data_replaced(net: Any, x: Tensor) -> Any:
    y = net.a(x)
    y.data = y.data * 2
    return net.b(y)


def parameter_replaced(net: Any, x: Tensor) -> Any:
    weight = net.a.weight.data
    net.a.weight.data = weight * 2
    y = net.a(x)
    net.a.weight.data = weight
    return y


def questions_without_doubt(net: Any, x: Tensor) -> Any:
    rows, images = x.numel() // 6, x.shape[0]
    assert images > 0 and images >= 1 and rows % 24 == 0 and rows // 24 == images and rows != 0
    assert images == int(rows / 24.0) and sum([images, images]) == 2 * images and images / images == 1
    assert x.shape == x.relu().shape and 1 <= x.size(0) <= rows
    return net.a(x).reshape(images, -1)


RECORDED: dict[str, Callable[[Any, Tensor], Any]] = {
    "a layer": lambda net, x: net.a(x),
    "the batch in shapes": batch_in_shapes,
    "windows in the batch": windows,
    "constants of numbers": made_of_numbers,
    "writes in place": written_in_place,
    "several results": lists_of_results,
    "one layer twice": lambda net, x: net.a(net.a(x)),
    "tied weights": lambda net, x: net.tied(net.a(x)),
    "a dictionary with None and numbers": lambda net, x: {"scores": net.a(x), "none": None, "batch": x.shape[0]},
    "a record": lambda net, x: Scores(net.a(x).mean((2, 3)), 3),
    "attention": lambda net, x: net.attention(*[x.flatten(2).transpose(1, 2)] * 3)[0],
    "a transformer's layer": lambda net, x: net.layer(x.flatten(2).transpose(1, 2)),
    "a tensor that is kept": kept_from_the_first_call,
    "data of a parameter": lambda net, x: net.a(x) * net.scale.data,
    "an input as output": lambda net, x: (x, net.a(x)),
    "numbers of another tensor": data_replaced,
    "data of a parameter, replaced": parameter_replaced,
    "whether a parameter is trained": lambda net, x: (net.a if net.scale.requires_grad else net.b)(x),
    "questions that hold at any batch": questions_without_doubt,
    "where tensors lie, as output": lambda net, x: (net.a(x), x.device, x.numel()),
}


# torch.export 2.13 ends in an error, because it keeps a tensor of its own among the constants, or fixes the batch.
NOT_EXPORTED = {
    "a tensor that is kept",
    "constants of numbers",
    "data of a parameter",
    "numbers of another tensor",
    "data of a parameter, replaced",
    "whether a parameter is trained",
    "where tensors lie, as output",
    "questions that hold at any batch",
}


def network(compute: Callable[[Any, Tensor], Any]) -> nn.Module:
    a, tied = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
    tied.weight = a.weight
    parts = {"a": a, "b": nn.Conv2d(4, 4, 3, padding=1), "tied": tied, "token": nn.Parameter(torch.rand(1, 1, 4))}
    attention = nn.MultiheadAttention(4, 2, batch_first=True)
    layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
    return ready(Toy(compute, attention=attention, layer=layer, scale=nn.Parameter(torch.rand(4, 1, 1)), **parts))


def graphs(model: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[list[Any], list[Any]]:
    """Return the operators of a recording and of torch.export, without those that no output needs."""
    recording, export = record(model, inputs), exported(model, inputs, open_batch=True)
    assert recording is not None and export[1]
    for module in (recording, export[0]):
        drop_dropouts(module.graph)
        assert write_nothing(module.graph)
        capture._respell(module.graph)
        for node in list(module.graph.nodes):
            # torch.export adds these where it wraps a tensor again.
            if node.op == "call_function" and node.target in (aten.detach.default, aten.alias.default):
                node.replace_all_uses_with(node.args[0])
            elif node.target is operator.mul:
                node.args = tuple(sorted(node.args, key=lambda factor: isinstance(factor, int)))
        module.graph.eliminate_dead_code()
    return operator_list(recording), operator_list(export[0])


@pytest.mark.parametrize("name", [name for name in RECORDED if name not in NOT_EXPORTED])
def test_a_recording_is_what_torch_exports(name: str) -> None:
    model = network(RECORDED[name])
    register_records(model(MAP))
    recorded, captured = graphs(model, (MAP,))
    assert recorded == captured


@pytest.mark.parametrize("name", RECORDED)
def test_a_recording_computes_what_the_model_computes(name: str) -> None:
    """At batches that it was not recorded at, and into the same containers."""
    model = network(RECORDED[name])
    module = record(model, (MAP,))
    assert module is not None
    for batch in (1, 5):
        x = image(batch, 4, 6, 6)
        expected, computed = model(x), module(x)
        assert_same(model, module, [x])
        assert torch.utils._pytree.tree_structure(expected) == torch.utils._pytree.tree_structure(computed)
        others = [[leaf for leaf in tree_leaves(tree) if not isinstance(leaf, Tensor)] for tree in (expected, computed)]
        assert others[0] == others[1]


@pytest.mark.parametrize("name", ["vanillanet_5", "mobilevig_ti", "hiera_tiny"])
def test_families_are_recorded_as_torch_exports_them(name: str) -> None:
    model = create_model(name).eval()
    recorded, captured = graphs(model, example_inputs(model))
    assert recorded == captured


def caught(net: Any, x: Tensor) -> Any:
    try:
        return net.a(x) * float(x.flatten()[0])
    except RuntimeError:
        return net.a(x)


def caught_list(net: Any, x: Tensor) -> Any:
    try:
        x.tolist()
        return net.a(x)
    except RuntimeError:
        return net.b(x)


def under_autocast(net: Any, x: Tensor) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return net.a(x)


def with_gradients(net: Any, x: Tensor) -> Any:
    with torch.enable_grad():
        return net.a(x)


UNRECORDED: dict[str, Callable[[Any, Tensor], Any]] = {
    "reads a value": lambda net, x: net.a(x) * float(x.sum() > 0),
    "catches the error of reading one": caught,
    "counts the batch otherwise": lambda net, x: net.a(x)[: x.shape[0] - 1],
    "scales by the batch": lambda net, x: net.a(x) * (1.5 * x.shape[0]),
    "computes in another precision": under_autocast,
    "records gradients": with_gradients,
    "asks where it runs": lambda net, x: net.b(x) if x.is_meta else net.a(x),
    "asks where memory is": lambda net, x: net.a(x) if x.get_device() == -1 else net.b(x),
    "catches the error of a list": caught_list,
    "maps over images": lambda net, x: torch.vmap(lambda image: image.sum())(net.a(x)),
}
BATCH_DECIDES: dict[str, Callable[[Any, Tensor], Any]] = {
    "odd or even": lambda net, x: net.a(x) if x.shape[0] % 2 else net.b(x),
    "one image or more": lambda net, x: net.a(x) if x.shape[0] == 1 else net.b(x),
    "many images": lambda net, x: net.a(x) if x.shape[0] > 60 else net.b(x),
    "a reshape": lambda net, x: net.a(x).reshape(2, 144),
    "a reshape by the images": lambda net, x: net.a(x).reshape(32, -1),
    "a constant": lambda net, x: net.a(x) + torch.tensor(x.shape[0]),
    "a container": lambda net, x: [net.a(x)] * x.shape[0],
    "an axis": lambda net, x: net.a(x).mean([2, 3] if x.shape[0] > 2 else [2]),
    "which tensor is read": lambda net, x: net.b((net.a(x), x)[x.shape[0] % 2]),
}


@pytest.mark.parametrize("name", UNRECORDED)
def test_what_a_recording_would_show_wrongly_is_not_recorded(name: str) -> None:
    assert record(network(UNRECORDED[name]), (MAP,)) is None


@pytest.mark.parametrize("name", BATCH_DECIDES)
def test_a_batch_that_decides_is_never_folded_as_open(name: str) -> None:
    model = network(BATCH_DECIDES[name])
    with pytest.raises(BatchDecidesError):
        record(model, (MAP,))
    folded = fold(model, (MAP,))
    assert not folded.report.batch_is_open and folded.shapes == ((2, 4, 6, 6),)
    assert_same(model, folded, [MAP])


def groups_of_four(net: Any, x: Tensor) -> Any:
    images = x.shape[0]
    group = min(4, images)
    if images % group:
        group = images
    rows = net.a(x).view(group, -1, 4, 6, 6)
    return net.b(x) + (rows - rows.mean(0)).view_as(x)


DOUBTFUL: dict[str, Callable[[Any, Tensor], Any]] = {
    "three images": lambda net, x: net.a(x) if x.shape[0] == 3 else net.b(x),
    "not three images": lambda net, x: net.b(x) if x.shape[0] != 3 else net.a(x),
    "five images by their length": lambda net, x: net.a(x) if len(x) == 5 else net.b(x),
    "five images by their numbers": lambda net, x: net.a(x) if x.numel() == 5 * 144 else net.b(x),
    "multiples of three": lambda net, x: net.b(x) if x.size(0) % 3 else net.a(x),
    "the fourth bit": lambda net, x: net.a(x) if x.shape[0] & 8 else net.b(x),
    "the last bit of many, moved": lambda net, x: net.a(x) if x.shape[0] >> 17 else net.b(x),
    "at most a hundred thousand": lambda net, x: net.a(x)[: min(x.shape[0], 100_000)],
    "at least seventy thousand": lambda net, x: net.a(x) if x.shape[0] >= 70_000 else net.b(x),
    "less than seventy thousand": lambda net, x: net.a(x) if x.shape[0] < 70_000 else net.b(x),
    "more than seventy thousand in parts": lambda net, x: net.a(x) if 4 * x.shape[0] > 280_000 else net.b(x),
    "a hundred thousand": lambda net, x: net.a(x) if x.shape[0] // 100_000 else net.b(x),
    "groups of four": groups_of_four,
    "more than seventy thousand, less one": lambda net, x: net.a(x) if x.shape[0] - 1 > 70_000 else net.b(x),
    "more than seventy thousand, and one": lambda net, x: net.a(x) if 1 + x.shape[0] > 70_002 else net.b(x),
    "a hundred thousand less the images": lambda net, x: net.a(x) if 100_000 - x.shape[0] < 0 else net.b(x),
    "more than seventy thousand, by eight": lambda net, x: net.a(x) if x.shape[0] / 8 > 9000 else net.b(x),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_question_that_no_recorded_batch_settles_is_never_folded_as_open(name: str) -> None:
    model = network(DOUBTFUL[name])
    with suppress(BatchDecidesError):
        assert record(model, (MAP,)) is None
    folded = fold(model, (MAP,))
    assert not folded.report.batch_is_open
    assert_same(model, folded, [MAP])


@pytest.mark.parametrize(
    "compute",
    [
        lambda net, x: net.b(x.shape[0] - net.a(x)),
        lambda net, x: net.a(x).sum(0, keepdim=True) * (1 / x.shape[0]),
        lambda net, x: torch.vmap(lambda one: net.tied.weight[0, 0, 0, 0] * one.mean())(net.a(x)),
    ],
    ids=["a size less a map", "a quotient by a size", "a map over images"],
)
def test_sizes_in_arithmetic_and_maps_over_images_fold(compute: Callable[[Any, Tensor], Any]) -> None:
    model = network(compute)
    folded = fold(model, (MAP,))
    assert folded.report.batch_is_open
    assert_same(model, folded, [image(5, 4, 6, 6)])


def test_a_second_input_of_fixed_length_stays_fixed_where_torch_exports() -> None:
    def compute(net: Any, x: Tensor, rows: Tensor) -> Any:
        return net.a(x) * (1.5 * x.shape[0]) + rows.mean()

    model = ready(Toy(compute, a=nn.Conv2d(4, 4, 1)))
    folded = fold(model, (MAP, image(77, 6)))
    assert folded.shapes == ((-1, 4, 6, 6), (77, 6))


def test_a_norm_that_updates_what_another_one_reads_is_refused() -> None:
    def compute(net: Any, x: Tensor) -> Any:
        mean, var = net.mean.clone(), net.var.clone()
        F.batch_norm(x, mean, var, training=True)
        return F.batch_norm(net.a(x), mean, var)

    model = ready(Toy(compute, a=nn.Conv2d(4, 4, 1), mean=torch.zeros(4), var=torch.ones(4)))
    with pytest.raises(ModelError, match="updates running statistics"):
        fold(model, (MAP,), check=False)


def test_a_model_that_alternates_between_calls_is_refused() -> None:
    def compute(net: Any, x: Tensor) -> Any:
        net.calls += 1
        return net.a(x) if net.calls % 2 else net.b(x)

    model = network(compute)
    model.calls = 0  # type: ignore[assignment]
    with pytest.raises(FoldError):
        fold(model, (MAP,))


def test_a_generator_of_random_numbers_is_refused() -> None:
    def compute(net: Any, x: Tensor) -> Any:
        return net.a(x) + torch.rand(6, dtype=x.dtype, generator=torch.Generator().manual_seed(0))

    with pytest.raises(ModelError, match="random generator"):
        fold(network(compute), (MAP,), check=False)


def test_an_input_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(ModelError, match="an input is a list"):
        fold(network(lambda net, xs: net.a(xs[0])), ([MAP],))  # type: ignore[arg-type]


@pytest.mark.parametrize("largest", [2, 8])
def test_a_batch_that_decides_is_seen_in_the_conditions_of_torch_export(largest: int) -> None:
    """In a model that no recording shows, and beyond the batches at which models are recorded."""

    unregistered = torch.full((4, 1, 1), 2.0, dtype=torch.float64)

    def compute(net: Any, x: Tensor) -> Any:
        y = net.a(x) * unregistered
        return net.b(y) if x.shape[0] > largest else y

    model = network(compute)
    assert record(model, (MAP,)) is None
    folded = fold(model, (MAP,))
    assert not folded.report.batch_is_open
    assert_same(model, folded, [MAP])


def test_recording_leaves_the_model_as_it_is() -> None:
    model = network(kept_from_the_first_call)
    model.marks = []  # type: ignore[assignment]
    before = {name: (id(tensor), tensor.clone()) for name, tensor in model.state_dict(keep_vars=True).items()}
    attributes = [set(vars(module)) for module in model.modules()]
    record(model, (MAP,))
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    for name, tensor in model.state_dict(keep_vars=True).items():
        assert id(tensor) == before[name][0] and torch.equal(tensor, before[name][1])


def test_the_module_of_each_call_is_known() -> None:
    module = record(
        nn.Sequential(nn.Conv2d(4, 4, 1), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())).eval(), (MAP.float(),)
    )
    assert module is not None
    calls = [node for node in module.graph.nodes if node.op == "call_function"]
    assert [node.meta["module"] for node in calls] == ["0", "1.0", "1.1"]


class Plain(nn.Module):
    """A layer, and two calls in the model's own forward."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Any:
        return self.a(x).relu() + 1


@pytest.mark.parametrize("capture_", [record, lambda *given: exported(*given, open_batch=True)[0]])
def test_calls_of_the_models_own_forward_have_its_line(capture_: Callable[..., Any]) -> None:
    model = Plain().double().eval()
    line = Plain.forward.__code__.co_firstlineno + 1
    calls = [node for node in capture_(model, (MAP,)).graph.nodes if node.op == "call_function"]
    assert [node.meta["module"] for node in calls] == ["a", *[f"test_recording.py:{line}"] * 2]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((7, 7), 7), (BATCHES, -1), ((8, 4 * LARGE), -4), ((3, LARGE + 1), None), ((1, 1), 1), ((LARGE, 2), None)],
)
def test_sizes_follow_the_batch_by_their_values_at_two(sizes: tuple[int, int], expected: int | None) -> None:
    size = size_of(*sizes)
    assert size == expected if expected is not None else size < -(2**40)
    assert size_of(3, LARGE + 1) != size_of(4, LARGE + 2)
    assert math.isfinite(size)
