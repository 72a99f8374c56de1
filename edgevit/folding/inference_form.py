"""fold: a trained network -> its inference form, by exact rewrites until none applies.

The engine knows operators, not architectures: it captures any module as a graph (capture.py), applies the rewrites
(rewrites/), and lists what had to stay and why. A module that must not be folded yet says so through a method
`fold_obstacle() -> str | None`; that is the whole protocol between models and this engine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgevit.errors import FoldError, ModelError
from edgevit.folding.capture import capture
from edgevit.folding.graph import Net, origin
from edgevit.folding.rewrites import REWRITES
from edgevit.folding.rewrites.affine import is_norm, why_norm_stays
from edgevit.folding.rewrites.branches import why_branches_stay


@dataclass(frozen=True)
class Left:
    """What looked foldable and is not: a norm, or branches of a sum. Where it is and why."""

    what: Literal["norm", "branches"]
    where: str
    why: str


@dataclass(frozen=True)
class FoldReport:
    """What a fold did: how often each rewrite applied, what stayed, and whether any batch size is taken."""

    rewrites: dict[str, int]
    left: tuple[Left, ...]
    batch_is_open: bool

    @property
    def summary(self) -> str:
        """One line: how many rewrites, how much is left."""
        stayed = f"{len(self.left)} left" if self.left else "nothing left"
        return f"{sum(self.rewrites.values())} rewrites of {len(self.rewrites)} kinds, {stayed}"


class Folded(nn.Module):
    """A network in inference form. It takes inputs of the size it was folded at, and no gradient is meant for it."""

    def __init__(self, net: GraphModule, shapes: tuple[tuple[int, ...], ...], report: FoldReport) -> None:
        super().__init__()
        self.net, self.shapes, self.report = net, shapes, report
        self.eval()

    @property
    def smallest_side(self) -> int | None:
        """Pixels on the shorter side of the smallest feature map (B, C, H, W) that still is one; None without any."""
        values = (node.meta.get("val") for node in self.net.graph.nodes if node.op == "call_function")
        shapes = (value.shape for value in values if isinstance(value, Tensor) and value.dim() == 4)
        return min((min(int(shape[2]), int(shape[3])) for shape in shapes if min(shape[2:]) > 1), default=None)

    def forward(self, *inputs: Tensor) -> Any:
        """Compute. Raises ModelError for a size other than the folded one: some folds hold at one size only."""
        if len(inputs) != len(self.shapes):
            raise ModelError(f"folded for {len(self.shapes)} inputs, given {len(inputs)}")
        for given, shape in zip(inputs, self.shapes, strict=True):
            fits = len(given.shape) == len(shape)
            if not fits or any(want not in (-1, have) for have, want in zip(given.shape, shape, strict=True)):
                raise ModelError(f"folded for inputs of {shape}, given {tuple(given.shape)}", fix="fold at that size")
        return self.net(*inputs)


def fold(
    model: nn.Module,
    inputs: Sequence[Tensor] | None = None,
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> Folded:
    """Fold a model in eval mode; the model itself is not touched.

    inputs: example inputs that fix the sizes (not the batch, where the model leaves it open); a model of the zoo has
    its own. memory_format: layout of 4-D weights; contiguous by default, because exporters and engines on CPU expect
    it and a merged 1x1 kernel otherwise inherits whatever strides its matrix product left.
    Raises FoldError in training mode or where a module names an obstacle, ModelError if it cannot be captured.
    """
    check_foldable(model)
    net = capture(model, tuple(inputs) if inputs is not None else example_inputs(model))
    applied = apply_rewrites(net)
    left = tuple(_left(net))
    shapes = tuple(net.shape(node) for node in net.graph.find_nodes(op="placeholder"))
    return Folded(net.finish(memory_format), shapes, FoldReport(applied, left, net.batch_is_open))


def _left(net: Net) -> Iterator[Left]:
    for node in net.nodes():
        if is_norm(node):
            yield Left("norm", origin(node), why_norm_stays(net, node))
        elif (why := why_branches_stay(net, node)) is not None:
            yield Left("branches", origin(node), why)


def check_foldable(model: nn.Module) -> None:
    """Raise FoldError where folding would change the function: training mode, or an obstacle a module names."""
    for name, module in model.named_modules():
        where = name or type(model).__name__
        if module.training:
            raise FoldError(
                "the model is in training mode", where=where, why="its norms use the batch", fix="model.eval()"
            )
        obstacle = module.fold_obstacle() if hasattr(module, "fold_obstacle") else None
        if obstacle:
            raise FoldError("the model cannot be folded yet", where=where, why=str(obstacle))


def example_inputs(model: nn.Module, batch: int = 1) -> tuple[Tensor, ...]:
    """Zeros of the sizes on the model's card. Raises FoldError for a model without a card."""
    card = getattr(model, "card", None)
    if card is None:
        raise FoldError(
            f"{type(model).__name__} does not say what it takes",
            fix="fold(model, (torch.zeros(1, 3, 224, 224),)), or --input-size on the command line",
        )
    like = next(model.parameters())
    specs = [spec.at_batch(batch) for spec in card.inputs]
    return tuple(torch.zeros(spec.shape, dtype=like.dtype, device=like.device) for spec in specs)


def apply_rewrites(net: Net) -> dict[str, int]:
    """Apply every rewrite wherever it applies until none does; how often each did."""
    net.graph.eliminate_dead_code()  # a reader that nobody reads must not hold a rewrite back
    applied: Counter[str] = Counter()
    changed = True
    while changed:
        changed = False
        for rewrite in REWRITES:
            for node in net.nodes():
                if node.op == "call_function" and not node._erased and rewrite.apply(net, node):
                    applied[rewrite.says] += 1
                    changed = True
    return dict(applied)
