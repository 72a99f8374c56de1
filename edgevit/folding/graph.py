"""A network as an editable graph of ATen operators: the common form that all folds work on (capture.py makes it).

Constants are kept in float64 while the graph is edited and return to their own dtype at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.fx.experimental.symbolic_shapes import free_symbols

from edgevit.errors import ModelError
from edgevit.folding.kernel import Kernel, Norm, norm_affine, plus

aten = torch.ops.aten
CONVOLUTION = aten.conv2d.default
LINEAR = aten.linear.default
# Every map with weights of its own, and how many axes its maps have: 0 for any number, with the channels last.
WEIGHTED = {
    LINEAR: 0,
    CONVOLUTION: 4,
    aten.conv2d.padding: 4,
    aten.conv1d.default: 3,
    aten.conv1d.padding: 3,
    aten.conv3d.default: 5,
    aten.conv3d.padding: 5,
    aten.conv_transpose1d.default: 3,
    aten.conv_transpose2d.input: 4,
    aten.conv_transpose3d.input: 5,
}
TRANSPOSED = (aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)
BATCH_NORM = aten.batch_norm.default
DROPOUTS = (
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.feature_alpha_dropout.default,
)


class Net:
    """A captured network under edit. `batch_is_open` tells whether it takes any batch size."""

    def __init__(self, module: GraphModule, dtype: torch.dtype, batch_is_open: bool) -> None:
        self.module, self.graph = module, module.graph
        self.dtype, self.batch_is_open = dtype, batch_is_open
        self._fake_mode = next(node.meta["val"].fake_mode for node in self.graph.find_nodes(op="placeholder"))
        self._made = 0
        self._dtypes: dict[str, torch.dtype] = {}
        own: dict[int, nn.Parameter] = {}  # tied weights stay tied, until one of them is folded into
        parameters = module.named_parameters(remove_duplicate=False)
        for name, tensor in [*parameters, *module.named_buffers(remove_duplicate=False)]:
            self._dtypes[name] = tensor.dtype
            made = tensor.detach().double() if tensor.is_floating_point() else tensor.detach().clone()
            self._store(name, own.setdefault(id(tensor), nn.Parameter(made, requires_grad=False)))

    # ---- reading -----------------------------------------------------------------------------------------------

    def nodes(self) -> list[Node]:
        """All nodes, in order of execution."""
        return list(self.graph.nodes)

    def shape(self, node: Node) -> tuple[int, ...]:
        """The shape of a node's output; an open batch is -1."""
        return tuple(map(size_of, node.meta["val"].shape))

    def constant(self, value: Any) -> Tensor | None:
        """The tensor behind a constant node, None for anything else, such as a counter that the model writes to."""
        if isinstance(value, Node) and value.op == "get_attr" and not any(map(writes, value.users)):
            tensor = _resolve(self.module, str(value.target))
            return tensor if isinstance(tensor, Tensor) else None
        return None

    def arguments(self, node: Node) -> dict[str, Any]:
        """A call's arguments by the names of its schema, defaults filled in."""
        return arguments(node)

    def input(self, node: Node) -> Node:
        """The node whose output is a call's first argument."""
        first = node.args[0]
        if not isinstance(first, Node):
            raise ModelError(f"{node.name} has no tensor as its first argument")
        return first

    def is_linear(self, node: Any) -> TypeGuard[Node]:
        """Whether a node is a 2-D convolution of (B, C, H, W) or a fully connected layer, with constant weights.

        These have a kernel.
        """
        return is_call(node, CONVOLUTION, LINEAR) and self.is_weighted(node)

    def is_weighted(self, node: Any) -> TypeGuard[Node]:
        """Whether a node is a convolution of any kind, with a batch, or fully connected, with constant weights."""
        if not is_call(node, *WEIGHTED) or WEIGHTED[node.target] not in (0, len(self.shape(node))):  # type: ignore[index]
            return False
        bias = self.arguments(node)["bias"]
        return self.constant(node.args[1]) is not None and (bias is None or self.constant(bias) is not None)

    def shared(self, node: Node) -> bool:
        """Whether another call uses a node's weights too: folding into them would change that call."""
        return any(len(item.users) > 1 for item in node.args[1:3] if isinstance(item, Node))

    def kernel(self, node: Node) -> Kernel:
        """The kernel of a linear node."""
        named = self.arguments(node)
        weight, bias = self.constant(named["weight"]), self.constant(named["bias"])
        if weight is None:
            raise ModelError(f"{node.name} computes its weights")
        if is_call(node, LINEAR):
            return Kernel.of(weight, bias)
        stride, padding, dilation = (pair(named[key]) for key in ("stride", "padding", "dilation"))
        return Kernel.of(weight, bias, stride, padding, dilation, named["groups"])

    def channel_axis(self, node: Node) -> int:
        """The axis of a weighted node's channels: 1 for maps, the last for a fully connected layer."""
        return len(self.shape(node)) - 1 if is_call(node, LINEAR) else 1

    def affine(self, node: Node, axis: int) -> tuple[Node, Tensor, Tensor | None] | None:
        """Read a node as scale * x + shift per channel: (x, scale, shift), or None.

        BatchNorm in inference and products, quotients, sums and differences with a constant are read.
        """
        if is_call(node, BATCH_NORM):
            named = self.arguments(node)
            norm = _NormArguments(*(self.constant(named[k]) for k in _NORM_TENSORS), eps=named["eps"])
            usable = axis == 1 and not named["training"] and norm.running_mean is not None
            return (self.input(node), *norm_affine(norm)) if usable else None
        if not is_call(node, aten.mul.Tensor, aten.div.Tensor, aten.add.Tensor, aten.sub.Tensor):
            return None
        if node.kwargs.get("alpha", 1) != 1:
            return None
        first, second = node.args[:2]
        if isinstance(second, Node) and self.constant(second) is None:
            first, second = second, first
            if not is_call(node, aten.mul.Tensor, aten.add.Tensor):
                return None
        if not isinstance(first, Node) or self.shape(first) != self.shape(node):
            return None
        if first.meta["val"].dtype != node.meta["val"].dtype:  # uint8 pixels / 255: the quotient converts, too
            return None
        vector = self._per_channel(second, first, axis)
        if vector is None:
            return None
        one = torch.ones_like(vector)
        scale_shift = {
            aten.mul.Tensor: (vector, None),
            aten.div.Tensor: (1 / vector, None),
            aten.add.Tensor: (one, vector),
            aten.sub.Tensor: (one, -vector),
        }
        return (first, *scale_shift[node.target])  # type: ignore[index]

    def _per_channel(self, value: Any, like: Node, axis: int) -> Tensor | None:
        """A constant that is the same everywhere but along `axis`, as a vector (channels,); None otherwise."""
        shape = self.shape(like)
        if isinstance(value, (int, float)):
            return torch.full((shape[axis],), float(value), dtype=torch.float64, device=like.meta["val"].device)
        tensor = self.constant(value)
        if tensor is None or tensor.dim() > len(shape):
            return None
        sizes = (1,) * (len(shape) - tensor.dim()) + tuple(tensor.shape)
        if any(size != 1 for i, size in enumerate(sizes) if i != axis):
            return None
        return tensor.double().flatten().expand(shape[axis])

    # ---- editing -----------------------------------------------------------------------------------------------

    def set_kernel(self, node: Node, kernel: Kernel) -> None:
        """Give a linear node another kernel, under the names it has."""
        geometry: list[Any] = []
        if is_call(node, CONVOLUTION):
            geometry = [list(kernel.stride), list(kernel.padding), list(kernel.dilation), kernel.groups]
        weight = kernel.weight[:, :, 0, 0] if is_call(node, LINEAR) else kernel.weight
        self._set_weights(node, weight, kernel.bias, geometry)

    def scale_and_shift(self, node: Node, scale: Tensor, shift: Tensor | None) -> None:
        """Let a weighted node compute scale * y + shift per output channel, both (out,), for the y it computes."""
        named = self.arguments(node)
        weight, bias = self.constant(named["weight"]), self.constant(named["bias"])
        if weight is None:
            raise ModelError(f"{node.name} computes its weights")
        weight, bias = weight.double(), None if bias is None else bias.double() * scale
        if is_call(node, *TRANSPOSED):  # (in, out / groups, ..), in and out each by group
            groups = named["groups"]
            factor = scale.reshape(groups, 1, -1, *[1] * (weight.dim() - 2))
            weight = (weight.reshape(groups, -1, *weight.shape[1:]) * factor).flatten(0, 1)
        else:
            weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
        self._set_weights(node, weight, plus(bias, shift), list(named.values())[3:])

    def _set_weights(self, node: Node, weight: Tensor, bias: Tensor | None, geometry: list[Any]) -> None:
        named = self.arguments(node)
        place = str(named["weight"].target)
        self._store(place, weight)
        named["weight"].meta["val"] = self._fake(weight, self._dtypes[place])
        biased = self._bias(node, bias, place.removesuffix("weight") + "bias")
        node.args, node.kwargs = (named["input"], named["weight"], biased, *geometry), {}
        node.meta["val"] = self._infer(node)

    def _bias(self, node: Node, bias: Tensor | None, place: str) -> Node | None:
        if bias is None:
            return None
        old = self.arguments(node)["bias"]
        if isinstance(old, Node):
            self._store(str(old.target), bias)
            return old
        dtype = self.arguments(node)["weight"].meta["val"].dtype
        return self.add_constant(bias, before=node, place=place, dtype=dtype)

    def add_constant(self, tensor: Tensor, *, before: Node, place: str = "", dtype: torch.dtype | None = None) -> Node:
        """A new constant ahead of `before`, as a parameter called `place` where that name is free.

        dtype: what it will have at the end, the model's by default.
        """
        while not place or self._is_taken(place):
            self._made += 1
            place = f"folded_{self._made}"
        self._dtypes[place] = dtype or (self.dtype if tensor.is_floating_point() else tensor.dtype)
        self._store(place, tensor)
        with self.graph.inserting_before(before):
            node = self.graph.get_attr(place)
        node.meta["val"] = self._fake(tensor, self._dtypes[place])
        return node

    def _is_taken(self, place: str) -> bool:
        """Whether the graph reads a constant of this name or one below it."""
        constants = (str(node.target) for node in self.graph.find_nodes(op="get_attr"))
        return any(name == place or name.startswith(f"{place}.") for name in constants)

    def call(self, target: Callable[..., Any], *arguments: Any, before: Node, **named: Any) -> Node:
        """A new call ahead of `before`, its shape inferred and its origin the same."""
        with self.graph.inserting_before(before):
            node = self.graph.call_function(target, arguments, named)
        node.meta = {key: before.meta[key] for key in ("nn_module_stack", "stack_trace") if key in before.meta}
        node.meta["val"] = self._infer(node)
        return node

    def convolve(self, source: Node, kernel: Kernel, *, before: Node) -> Node:
        """A new convolution of `source` ahead of `before`."""
        weight = self.add_constant(kernel.weight, before=before)
        geometry = (list(kernel.stride), list(kernel.padding), list(kernel.dilation), kernel.groups)
        node = self.call(CONVOLUTION, source, weight, None, *geometry, before=before)
        self.set_kernel(node, kernel)
        return node

    def replace(self, old: Node, new: Node) -> None:
        """Let every reader of `old` read `new`, and drop `old` and what only it needed."""
        old.replace_all_uses_with(new)
        self.drop(old)

    def drop(self, node: Node) -> None:
        """Remove a node that nobody reads, and then its inputs that nobody reads any more."""
        if node.users or node.op in ("placeholder", "output"):
            return
        inputs = list(node.all_input_nodes)
        self.graph.erase_node(node)
        for item in inputs:
            if not getattr(item, "_erased", False):
                self.drop(item)

    def finish(self, memory_format: torch.memory_format) -> GraphModule:
        """The edited module: own copies of its constants, in their dtypes and the memory format asked for."""
        self.graph.eliminate_dead_code()
        module = GraphModule(self.module, self.graph)  # takes over what the graph refers to, and nothing else
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            if tensor.is_floating_point() or tensor.is_complex():
                layout = memory_format if tensor.dim() == 4 else torch.contiguous_format
                # Through a contiguous copy first: a 1x1 kernel satisfies both layouts and would keep odd strides.
                tensor.data = tensor.detach().to(self._dtypes[name]).clone(memory_format=torch.contiguous_format)
                tensor.data = tensor.data.contiguous(memory_format=layout)
        module.recompile()
        return module

    def _store(self, place: str, tensor: Tensor) -> None:
        *path, name = place.split(".")
        owner: nn.Module = self.module
        for part in path:
            owner = getattr(owner, part)
        if name in owner._buffers:
            owner._buffers[name] = tensor.detach()
        else:
            known = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)
            owner.register_parameter(name, known)

    def _fake(self, tensor: Tensor, dtype: torch.dtype) -> Any:
        with self._fake_mode:
            return torch.empty(tensor.shape, dtype=dtype, device=tensor.device)

    def _infer(self, node: Node) -> Any:
        arguments = torch.fx.map_arg((node.args, dict(node.kwargs)), lambda item: item.meta["val"])
        with self._fake_mode:
            return node.target(*arguments[0], **arguments[1])  # type: ignore[operator]


_NORM_TENSORS = ("running_mean", "running_var", "weight", "bias")


class _NormArguments(Norm):
    def __init__(
        self, mean: Tensor | None, var: Tensor | None, weight: Tensor | None, bias: Tensor | None, *, eps: float
    ):
        self.running_mean, self.running_var, self.weight, self.bias, self.eps = mean, var, weight, bias, eps


def arguments(node: Node) -> dict[str, Any]:
    """A call's arguments by the names of its schema, defaults filled in."""
    schema = node.target._schema  # type: ignore[union-attr]
    given = dict(zip((item.name for item in schema.arguments), node.args, strict=False)) | node.kwargs
    return {item.name: given.get(item.name, item.default_value) for item in schema.arguments}


def writes(node: Node) -> bool:
    """Whether a node calls an operator that writes to one of its inputs."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def is_call(node: Any, *targets: Callable[..., Any]) -> TypeGuard[Node]:
    """Whether a node calls one of these operators."""
    return isinstance(node, Node) and node.op == "call_function" and node.target in targets


def origin(node: Node) -> str:
    """The path of the module that a node comes from, as the model names it; the node's own name where unknown."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values()]
    return paths[-1] if paths and paths[-1] else node.name


def size_of(dimension: int | torch.SymInt) -> int:
    """The size of a captured dimension, -1 where it is open. (A size that was open at first may have become fixed.)"""
    return -1 if free_symbols(dimension) else int(dimension)


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """One number for both axes, or one each."""
    both = [value] * 2 if isinstance(value, int) else [*value] * (2 // len(value))
    return both[0], both[1]


def _resolve(module: nn.Module, place: str) -> Any:
    value: Any = module
    for part in place.split("."):
        value = getattr(value, part)
    return value
