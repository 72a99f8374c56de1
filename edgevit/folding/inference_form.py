"""The inference form of a trained network, reached by exact rewrites until none applies.

The engine knows operators, not architectures. It captures any module as a graph (capture.py), applies the rewrites
(rewrites/), and lists what had to stay, with the reasons. A module that must not be folded yet has a method
`fold_obstacle() -> str | None`. That is the whole protocol between models and this engine.
"""

from __future__ import annotations

import gc
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgevit.errors import FoldError, ModelError
from edgevit.folding.capture import capture
from edgevit.folding.check import agrees_in_float64, check_fold
from edgevit.folding.graph import Net, origin
from edgevit.folding.model_code import FAILURES, ModelCode, first_line
from edgevit.folding.plain_modules import require_plain
from edgevit.folding.restoration import State, unchanged
from edgevit.folding.rewrites import REWRITES
from edgevit.folding.rewrites.affine import is_norm, why_norm_stays
from edgevit.folding.rewrites.branches import why_branches_stay
from edgevit.folding.values import VALUE

# Warnings of torch.export about what the capture has right: a cache that is filled, a constant computed of weights.
_ABOUT_CACHES = (
    "The tensor attributes? .* assigned during export",
    "A model attribute .* requires gradient",
    "The .grad attribute of a Tensor that is not a leaf",
)


@dataclass(frozen=True)
class Unfolded:
    """A norm, or branches of a sum, that had to stay: its module, or FILE.py:LINE of the model's forward; why."""

    kind: Literal["norm", "branches"]
    module: str
    reason: str


@dataclass(frozen=True)
class FoldReport:
    """The result of a fold: applications of each rewrite, what had to stay, and whether it takes any batch size."""

    rewrites: dict[str, int]
    unfolded: tuple[Unfolded, ...]
    batch_is_open: bool

    @property
    def summary(self) -> str:
        """`88 rewrites of 7 kinds, nothing left`."""
        remainder = f"{len(self.unfolded)} left" if self.unfolded else "nothing left"
        return f"{sum(self.rewrites.values())} rewrites of {len(self.rewrites)} kinds, {remainder}"


class Folded(nn.Module):
    """A network in inference form, for inputs of the size it was folded at; it is not made for gradients."""

    def __init__(
        self, net: GraphModule, shapes: tuple[tuple[int, ...], ...], report: FoldReport, *, follows_dtype: bool = True
    ) -> None:
        """Wrap a graph. follows_dtype: it names no floating dtype, so it computes in that of its weights and inputs."""
        super().__init__()
        self.net, self.shapes, self.report, self.follows_dtype = net, shapes, report, follows_dtype
        self.eval()

    @property
    def smallest_side(self) -> int | None:
        """Pixels on the shorter side of the smallest feature map (B, C, H, W) above 1 x 1; None without any."""
        values = (node.meta.get(VALUE) for node in self.net.graph.nodes if node.op == "call_function")
        shapes = (value.shape for value in values if isinstance(value, Tensor) and value.dim() == 4)
        return min((min(int(shape[2]), int(shape[3])) for shape in shapes if min(shape[2:]) > 1), default=None)

    def forward(self, *inputs: Tensor) -> Any:
        """Compute the outputs. Raises ModelError for another size: some folds hold at one size only."""
        if len(inputs) != len(self.shapes):
            raise ModelError(f"folded for {len(self.shapes)} inputs, given {len(inputs)}")
        for tensor, shape in zip(inputs, self.shapes, strict=True):
            same_rank = len(tensor.shape) == len(shape)
            if not same_rank or any(want not in (-1, have) for have, want in zip(tensor.shape, shape, strict=True)):
                raise ModelError(f"folded for inputs of {shape}, given {tuple(tensor.shape)}", fix="fold at that size")
        return self.net(*inputs)


def fold(
    model: nn.Module,
    inputs: Sequence[Tensor] | None = None,
    *,
    memory_format: torch.memory_format = torch.contiguous_format,
    check: bool = True,
) -> Folded:
    """Fold a model in eval mode; the model itself stays as it is.

    inputs: example inputs that fix the sizes (not the batch, where the model leaves it open); a model of the zoo has
    its own. memory_format: layout of 4-D weights. It is contiguous by default, because exporters and engines on CPU
    expect that, and a merged 1x1 kernel otherwise inherits the strides of its matrix product.
    check: comparison of the folded form with the model on one sample, in float64 where both run in it.
    Raises FoldError in training mode, where a module reports an obstacle, and where the check finds a difference or
    nothing to compare; ModelError where capture fails.
    """
    examples = tuple(inputs) if inputs is not None else example_inputs(model)
    with unchanged(model):
        net, report = _rewritten(model, examples)
        is_proven = check and _agrees_in_float64(model, net, report, examples)
        folded = _finished(net, report, memory_format)
        if check and not is_proven:
            check_fold(model, folded, examples)
    return folded


def _agrees_in_float64(model: nn.Module, net: Net, report: FoldReport, inputs: tuple[Tensor, ...]) -> bool:
    """Check a fold in float64 before its constants return to their dtypes, where they take half the memory.

    Return whether it agrees, and False where only the dtype of the model tells. Raises FoldError.
    """
    if net.follows_dtype and net.dtype == torch.float64:
        return False
    wide = Folded(net.wide(), _shapes(net), report, follows_dtype=net.follows_dtype)
    return agrees_in_float64(model, wide, inputs, refold=lambda *subject: fold(*subject, check=False))


def _shapes(net: Net) -> tuple[tuple[int, ...], ...]:
    return tuple(net.shape(node) for node in net.graph.find_nodes(op="placeholder"))


def fold_unchecked(
    model: nn.Module, inputs: tuple[Tensor, ...], on_capture: Callable[[GraphModule], None] = lambda module: None
) -> Folded:
    """Fold a model for a caller who compares the two. on_capture: gets the graph ahead of its first rewrite."""
    with unchanged(model):
        net, report = _rewritten(model, inputs, on_capture)
        return _finished(net, report, torch.contiguous_format)


def fold_in_dtypes(
    model: nn.Module, inputs: tuple[Tensor, ...], dtypes: Sequence[torch.dtype]
) -> tuple[Folded, dict[torch.dtype, Folded]]:
    """Fold a model once, and return the fold, and by dtype the same with all weights in one of `dtypes`.

    A dtype is among them if it holds every value of the model's own dtype. A fold that does not follow the dtype of its
    weights computes in one dtype only under OneDtype. Raises as fold does.
    """
    net, report = _rewritten(model, inputs)
    contiguous = torch.contiguous_format
    wider = [dtype for dtype in dtypes if torch.promote_types(dtype, net.dtype) == dtype]
    copies = [dtype for dtype in wider if not (net.follows_dtype and dtype == net.dtype)]
    folds = {dtype: _finished(net, report, contiguous, dtype) for dtype in copies}
    folded = _finished(net, report, contiguous)
    return folded, folds if len(copies) == len(wider) else {**folds, net.dtype: folded}


def _rewritten(
    model: nn.Module, inputs: tuple[Tensor, ...], on_capture: Callable[[GraphModule], None] = lambda module: None
) -> tuple[Net, FoldReport]:
    check_foldable(model)
    with _without_collections():
        net = captured(model, inputs)
        on_capture(net.module)
        applied = apply_rewrites(net)
        # Weights that a rewrite has replaced take memory in float64.
        net.graph.eliminate_dead_code()
        net.module.delete_all_unused_submodules()
        return net, FoldReport(applied, tuple(_unfolded(net)), net.batch_is_open)


@contextmanager
def _without_collections() -> Iterator[None]:
    """Keep Python from looking for garbage: a graph is many objects, and all of them are needed."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def captured(model: nn.Module, inputs: tuple[Tensor, ...]) -> Net:
    """Capture a model; one that fills its caches at the first call is captured with them filled, where it must.

    Raises ModelError.
    """
    require_plain(model)
    with unchanged(model), warnings.catch_warnings():
        for message in _ABOUT_CACHES:
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        try:
            with unchanged(model):
                return capture(model, inputs)
        except ModelError:
            if not _fills_a_cache(model, inputs):
                raise
        return capture(model, inputs)


def _fills_a_cache(model: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Run a model, and return whether that changed any of its attributes."""
    state = State(model)
    try:
        with torch.no_grad(), ModelCode():
            model(*inputs)
    except FAILURES:
        # The model itself fails, and its capture says so.
        return False
    return state.has_changed()


def _finished(
    net: Net, report: FoldReport, memory_format: torch.memory_format, dtype: torch.dtype | None = None
) -> Folded:
    return Folded(net.finish(memory_format, dtype=dtype), _shapes(net), report, follows_dtype=net.follows_dtype)


def _unfolded(net: Net) -> Iterator[Unfolded]:
    for node in net.nodes():
        if is_norm(node):
            yield Unfolded("norm", origin(node), why_norm_stays(net, node))
        elif (reason := why_branches_stay(net, node)) is not None:
            yield Unfolded("branches", origin(node), reason)


def check_foldable(model: nn.Module) -> None:
    """Raise FoldError where folding would change the function: training mode, or an obstacle a module reports."""
    for name, module in model.named_modules():
        path = name or type(model).__name__
        if module.training:
            raise FoldError(
                "the model is in training mode", where=path, why="its norms use the batch", fix="model.eval()"
            )
        try:
            with ModelCode():
                obstacle = module.fold_obstacle() if hasattr(module, "fold_obstacle") else None
        except FAILURES as error:
            raise FoldError("fold_obstacle() failed", where=path, why=first_line(error), fix="mend it") from error
        if obstacle:
            raise FoldError("the model cannot be folded yet", where=path, why=str(obstacle))


def example_inputs(model: nn.Module, batch: int = 1) -> tuple[Tensor, ...]:
    """Return zeros of the sizes on the model's card. Raises FoldError for a model without a card."""
    card = getattr(model, "card", None)
    if card is None:
        raise FoldError(
            f"{type(model).__name__} has no card with its input sizes",
            fix="fold(model, (torch.zeros(1, 3, 224, 224),)), or --input-size on the command line",
        )
    like = next(model.parameters())
    specs = [spec.at_batch(batch) for spec in card.inputs]
    return tuple(torch.zeros(spec.shape, dtype=like.dtype, device=like.device) for spec in specs)


def apply_rewrites(net: Net) -> dict[str, int]:
    """Apply every rewrite to every node until none applies, and return the number of applications of each."""
    # A reader without readers of its own must not hold a rewrite back.
    net.graph.eliminate_dead_code()
    applied: Counter[str] = Counter()
    changed = True
    while changed:
        changed = False
        for rewrite in REWRITES:
            for node in net.nodes():
                if node.op == "call_function" and not node._erased and rewrite.apply(net, node):
                    applied[rewrite.label] += 1
                    changed = True
    return dict(applied)
