"""The arguments of one operation, and the types of operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor


class Arguments:
    """The values passed to one operation, by parameter name."""

    def __init__(self, values: Mapping[str, Sequence[Any]]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name][0]  # type: ignore[no-any-return]

    def get(self, name: str) -> Tensor | None:
        """Return a tensor, or None where the parameter is absent."""
        return self._values[name][0] if name in self._values else None

    def all(self, name: str) -> list[Tensor]:
        """Return every tensor of a parameter that takes several."""
        return list(self._values[name])

    def ints(self, name: str, default: Sequence[int] = ()) -> list[int]:
        """Return a vector of integers; a scalar is a vector of length 1."""
        return [int(v) for v in self._values[name][0].reshape(-1)] if name in self._values else list(default)

    def int(self, name: str, default: int = 0) -> int:
        """Return one integer."""
        return int(self._values[name][0]) if name in self._values else default

    def number(self, name: str, default: float = 0.0) -> float:
        """Return one number."""
        return float(self._values[name][0]) if name in self._values else default

    def text(self, name: str, default: str) -> str:
        """Return one word, such as a mode."""
        return str(self._values[name][0]) if name in self._values else default


Operator = Callable[[Arguments], Tensor | tuple[Tensor, ...]]
