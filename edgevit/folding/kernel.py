"""The algebra of linear kernels: sums and compositions of convolutions without a nonlinearity between them.

A `Kernel` is an affine map on NCHW maps, y = conv(x, weight) + bias. It is in float64 for every dtype of the model, so
a chain of folds rounds once, at its end. A fully connected layer is the 1x1 case. Every operation returns a new kernel
that computes exactly the function its name says, or raises ValueError where no single kernel does.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Norm:
    """A BatchNorm in inference: y = (x - running_mean) / sqrt(running_var + eps) * weight + bias, per channel."""

    running_mean: Tensor | None
    running_var: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    eps: float


def norm_affine(norm: Norm) -> tuple[Tensor, Tensor | None]:
    """Return scale and shift (C,) that a BatchNorm in inference applies to each channel."""
    if norm.running_mean is None or norm.running_var is None:
        raise ValueError("a BatchNorm without running statistics has no inference form")
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    shift = -norm.running_mean.double() * scale
    return scale, shift if norm.bias is None else shift + norm.bias.detach().double()


def plus(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    """Return the sum of two biases, where None is no bias."""
    if a is None or b is None:
        return b if a is None else a
    return a + b


def added(kernels: Sequence[Kernel]) -> Kernel:
    """Return the sum of one or more kernels as one. Raises ValueError for other grids, see Kernel.add."""
    return functools.reduce(Kernel.add, kernels)


def added_macs(kernels: Sequence[Kernel]) -> int:
    """Return macs_per_pixel of added(kernels) without computing the sum, which may not fit in memory."""
    groups = math.gcd(*(kernel.groups for kernel in kernels))
    size = [max(kernel.size[axis] for kernel in kernels) for axis in (0, 1)]
    return kernels[0].channels_out * kernels[0].channels_in // groups * math.prod(size)


@dataclass(frozen=True)
class Kernel:
    """A convolution: weight (out, in / groups, kh, kw) and bias (out,), both float64, with its geometry.

    The absence of a bias is `None` rather than zeros, so that its presence never depends on values.
    """

    weight: Tensor
    bias: Tensor | None = None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1

    @classmethod
    def of(
        cls,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Pair = (1, 1),
        padding: Pair = (0, 0),
        dilation: Pair = (1, 1),
        groups: int = 1,
    ) -> Kernel:
        """Return a kernel from tensors of any float dtype; a 2-D weight is a fully connected layer."""
        weight = weight.detach().double()
        weight = weight[:, :, None, None] if weight.dim() == 2 else weight
        bias = None if bias is None else bias.detach().double()
        return cls(weight, bias, stride, padding, dilation, groups)

    @classmethod
    def identity(cls, channels: int, device: torch.device | None = None) -> Kernel:
        """Return the 1x1 depthwise kernel that changes nothing."""
        ones = torch.ones(channels, 1, 1, 1, dtype=torch.float64, device=device)
        return cls.of(ones, groups=channels)

    @property
    def channels_in(self) -> int:
        """Input channels, all groups together."""
        return self.weight.shape[1] * self.groups

    @property
    def channels_out(self) -> int:
        """Output channels, all groups together."""
        return self.weight.shape[0]

    @property
    def size(self) -> Pair:
        """Height and width of the kernel, dilation not counted."""
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def pointwise(self) -> bool:
        """Whether each output pixel sees one input pixel: 1x1, no stride, no padding."""
        return self.size == (1, 1) and self.stride == (1, 1) and self.padding == (0, 0)

    @property
    def padded(self) -> bool:
        """Whether zeros are read beyond the border, which a shift of the input would not reach."""
        return self.padding != (0, 0)

    @property
    def macs_per_pixel(self) -> int:
        """Multiply-accumulates for one output pixel."""
        return self.weight.numel()

    def then_affine(self, scale: Tensor, shift: Tensor | None) -> Kernel:
        """Return self, then scale * y + shift per output channel, both (out,) or scalar."""
        scale = scale.double().expand(self.channels_out)
        bias = None if self.bias is None else self.bias * scale
        shift = None if shift is None else shift.double().expand(self.channels_out)
        return dataclasses.replace(self, weight=self.weight * scale[:, None, None, None], bias=plus(bias, shift))

    def then(self, norm: Norm) -> Kernel:
        """Return self, then a BatchNorm in inference."""
        return self.then_affine(*norm_affine(norm))

    def after_affine(self, scale: Tensor, shift: Tensor | None) -> Kernel:
        """Return scale * x + shift per input channel, both (in,), then self.

        Raises ValueError for a shift before padding: the border's zeros do not get the shift, so no kernel is equal.
        """
        if self.padded and shift is not None:
            raise ValueError("the padding's zeros come after the shift")
        scale = scale.double().expand(self.channels_in)
        weight = (self._by_group() * scale.reshape(self.groups, 1, -1, 1, 1)).flatten(0, 1)
        return dataclasses.replace(self, weight=weight, bias=plus(self.bias, self.response(shift)))

    def response(self, constant: Tensor | None) -> Tensor | None:
        """Return the output (out,) of the weights for an input constant (in,) in every channel, borders aside."""
        if constant is None:
            return None
        weight = self._by_group()
        taps = weight[..., 0, 0] if self.size == (1, 1) else weight.sum((3, 4))
        constant = constant.double().expand(self.channels_in)
        return (taps @ constant.reshape(self.groups, -1, 1)).flatten()

    def _by_group(self) -> Tensor:
        """Return the weight as (groups, out / groups, in / groups, kh, kw)."""
        return self.weight.reshape(self.groups, -1, *self.weight.shape[1:])

    def dense(self) -> Kernel:
        """Return the same map with one group: the groups as blocks on the diagonal."""
        return self.regroup(1)

    def regroup(self, groups: int) -> Kernel:
        """Return the same map with fewer groups, zeros between the blocks. `groups` must divide the present number."""
        if self.groups % groups:
            raise ValueError(f"{self.groups} groups do not nest in {groups}")
        if groups == self.groups:
            return self
        merged = self.groups // groups  # number of old groups in each new one
        blocks = self.weight.reshape(groups, merged, -1, *self.weight.shape[1:])
        out = blocks.new_zeros(groups, merged, blocks.shape[2], merged, *blocks.shape[3:])
        for i in range(merged):
            out[:, i, :, i] = blocks[:, i]
        weight = out.reshape(self.channels_out, self.channels_in // groups, *self.size)
        return dataclasses.replace(self, weight=weight, groups=groups)

    def pad(self, size: Pair) -> Kernel:
        """Return the same map in a larger kernel of the same parity, with zeros around it and more padding."""
        grow = tuple(new - old for new, old in zip(size, self.size, strict=True))
        if any(extra < 0 or extra % 2 for extra in grow):
            raise ValueError(f"a kernel of {self.size} has no centre in one of {size}")
        above, beside = grow[0] // 2, grow[1] // 2
        padding = (self.padding[0] + above * self.dilation[0], self.padding[1] + beside * self.dilation[1])
        weight = torch.nn.functional.pad(self.weight, (beside, beside, above, above))
        return dataclasses.replace(self, weight=weight, padding=padding)

    def add(self, other: Kernel) -> Kernel:
        """Return self(x) + other(x). Smaller kernels are padded; groups are merged into common ones.

        Raises ValueError where the two have no common grid.
        """
        size = (max(self.size[0], other.size[0]), max(self.size[1], other.size[1]))
        a, b = self._dilated(other).pad(size), other._dilated(self).pad(size)
        if (a.stride, a.padding, a.dilation) != (b.stride, b.padding, b.dilation):
            raise ValueError("the two kernels do not meet on one grid")
        groups = math.gcd(a.groups, b.groups)
        a, b = a.regroup(groups), b.regroup(groups)
        if a.weight.shape != b.weight.shape:
            raise ValueError("the two kernels have other channels")
        return dataclasses.replace(a, weight=a.weight + b.weight, bias=plus(a.bias, b.bias))

    def _dilated(self, other: Kernel) -> Kernel:
        """Return the same map with the other kernel's dilation along axes of size 1, where its own has no effect."""
        pairs = [(self.size[axis], other.size[axis]) for axis in (0, 1)]
        dilation = [
            self.dilation[axis] if size > 1 else other.dilation[axis] if other_size > 1 else 1
            for axis, (size, other_size) in enumerate(pairs)
        ]
        return dataclasses.replace(self, dilation=(dilation[0], dilation[1]))

    def negated(self) -> Kernel:
        """Return -self(x)."""
        return self.then_affine(-torch.ones((), dtype=torch.float64, device=self.weight.device), None)

    def composes(self, first: Kernel) -> bool:
        """Return whether self(first(x)) is one kernel.

        One of the two must be pointwise. Where `first` is, its bias must not meet zero padding, which comes after it.
        """
        return self.pointwise or (first.pointwise and not (self.padded and first.bias is not None))

    def compose(self, first: Kernel) -> Kernel:
        """Return self(first(x)): W = W2 W1, b = b2 + W2 b1, with the geometry of the wider one and common groups."""
        if not self.composes(first):
            raise ValueError("one of two kernels in sequence must be pointwise, and no shift may come before padding")
        groups = math.gcd(first.groups, self.groups)
        wide = first if self.pointwise else self
        a, b = (kernel.regroup(groups).weight for kernel in (first, self))
        per_group = (weight.reshape(groups, -1, *weight.shape[1:]) for weight in (b, a))
        weight = torch.einsum("gomhw,gmihw->goihw", *per_group).flatten(0, 1)
        bias = plus(self.bias, self.response(first.bias))
        return dataclasses.replace(wide, weight=weight, bias=bias, groups=groups)

    def composed_macs(self, first: Kernel) -> int:
        """Return macs_per_pixel of self.compose(first) without computing the product, which may not fit in memory."""
        groups = math.gcd(first.groups, self.groups)
        size = first.size if self.pointwise else self.size
        return first.channels_in // groups * math.prod(size) * self.channels_out

    def mean_weights(self, height: int, width: int) -> Kernel:
        """Return one kernel for depthwise self at stride 1 on a height x width map, then the mean over the output.

        The mean of a convolution weighs input pixel q by the kernel entries that reach it from any output pixel p:
        K[q] = 1/P sum_p k[q - p + padding], with P output pixels. The kernel covers the map once, without padding.
        """
        if self.weight.shape[1] != 1 or self.stride != (1, 1):
            raise ValueError("only a depthwise kernel of stride 1 has a cheap mean")
        coverage = []
        for axis, size in enumerate((height, width)):
            reach = self.dilation[axis] * (self.size[axis] - 1)
            outputs = size + 2 * self.padding[axis] - reach
            taps = torch.arange(self.size[axis]) * self.dilation[axis] - self.padding[axis]
            # The output pixel that reads q through this tap.
            offset = torch.arange(size)[None, :] - taps[:, None]
            coverage.append(((offset >= 0) & (offset < outputs)).to(self.weight) / outputs)
        weight = torch.einsum("cuv,uh,vw->chw", self.weight[:, 0], *coverage)
        return Kernel(weight[:, None], self.bias, groups=self.groups)
