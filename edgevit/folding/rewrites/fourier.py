"""The discrete Fourier transform of a map of known size as products with constant real matrices.

A complex map (N, C, H, F) is held as one real map (N, 2C, H, F) in which channels 2c and 2c + 1 are the real and the
imaginary part of channel c ("packed"). Both forms below give and take that layout by reshapes alone, nothing is ever
transposed:

one product: (N, C, HW) times a matrix (HW, 2HF), whose columns run over (part, row, frequency);
two products: along the rows times (W, 2F) to (N, C, H, 2F), which is (N, C, 2H, F) with (row, part) running down;
  then a matrix (2H, 2H) from the left, whose rows run over (part, row): (N, C, 2H, F).

The way back is each the other way round. All matrices are torch.fft's own answers to unit vectors, so they are right
for every norm, and exact for what irfft2 does with a spectrum that no real map has: it transforms the columns first,
then takes each row's remaining half for granted (weights 1, 2, .., 2, 1; imaginary parts of the zeroth and, for even
sizes, the last frequency are not read).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call

# Pixels up to which one product is faster than two, though it has more multiplications: the small ones of the two-step
# form, one per channel, cost more to start. Measured by benchmarks/affnet_fourier.py in ONNX Runtime on one thread.
ONE_PRODUCT_PIXELS = 64

_FORWARD = (aten.fft_rfft2.default, aten.fft_rfftn.default)
_INVERSE = (aten.fft_irfft2.default, aten.fft_irfftn.default)
_NORMS = ("backward", "ortho", "forward")


@dataclass(frozen=True)
class Transform:
    """A real two-dimensional transform over the last two axes, there or back. Sizes in pixels."""

    height: int
    width: int
    norm: str
    inverse: bool

    @property
    def frequencies(self) -> int:
        """F: what is kept of a row's spectrum."""
        return self.width // 2 + 1


def read_transform(net: Net, node: Node) -> Transform | None:
    """A call of rfft2 or irfft2, or None: not one, of other axes than the last two, or one that crops or pads."""
    if not is_call(node, *_FORWARD, *_INVERSE) or len(net.shape(node)) != 4:
        return None
    inverse, named, source = is_call(node, *_INVERSE), net.arguments(node), net.shape(net.input(node))
    height, width = net.shape(node if inverse else net.input(node))[2:]
    dims = [-2, -1] if named["dim"] is None else named["dim"]
    found = Transform(height, width, named["norm"] or "backward", inverse)
    whole = net.shape(node)[2:] == (height, width) if inverse else named["s"] in (None, [height, width])
    fits = source[2:] == (height, found.frequencies) if inverse else net.shape(node)[3] == found.frequencies
    usable = whole and fits and -1 not in (height, width) and found.norm in _NORMS
    return found if usable and [dim % 4 for dim in dims] == [2, 3] else None


def transform(net: Net, source: Node, what: Transform, before: Node) -> Node:
    """The transform of a real map (N, C, H, W) as a packed one (N, 2C, H, F), or back, ahead of `before`."""
    channels = net.shape(source)[1] // (2 if what.inverse else 1)
    step = _one_product if what.height * what.width <= ONE_PRODUCT_PIXELS else _two_products
    out = step(net, source, what, channels, before)
    shape = (channels, what.height, what.width) if what.inverse else (2 * channels, what.height, what.frequencies)
    return net.call(aten.reshape.default, out, [-1, *shape], before=before)


def _one_product(net: Net, source: Node, what: Transform, channels: int, before: Node) -> Node:
    matrix = _constant(net, _whole(what), source, before)
    flat = net.call(aten.reshape.default, source, [-1, channels, matrix.meta["val"].shape[0]], before=before)
    return net.call(aten.matmul.default, flat, matrix, before=before)


def _two_products(net: Net, source: Node, what: Transform, channels: int, before: Node) -> Node:
    rows, columns = (_constant(net, tensor, source, before) for tensor in (_rows(what), _columns(what)))
    both = [-1, channels, 2 * what.height, what.frequencies]
    if what.inverse:
        flat = net.call(aten.reshape.default, source, both, before=before)
        half = net.call(aten.matmul.default, columns, flat, before=before)
        shape = [-1, channels, what.height, 2 * what.frequencies]
        return net.call(
            aten.matmul.default, net.call(aten.reshape.default, half, shape, before=before), rows, before=before
        )
    half = net.call(aten.matmul.default, source, rows, before=before)
    return net.call(
        aten.matmul.default, columns, net.call(aten.reshape.default, half, both, before=before), before=before
    )


def _constant(net: Net, tensor: Tensor, source: Node, before: Node) -> Node:
    like = source.meta["val"]
    return net.add_constant(tensor.to(like.device), before=before, dtype=like.dtype)


def _whole(what: Transform) -> Tensor:
    """(HW, 2HF), or back (2HF, HW)."""
    height, width, size = what.height, what.width, (what.height, what.frequencies)
    if not what.inverse:
        return _parts(torch.fft.rfft2(_units(height * width).reshape(-1, height, width), norm=what.norm)).flatten(1)
    parts = _units(2 * size[0] * size[1]).reshape(-1, 2, *size)
    spectrum = torch.complex(parts[:, 0], parts[:, 1])
    back: Tensor = torch.fft.irfft2(spectrum, s=(height, width), norm=what.norm)
    return back.flatten(1)


def _rows(what: Transform) -> Tensor:
    """Along rows: (W, 2F) with columns (part, frequency), or back (2F, W)."""
    if not what.inverse:
        return _parts(torch.fft.rfft(_units(what.width), norm=what.norm)).flatten(1)
    parts = _units(2 * what.frequencies).reshape(-1, 2, what.frequencies)
    back: Tensor = torch.fft.irfft(torch.complex(parts[:, 0], parts[:, 1]), n=what.width, norm=what.norm)
    return back


def _columns(what: Transform) -> Tensor:
    """Along columns: (2H, 2H) from (row, part) to (part, row), or back from (part, row) to (row, part)."""
    parts = _units(2 * what.height)
    if what.inverse:
        parts = parts.reshape(-1, 2, what.height)
        spectrum = torch.fft.ifft(torch.complex(parts[:, 0], parts[:, 1]), norm=what.norm)
        return torch.stack((spectrum.real, spectrum.imag), 2).flatten(1).T
    parts = parts.reshape(-1, what.height, 2)
    return _parts(torch.fft.fft(torch.complex(parts[..., 0], parts[..., 1]), norm=what.norm)).flatten(1).T


def _units(size: int) -> Tensor:
    return torch.eye(size, dtype=torch.float64, device="cpu")


def _parts(z: Tensor) -> Tensor:
    """Complex (n, ...) -> real (n, 2, ...)."""
    return torch.stack((z.real, z.imag), 1)
