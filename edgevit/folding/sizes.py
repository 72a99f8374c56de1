"""Sizes that watch what a model's own code asks of them.

A recording sees a few batch sizes. Whether the model would do something else at another one shows in what it asks of
its sizes: `batch == 3`, `batch % 4`, `min(batch, 100)`. A question that the recorded batches do not settle is noted.
So is a size that leaves what can be watched: as an index, in a text, as a key, or as a number to other libraries.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Batches up to this one are recorded themselves, so an answer that changes among them is seen.
_SETTLED = 2
# Floats of more digits than these round when they are multiplied.
_DIGITS = 2**20
_SHAPES = (Tensor.shape.__get__, Tensor.size)  # type: ignore[attr-defined]
_COUNTS = (Tensor.numel, Tensor.nelement, torch.numel)
# Numbers and texts that a tensor tells, whatever its sizes and wherever it lies.
_HARMLESS = frozenset(
    [
        "dim",
        "ndimension",
        "ndim",
        "element_size",
        "itemsize",
        "is_floating_point",
        "is_complex",
        "is_signed",
        "is_conj",
        "is_neg",
        "is_inference",
        "is_leaf",
        "requires_grad",
        "retains_grad",
        "output_nr",
        "is_cuda",
        "is_sparse",
        "is_quantized",
        "is_mkldnn",
        "is_nested",
        "type",
        "__hash__",
        "_version",
    ]
)


class BatchDecidesError(RuntimeError):
    """The model computes something else at another batch size, or takes no other."""


@dataclass
class Watch:
    """What a model asked of its sizes.

    has_doubts: a question that the recorded batches do not settle. has_escaped: a size left what can be watched.
    callers: the globals of functions that made an `int` of a size.
    """

    has_doubts: bool = False
    has_escaped: bool = False
    callers: list[dict[str, Any]] = field(default_factory=list)

    def escape(self) -> NoReturn:
        """Note that a size is no longer watched, and end the run."""
        self.has_escaped = True
        raise BatchDecidesError


class _Watched:
    """A number that is `times` the batch plus `offset`, and `number` at the present batch.

    One that follows the batch in another way is opaque: torch may compute with it, and no question to it is settled.
    """

    number: int | float
    times: Fraction
    offset: Fraction
    watch: Watch
    is_opaque: bool

    def __init__(self, number: float, line: tuple[Fraction, Fraction] | None, watch: Watch) -> None:
        self.number, self.watch, self.is_opaque = number, watch, line is None
        self.times, self.offset = line or (Fraction(0), Fraction(0))

    # ---- questions ----

    def _answer(self, ask: Callable[[Any, Any], bool], other: Any) -> Any:
        if self.is_opaque or _is_opaque(other):
            self.watch.escape()
        line = _line(other)
        if line is None:
            # An infinite float is above every size.
            return ask(self.number, other) if isinstance(other, float) else NotImplemented
        steepness = self.times - line[0]
        if steepness and (line[1] - self.offset) / steepness > _SETTLED:
            self.watch.has_doubts = True
        return ask(self.number, _plain(other))

    def __eq__(self, other: object) -> Any:
        return self._answer(operator.eq, other)

    def __ne__(self, other: object) -> Any:
        return self._answer(operator.ne, other)

    def __lt__(self, other: Any) -> Any:
        return self._answer(operator.lt, other)

    def __le__(self, other: Any) -> Any:
        return self._answer(operator.le, other)

    def __gt__(self, other: Any) -> Any:
        return self._answer(operator.gt, other)

    def __ge__(self, other: Any) -> Any:
        return self._answer(operator.ge, other)

    def __bool__(self) -> bool:
        return bool(self != 0)

    # ---- arithmetic ----

    def _made(self, number: Any, times: Fraction, offset: Fraction) -> Any:
        """Return a number that is watched while it depends on the batch and is exact."""
        if not times:
            return number
        if not all(_is_exact(part) for part in (times, offset)):
            return self._doubted(number)
        kind = WatchedSize if isinstance(number, int) else WatchedQuotient
        return kind(number, (times, offset), self.watch)

    def _doubted(self, number: Any) -> Any:
        """Return a number that follows the batch in a way of its own."""
        self.watch.has_doubts = True
        return (WatchedSize if isinstance(number, int) else WatchedQuotient)(number, None, self.watch)

    def _computed(self, compute: Callable[[Any, Any], Any], first: Any, second: Any) -> Any:
        """Return what comes of two numbers, opaque; NotImplemented for anything else than numbers."""
        numbers = [_plain(first), _plain(second)]
        is_number = all(isinstance(number, (int, float)) for number in numbers)
        return self._doubted(compute(*numbers)) if is_number else NotImplemented

    def _linear(self, compute: Callable[[Any, Any], Any], first: Any, second: Any) -> Any:
        """Return a sum, a difference or a product."""
        line, other = _line(first), _line(second)
        if line is None or other is None:
            return self._computed(compute, first, second)
        number = compute(_plain(first), _plain(second))
        (times, offset), (other_times, other_offset) = line, other
        if compute is not operator.mul:
            return self._made(number, compute(times, other_times), compute(offset, other_offset))
        if times and other_times:
            return self._doubted(number)
        return self._made(number, times * other_offset + other_times * offset, offset * other_offset)

    def __add__(self, other: Any) -> Any:
        return self._linear(operator.add, self, other)

    def __radd__(self, other: Any) -> Any:
        return self._linear(operator.add, other, self)

    def __sub__(self, other: Any) -> Any:
        return self._linear(operator.sub, self, other)

    def __rsub__(self, other: Any) -> Any:
        return self._linear(operator.sub, other, self)

    def __mul__(self, other: Any) -> Any:
        return self._linear(operator.mul, self, other)

    def __rmul__(self, other: Any) -> Any:
        return self._linear(operator.mul, other, self)

    def __neg__(self) -> Any:
        return self * -1

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return self._doubted(abs(self.number)) if self.is_opaque else self if self >= 0 else -self

    def __truediv__(self, other: Any) -> Any:
        line = _line(other)
        if line is None or self.is_opaque:
            return self._computed(operator.truediv, self, other)
        number = self.number / _plain(other)
        if not line[0]:
            return self._made(number, self.times / line[1], self.offset / line[1])
        # The same quotient at every batch, if both are multiples of it.
        return number if not self.offset and not line[1] else self._doubted(number)

    def __floordiv__(self, other: Any) -> Any:
        line = _line(other)
        if line is None or self.is_opaque:
            return self._computed(operator.floordiv, self, other)
        number = self.number // _plain(other)
        if not line[0] and (self.times / line[1]).denominator == 1:
            return self._made(number, self.times / line[1], Fraction(math.floor(self.offset / line[1])))
        return number if line[0] and not self.offset and not line[1] else self._doubted(number)

    def __mod__(self, other: Any) -> Any:
        line = _line(other)
        if line is None or self.is_opaque:
            return self._computed(operator.mod, self, other)
        number = self.number % _plain(other)
        # What does not follow the batch is left, if the divisor divides what does.
        divisor = line[0] or line[1]
        is_settled = (self.times / divisor).denominator == 1 and not (line[0] and (line[1] or self.offset))
        return number if is_settled else self._doubted(number)

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def __trunc__(self) -> Any:
        """Return the whole number, as int(), floor(), ceil() and round() do."""
        if self.times.denominator == self.offset.denominator == 1 and not self.is_opaque:
            return self._made(int(self.number), self.times, self.offset)
        return self._doubted(math.trunc(self.number))

    def __floor__(self) -> Any:
        number = math.floor(self.number)
        if self.times.denominator > 1 or self.is_opaque:
            return self._doubted(number)
        return self._made(number, self.times, Fraction(math.floor(self.offset)))

    def __ceil__(self) -> Any:
        return -(-self).__floor__()

    def __round__(self, digits: int | None = None) -> Any:
        is_whole = digits is None and self.times.denominator == self.offset.denominator == 1 and not self.is_opaque
        return self.__trunc__() if is_whole else self._doubted(round(self.number, digits))

    # ---- what cannot be watched ----

    def __int__(self) -> int:
        caller = sys._getframe(1).f_globals
        self.watch.has_escaped = True
        if not any(caller is other for other in self.watch.callers):
            self.watch.callers.append(caller)
        return int(self.number)

    def __index__(self) -> int:
        self.watch.escape()

    def __float__(self) -> float:
        self.watch.escape()

    def __complex__(self) -> complex:
        self.watch.escape()

    def __hash__(self) -> int:
        self.watch.has_escaped = True
        return hash(self.number)

    def __repr__(self) -> str:
        self.watch.has_escaped = True
        return repr(self.number)

    __str__ = __repr__

    def __format__(self, form: str) -> str:
        self.watch.has_escaped = True
        return format(self.number, form)

    def __copy__(self) -> Any:
        return self

    def __deepcopy__(self, _: Any) -> Any:
        return self

    def __getattr__(self, name: str) -> Any:
        # Protocols that a size does not have, such as that of arrays.
        if name.startswith("__"):
            raise AttributeError(name)
        self.watch.escape()


def _doubtful(name: str) -> Callable[..., Any]:
    """Return an operator whose result is not watched."""
    compute = getattr(operator, f"__{name}__")

    def method(self: _Watched, *others: Any) -> Any:
        return self._computed(compute, self, *others) if others else self._doubted(compute(self.number))

    return method


def _mirrored(name: str) -> Callable[..., Any]:
    compute = getattr(operator, f"__{name}__")

    def method(self: _Watched, other: Any) -> Any:
        return self._computed(compute, other, self)

    return method


for _name in ("pow", "and", "or", "xor", "lshift", "rshift", "invert"):
    setattr(_Watched, f"__{_name}__", _doubtful(_name))
for _name in ("pow", "and", "or", "xor", "lshift", "rshift", "truediv", "floordiv", "mod"):
    setattr(_Watched, f"__r{_name}__", _mirrored(_name))


class WatchedSize(_Watched, torch.SymInt):
    """A size. torch takes it for one of its symbols, so it reaches the mode unread; Python takes it for an int."""

    __class__ = property(lambda self: int)


class WatchedQuotient(_Watched, torch.SymFloat):
    """A quotient of a size."""

    __class__ = property(lambda self: float)


def _line(value: Any) -> tuple[Fraction, Fraction] | None:
    """Return how often a number has the batch, and what is added; None for other values, and where it is opaque."""
    if isinstance(value, _Watched):
        return None if value.is_opaque else (value.times, value.offset)
    is_number = isinstance(value, (int, float)) and math.isfinite(value)
    return (Fraction(0), Fraction(value)) if is_number else None


def _is_opaque(value: Any) -> bool:
    return isinstance(value, _Watched) and value.is_opaque


def _plain(value: Any) -> Any:
    return value.number if isinstance(value, _Watched) else value


def _is_exact(part: Fraction) -> bool:
    """Return whether floats multiply and add this without rounding: a whole number over a power of two."""
    return part.denominator <= _DIGITS and not part.denominator & (part.denominator - 1) and abs(part) <= _DIGITS**2


def without_watch(value: Any) -> Any:
    """Return an argument with plain numbers in place of watched ones."""
    if isinstance(value, _Watched):
        return value.number
    if type(value) in (list, tuple, torch.Size):
        return type(value)([without_watch(part) for part in value])
    if type(value) is dict:
        return {key: without_watch(part) for key, part in value.items()}
    if type(value) is slice:
        return slice(*map(without_watch, (value.start, value.stop, value.step)))
    return value


# ---- the mode ----


class WatchedSizes(TorchFunctionMode):
    """A mode in which tensors have watched sizes where these depend on the batch.

    settled: returns a tensor's shapes at batches of two and one; None where they are unknown. is_told: whether the
    model may have seen that there is no data.
    """

    def __init__(self, batch: int, settled: Callable[[Tensor], Sequence[Sequence[int]] | None]) -> None:
        super().__init__()
        self.watch, self.is_told = Watch(), False
        self._batch, self._settled = batch, settled

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function on plain numbers; note where it fails, because the model may catch that."""
        is_settled = False
        try:
            args, kwargs = without_watch(args), without_watch(kwargs or {})
            result = func(*args, **kwargs)
            if func in _SHAPES or func in _COUNTS:
                result, is_settled = self._watched(args[0], result, *args[1:], *kwargs.values()), True
            else:
                is_settled = _name_of(func) in _HARMLESS or not _tells(result)
        finally:
            self.is_told |= not is_settled
        return result

    def _watched(self, tensor: Tensor, result: Any, *axis: int) -> Any:
        settled = self._settled(tensor)
        if settled is None:
            self.is_told = True
            return result
        if isinstance(result, torch.Size):
            return torch.Size([self._size(others, size) for *others, size in zip(*settled, result, strict=True)])
        return self._size([shape[axis[0]] if axis else math.prod(shape) for shape in settled], result)

    def _size(self, others: Sequence[int], size: int) -> Any:
        """Return a size that follows the batch as a watched one."""
        at_two, at_one = others
        if at_one == at_two == size:
            return size
        times = Fraction(size - at_two, self._batch - 2)
        if times + at_one != at_two:
            self.watch.has_doubts = True
            return WatchedSize(size, None, self.watch)
        return WatchedSize(size, (times, at_two - 2 * times), self.watch)


def _name_of(func: Any) -> str:
    name = getattr(func, "__name__", "")
    # An attribute's function is the `__get__` of the attribute.
    return str(func.__self__.__name__) if name == "__get__" else str(name)


def _tells(result: Any) -> bool:
    """Return whether a function's result is a number, a text or memory, in which sizes may hide."""
    parts = result if type(result) in (list, tuple, torch.Size) else [result]
    return any(isinstance(part, (int, float, complex, str, torch.UntypedStorage, torch.TypedStorage)) for part in parts)
