"""Equal spellings of a graph in the operators that XNNPACK has, for ExecuTorch's recipe. torch is imported inside."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any


def respelled(model: Any, inputs: Mapping[str, Any]) -> Any:
    """Return the model as an exported program whose operators are replaced by their spellings in _spellings()."""
    import torch

    examples = tuple(inputs.values())

    class Respeller(torch.fx.Interpreter):
        def __init__(self, net: Any, spellings: Mapping[Any, Any]) -> None:
            super().__init__(net)
            self.spellings = spellings

        def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
            spell = self.spellings.get(target)
            result = spell(*args, **kwargs) if spell else NotImplemented
            return super().call_function(target, args, kwargs) if result is NotImplemented else result

    class Respelled(torch.nn.Module):
        def __init__(self, net: Any) -> None:
            super().__init__()
            self.net = net
            # XNNPACK takes buffers for weights.
            for width, dtype in _norm_widths(net.graph):
                self.register_buffer(f"average_{width}", torch.full((1, width), 1 / width, dtype=dtype))

        def forward(self, *args: Any) -> Any:
            return Respeller(self.net, _spellings(dict(self.named_buffers(recurse=False)))).run(*args)

    with torch.no_grad():
        net = torch.export.export(model, examples).module(check_guards=False)
        return torch.export.export(Respelled(net), examples)


def _norm_widths(graph: Any) -> set[tuple[int, Any]]:
    """Return the number of values that each norm averages in a row, and their dtype."""
    import torch

    aten = torch.ops.aten
    axes = {aten.layer_norm.default: -1, aten.group_norm.default: 1}
    inputs = [(node.args[0].meta["val"], axes[node.target]) for node in graph.nodes if node.target in axes]
    return {(int(value.shape[axis]), value.dtype) for value, axis in inputs}


def _spellings(averages: Mapping[str, Any]) -> dict[Any, Any]:
    """Map operators to equal spellings; a spelling returns NotImplemented for arguments that it does not cover."""
    import torch

    aten = torch.ops.aten
    return {
        aten.scaled_dot_product_attention.default: _attention,
        aten.matmul.default: _matmul,
        aten.roll.default: _roll,
        aten.chunk.default: _chunk,
        aten.unbind.int: _unbind,
        aten.select.int: _select,
        aten.group_norm.default: functools.partial(_group_norm, averages),
        aten.layer_norm.default: functools.partial(_layer_norm, averages),
        aten.mean.dim: _mean,
        aten.clamp.default: _clamp,
    }


def _clamp(x: Any, lowest: Any = None, highest: Any = None) -> Any:
    """Compute the same as hardtanh, which XNNPACK has in the kernel of a convolution in int8, as it has no clamp."""
    import torch

    is_float = lowest is not None and highest is not None and x.is_floating_point()
    return torch.ops.aten.hardtanh.default(x, lowest, highest) if is_float else NotImplemented


def _attention(
    q: Any, k: Any, v: Any, mask: Any = None, dropout: float = 0.0, causal: bool = False, scale: Any = None, **more: Any
) -> Any:
    """Compute softmax(q k' scale + mask) v without a guard for queries whose mask hides every key.

    torch's own decomposition makes rows of zeros for those with five operators more, none of which XNNPACK has.
    """
    if causal or dropout or more.get("enable_gqa") or (mask is not None and not mask.is_floating_point()):
        return NotImplemented
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    scores = _matmul(q if scale == 1.0 else q * scale, k.transpose(-2, -1))
    if scores is NotImplemented:
        return NotImplemented
    return _matmul((scores if mask is None else scores + mask).softmax(-1), v)


def _matmul(a: Any, b: Any) -> Any:
    """Compute a batched product of three axes; a matrix on the left as a linear layer over the last axis but one."""
    import torch

    if a.dim() == 2 and b.dim() > 2:
        return torch.nn.functional.linear(b.transpose(-2, -1), a).transpose(-2, -1)
    if a.dim() < 3 or _batches(a) != _batches(b):
        return NotImplemented
    product = torch.bmm(a.reshape(-1, *a.shape[-2:]), b.reshape(-1, *b.shape[-2:]))
    longer = max(a.shape[:-2], b.shape[:-2], key=len)
    return product.reshape(*longer, a.shape[-2], b.shape[-1])


def _batches(x: Any) -> list[int]:
    """Return the number of matrices along each axis, without leading ones."""
    sizes = list(x.shape[:-2])
    while sizes and sizes[0] == 1:
        sizes.pop(0)
    return sizes


def _roll(x: Any, shifts: Sequence[int], dims: Sequence[int] = ()) -> Any:
    """Move the last rows ahead of the others, axis by axis."""
    import torch

    if not dims:
        return NotImplemented
    for shift, dim in zip(shifts, dims, strict=True):
        if cut := -shift % x.shape[dim]:
            x = torch.cat([x.narrow(dim, cut, x.shape[dim] - cut), x.narrow(dim, 0, cut)], dim)
    return x


def _chunk(x: Any, chunks: int, dim: int = 0) -> list[Any]:
    size = -(-x.shape[dim] // chunks)
    return [x.narrow(dim, i, min(size, x.shape[dim] - i)) for i in range(0, x.shape[dim], size)]


def _select(x: Any, dim: int, index: int) -> Any:
    dim %= x.dim()
    return x.narrow(dim, index % x.shape[dim], 1).reshape(*x.shape[:dim], *x.shape[dim + 1 :])


def _unbind(x: Any, dim: int = 0) -> list[Any]:
    return [_select(x, dim, i) for i in range(x.shape[dim])]


def _mean(x: Any, dims: Sequence[int], keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Compute a mean as one over the last two of four axes, which XNNPACK has."""
    dims = sorted(dim % x.dim() for dim in dims)
    if dtype is not None or (x.dim(), dims) not in ((4, [2, 3]), (3, [1])):
        return NotImplemented
    shape = [1 if i in dims else n for i, n in enumerate(x.shape) if keepdim or i not in dims]
    maps = x if x.dim() == 4 else x.transpose(1, 2).unsqueeze(-1)
    return maps.mean([2, 3], keepdim=True).reshape(shape)


def _group_norm(
    averages: Mapping[str, Any],
    x: Any,
    groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    _: bool = True,
) -> Any:
    """Compute a norm of one group from the means of the channels, and a linear layer that averages those."""
    import torch

    if groups != 1 or x.dim() != 4:
        return NotImplemented
    average = averages[f"average_{x.shape[1]}"]

    def mean(values: Any) -> Any:
        channels = values.mean([2, 3], keepdim=True).reshape(x.shape[:2])
        return torch.nn.functional.linear(channels, average).reshape(-1, 1, 1, 1)

    centred = x - mean(x)
    normed = centred * torch.rsqrt(mean(centred * centred) + eps)
    normed = normed if weight is None else normed * weight.reshape(1, -1, 1, 1)
    return normed if bias is None else normed + bias.reshape(1, -1, 1, 1)


def _layer_norm(
    averages: Mapping[str, Any],
    x: Any,
    shape: Sequence[int],
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    _: bool = True,
) -> Any:
    """Compute a norm whose means over the last axis are products with a column of 1/n."""
    import torch

    if len(shape) != 1:
        return NotImplemented
    average = averages[f"average_{shape[0]}"]
    centred = x - torch.nn.functional.linear(x, average)
    normed = centred * torch.rsqrt(torch.nn.functional.linear(centred * centred, average) + eps)
    normed = normed if weight is None else normed * weight
    return normed if bias is None else normed + bias
