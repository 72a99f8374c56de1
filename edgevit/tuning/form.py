"""The contract of a form, which each file of forms/ fulfils."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch.fx import Node

from edgevit.folding.graph import Net


@dataclass(frozen=True)
class Form:
    """An exactly equal way to compute some nodes.

    name: in lower case with underscores. summary: what is written in place of what. nodes: returns the nodes that the
    form replaces where this node is their result, in order of execution and with this node as the last; None where it
    does not apply. No node but the last has a reader outside of them. write: adds the calls ahead of that node, and
    returns the one whose value takes its place. It reads no other values than these nodes do: their signature tells all
    that a measurement depends on.
    """

    name: str
    summary: str
    nodes: Callable[[Net, Node], tuple[Node, ...] | None]
    write: Callable[[Net, Node], Node]
