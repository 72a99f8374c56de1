"""The int8 form of ncnn's param and bin files, made of a float form that rounds numbers by plain operators.

Ahead of each int8 layer, the float form multiplies by a reciprocal scale, rounds, clips and multiplies by the scale.
Here these layers go, and the layer behind them gets weights in int8, their scales and the scale of its input.
Nothing is guessed: a rounding has to end in layers with int8 weights of the network, and each of these has to be found.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from edgevit_runtime.quantized_graph import Int8Weight

# Marks ahead of a weight in a bin file, and the bytes of its numbers.
_FLOAT, _INT8 = 0, 0x000D4B38
_ITEM_BYTES = {_FLOAT: 4, 0x01306B47: 2, _INT8: 1}
# Keys of layers with weights and biases: of the number of outputs, of that of weights, and of the presence of biases.
_WEIGHTED = {
    "Convolution": (0, 6, 5), "ConvolutionDepthWise": (0, 6, 5), "Convolution1D": (0, 6, 5), "Convolution3D": (0, 6, 5),
    "ConvolutionDepthWise1D": (0, 6, 5), "ConvolutionDepthWise3D": (0, 6, 5), "Deconvolution": (0, 6, 5),
    "Deconvolution1D": (0, 6, 5), "Deconvolution3D": (0, 6, 5), "DeconvolutionDepthWise": (0, 6, 5),
    "DeconvolutionDepthWise1D": (0, 6, 5), "DeconvolutionDepthWise3D": (0, 6, 5), "InnerProduct": (0, 2, 1),
    "Embed": (0, 3, 2),
}  # fmt: skip
# Of norms: the keys of the number of channels and of the presence of constants, and the number of constants.
_NORMS = {
    "BatchNorm": (0, None, 4), "GroupNorm": (1, 3, 2), "InstanceNorm": (0, 2, 2), "LayerNorm": (0, 2, 2),
    "PReLU": (0, None, 1), "RMSNorm": (0, 2, 1),
}  # fmt: skip
# Layers with int8 kernels whose scales of weights belong to output channels.
_INT8_KINDS = ("Convolution", "InnerProduct")
# The key of a layer's int8 form, and the form with a scale for each output channel.
_FORM, _PER_CHANNEL = "8", "2"
# Layers whose outputs have the numbers of their one input.
_MOVES = ("ExpandDims", "Flatten", "Permute", "Reshape", "Split", "Squeeze")
_MULTIPLY, _ROUND = 2, 18
# The layers that scale, round, clip and scale back.
_SCALED = 4
_LARGEST = 127.0
# By how much the product of a scale and its reciprocal may miss 1 in float32.
_TOLERANCE = 1e-6


@dataclass
class Layer:
    """A line of a param file with its constants as they stand in the bin file."""

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    params: dict[str, str]
    constants: list[bytes] = field(default_factory=list)

    def number(self, key: int, default: float = 0.0) -> float:
        """Return a parameter."""
        return float(self.params.get(str(key), default))

    def count(self, key: int, default: int = 0) -> int:
        """Return a parameter that is a whole number."""
        return int(self.params.get(str(key), default))


def read_layers(param: str, data: bytes = b"") -> list[Layer]:
    """Return the layers of a param file, with their constants where the bin file is given.

    Raises RuntimeError where the bin file is not what they take.
    """
    layers = [_layer(line.split()) for line in param.splitlines()[2:] if line.strip()]
    if not data:
        return layers
    offset = 0
    for layer in layers:
        for size, is_marked in _sizes(layer):
            end = offset + (_marked_bytes(data, offset, size) if is_marked else 4 * size)
            layer.constants.append(data[offset:end])
            offset = end
    if offset != len(data):
        raise RuntimeError(f"the layers of the param file take {offset} bytes, and the bin file has {len(data)}")
    return layers


def _layer(words: Sequence[str]) -> Layer:
    kind, name, inputs, outputs = words[0], words[1], int(words[2]), int(words[3])
    first, params = 4 + inputs, 4 + inputs + outputs
    return Layer(
        kind, name, list(words[4:first]), list(words[first:params]), dict(word.split("=") for word in words[params:])
    )


def _sizes(layer: Layer) -> Iterator[tuple[int, bool]]:
    """Yield the numbers in each constant of a layer, and whether a mark stands ahead of them."""
    if layer.kind in _WEIGHTED:
        outputs, weights, bias = _WEIGHTED[layer.kind]
        yield layer.count(weights), True
        if layer.count(bias):
            yield layer.count(outputs), False
        if _FORM in layer.params:
            yield from ((layer.count(outputs), False), (1, False))
    elif layer.kind in _NORMS:
        channels, affine, constants = _NORMS[layer.kind]
        if affine is None or layer.count(affine, 1):
            yield from [(layer.count(channels), False)] * constants
    elif layer.kind == "Normalize":
        yield layer.count(3), False
    elif layer.kind == "Scale":
        yield from [(layer.count(0), False)] * (1 + layer.count(1))
    elif layer.kind == "MemoryData":
        size = 1
        for key in (0, 1, 2, 11):
            size *= layer.count(key) or 1
        yield size, layer.count(21, 1) == 0
    elif layer.kind == "Gemm":
        rows, columns, depth = (layer.count(key) for key in (7, 8, 9))
        sizes = rows * depth, columns * depth, (1, rows, rows, rows * columns, columns, 0)[layer.count(10)]
        yield from ((size, True) for key, size in zip((4, 5, 6), sizes, strict=True) if layer.count(key) and size)


def _marked_bytes(data: bytes, offset: int, size: int) -> int:
    """Return the bytes of a marked constant, which end at a multiple of four."""
    if offset + 4 > len(data):
        raise RuntimeError(f"the bin file ends at {len(data)} bytes, ahead of a weight")
    (mark,) = struct.unpack_from("<I", data, offset)
    if mark not in _ITEM_BYTES:
        raise RuntimeError(f"the bin file has a weight of no known form: {mark:#x}")
    return 4 + -(-_ITEM_BYTES[mark] * size // 4) * 4


def write_layers(layers: Sequence[Layer]) -> tuple[str, bytes]:
    """Return the param file and the bin file of layers."""
    blobs = {blob for layer in layers for blob in layer.outputs}
    lines = ["7767517", f"{len(layers)} {len(blobs)}"]
    for layer in layers:
        ends = f"{len(layer.inputs)} {len(layer.outputs)}"
        params = (f"{key}={value}" for key, value in layer.params.items())
        lines.append(" ".join((f"{layer.kind:24}", f"{layer.name:24}", ends, *layer.inputs, *layer.outputs, *params)))
    return "\n".join(lines) + "\n", b"".join(constant for layer in layers for constant in layer.constants)


def in_int8(layers: Sequence[Layer], weights: Sequence[Int8Weight]) -> list[Layer]:
    """Return the layers of a float form in int8: those behind its roundings, with the weights of the network.

    Raises RuntimeError unless roundings, layers and weights belong together.
    """
    copied = [replace(layer, inputs=list(layer.inputs), params=dict(layer.params)) for layer in layers]
    chains = _Chains(copied)
    by_product = {_bytes(weight.product): weight for weight in weights}
    left = Counter(_bytes(weight.product) for weight in weights)
    removed: set[int] = set()
    for layer in copied:
        chain = chains.around(layer)
        ends = [] if chain is None else list(chains.ends(chain[-1].outputs[0]))
        products = [end.constants[0][4:] if end.kind in _INT8_KINDS else b"" for end in ends]
        # A network may round numbers of its own.
        if chain is None or not any(product in by_product for product in products):
            continue
        for end, product in zip(ends, products, strict=True):
            if not left[product]:
                raise RuntimeError(f"{end.kind} {end.name} reads numbers in int8, and has no weight of its own in int8")
            left[product] -= 1
            _store(end, by_product[product], chain[-1].number(2) if len(chain) == _SCALED else 1.0)
        chains.bypass(chain)
        removed |= {id(part) for part in chain}
    if missing := left.total():
        raise RuntimeError(f"{missing} of {len(weights)} weights in int8 are in no layer behind a rounding")
    return [layer for layer in copied if id(layer) not in removed]


class _Chains:
    """The layers that round the input of an int8 layer, in the graph of a param file."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._readers = {blob: layer for layer in layers for blob in layer.inputs}
        self._makers = {blob: layer for layer in layers for blob in layer.outputs}

    def around(self, layer: Layer) -> tuple[Layer, ...] | None:
        """Return the layers around one that rounds, in order, which round and clip; None for any other layer.

        pnnx drops the two that multiply where the scale is 1.
        """
        if layer.kind != "UnaryOp" or layer.count(0) != _ROUND:
            return None
        clip = self._readers.get(layer.outputs[0])
        if clip is None or clip.kind != "Clip" or (clip.number(0), clip.number(1)) != (-_LARGEST, _LARGEST):
            return None
        first, last = self._makers[layer.inputs[0]], self._readers.get(clip.outputs[0])
        is_scaled = last is not None and _multiplies(first) and _multiplies(last)
        if last is None or not is_scaled or abs(first.number(2) * last.number(2) - 1) > _TOLERANCE:
            return layer, clip
        return first, layer, clip, last

    def ends(self, blob: str) -> Iterator[Layer]:
        """Yield the layers that compute with the numbers of a blob."""
        reader = self._readers.get(blob)
        if reader is None:
            raise RuntimeError(f"numbers in int8 leave ncnn's network as {blob}")
        if reader.kind not in _MOVES:
            yield reader
            return
        for moved in reader.outputs:
            yield from self.ends(moved)

    def bypass(self, chain: Sequence[Layer]) -> None:
        """Let the reader of a chain read what the chain reads."""
        (source,), (result,) = chain[0].inputs, chain[-1].outputs
        reader = self._readers[result]
        reader.inputs = [source if blob == result else blob for blob in reader.inputs]
        self._readers[source] = reader


def _multiplies(layer: Layer) -> bool:
    """Return whether a layer multiplies by one number."""
    return layer.kind == "BinaryOp" and layer.count(0) == _MULTIPLY and layer.count(1) == 1


def _store(layer: Layer, weight: Int8Weight, scale: float) -> None:
    """Give a layer a weight in int8, with the scales by which ncnn multiplies to get to int8."""
    steps = _bytes(weight.steps)
    reciprocals = _bytes((1 / weight.scales.double()).float())
    layer.params[_FORM] = _PER_CHANNEL
    layer.constants = [
        struct.pack("<I", _INT8) + steps + bytes(-len(steps) % 4),
        *layer.constants[1:],
        reciprocals,
        struct.pack("<f", 1 / scale),
    ]


def is_int8(layer: Layer) -> bool:
    """Return whether ncnn computes a layer in int8."""
    return layer.kind in _INT8_KINDS and _FORM in layer.params


def int8_kinds(layers: Sequence[Layer]) -> dict[str, int]:
    """Count the layers that ncnn computes in int8, by their kinds."""
    return dict(sorted(Counter(layer.kind for layer in layers if is_int8(layer)).items()))


def _bytes(tensor: Any) -> bytes:
    return bytes(tensor.detach().contiguous().numpy().tobytes())
