"""Editable graph of ATen operators: the common form that all rewrites work on; capture.py makes it.

Constants are kept in float64 while the graph is edited, and return to their own dtype at the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgevit.errors import ModelError
from edgevit.folding.kernel import Kernel, Norm, norm_affine, plus
from edgevit.folding.plain_modules import require_dense
from edgevit.folding.values import ORIGIN, VALUE, infer, set_constant, shape

aten = torch.ops.aten
CONVOLUTION = aten.conv2d.default
LINEAR = aten.linear.default
# Operators with weights of their own, and the rank of their inputs: 0 is any rank, with the channels last.
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

# Share of its weights by which a network may grow.
MOST_GROWTH = 0.01


class Net:
    """A captured network under edit.

    batch_is_open: it takes any batch size. follows_dtype: the graph is right in any floating dtype that its constants
    and inputs have. device: that of the constants.
    """

    def __init__(self, module: GraphModule, dtype: torch.dtype, *, batch_is_open: bool, follows_dtype: bool) -> None:
        self.module, self.graph = module, module.graph
        self.dtype, self.batch_is_open, self.follows_dtype = dtype, batch_is_open, follows_dtype
        self.device = next((tensor.device for tensor in module.parameters()), torch.device("cpu"))
        # Whether nodes are expressions of constants alone, as far as that is known.
        self.expressions: dict[Node, bool] = {}
        self._added = 0
        self._dtypes: dict[str, torch.dtype] = {}
        # Tied weights stay tied, until a fold changes one of them.
        copies: dict[int, nn.Parameter] = {}
        parameters = module.named_parameters(remove_duplicate=False)
        for name, tensor in [*parameters, *module.named_buffers(remove_duplicate=False)]:
            self._dtypes[name] = tensor.dtype
            constant = tensor.detach().double() if tensor.is_floating_point() else tensor.detach().clone()
            self._store(name, copies.setdefault(id(tensor), nn.Parameter(constant, requires_grad=False)))
        weights = sum(tensor.numel() for tensor in copies.values() if tensor.is_floating_point())
        self._growth_left = int(MOST_GROWTH * weights)

    # ---- reading -----------------------------------------------------------------------------------------------

    def nodes(self) -> list[Node]:
        """Return all nodes, in order of execution."""
        return list(self.graph.nodes)

    def shape(self, node: Node) -> tuple[int, ...]:
        """Return the shape of a node's output; an open batch is -1, k times as many is -k."""
        return shape(node)

    def constant(self, value: Any) -> Tensor | None:
        """Return the tensor of a constant node, or None; a counter that the model writes to is no constant."""
        if isinstance(value, Node) and value.op == "get_attr" and not any(map(writes, value.users)):
            tensor = _resolve(self.module, str(value.target))
            return tensor if isinstance(tensor, Tensor) else None
        return None

    def arguments(self, node: Node) -> dict[str, Any]:
        """Return a call's arguments by the names of its schema, with the defaults."""
        return arguments(node)

    def input(self, node: Node) -> Node:
        """Return the node whose output is a call's first argument."""
        first = node.args[0]
        if not isinstance(first, Node):
            raise ModelError(f"{node.name} has no tensor as its first argument")
        return first

    def is_linear(self, node: Any) -> TypeGuard[Node]:
        """Return whether a node is a 2-D convolution of (B, C, H, W) or a fully connected layer, with constant weights.

        These have a kernel.
        """
        return is_call(node, CONVOLUTION, LINEAR) and self.is_weighted(node)

    def is_weighted(self, node: Any) -> TypeGuard[Node]:
        """Return whether a node is any convolution with a batch, or a fully connected layer, with constant weights."""
        if not is_call(node, *WEIGHTED) or WEIGHTED[node.target] not in (0, len(self.shape(node))):  # type: ignore[index]
            return False
        bias = self.arguments(node)["bias"]
        return self.constant(node.args[1]) is not None and (bias is None or self.constant(bias) is not None)

    def shared(self, node: Node) -> bool:
        """Return whether another call uses a node's weights too: folding into them would change that call."""
        return any(len(weight.users) > 1 for weight in node.args[1:3] if isinstance(weight, Node))

    def calls(self, node: Node) -> list[Node]:
        """Return all calls of a weighted node's layer, in order; the node alone if its weights have other uses too."""
        weights = [weight for weight in node.args[1:3] if isinstance(weight, Node)]
        calls = [reader for reader in self.nodes() if reader in weights[0].users]
        alike = all((call.target, call.args[1:]) == (node.target, node.args[1:]) for call in calls)
        return calls if alike and all(set(weight.users) == set(calls) for weight in weights) else [node]

    def kernel(self, node: Node) -> Kernel:
        """Return the kernel of a linear node."""
        named = self.arguments(node)
        weight, bias = self.constant(named["weight"]), self.constant(named["bias"])
        if weight is None:
            raise ModelError(f"{node.name} computes its weights")
        if is_call(node, LINEAR):
            return Kernel.of(weight, bias)
        stride, padding, dilation = (pair(named[key]) for key in ("stride", "padding", "dilation"))
        return Kernel.of(weight, bias, stride, padding, dilation, named["groups"])

    def channel_axis(self, node: Node) -> int:
        """Return the axis of a weighted node's channels: 1 for maps, the last for a fully connected layer."""
        return len(self.shape(node)) - 1 if is_call(node, LINEAR) else 1

    def affine(self, node: Node, axis: int) -> tuple[Node, Tensor, Tensor | None] | None:
        """Read a node as scale * x + shift per channel: (x, scale, shift), or None.

        This reads a BatchNorm in inference, and products, quotients, sums and differences with a constant.
        """
        if is_call(node, BATCH_NORM):
            named = self.arguments(node)
            mean, var, weight, bias = (self.constant(named[name]) for name in _NORM_TENSORS)
            norm = Norm(mean, var, weight, bias, named["eps"])
            usable = axis == 1 and not named["training"] and norm.running_mean is not None
            return (self.input(node), *norm_affine(norm)) if usable else None
        if not is_call(node, aten.mul.Tensor, aten.div.Tensor, aten.add.Tensor, aten.sub.Tensor):
            return None
        if node.kwargs.get("alpha", 1) != 1:
            return None
        first, second = node.args[:2]
        # c - x = -x + c
        mirrored = isinstance(second, Node) and self.constant(second) is None
        if mirrored:
            first, second = second, first
            if is_call(node, aten.div.Tensor):
                return None
        # A sum may also be of two sizes, or of a tensor and a size.
        tensors = isinstance(first, Node) and all(isinstance(each.meta.get(VALUE), Tensor) for each in (first, node))
        if not isinstance(first, Node) or not tensors or self.shape(first) != self.shape(node):
            return None
        # The quotient of uint8 pixels / 255 is also a conversion.
        if first.meta[VALUE].dtype != node.meta[VALUE].dtype:
            return None
        vector = self._per_channel(second, first, axis)
        if vector is None:
            return None
        # A quotient of zero is infinite; as a product its factor is none.
        if is_call(node, aten.div.Tensor) and not vector.is_meta and bool((vector == 0).any()):
            return None
        one = torch.ones_like(vector)
        scale_shift = {
            aten.mul.Tensor: (vector, None),
            aten.div.Tensor: (1 / vector, None),
            aten.add.Tensor: (one, vector),
            aten.sub.Tensor: (-one, vector) if mirrored else (one, -vector),
        }
        return (first, *scale_shift[node.target])  # type: ignore[index]

    def _per_channel(self, value: Any, like: Node, axis: int) -> Tensor | None:
        """Return a constant that varies along `axis` alone as a vector (channels,); None for any other value."""
        shape = self.shape(like)
        if isinstance(value, (int, float)):
            return torch.full((shape[axis],), float(value), dtype=torch.float64, device=self.device)
        tensor = self.constant(value)
        if tensor is None or tensor.dim() > len(shape):
            return None
        sizes = (1,) * (len(shape) - tensor.dim()) + tuple(tensor.shape)
        if any(size != 1 for i, size in enumerate(sizes) if i != axis):
            return None
        return tensor.double().flatten().expand(shape[axis])

    # ---- editing -----------------------------------------------------------------------------------------------

    def has_room(self, added: int) -> bool:
        """Return whether a rewrite may add so many weights."""
        return added <= max(self._growth_left, 0)

    def grow(self, added: int) -> bool:
        """Return whether a rewrite may add so many weights, and count them: all together add 1% at most."""
        if not self.has_room(added):
            return False
        self._growth_left -= max(added, 0)
        return True

    def set_kernel(self, node: Node, kernel: Kernel) -> None:
        """Give a linear node another kernel, under the names of its present weights."""
        geometry: list[Any] = []
        if is_call(node, CONVOLUTION):
            geometry = [list(kernel.stride), list(kernel.padding), list(kernel.dilation), kernel.groups]
        weight = kernel.weight[:, :, 0, 0] if is_call(node, LINEAR) else kernel.weight
        self._set_weights(node, weight, kernel.bias, geometry)

    def scale_and_shift(self, node: Node, scale: Tensor, shift: Tensor | None) -> None:
        """Let a weighted node compute scale * y + shift per output channel, both (out,), in place of y."""
        named = self.arguments(node)
        weight, bias = self.constant(named["weight"]), self.constant(named["bias"])
        if weight is None:
            raise ModelError(f"{node.name} computes its weights")
        weight, bias = weight.double(), None if bias is None else bias.double() * scale
        # A transposed weight is (in, out / groups, ..), in and out each by group.
        if is_call(node, *TRANSPOSED):
            groups = named["groups"]
            factor = scale.reshape(groups, 1, -1, *[1] * (weight.dim() - 2))
            weight = (weight.reshape(groups, -1, *weight.shape[1:]) * factor).flatten(0, 1)
        else:
            weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
        self._set_weights(node, weight, plus(bias, shift), list(named.values())[3:])

    def _set_weights(self, node: Node, weight: Tensor, bias: Tensor | None, geometry: list[Any]) -> None:
        named = self.arguments(node)
        path = str(named["weight"].target)
        self._store(path, weight)
        set_constant(named["weight"], weight, self._dtypes[path])
        bias_node = self._bias(node, bias, path.removesuffix("weight") + "bias")
        node.args, node.kwargs = (named["input"], named["weight"], bias_node, *geometry), {}
        infer(node)

    def _bias(self, node: Node, bias: Tensor | None, path: str) -> Node | None:
        if bias is None:
            return None
        old = self.arguments(node)["bias"]
        if isinstance(old, Node):
            self._store(str(old.target), bias)
            return old
        dtype = self.arguments(node)["weight"].meta[VALUE].dtype
        return self.add_constant(bias, before=node, path=path, dtype=dtype)

    def add_constant(self, tensor: Tensor, *, before: Node, path: str = "", dtype: torch.dtype | None = None) -> Node:
        """Add a constant ahead of `before`, as the parameter `path` where that name is free.

        dtype: its dtype at the end, by default the model's.
        """
        while not path or self._is_taken(path):
            self._added += 1
            path = f"folded_{self._added}"
        self._dtypes[path] = dtype or (self.dtype if tensor.is_floating_point() else tensor.dtype)
        self._store(path, tensor)
        with self.graph.inserting_before(before):
            node = self.graph.get_attr(path)
        set_constant(node, tensor, self._dtypes[path])
        return node

    def _is_taken(self, path: str) -> bool:
        """Return whether the graph reads a constant of this name or one below it."""
        constants = (str(node.target) for node in self.graph.find_nodes(op="get_attr"))
        return any(name == path or name.startswith(f"{path}.") for name in constants)

    def call(self, target: Callable[..., Any], *arguments: Any, before: Node, **named: Any) -> Node:
        """Add a call ahead of `before`, with inferred shape and the same origin."""
        with self.graph.inserting_before(before):
            node = self.graph.call_function(target, arguments, named)
        node.meta[ORIGIN] = before.meta.get(ORIGIN, "")
        infer(node)
        return node

    def convolve(self, source: Node, kernel: Kernel, *, before: Node) -> Node:
        """Add a convolution of `source` ahead of `before`."""
        weight = self.add_constant(kernel.weight, before=before)
        geometry = (list(kernel.stride), list(kernel.padding), list(kernel.dilation), kernel.groups)
        node = self.call(CONVOLUTION, source, weight, None, *geometry, before=before)
        self.set_kernel(node, kernel)
        return node

    def replace(self, old: Node, new: Node) -> None:
        """Let every reader of `old` read `new`; drop `old` and the nodes that only it needed."""
        old.replace_all_uses_with(new)
        self.drop(old)

    def drop(self, node: Node) -> None:
        """Remove a node without readers, then those of its inputs that have no reader left."""
        if node.users or node.op in ("placeholder", "output"):
            return
        inputs = list(node.all_input_nodes)
        self.graph.erase_node(node)
        for source in inputs:
            if not getattr(source, "_erased", False):
                self.drop(source)

    def finish(self, memory_format: torch.memory_format, *, dtype: torch.dtype | None = None) -> GraphModule:
        """Return the edited module with its own constants, in their dtypes and this memory format.

        dtype: a floating dtype in place of theirs. Such a module is a copy, and the Net can be finished again.
        Raises FoldError for a constant that is sparse.
        """
        self.graph.eliminate_dead_code()
        # A GraphModule takes over what the graph refers to, and nothing else.
        if dtype is None:
            module = GraphModule(self.module, self.graph)
        else:
            module = GraphModule(self._copied_constants(), copied_graph(self.module))
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            require_dense(name, tensor)
            if tensor.is_floating_point() or tensor.is_complex():
                layout = memory_format if tensor.dim() == 4 else torch.contiguous_format
                target = self._dtypes[name] if dtype is None else dtype.to_complex() if tensor.is_complex() else dtype
                # Through a contiguous copy first: a 1x1 kernel satisfies both layouts and would keep odd strides.
                tensor.data = tensor.detach().to(target).clone(memory_format=torch.contiguous_format)
                tensor.data = tensor.data.contiguous(memory_format=layout)
        module.recompile()
        return module

    def wide(self) -> GraphModule:
        """Return the module as it is now in float64, to be read until the Net is edited or finished.

        It shares the float64 constants. Counters that the model writes to are copies. Raises FoldError for a constant
        that is sparse.
        """
        self.graph.eliminate_dead_code()
        copies: dict[int, Any] = {}
        constants = {}
        for node in self.graph.find_nodes(op="get_attr"):
            value = _resolve(self.module, str(node.target))
            if isinstance(value, Tensor):
                require_dense(str(node.target), value)
            if self.constant(node) is None or value.dtype != torch.float64 or not value.is_contiguous():
                value = copies.setdefault(id(value), _widened(value))
            constants[str(node.target)] = value
        return GraphModule(constants, self.graph)

    def _copied_constants(self) -> dict[str, Any]:
        """Return new tensors for all constants that the graph reads, by path; tied ones stay tied."""
        copies: dict[int, Any] = {}
        constants = {}
        for node in self.graph.find_nodes(op="get_attr"):
            value = _resolve(self.module, str(node.target))
            constants[str(node.target)] = copies.setdefault(id(value), _copy(value))
        return constants

    def _store(self, path: str, tensor: Tensor) -> None:
        *parents, name = path.split(".")
        owner: nn.Module = self.module
        for part in parents:
            owner = getattr(owner, part)
        if name in owner._buffers:
            owner._buffers[name] = tensor.detach()
        else:
            parameter = tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor, requires_grad=False)
            owner.register_parameter(name, parameter)


_NORM_TENSORS = ("running_mean", "running_var", "weight", "bias")


def copied_graph(net: GraphModule) -> torch.fx.Graph:
    """Return a copy of a network's graph, with the names and values of its nodes."""
    graph = torch.fx.Graph(tracer_cls=net.graph._tracer_cls)
    result = graph.graph_copy(net.graph, {}, return_output_node=True)
    assert isinstance(result, tuple)
    graph.output(result[0]).meta = dict(result[1].meta)
    graph.set_codegen(net.graph._codegen)
    return graph


def arguments(node: Node) -> dict[str, Any]:
    """Return a call's arguments by the names of its schema, with the defaults."""
    schema = node.target._schema  # type: ignore[union-attr]
    names = [parameter.name for parameter in schema.arguments]
    passed = dict(zip(names, node.args, strict=False)) | node.kwargs
    return {parameter.name: passed.get(parameter.name, parameter.default_value) for parameter in schema.arguments}


def writes(node: Node) -> bool:
    """Return whether a node calls an operator that writes to one of its inputs."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and bool(schema.is_mutable)


def is_call(node: Any, *targets: Callable[..., Any]) -> TypeGuard[Node]:
    """Return whether a node calls one of these operators."""
    return isinstance(node, Node) and node.op == "call_function" and node.target in targets


def origin(node: Node) -> str:
    """Return the path of the module that a node comes from, FILE.py:LINE in the model's own forward, or its name."""
    return node.meta.get(ORIGIN) or node.name


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Return a number for each of two axes, from one for both or one each."""
    both = [value] * 2 if isinstance(value, int) else [*value] * (2 // len(value))
    return both[0], both[1]


def _copy(value: Any) -> Any:
    """Return a copy of a parameter or a tensor, and any other value unchanged."""
    if isinstance(value, nn.Parameter):
        return nn.Parameter(value.detach().clone(), requires_grad=False)
    return value.detach().clone() if isinstance(value, Tensor) else value


def _widened(value: Any) -> Any:
    """Return a copy of a parameter or a tensor, a floating or complex one in float64, and any other value unchanged."""
    if not isinstance(value, Tensor):
        return value
    wide = torch.complex128 if value.is_complex() else torch.float64 if value.is_floating_point() else value.dtype
    tensor = value.detach().to(wide, copy=True, memory_format=torch.contiguous_format)
    return nn.Parameter(tensor, requires_grad=False) if isinstance(value, nn.Parameter) else tensor


def _resolve(module: nn.Module, path: str) -> Any:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    return value
