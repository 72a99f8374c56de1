"""Values narrowed to the type that a test expects of them, for static types that are wider."""

from __future__ import annotations

from typing import TypeVar

from torch.fx import Node

T = TypeVar("T")


def narrow(value: object, kind: type[T]) -> T:
    """Return the value; fail unless it is of that type."""
    assert isinstance(value, kind), f"expected {kind.__name__}, got {type(value).__name__}: {value!r:.200}"
    return value


def present(value: T | None) -> T:
    """Return the value of an optional; fail without one."""
    assert value is not None
    return value


def node_at(node: Node, index: int) -> Node:
    """Return the argument of a call that is itself a node; fail if it is a constant."""
    return narrow(node.args[index], Node)
