"""The discrete Fourier transform of a map of known size as products with constant real matrices.

A complex map (N, C, H, F) is represented by one real map (N, 2C, H, F), "packed": channels 2c and 2c + 1 are the real
and the imaginary part of channel c. Both forms below read and write that layout by reshapes alone, without transposing:

one product: (N, C, HW) times a matrix (HW, 2HF), whose columns run over (part, row, frequency);
two products: along the rows times (W, 2F) to (N, C, H, 2F), which is (N, C, 2H, F) with (row, part) running down;
  then a matrix (2H, 2H) from the left, whose rows run over (part, row): (N, C, 2H, F).

The inverse reverses each form. All matrices are torch.fft's results for unit vectors, so they are right for every norm.
They are also exact for a spectrum that no real map has. irfft2 transforms the columns first, then infers each row's
remaining half (weights 1, 2, .., 2, 1). It does not read the imaginary parts of the zeroth and, for even sizes, the
last frequency.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.folding.values import VALUE

# Pixels up to which one product is faster than two, though it has more multiplications. The two-step form has a small
# product per channel, which costs more to start. Measured by benchmarks/affnet_fourier.py in ONNX Runtime, one thread.
ONE_PRODUCT_PIXELS = 64

_FORWARD = (aten.fft_rfft2.default, aten.fft_rfftn.default)
_INVERSE = (aten.fft_irfft2.default, aten.fft_irfftn.default)
_NORMS = ("backward", "ortho", "forward")


@dataclass(frozen=True)
class Transform:
    """A real two-dimensional transform over the last two axes, forward or inverse, with sizes in pixels."""

    height: int
    width: int
    norm: str
    inverse: bool

    @property
    def frequencies(self) -> int:
        """F, the number of frequencies kept of a row's spectrum."""
        return self.width // 2 + 1


def read_transform(net: Net, node: Node) -> Transform | None:
    """Return the transform of an rfft2 or irfft2 over the last two axes; None for other calls, crops and pads."""
    if not is_call(node, *_FORWARD, *_INVERSE) or len(net.shape(node)) != 4:
        return None
    inverse, named, source = is_call(node, *_INVERSE), net.arguments(node), net.shape(net.input(node))
    height, width = net.shape(node if inverse else net.input(node))[2:]
    dims = [-2, -1] if named["dim"] is None else named["dim"]
    kind = Transform(height, width, named["norm"] or "backward", inverse)
    whole = net.shape(node)[2:] == (height, width) if inverse else named["s"] in (None, [height, width])
    fits = source[2:] == (height, kind.frequencies) if inverse else net.shape(node)[3] == kind.frequencies
    usable = whole and fits and -1 not in (height, width) and kind.norm in _NORMS
    return kind if usable and [dim % 4 for dim in dims] == [2, 3] else None


def transform(net: Net, source: Node, kind: Transform, before: Node) -> Node:
    """Add the transform of a real map (N, C, H, W) to a packed one (N, 2C, H, F), or its inverse, ahead of `before`."""
    channels = net.shape(source)[1] // (2 if kind.inverse else 1)
    step = _one_product if kind.height * kind.width <= ONE_PRODUCT_PIXELS else _two_products
    out = step(net, source, kind, channels, before)
    shape = (channels, kind.height, kind.width) if kind.inverse else (2 * channels, kind.height, kind.frequencies)
    return net.call(aten.reshape.default, out, [-1, *shape], before=before)


def _one_product(net: Net, source: Node, kind: Transform, channels: int, before: Node) -> Node:
    matrix = _constant(net, _whole(kind), source, before)
    flat = net.call(aten.reshape.default, source, [-1, channels, matrix.meta[VALUE].shape[0]], before=before)
    return net.call(aten.matmul.default, flat, matrix, before=before)


def _two_products(net: Net, source: Node, kind: Transform, channels: int, before: Node) -> Node:
    rows, columns = (_constant(net, tensor, source, before) for tensor in (_rows(kind), _columns(kind)))
    both = [-1, channels, 2 * kind.height, kind.frequencies]
    if kind.inverse:
        flat = net.call(aten.reshape.default, source, both, before=before)
        half = net.call(aten.matmul.default, columns, flat, before=before)
        shape = [-1, channels, kind.height, 2 * kind.frequencies]
        return net.call(
            aten.matmul.default, net.call(aten.reshape.default, half, shape, before=before), rows, before=before
        )
    half = net.call(aten.matmul.default, source, rows, before=before)
    return net.call(
        aten.matmul.default, columns, net.call(aten.reshape.default, half, both, before=before), before=before
    )


def _constant(net: Net, tensor: Tensor, source: Node, before: Node) -> Node:
    like = source.meta[VALUE]
    return net.add_constant(tensor.to(net.device), before=before, dtype=like.dtype)


def _whole(kind: Transform) -> Tensor:
    """Return the matrix (HW, 2HF), or of the inverse (2HF, HW)."""
    height, width, size = kind.height, kind.width, (kind.height, kind.frequencies)
    if not kind.inverse:
        return _parts(torch.fft.rfft2(_units(height * width).reshape(-1, height, width), norm=kind.norm)).flatten(1)
    parts = _units(2 * size[0] * size[1]).reshape(-1, 2, *size)
    spectrum = torch.complex(parts[:, 0], parts[:, 1])
    back: Tensor = torch.fft.irfft2(spectrum, s=(height, width), norm=kind.norm)
    return back.flatten(1)


def _rows(kind: Transform) -> Tensor:
    """Return the matrix along rows: (W, 2F) with columns (part, frequency), or of the inverse (2F, W)."""
    if not kind.inverse:
        return _parts(torch.fft.rfft(_units(kind.width), norm=kind.norm)).flatten(1)
    parts = _units(2 * kind.frequencies).reshape(-1, 2, kind.frequencies)
    back: Tensor = torch.fft.irfft(torch.complex(parts[:, 0], parts[:, 1]), n=kind.width, norm=kind.norm)
    return back


def _columns(kind: Transform) -> Tensor:
    """Return the matrix (2H, 2H) along columns, from (row, part) to (part, row); the inverse's is the other way."""
    parts = _units(2 * kind.height)
    if kind.inverse:
        parts = parts.reshape(-1, 2, kind.height)
        spectrum = torch.fft.ifft(torch.complex(parts[:, 0], parts[:, 1]), norm=kind.norm)
        return torch.stack((spectrum.real, spectrum.imag), 2).flatten(1).T
    parts = parts.reshape(-1, kind.height, 2)
    return _parts(torch.fft.fft(torch.complex(parts[..., 0], parts[..., 1]), norm=kind.norm)).flatten(1).T


def _units(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64, device="cpu")


def _parts(z: Tensor) -> Tensor:
    """Return the parts (n, 2, ...) of a complex (n, ...)."""
    return torch.stack((z.real, z.imag), 1)
