"""Sizes that watch what a model's own code asks of them.

A recording sees a few batch sizes. Whether the model would do something else at another one shows in what it asks of
its sizes: `batch == 3`, `batch % 4`, `min(batch, 100)`. A question that the recorded batches do not settle is noted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Batches up to this one are recorded themselves, so an answer that changes among them is seen.
_SETTLED = 2
_SHAPES = (Tensor.shape.__get__, Tensor.size)  # type: ignore[attr-defined]
_COUNTS = (Tensor.numel, Tensor.nelement)
# What tells a tensor without data, which lies in memory in the common way, from one with data.
_TELLING = (
    Tensor.__len__,
    Tensor.data_ptr,
    Tensor.stride,
    Tensor.is_contiguous,
    Tensor.get_device,
    Tensor.is_cpu.__get__,  # type: ignore[attr-defined]
    Tensor.is_meta.__get__,  # type: ignore[attr-defined]
)


class _WatchedSize(int):
    """A size that is `times` the batch. Where the batch might decide, it says so to `doubt`."""

    times: int
    doubt: Callable[[], None]

    def __new__(cls, times: int, batch: int, doubt: Callable[[], None]) -> _WatchedSize:
        size = super().__new__(cls, times * batch)
        size.times, size.doubt = times, doubt
        return size

    def _like(self, times: int) -> _WatchedSize:
        return _WatchedSize(times, int(self) // self.times, self.doubt)

    def _times_of(self, other: Any) -> int | None:
        """Return how many times the batch another number is; None for one that does not depend on it."""
        if isinstance(other, _WatchedSize):
            return other.times
        batch = int(self) // self.times
        return other // batch if isinstance(other, int) and other > 0 and other % batch == 0 else None

    def _compared(self, other: Any, answer: Any) -> Any:
        if isinstance(other, (int, float)) and self._times_of(other) is None and other > _SETTLED * self.times:
            self.doubt()
        return answer

    def __eq__(self, other: object) -> Any:
        return self._compared(other, int.__eq__(self, other))

    def __ne__(self, other: object) -> Any:
        return self._compared(other, int.__ne__(self, other))

    def __lt__(self, other: Any) -> Any:
        return self._compared(other, int.__lt__(self, other))

    def __le__(self, other: Any) -> Any:
        return self._compared(other, int.__le__(self, other))

    def __gt__(self, other: Any) -> Any:
        return self._compared(other, int.__gt__(self, other))

    def __ge__(self, other: Any) -> Any:
        return self._compared(other, int.__ge__(self, other))

    def __hash__(self) -> int:
        return int.__hash__(self)

    def __mul__(self, other: Any) -> Any:
        if type(other) is int and other > 0:
            return self._like(self.times * other)
        return int.__mul__(self, other)

    __rmul__ = __mul__

    def __add__(self, other: Any) -> Any:
        if isinstance(other, _WatchedSize):
            return self._like(self.times + other.times)
        return self._moved(other, int.__add__(self, other))

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self._moved(other, int.__sub__(self, other))

    def __rsub__(self, other: Any) -> Any:
        # 0 less a size is no size.
        if isinstance(other, int):
            self.doubt()
        return int.__rsub__(self, other)

    def _moved(self, other: Any, answer: Any) -> Any:
        """Return a sum. It is not watched any more, so a question to it would be missed."""
        if answer is NotImplemented:
            # A tensor adds itself.
            return answer
        if other == 0:
            return self
        self.doubt()
        return answer

    def __truediv__(self, other: Any) -> Any:
        if not isinstance(other, (int, float)):
            return NotImplemented
        divisor = self._times_of(other) or other
        if not divisor or self.times % divisor:
            self.doubt()
        return int(self) / other

    def __floordiv__(self, other: Any) -> Any:
        if type(other) is int and other > 0 and self.times % other == 0:
            return self._like(self.times // other)
        return self._remainder_aside(other, int.__floordiv__(self, other))

    def __mod__(self, other: Any) -> Any:
        return self._remainder_aside(other, int.__mod__(self, other))

    def __divmod__(self, other: Any) -> Any:
        return self // other, self % other

    def _remainder_aside(self, other: Any, answer: Any) -> Any:
        """Return the answer to a division, which holds for every batch if the rest is always 0."""
        divisor = self._times_of(other)
        always_whole = isinstance(other, int) and other and self.times % (divisor or other) == 0
        if not always_whole:
            self.doubt()
        return answer

    def __and__(self, other: Any) -> Any:
        self.doubt()
        return int.__and__(self, other)

    def __rshift__(self, other: Any) -> Any:
        self.doubt()
        return int.__rshift__(self, other)


class WatchedSizes(TorchFunctionMode):
    """A mode in which tensors have watched sizes where these are multiples of the batch.

    has_doubts: whether the model may do something else at another batch. is_told: whether it may have seen that there
    is no data.
    """

    def __init__(self, batch: int) -> None:
        super().__init__()
        self._batch, self.has_doubts, self.is_told = batch, False, False

    def _doubt(self) -> None:
        self.has_doubts = True

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the function; note where it fails, because the model may catch that."""
        is_settled = False
        try:
            result = func(*args, **(kwargs or {}))
            is_settled = func not in _TELLING
        finally:
            self.is_told |= not is_settled
        if func in _SHAPES or func in _COUNTS:
            return self._watched(result)
        return result

    def _watched(self, result: Any) -> Any:
        if isinstance(result, torch.Size):
            return torch.Size([self._watched(size) for size in result])
        is_multiple = result > 0 and result % self._batch == 0
        return _WatchedSize(result // self._batch, self._batch, self._doubt) if is_multiple else result
