"""Parameters, multiply-accumulates and layers of any module, counted from the ATen operators of one run.

This is our own counter, because torch's FlopCounterMode counts attention on the CPU as 0. Elementwise operators,
pooling and FFTs count nothing. Papers also leave them out, so the numbers are comparable.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from edgevit.records.model import OperatorCost


@dataclass(frozen=True)
class Count:
    """The cost of a model on the inputs of the count.

    params: numbers in unique nn.Parameters. macs: multiply-accumulates of one run over the whole batch (one MAC is two
    FLOPs). layers: number of operators with weights that ran: convolutions, products, norms.
    (RMSNorm counts only where it is one operator: on the CPU torch decomposes it into elementwise ones.)
    """

    params: int
    macs: int
    layers: int


def count(model: nn.Module, *inputs: Any) -> Count:
    """Run the model once in evaluation mode, without gradients, and count. Modes are as before when it returns.

    An fx.GraphModule works too. With model and inputs on the meta device, the run only counts and computes nothing.
    Counted are convolutions (grouped, transposed), matrix products, and attention in each of its fused forms as QK^T
    and AV. A complex product counts as four. Elementwise operators, pooling and FFTs do not count. The model's own
    errors on these inputs pass through.
    """
    counter = _Counter(model)
    with torch.no_grad(), _evaluating(model), _plain_attention(), counter:
        model(*inputs)
    return Count(sum(parameter.numel() for parameter in model.parameters()), counter.macs, counter.layers)


def operator_costs(model: nn.Module, *inputs: Any) -> tuple[OperatorCost, ...]:
    """Return the cost of each operator in one run, in order; views of memory cost nothing and are left out.

    `edgevit.prediction.structural_features` needs them of the folded form. Counting and errors are those of `count`.
    Parameters of an operator are the numbers in parameters and buffers that it reads. Attention is always listed as
    its two products and the operators between them: torch's fused form depends on the device, and the list must not.
    """
    counter = _Counter(model)
    with torch.no_grad(), _evaluating(model), _plain_attention(), sdpa_kernel(SDPBackend.MATH), counter:
        model(*inputs)
    return tuple(counter.costs)


def merged(costs: Iterable[OperatorCost]) -> tuple[OperatorCost, ...]:
    """Return the operators with equal ones counted together, in sorted order, as `Graph.operators` has them."""
    times: Counter[OperatorCost] = Counter()
    for cost in costs:
        times[dataclasses.replace(cost, count=1)] += cost.count
    ordered = sorted(times, key=dataclasses.astuple)
    return tuple(dataclasses.replace(cost, count=times[cost]) for cost in ordered)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # its __init_subclass__
    """Sums the cost of each operator while it runs. Operators made of others are decomposed first."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.macs = self.layers = 0
        self.costs: list[OperatorCost] = []
        self.weights = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Keep torch from importing its compiler for this class, which takes a second."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        operator = func._schema.name
        if operator not in _MACS and operator not in _NORMS:
            # Inference mode passes conv2d and linear undecomposed.
            with self:
                if (parts := func.decompose(*args, **kwargs)) is not NotImplemented:
                    return parts
        out = func(*args, **kwargs)
        macs = 0
        if operator in _MACS:
            macs = _MACS[operator](args, out) * _REAL_MACS[isinstance(out, Tensor) and out.is_complex()]
        self.macs += macs
        if not func.is_view:
            self.costs.append(self._cost(operator, args, out, macs))
        self.layers += operator in _NORMS or operator in _CONVOLUTIONS or self._multiplies_weights(operator, args)
        return out

    def _cost(self, operator: str, args: Sequence[Any], out: Any, macs: int) -> OperatorCost:
        arguments = [value for arg in args for value in (arg if isinstance(arg, list | tuple) else [arg])]
        read = [value for value in arguments if isinstance(value, Tensor)]
        written = [value for value in (out if isinstance(out, list | tuple) else [out]) if isinstance(value, Tensor)]
        parameters = sum(tensor.numel() for tensor in read if _storage(tensor) in self.weights)
        moved = sum(tensor.numel() for tensor in (*read, *written)) - parameters
        return OperatorCost(_kind(operator, args), macs, parameters, moved)

    def _multiplies_weights(self, operator: str, args: Sequence[Any]) -> bool:
        """Return whether it is a matrix product with a parameter or buffer, or a view of one, as operand."""
        tensors = (arg for arg in args if isinstance(arg, Tensor))
        return operator in _PRODUCTS and any(_storage(tensor) in self.weights for tensor in tensors)


def _kind(operator: str, args: Sequence[Any]) -> str:
    """Return the kind that an operator's speed depends on; a convolution's has its kernel and its grouping."""
    if operator in _CONVOLUTIONS:
        weight: Tensor = args[1]
        kernel = "x".join(map(str, weight.shape[2:]))
        groups = int(args[8])
        kinds = {int(args[0].shape[1]): "depthwise convolution", 1: "convolution"}  # of one channel it is either
        return f"{kinds.get(groups, 'grouped convolution')} {kernel}"
    for kind, operators in (("attention", _ATTENTIONS), ("norm", _NORMS), ("product", _PRODUCTS)):
        if operator in operators:
            return kind
    return operator.removeprefix("aten::")


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # the same for all views, unlike data_ptr() also on the meta device


def _convolution_macs(args: Sequence[Any], out: Tensor) -> int:
    """Count one row of the weight per position: [C_out, C_in/g, k...], or transposed [C_in, C_out/g, k...]."""
    image: Tensor = args[0]
    weight: Tensor = args[1]
    positions = image if args[6] else out  # args[6]: transposed
    return positions.numel() * math.prod(weight.shape[1:])


def _product_macs(args: Sequence[Any], out: Tensor) -> int:
    """Count k per number of the result of (..., n, k) x (..., k, m)."""
    return out.numel() * int(args[0].shape[-1])


def _added_product_macs(args: Sequence[Any], out: Tensor) -> int:
    return _product_macs(args[1:], out)  # the first argument is what is added


def _attention_macs(args: Sequence[Any], out: Any) -> int:
    """Count QK^T as N h L S d, AV as N h L S e, for Q (N, h, L, d), K (N, h', S, d), V (N, h', S, e)."""
    query, key, value = args[:3]
    return int(math.prod(query.shape[:-1]) * key.shape[-2] * (query.shape[-1] + value.shape[-1]))


# Operators by the names of their schemas: which ones exist depends on torch's version and build.
_CONVOLUTIONS = {"aten::convolution", "aten::_convolution", "aten::convolution_overrideable"}
_ATTENTIONS = {
    "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention",
    "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_fused_attention_overrideable",
}  # the plain form is decomposed into two products
_NORMS = {
    "aten::native_batch_norm",
    "aten::_native_batch_norm_legit",
    "aten::_native_batch_norm_legit_no_training",
    "aten::_batch_norm_with_update",
    "aten::_batch_norm_no_update",
    "aten::cudnn_batch_norm",
    "aten::miopen_batch_norm",
    "aten::native_layer_norm",
    "aten::native_group_norm",
    "aten::_fused_rms_norm",
}
_PLAIN = {"aten::mm", "aten::bmm", "aten::mv", "aten::dot"}
_ADDED = {"aten::addmm", "aten::baddbmm", "aten::addmv"}
_PRODUCTS = _PLAIN | _ADDED
_REAL_MACS = {False: 1, True: 4}  # (a + bi)(c + di) is four products
_MACS: dict[str, Callable[[Sequence[Any], Any], int]] = {
    **dict.fromkeys(_CONVOLUTIONS, _convolution_macs),
    **dict.fromkeys(_ATTENTIONS, _attention_macs),
    **dict.fromkeys(_PLAIN, _product_macs),
    **dict.fromkeys(_ADDED, _added_product_macs),
}


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode, so that running statistics stay; exported modules refuse eval()."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keep nn.MultiheadAttention off its fast path, one operator whose products cannot be counted."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
