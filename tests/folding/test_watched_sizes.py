"""A model that decides by its batch never folds with an open batch, however it asks; arithmetic of sizes still does."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgevit.errors import ModelError
from edgevit.folding import fold
from edgevit.folding.recording import record
from edgevit.folding.sizes import WatchedSize
from support.nets import Toy, assert_same, image, ready

MAP = image(2, 4, 6, 6)
IMAGE_NUMBERS = 144
Asks = Callable[[Tensor], Any]


def five_differ(x: Tensor) -> Tensor:
    return x + 1 if x.size(0) == 5 else x


@functools.lru_cache
def cached(batch: int) -> bool:
    return batch == 5


class Doubling(torch.autograd.Function):
    """A function with a gradient of its own, which decides by the batch."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2 if x.shape[0] == 5 else x * 3


def matched(batch: int) -> bool:
    match batch:
        case 5:
            return True
    return False


def found(values: Any, batch: int) -> bool:
    try:
        return bool(values[batch])
    except (LookupError, TypeError):
        return False


# Each is true at a batch of five, or at another one that is not recorded.
QUESTIONS: dict[str, Asks] = {
    "an int": lambda x: int(x.shape[0]) == 5,
    "a type": lambda x: type(x.shape[0]) is int and x.shape[0] == 5,
    "a type that is equal": lambda x: type(x.shape[0]) == int and x.shape[0] == 5,  # noqa: E721
    "a type among several": lambda x: type(x.shape[0] / 2) in (float, str) and x.shape[0] / 2 == 2.5,
    "a type beside an int": lambda x: type(x.shape[0]) is int and int(x.shape[0]) == 5,
    "an int of a quotient": lambda x: int(x.shape[0] / 2) == 2,
    "ints of a map": lambda x: next(iter(map(int, x.shape))) == 5,
    "the length of a range": lambda x: len(range(x.shape[0])) == 5,
    "the length of a list": lambda x: len([0] * x.shape[0]) == 5,
    "the length of a text": lambda x: len("x" * x.shape[0]) == 5,
    "the number of a shape": lambda x: x.shape.numel() == 5 * IMAGE_NUMBERS,
    "the product of a shape": lambda x: math.prod(x.shape) == 5 * IMAGE_NUMBERS,
    "numpy's product of a shape": lambda x: np.prod(x.shape) == 5 * IMAGE_NUMBERS,
    "an array of a shape": lambda x: bool(np.array(x.shape)[0] == 5),
    "a number of numpy": lambda x: np.int64(5) == x.shape[0],
    "numpy's square root": lambda x: np.sqrt(x.shape[0]) > 300,
    "torch's numel": lambda x: torch.numel(x) == 5 * IMAGE_NUMBERS,
    "bytes": lambda x: x.nbytes == 5 * IMAGE_NUMBERS * 8,
    "bytes of its memory": lambda x: x.untyped_storage().nbytes() == 5 * IMAGE_NUMBERS * 8,
    "strides": lambda x: x.transpose(0, 1).contiguous().stride(0) == 5 * 36,
    "the sizes of another tensor": lambda x: torch.is_same_size(x, torch.empty(5, 4, 6, 6)),
    "a size by its operator": lambda x: torch.ops.aten.sym_size.int(x, 0) == 5,
    "a square root": lambda x: math.sqrt(x.shape[0]) == math.sqrt(5),
    "a whole square root": lambda x: math.isqrt(x.shape[0]) == 300,
    "a logarithm": lambda x: math.log2(x.shape[0]) > 17,
    "a power": lambda x: x.shape[0] ** 2 == 25,
    "a power of two": lambda x: 2 ** min(x.shape[0], 6) == 32,
    "a square": lambda x: x.shape[0] * x.shape[0] == 25,
    "a common divisor": lambda x: math.gcd(x.shape[0], 5) == 5,
    "an upper bound": lambda x: math.ceil(x.shape[0] / 4) == 2,
    "a lower bound": lambda x: math.floor(x.shape[0] / 2) == 2,
    "a round number": lambda x: round(x.shape[0] / 4) == 1,
    "a truncated number": lambda x: math.trunc(x.shape[0] / 2) == 2,
    "a whole number of a float": lambda x: (x.shape[0] / 5).is_integer(),
    "a float": lambda x: float(x.shape[0]) == 5.0,
    "a float by multiplication": lambda x: x.shape[0] * 0.2 == 1.0,
    "a float divided": lambda x: x.shape[0] / 5 == 1.0,
    "a float divided and back": lambda x: int(x.shape[0] / 49 * 49) != x.shape[0],
    "a float multiplied and back": lambda x: x.shape[0] * 0.1 * 10 != x.shape[0],
    "a reciprocal and back": lambda x: 1 / x.shape[0] * x.shape[0] != 1,
    "a quotient of an own number": lambda x: 10 / x.shape[0] == 2.0,
    "a whole quotient of an own number": lambda x: 10 // x.shape[0] == 2 and x.shape[0] != 4,
    "a remainder of an own number": lambda x: 15 % x.shape[0] == 0 and x.shape[0] > 3,
    "quotient and remainder": lambda x: divmod(x.shape[0], 2) == (2, 1),
    "the index of a list": lambda x: found([0, 0, 0, 0, 0, 1], x.shape[0]),
    "the index of a tuple, by a method": lambda x: found((0, 0, 0, 0, 0, 1), operator.index(x.shape[0])),
    "the key of a dictionary": lambda x: {5: True}.get(x.shape[0], False),
    "the key of a shape": lambda x: tuple(x.shape[:2]) in {(5, 4): True},
    "an element of a set": lambda x: x.shape[0] in {5, 7},
    "an element of a tuple": lambda x: x.shape[0] in (5, 7),
    "an element of a range": lambda x: x.shape[0] in range(5, 6),
    "a cached function": lambda x: cached(x.shape[0]),
    "a text": lambda x: str(x.shape[0]) == "5",
    "a formatted text": lambda x: f"{x.shape[0]:03d}" == "005",
    "a text by percent": lambda x: "%d" % x.shape[0] == "5",  # noqa: UP031
    "the text of a shape": lambda x: "5" in str(x.shape),
    "the text of a tensor": lambda x: "(5" in str(x),
    "a hexadecimal text": lambda x: hex(x.shape[0]) == "0x5",
    "the tuple of a shape": lambda x: tuple(x.shape) == (5, 4, 6, 6),
    "a shape": lambda x: x.shape == torch.Size((5, 4, 6, 6)),
    "a part of a shape": lambda x: x.shape[:2] == (5, 4),
    "the largest size": lambda x: max(x.shape) == 7,
    "the sum of sizes": lambda x: sum(x.shape) == 21,
    "sorted sizes": lambda x: sorted(x.shape)[-1] == 7,
    "the place in a shape": lambda x: x.shape.count(6) == 3,
    "a pattern": lambda x: matched(x.shape[0]),
    "a bit": lambda x: bool(x.shape[0] & 4),
    "bits": lambda x: x.shape[0].bit_length() == 3,
    "bits together": lambda x: x.shape[0] | 1 == 5,
    "an exclusive bit": lambda x: x.shape[0] ^ 5 == 0,
    "the complement": lambda x: ~x.shape[0] == -6,
    "shifted bits": lambda x: x.shape[0] << 1 == 10,
    "a negative size": lambda x: -x.shape[0] == -5,
    "a fraction": lambda x: Fraction(5, 1) == x.shape[0],
    "the length of a tensor": lambda x: len(x) == 5,
    "the number of parts": lambda x: len(x.unbind(0)) == 5,
    "the number of large parts": lambda x: len(torch.split(x, 4)) == 2,
    "the size of the first part": lambda x: x[:100].shape[0] == 5,
    "every other image": lambda x: x[::2].shape[0] == 3,
    "whole groups of four": lambda x: 4 * x[::4].shape[0] == x.shape[0],
    "one image more": lambda x: torch.cat((x, x[:1])).shape[0] == 6,
    "one image less": lambda x: x[1:].shape[0] == 4,
    "pairs of images": lambda x: torch.combinations(x[:, 0, 0, 0]).shape[0] == 10,
    "a size of bytes": lambda x: len(bytes(x.shape[0])) == 5,
    "the smaller of two": lambda x: torch.sym_min(x.shape[0], 7) == 5,  # type: ignore[no-untyped-call]
    "whether it is one of a list": lambda x: any(x.shape[0] == n for n in (5, 7)),
    "its own method": lambda x: x.shape[0].__eq__(5),
    "an operator": lambda x: operator.eq(x.size(dim=0), 5),
    "a size among all": lambda x: list(x.size()) == [5, 4, 6, 6],
    "a size less itself": lambda x: x.shape[0] - 5 == 0,
    "a sum that is not zero": lambda x: bool(x.shape[0] - 5),
}


# torch.export captures none of these, at one batch size either.
REFUSED = ("bytes of its memory", "pairs of images")


def network(compute: Callable[[Any, Tensor], Any]) -> nn.Module:
    return ready(Toy(compute, a=nn.Conv2d(4, 4, 1), b=nn.Conv2d(4, 4, 3, padding=1)))


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_batch_that_decides_is_not_open_however_the_model_asks(name: str) -> None:
    asks = QUESTIONS[name]
    model = network(lambda net, x: net.a(x) if asks(x) else net.b(x))
    if name in REFUSED:
        with pytest.raises(ModelError, match="cannot be captured"):
            fold(model, (MAP,))
        return
    folded = fold(model, (MAP,))
    assert not folded.report.batch_is_open
    assert_same(model, folded, [MAP])


def test_the_number_of_parts_that_nothing_reads_is_seen() -> None:
    def compute(net: Any, x: Tensor) -> Any:
        y = net.a(x)
        return net.b(y) if len(torch.split(x, 4)) == 2 else y

    folded = fold(network(compute), (MAP,))
    assert not folded.report.batch_is_open


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@pytest.mark.parametrize("kind", ["TorchScript", "an own gradient"])
def test_a_batch_that_decides_in_other_code_is_not_open(kind: str) -> None:
    compute: Any = torch.jit.script(five_differ) if kind == "TorchScript" else Doubling.apply
    model = network(lambda net, x: net.a(compute(x)))
    folded = fold(model, (MAP,))
    assert not folded.report.batch_is_open
    assert_same(model, folded, [MAP])


@pytest.mark.parametrize("name", ["a text", "a formatted text", "the text of a shape", "the text of a tensor"])
def test_a_text_of_a_size_is_seen_where_torch_exports(name: str) -> None:
    """A tensor of no module keeps the model from being recorded, and texts of torch's symbols say nothing."""
    asks, unregistered = QUESTIONS[name], torch.full((4, 1, 1), 2.0, dtype=torch.float64)
    model = network(lambda net, x: (net.a if asks(x) else net.b)(x * unregistered))
    folded = fold(model, (MAP,))
    assert not folded.report.batch_is_open
    assert_same(model, folded, [MAP])


def windows_by_their_number(net: Any, x: Tensor) -> Any:
    """The reverse of windows as Swin's authors wrote it."""
    parts = net.a(x).view(x.shape[0], 4, 2, 3, 2, 3).permute(0, 2, 4, 1, 3, 5).reshape(-1, 4, 3, 3)
    batch = int(parts.shape[0] / (6 * 6 / 3 / 3))
    return parts.view(batch, 2, 2, 4, 3, 3).permute(0, 3, 1, 4, 2, 5).reshape(batch, 4, 6, 6)


def whole_numbers(net: Any, x: Tensor) -> Any:
    batch, rows = int(x.shape[0]), math.ceil(x.numel() / 48)
    assert isinstance(batch, int) and isinstance(x.shape[0], (int, float))
    assert batch * 3 == rows and round(x.shape[0] / 1.0) == batch and rows // batch == 3 and -batch < 0
    assert (batch + 1) - 1 == batch and batch + 5 > batch and abs(batch) == batch and batch < math.inf and batch
    assert divmod(rows, 3) == (batch, 0) and (4 * batch + 1) % 4 == 1 and rows / batch == 3 and batch / 2 > 0
    return net.a(x).reshape(batch, -1)


@pytest.mark.parametrize("compute", [windows_by_their_number, whole_numbers])
def test_whole_numbers_of_sizes_leave_the_batch_open(compute: Callable[[Any, Tensor], Any]) -> None:
    model = network(compute)
    assert record(model, (MAP,)) is not None
    folded = fold(model, (MAP,))
    assert folded.report.batch_is_open
    assert_same(model, folded, [image(5, 4, 6, 6)])


def test_functions_have_their_own_int_and_type_again() -> None:
    record(network(windows_by_their_number), (MAP,))
    assert "int" not in globals() and "type" not in globals()


def kinds_of_classes(net: Any, x: Tensor) -> Any:
    batch, own = int(x.shape[0]), 3
    kinds: list[Any] = [type(each) for each in (own, batch, batch / 2, net, own > 2)]
    assert all(kind is expected for kind, expected in zip(kinds, (int, int, float, Toy, bool), strict=True))
    assert isinstance(Toy, type) and not isinstance(net, type)
    made: Any = type("Made", (), {"size": 1})
    assert made().size == 1 and type.__name__ == "type" and isinstance(type.__new__(type, "Other", (), {}), type)
    return net.a(x).reshape(batch, -1)


def test_a_model_that_asks_for_types_stays_open() -> None:
    folded = fold(network(kinds_of_classes), (MAP,))
    assert folded.report.batch_is_open


def test_a_size_is_an_int_to_the_model() -> None:
    kinds: list[Any] = []
    record(network(lambda net, x: kinds.append(x.shape[0]) or net.a(x)), (MAP,))  # type: ignore[func-returns-value]
    assert type(kinds[-1]) is WatchedSize and all(isinstance(size, int) for size in kinds)
