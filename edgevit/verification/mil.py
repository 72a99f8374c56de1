"""Reference evaluator of Core ML's ML programs: what a saved .mlpackage says, computed where Core ML cannot run.

It is packed for the worker like a recipe, so it imports nothing of edgevit. It reads the specification and the weights
from disk and runs the operators of Core ML's model intermediate language (MIL) one after another in torch. Each result
is computed in float32 and rounded to the type that the program declares for it: half precision rounds and overflows
after every operator. What a device does inside one operator (the width of its sums, say) is not seen here.
"""

from __future__ import annotations

import functools
import math
import operator
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # as everybody calls it
from numpy.typing import NDArray
from torch import Tensor

from edgevit_runtime.record import Recipe, Session, TensorSpec, UnsupportedError

RECIPE = Recipe(
    target="mil",
    suffix=".mlpackage",
    engine="torch",
    precisions=("fp32", "fp16"),
    requires=("torch",),
    extra="export",
)

# MIL's element types by their numbers, as NumPy spells them.
_DTYPES = {
    1: "bool", 2: "str", 10: "float16", 11: "float32", 12: "float64", 21: "int8", 22: "int16", 23: "int32",
    24: "int64", 31: "uint8", 32: "uint16", 33: "uint32",
}  # fmt: skip
_ML_PROGRAM = 502  # field of Model
_WEIGHTS = "@model_path/"  # what a path inside the package begins with
_SENTINEL = 0xDEADBEEF  # begins each record of the weight file

# ---- protocol buffers ---------------------------------------------------------------------------------------------


class Message:
    """Fields of a protocol buffer by number, as https://protobuf.dev/programming-guides/encoding/ says.

    coremltools has classes of these, but drags whole frameworks in: 6 s for each process that reads a file. And what it
    wrote is better read by somebody else. A field that is absent is empty: 0, "" or an empty message.
    """

    def __init__(self, data: memoryview) -> None:
        self._fields: dict[int, list[int | memoryview]] = {}
        at = 0
        while at < len(data):
            key, at = _varint(data, at)
            size = {0: 0, 1: 8, 5: 4}.get(key & 7, -1)
            value: int | memoryview
            if size == 0:
                value, at = _varint(data, at)
            else:
                if size < 0:
                    size, at = _varint(data, at)
                value, at = data[at : at + size], at + size
            self._fields.setdefault(key >> 3, []).append(value)

    def has(self, number: int) -> bool:
        """Whether the field is there."""
        return number in self._fields

    def raw(self, number: int) -> memoryview:
        """The field's bytes; of a repeated number of fixed width, all of them."""
        parts = [item for item in self._fields.get(number, []) if isinstance(item, memoryview)]
        return memoryview(b"".join(parts))

    def texts(self, number: int) -> list[str]:
        """A repeated string."""
        return [bytes(item).decode() for item in self._fields.get(number, []) if isinstance(item, memoryview)]

    def text(self, number: int) -> str:
        """A string."""
        return "".join(self.texts(number)[-1:])

    def numbers(self, number: int) -> list[int]:
        """A repeated signed integer, packed or not."""
        found = [item for item in self._fields.get(number, []) if isinstance(item, int)]
        data, at = self.raw(number), 0
        while at < len(data):
            value, at = _varint(data, at)
            found.append(value)
        return [item - (1 << 64) if item >> 63 else item for item in found]

    def number(self, number: int) -> int:
        """An integer."""
        return ([0, *self.numbers(number)])[-1]

    def all(self, number: int) -> list[Message]:
        """A repeated message."""
        return [Message(item) for item in self._fields.get(number, []) if isinstance(item, memoryview)]

    def one(self, number: int) -> Message:
        """A message."""
        return ([Message(memoryview(b"")), *self.all(number)])[-1]

    def entries(self, number: int) -> dict[str, Message]:
        """A map from strings to messages."""
        return {entry.text(1): entry.one(2) for entry in self.all(number)}


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


# ---- a program as it was saved ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One operation: its operator, its name, its place in the program, names of arguments, and what it declares."""

    operator: str
    name: str
    place: int
    arguments: Mapping[str, tuple[str, ...]]
    results: tuple[TensorSpec, ...]

    @property
    def says(self) -> str:
        """`conv 'stem_cast_fp16' (operation 12)`."""
        return f"{self.operator} '{self.name}' (operation {self.place})"


@dataclass(frozen=True)
class Program:
    """The main function: inputs, constants by name (tensors, floats in their declared type), steps and outputs."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    steps: tuple[Step, ...]
    constants: Mapping[str, Any]
    images: frozenset[str] = frozenset()  # inputs that are given as images: uint8 (1, H, W, 3)


def read_program(path: Path) -> Program:
    """Read a package from disk. Raises UnsupportedError where it is no ML program or has operators not known here."""
    file = next(iter(sorted(path.glob("Data/*/model.mlmodel"))), path / "Data/model.mlmodel")
    model = Message(memoryview(file.read_bytes()))
    if not model.has(_ML_PROGRAM):
        raise UnsupportedError(f"{path.name} holds no ML program")
    function = model.one(_ML_PROGRAM).entries(2)["main"]  # Program.functions
    opset = function.text(2)
    block = function.entries(3)[opset]  # Function.block_specializations
    constants: dict[str, Any] = {}
    steps = []
    for place, item in enumerate(block.all(3)):  # Block.operations
        if item.text(1) == "const":
            constants[_declared(item.one(3)).name] = _value(item.entries(5)["val"], file.parent)
        else:
            steps.append(_step(place, item, constants, file.parent))
    inputs = tuple(map(_declared, function.all(1)))
    known = {spec.name: spec for step in steps for spec in step.results} | {spec.name: spec for spec in inputs}
    outputs = tuple(known[name] for name in block.texts(2))
    return Program(inputs, outputs, tuple(steps), constants, _images(model.one(2)))


def _images(description: Message) -> frozenset[str]:
    """ModelDescription: input = 1. FeatureDescription: name = 1, type = 3. FeatureType: imageType = 4."""
    return frozenset(item.text(1) for item in description.all(1) if item.one(3).has(4))


def _step(place: int, item: Message, constants: dict[str, Any], folder: Path) -> Step:
    """Operation: type = 1, inputs = 2, outputs = 3, attributes = 5. Binding: name = 1, or value = 2."""
    arguments = {}
    for key, given in item.entries(2).items():
        names = []
        for i, binding in enumerate(given.all(1)):
            names.append(binding.text(1) if binding.has(1) else f"{place}.{key}.{i}")
            if binding.has(2):
                constants[names[-1]] = _value(binding.one(2), folder)
        arguments[key] = tuple(names)
    name = _value(item.entries(5)["name"], folder) if "name" in item.entries(5) else ""
    step = Step(item.text(1), str(name), place, arguments, tuple(map(_declared, item.all(3))))
    if step.operator not in OPERATORS:
        raise UnsupportedError(f"the reference evaluator does not know the operator of {step.says}")
    return step


def _type(value_type: Message) -> tuple[str, tuple[int, ...]]:
    """ValueType: tensorType = 1. TensorType: dataType = 1, dimensions = 3. Dimension: constant = 1, with size = 1."""
    tensor = value_type.one(1)
    if not value_type.has(1) or tensor.number(1) not in _DTYPES:
        raise UnsupportedError(f"the reference evaluator has no values of MIL's type {tensor.number(1)}")
    shape = tuple(size.one(1).number(1) if size.has(1) else -1 for size in tensor.all(3))
    return _DTYPES[tensor.number(1)], shape


def _declared(item: Message) -> TensorSpec:
    dtype, shape = _type(item.one(2))
    return TensorSpec(item.text(1), shape, dtype)


def _value(item: Message, folder: Path) -> Any:
    """A constant: text, or a tensor in its declared type; integers as int64, because torch computes on few others.

    Value: type = 2, immediateValue = 3, blobFileValue = 5.
    """
    dtype, shape = _type(item.one(2))
    if item.has(5):
        array = _stored(folder / item.one(5).text(1).removeprefix(_WEIGHTS), item.one(5).number(2), dtype, shape)
    else:
        tensor = item.one(3).one(1)  # ImmediateValue.tensor
        if dtype == "str":
            return tensor.one(4).text(1)
        array = _immediate(tensor, dtype).reshape(shape)
    return torch.from_numpy(array.astype(array.dtype if array.dtype.kind in "fb" else np.int64))


def _immediate(tensor: Message, dtype: str) -> NDArray[Any]:
    """TensorValue: floats = 1, ints = 2, bools = 3, longInts = 5, doubles = 6, bytes = 7, each with values = 1."""
    for number, raw in ((1, "<f4"), (6, "<f8"), (7, dtype)):
        if tensor.has(number):
            return np.frombuffer(tensor.one(number).raw(1), raw).astype(dtype)
    return np.array([n for number in (2, 3, 5) for n in tensor.one(number).numbers(1)], dtype)


def _stored(path: Path, offset: int, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """A constant of the weight file: a record of sentinel, type, bytes and place of the data stands at `offset`."""
    data = _file(path)
    sentinel, _, size, place = struct.unpack_from("<IIQQ", data, offset)
    if sentinel != _SENTINEL or size != math.prod(shape) * np.dtype(dtype).itemsize:
        raise ValueError(f"{path.name} holds no {dtype} of {list(shape)} at {offset}")
    return np.frombuffer(data, dtype, math.prod(shape), place).reshape(shape)


@functools.lru_cache(maxsize=1)
def _file(path: Path) -> bytes:
    return path.read_bytes()


# ---- running it ---------------------------------------------------------------------------------------------------


class Arguments:
    """What one operation is given, by the names of its parameters."""

    def __init__(self, values: Mapping[str, Sequence[Any]]) -> None:
        self._values = values

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name][0]  # type: ignore[no-any-return]

    def get(self, name: str) -> Tensor | None:
        """A tensor, or None where it is left out."""
        return self._values[name][0] if name in self._values else None

    def all(self, name: str) -> list[Tensor]:
        """Every tensor of a parameter that takes several."""
        return list(self._values[name])

    def ints(self, name: str, default: Sequence[int] = ()) -> list[int]:
        """A vector of integers, or one as a vector of length 1."""
        return [int(v) for v in self._values[name][0].reshape(-1)] if name in self._values else list(default)

    def int(self, name: str, default: int = 0) -> int:
        """One integer."""
        return int(self._values[name][0]) if name in self._values else default

    def number(self, name: str, default: float = 0.0) -> float:
        """One number."""
        return float(self._values[name][0]) if name in self._values else default

    def text(self, name: str, default: str) -> str:
        """One word, such as a mode."""
        return str(self._values[name][0]) if name in self._values else default


@dataclass(frozen=True)
class Result:
    """What one step gave, and the values it read that are not constants; floats in the type they are computed in."""

    step: Step
    given: tuple[Tensor, ...]
    values: tuple[Tensor, ...]


def run_program(
    program: Program, inputs: Mapping[str, Tensor], *, wide: torch.dtype = torch.float32, exact: bool = False
) -> Iterator[Result]:
    """Run step after step, each result computed in `wide` and rounded to its declared type, unless `exact`.

    exact: floats are never rounded, but for the constants, which are what the file holds. Raises ValueError where a
    result has not the shape that the program declares.
    """

    def held(value: Any) -> Any:
        return value.to(wide) if isinstance(value, Tensor) and value.is_floating_point() else value

    values = {name: held(value) for name, value in program.constants.items()}
    for spec in program.inputs:
        values[spec.name] = _as_declared(held(inputs[spec.name]), spec, wide, exact)
    for step in program.steps:
        arguments = {key: [values[name] for name in names] for key, names in step.arguments.items()}
        found = OPERATORS[step.operator](Arguments(arguments))
        several = found if isinstance(found, tuple) else (found,)
        made = tuple(_as_declared(v, spec, wide, exact) for v, spec in zip(several, step.results, strict=True))
        for value, spec in zip(made, step.results, strict=True):
            if not _fits(value, spec):
                raise ValueError(f"{step.says} declares {list(spec.shape)} and gives {list(value.shape)}")
            values[spec.name] = value
        names = [name for names in step.arguments.values() for name in names if name not in program.constants]
        yield Result(step, tuple(values[name] for name in names), made)


def _fits(value: Tensor, spec: TensorSpec) -> bool:
    sizes = tuple(value.shape)
    return len(sizes) == len(spec.shape) and all(w in (-1, s) for s, w in zip(sizes, spec.shape, strict=True))


def _as_declared(value: Tensor, spec: TensorSpec, wide: torch.dtype, exact: bool) -> Tensor:
    declared = getattr(torch, spec.dtype)
    if declared.is_floating_point:
        return value.to(wide) if exact else value.to(declared).to(wide)
    return value.to(declared) if declared == torch.bool else value.to(declared).to(torch.int64)


def _as_image(spec: TensorSpec) -> TensorSpec:
    batch, channels, height, width = spec.shape
    return TensorSpec(spec.name, (batch, height, width, channels), "uint8")


def as_given(value: Tensor) -> Tensor:
    """An input as the program gets it: a raw image (1, H, W, 3) as float32 (1, 3, H, W), anything else as it is."""
    return value.permute(0, 3, 1, 2).float() if value.dtype == torch.uint8 else value


class MilSession:
    """A program, evaluated in torch on the CPU."""

    def __init__(self, path: Path, threads: int) -> None:
        torch.set_num_threads(threads)
        self._program = read_program(path)
        self.engine_version: str = torch.__version__
        self.provider = "reference evaluator"
        self.inputs = tuple(_as_image(s) if s.name in self._program.images else s for s in self._program.inputs)
        self.outputs = self._program.outputs
        self._feeds: dict[str, Tensor] = {}
        self._results: dict[str, Tensor] = {}

    def feed(self, tensors: Sequence[bytes], batch: int) -> None:
        """Set the inputs from raw bytes."""
        for spec, raw in zip(self.inputs, tensors, strict=True):
            array = np.frombuffer(raw, spec.dtype).reshape(spec.at_batch(batch).shape)
            self._feeds[spec.name] = as_given(torch.from_numpy(array.copy()))

    def run(self) -> None:
        """Compute once."""
        self._results = dict(self._feeds)
        wanted = {spec.name for spec in self.outputs}
        with torch.inference_mode():
            for done in run_program(self._program, self._feeds):
                for spec, value in zip(done.step.results, done.values, strict=True):
                    if spec.name in wanted:
                        self._results[spec.name] = value

    def fetch(self) -> tuple[bytes, ...]:
        """The last outputs, raw."""
        return tuple(self._results[s.name].to(getattr(torch, s.dtype)).numpy().tobytes() for s in self.outputs)


def load(path: Path, *, threads: int) -> Session:
    """Read a package. Raises UnsupportedError, which names the operation, where an operator is not known here."""
    return MilSession(path, threads)


@dataclass(frozen=True)
class Trace:
    """One operation as it ran: the greatest magnitude of its first result, whether all is finite, its seconds."""

    step: Step
    peak: float
    is_finite: bool
    seconds: float


def trace(path: Path, inputs: Mapping[str, Tensor]) -> list[Trace]:
    """Every operation of a package on these inputs, in order."""
    found = []
    start = time.perf_counter()
    for done in run_program(read_program(path), inputs):
        seconds = time.perf_counter() - start
        peak = done.values[0].abs().max().item() if done.values[0].numel() else 0.0
        finite = all(bool(value.isfinite().all()) for value in done.values)
        found.append(Trace(done.step, float(peak), finite, seconds))
        start = time.perf_counter()
    return found


# ---- operators ----------------------------------------------------------------------------------------------------
# Defaults are those of the MIL reference (https://apple.github.io/coremltools/source/coremltools.converters.mil.mil.ops.defs.html).


def _padding(a: Arguments, kernel: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """Elements before and after each spatial dimension: [before, after, before, after...]."""
    kind, strides = a.text("pad_type", "valid"), a.ints("strides", [1] * len(kernel))
    if kind == "custom":
        return a.ints("pad", [0] * 2 * len(kernel))
    if kind == "valid":
        return [0] * 2 * len(kernel)
    padding = []
    for span, size, stride in zip(kernel, sizes, strides, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + span - size, 0)
        small, large = total // 2, total - total // 2
        padding += [small, large] if kind == "same" else [large, small]
    return padding


def _pad_sides(x: Tensor, padding: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad the last dimensions; MIL lists them first to last, torch last to first."""
    pairs = [padding[i : i + 2] for i in range(0, len(padding), 2)]
    return F.pad(x, [side for pair in reversed(pairs) for side in pair], value=value) if any(padding) else x


def _conv(a: Arguments) -> Tensor:
    x, weight = a["x"], a["weight"]
    rank = x.ndim - 2
    dilations = a.ints("dilations", [1] * rank)
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(weight.shape[2:], dilations, strict=True)]
    padded = _pad_sides(x, _padding(a, spans, x.shape[2:]))
    convolve = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    strides = a.ints("strides", [1] * rank)
    return convolve(padded, weight, a.get("bias"), strides, 0, dilations, a.int("groups", 1))


def _conv_transpose(a: Arguments) -> Tensor:
    """All of it, cut down to what is asked for; an output shape beyond it is filled with the bias."""
    x, weight = a["x"], a["weight"]
    rank = x.ndim - 2
    strides, kind = a.ints("strides", [1] * rank), a.text("pad_type", "valid")
    convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    dilations = a.ints("dilations", [1] * rank)
    whole = convolve(x, weight, None, strides, 0, 0, a.int("groups", 1), dilations)
    cut = a.ints("pad", [0] * 2 * rank) if kind == "custom" else [0] * 2 * rank
    shape = a.ints("output_shape")[2:]
    if not shape:
        shape = [size - cut[2 * i] - cut[2 * i + 1] for i, size in enumerate(whole.shape[2:])]
        shape = [size * stride for size, stride in zip(x.shape[2:], strides, strict=True)] if kind == "same" else shape
    if kind == "same":
        excess = [have - want for have, want in zip(whole.shape[2:], shape, strict=True)]
        cut = [side for total in excess for side in (max(total, 0) // 2, 0)]
    for i, size in enumerate(shape):
        whole = whole.narrow(2 + i, cut[2 * i], min(size, whole.shape[2 + i] - cut[2 * i]))
    whole = _pad_sides(whole, [side for i, n in enumerate(shape) for side in (0, n - whole.shape[2 + i])])
    bias = a.get("bias")
    return whole if bias is None else whole + bias.reshape(-1, *[1] * rank)


def _matmul(a: Arguments) -> Tensor:
    x, y = a["x"], a["y"]
    return (x.mT if a.int("transpose_x") else x) @ (y.mT if a.int("transpose_y") else y)


def _attention(a: Arguments) -> Tensor:
    scores = a["query"] @ a["key"].mT / math.sqrt(a["query"].shape[-1])
    mask = a.get("attn_mask")
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1) @ a["value"]


def _batch_norm(a: Arguments) -> Tensor:
    return F.batch_norm(a["x"], a["mean"], a["variance"], a.get("gamma"), a.get("beta"), eps=a.number("epsilon", 1e-5))


def _instance_norm(a: Arguments) -> Tensor:
    return F.instance_norm(a["x"], weight=a.get("gamma"), bias=a.get("beta"), eps=a.number("epsilon", 1e-5))


def _layer_norm(a: Arguments) -> Tensor:
    x = a["x"]
    axes = sorted(axis % x.ndim for axis in a.ints("axes", range(x.ndim)))
    centred = x - x.mean(axes, keepdim=True)
    normal = centred / (centred.square().mean(axes, keepdim=True) + a.number("epsilon", 1e-5)).sqrt()
    shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    gamma, beta = a.get("gamma"), a.get("beta")
    scaled = normal if gamma is None else normal * gamma.reshape(shape)
    return scaled if beta is None else scaled + beta.reshape(shape)


def _l2_norm(a: Arguments) -> Tensor:
    return a["x"] / (a["x"].square().sum((-3, -2, -1), keepdim=True) + a.number("epsilon", 1e-6)).sqrt()


def _pool(a: Arguments, kind: str) -> Tensor:
    """Windows over the padded input; with ceil_mode, the last may overhang, which counts for nothing in an average."""
    x, kernel = a["x"], a.ints("kernel_sizes")
    rank = x.ndim - 2
    strides, padding = a.ints("strides", [1] * rank), _padding(a, kernel, x.shape[2:])
    padded = _pad_sides(x, padding, -math.inf if kind == "max" else 0.0)
    overhang = _overhang(a, padded.shape[2:], kernel, strides, padding)
    windows = _pad_sides(padded, overhang, -math.inf if kind == "max" else 0.0)
    if kind == "max":
        return (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1](windows, kernel, strides)
    average = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
    if kind == "l2":
        return (average(windows.square(), kernel, strides) * math.prod(kernel)).sqrt()
    ones = torch.ones_like(x if a.int("exclude_padding_from_average") else padded)
    counted = _pad_sides(ones, padding) if a.int("exclude_padding_from_average") else ones
    share = average(_pad_sides(counted, overhang), kernel, strides)
    return average(windows, kernel, strides) / share


def _overhang(
    a: Arguments, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], padding: Sequence[int]
) -> list[int]:
    """Elements after each dimension that a last window needs; none that would begin behind input and padding before."""
    sides = [0] * 2 * len(kernel)
    for i, (size, span, stride) in enumerate(zip(sizes, kernel, strides, strict=True)):
        left = (size - span) % stride
        begins = size - span - left + stride
        if a.int("ceil_mode") and left and not (padding[2 * i + 1] and begins >= size - padding[2 * i + 1]):
            sides[2 * i + 1] = stride - left
    return sides


def _gelu(a: Arguments) -> Tensor:
    mode = a.text("mode", "EXACT")
    if mode == "SIGMOID_APPROXIMATION":
        return a["x"] * (1.702 * a["x"]).sigmoid()
    return F.gelu(a["x"], approximate="none" if mode == "EXACT" else "tanh")


def _per_channel(a: Arguments, name: str) -> Tensor:
    return a[name].reshape(-1, *[1] * (a["x"].ndim - 2))


def _clamped_relu(a: Arguments) -> Tensor:
    x = a["x"]
    return torch.where(x >= 0, x, a.number("alpha") * x).clamp(max=a.number("beta"))


def _axes(a: Arguments) -> list[int]:
    return a.ints("axes") or list(range(a["x"].ndim))


def _reduce(reduction: Callable[..., Tensor]) -> Callable[[Arguments], Tensor]:
    return lambda a: reduction(a["x"], _axes(a), keepdim=bool(a.int("keep_dims")))


def _product(x: Tensor, axes: Sequence[int], *, keepdim: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keepdim)
    return x


def _reduce_arg(pick: Callable[..., Tensor]) -> Callable[[Arguments], Tensor]:
    return lambda a: pick(a["x"], a.int("axis", -1), keepdim=bool(a.int("keep_dims")))


def _reshape(a: Arguments) -> Tensor:
    """0 keeps a size, -1 is what is left."""
    return a["x"].reshape([size or a["x"].shape[i] for i, size in enumerate(a.ints("shape"))])


def _expand_dims(a: Arguments) -> Tensor:
    rank = a["x"].ndim + len(a.ints("axes"))
    kept = iter(a["x"].shape)
    new = {axis % rank for axis in a.ints("axes")}
    return a["x"].reshape([1 if axis in new else next(kept) for axis in range(rank)])


def _squeeze(a: Arguments) -> Tensor:
    axes = a.ints("axes") or [i for i, size in enumerate(a["x"].shape) if size == 1]
    return a["x"].squeeze(tuple(axes))


def _concat(a: Arguments) -> Tensor:
    axis, values = a.int("axis"), a.all("values")
    if a.int("interleave"):
        return torch.stack(values, axis % values[0].ndim + 1).flatten(axis % values[0].ndim, axis % values[0].ndim + 1)
    return torch.cat(values, axis)


def _split(a: Arguments) -> tuple[Tensor, ...]:
    axis = a.int("axis")
    sizes = a.ints("split_sizes") or [a["x"].shape[axis] // a.int("num_splits")] * a.int("num_splits")
    return tuple(torch.split(a["x"], sizes, axis))


def _slice_by_index(a: Arguments) -> Tensor:
    """x[begin:end:stride] in every dimension, as NumPy has it."""
    begin, end, rank = a.ints("begin"), a.ints("end"), a["x"].ndim
    none = [0] * rank
    masks = zip(a.ints("begin_mask", none), a.ints("end_mask", none), a.ints("squeeze_mask", none), strict=True)
    steps = a.ints("stride", [1] * rank)
    index: list[slice | int] = []
    for i, (from_start, to_end, is_single) in enumerate(masks):
        plain = slice(None if from_start else begin[i], None if to_end else end[i], steps[i])
        index.append(begin[i] if is_single else plain)
    return torch.from_numpy(a["x"].numpy()[tuple(index)].copy())  # torch knows no negative strides


def _slice_by_size(a: Arguments) -> Tensor:
    x = a["x"]
    for axis, (begin, size) in enumerate(zip(a.ints("begin"), a.ints("size"), strict=True)):
        begin = begin % x.shape[axis] if begin < 0 else begin
        x = x.narrow(axis, begin, x.shape[axis] - begin if size == -1 else size)
    return x


def _gather(a: Arguments) -> Tensor:
    x, indices, shared = a["x"], a["indices"], a.int("batch_dims")
    axis = a.int("axis") % x.ndim
    indices = torch.where(indices < 0, indices + x.shape[axis], indices)
    if shared:
        rows = zip(x.flatten(0, shared - 1), indices.flatten(0, shared - 1), strict=True)
        found = [_take(row, index, axis - shared) for row, index in rows]
        return torch.stack(found).reshape(*x.shape[:shared], *found[0].shape)
    return _take(x, indices, axis)


def _take(x: Tensor, indices: Tensor, axis: int) -> Tensor:
    taken = x.index_select(axis, indices.reshape(-1))
    return taken.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _gather_along_axis(a: Arguments) -> Tensor:
    axis = a.int("axis")
    return a["x"].gather(axis, torch.where(a["indices"] < 0, a["indices"] + a["x"].shape[axis], a["indices"]))


def _gather_nd(a: Arguments) -> Tensor:
    if a.int("batch_dims"):
        raise UnsupportedError("the reference evaluator has no gather_nd with batch_dims")
    return a["x"][tuple(a["indices"].unbind(-1))]


def _pad(a: Arguments) -> Tensor:
    mode, padding = a.text("mode", "constant"), a.ints("pad")
    if mode == "constant":
        return _pad_sides(a["x"], padding, a.number("constant_val"))
    rank = a["x"].ndim
    full = [0] * (2 * rank - len(padding)) + padding
    pairs = [(full[2 * i], full[2 * i + 1]) for i in range(rank)]
    return torch.from_numpy(np.pad(a["x"].numpy(), pairs, "reflect" if mode == "reflect" else "edge"))


def _cumsum(a: Arguments) -> Tensor:
    x, axis = a["x"], a.int("axis")
    x = x.flip(axis) if a.int("reverse") else x
    total = x.cumsum(axis) - x if a.int("exclusive") else x.cumsum(axis)
    return total.flip(axis) if a.int("reverse") else total


def _one_hot(a: Arguments) -> Tensor:
    size, axis = a.int("one_hot_vector_size"), a.int("axis", -1)
    hot = F.one_hot(a["indices"], size).movedim(-1, axis).bool()
    on, off = a.get("on_value"), a.get("off_value")
    return torch.where(hot, torch.tensor(1) if on is None else on, torch.tensor(0) if off is None else off)


def _topk(a: Arguments) -> Tensor | tuple[Tensor, ...]:
    values, indices = a["x"].topk(a.int("k", 1), a.int("axis", -1), largest=not a.int("ascending"))
    return (values, indices) if a.int("return_indices", 1) else values


def _argsort(a: Arguments) -> Tensor:
    return a["x"].argsort(stable=True, dim=a.int("axis", -1), descending=not a.int("ascending"))


def _band_part(a: Arguments) -> Tensor:
    lower, upper = a.int("lower", -1), a.int("upper", -1)
    x = a["x"] if lower < 0 else a["x"].triu(-lower)
    return x if upper < 0 else x.tril(upper)


def _depth_to_space(a: Arguments) -> Tensor:
    """Channels are [block row, block column, depth]; pixel_shuffle's are [depth, row, column]."""
    block = a.int("block_size")
    n, c, h, w = a["x"].shape
    blocks = a["x"].reshape(n, block, block, c // block**2, h, w)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(n, c // block**2, h * block, w * block)


def _space_to_depth(a: Arguments) -> Tensor:
    block = a.int("block_size")
    n, c, h, w = a["x"].shape
    blocks = a["x"].reshape(n, c, h // block, block, w // block, block)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(n, c * block**2, h // block, w // block)


def _flatten2d(a: Arguments) -> Tensor:
    return a["x"].reshape(math.prod(a["x"].shape[: a.int("axis", 1)]), -1)


def _cast(a: Arguments) -> Tensor:
    """Its result is declared in the new type, and rounded like every other; only bool is another function."""
    return a["x"] != 0 if a.text("dtype", "fp32") == "bool" else a["x"]


# Where output pixels lie among the input's: positions by the input's and output's sizes, one dimension.
_GRIDS: dict[str, Callable[[int, int], Tensor]] = {
    "STRICT_ALIGN_CORNERS": lambda size, out: torch.arange(out) * ((size - 1) / max(out - 1, 1)),
    "ALIGN_CORNERS": lambda size, out: torch.arange(out) * ((size - 1) / max(out - 1, 1)) + (out == 1) * (size - 1) / 2,
    "DEFAULT": lambda size, out: torch.arange(out) * (size / out),
    "OFFSET_CORNERS": lambda size, out: (torch.arange(out) + 0.5) * (max(1, size - 1) / out),
    "UNALIGN_CORNERS": lambda size, out: (torch.arange(out) + 0.5) * (size / out) - 0.5,
}


def _resized(x: Tensor, sizes: Sequence[int], grid: str, *, is_linear: bool = True) -> Tensor:
    """Interpolate the last dimensions one by one."""
    for axis, size in zip(range(x.ndim - len(sizes), x.ndim), sizes, strict=True):
        place = _GRIDS[grid](x.shape[axis], size).double().clamp(0, x.shape[axis] - 1)
        low = (place if is_linear else place.round()).floor().long()
        part = (place - low).to(x.dtype).reshape(-1, *[1] * (x.ndim - 1 - axis)) if is_linear else 0.0
        high = (low + 1).clamp(max=x.shape[axis] - 1)
        x = x.index_select(axis, low) * (1 - part) + x.index_select(axis, high) * part
    return x


def _upsample_bilinear(a: Arguments) -> Tensor:
    sides = [int(a["x"].shape[i] * a.number(f"scale_factor_{n}", 1.0)) for i, n in ((-2, "height"), (-1, "width"))]
    aligned = bool(a.int("align_corners", 1))
    centred = bool(a.int("half_pixel_centers", not aligned))
    if aligned and centred:
        raise UnsupportedError("the reference evaluator has no upsample_bilinear with aligned corners and half pixels")
    return _resized(a["x"], sides, "STRICT_ALIGN_CORNERS" if aligned else "UNALIGN_CORNERS" if centred else "DEFAULT")


def _upsample_nearest(a: Arguments) -> Tensor:
    x = a["x"]
    for axis, name in ((-2, "height"), (-1, "width")):
        scale, size = a.number(f"scale_factor_{name}", 1.0), x.shape[axis]
        out = int(size * scale)
        x = x.index_select(axis, (torch.arange(out).double() * (size / out)).long().clamp(max=size - 1))
    return x


def _resize_bilinear(a: Arguments) -> Tensor:
    sides = [a.int("target_size_height", 1), a.int("target_size_width", 1)]
    return _resized(a["x"], sides, a.text("sampling_mode", "DEFAULT"))


def _log(a: Arguments) -> Tensor:
    return (a["x"] + a.number("epsilon", 1e-45)).log()


def _fill_like(a: Arguments) -> Tensor:
    return torch.full(tuple(a["ref_tensor"].shape), a.number("value"))


Operator = Callable[[Arguments], Tensor | tuple[Tensor, ...]]


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda a: function(a["x"])


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda a: function(a["x"], a["y"])


_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs, "acos": torch.acos, "asin": torch.asin, "atan": torch.atan, "atanh": torch.atanh,
    "ceil": torch.ceil, "cos": torch.cos, "cosh": torch.cosh, "erf": torch.erf, "exp": torch.exp, "exp2": torch.exp2,
    "floor": torch.floor, "identity": lambda x: x, "logical_not": torch.logical_not, "relu": torch.relu,
    "relu6": F.relu6, "round": torch.round, "sigmoid": torch.sigmoid, "sign": torch.sign, "silu": F.silu,
    "sin": torch.sin, "sinh": torch.sinh, "softplus": lambda x: torch.logaddexp(x, torch.zeros_like(x)),
    "softsign": F.softsign, "sqrt": torch.sqrt, "square": torch.square, "tan": torch.tan, "tanh": torch.tanh,
}  # fmt: skip
_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "real_div": operator.truediv,
    "maximum": torch.maximum, "minimum": torch.minimum, "pow": operator.pow, "floor_div": torch.floor_divide,
    "mod": torch.remainder, "equal": torch.eq, "not_equal": torch.ne, "greater": torch.gt, "greater_equal": torch.ge,
    "less": torch.lt, "less_equal": torch.le, "logical_and": torch.logical_and, "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
}  # fmt: skip
_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "max": torch.amax, "min": torch.amin, "mean": torch.mean, "sum": torch.sum, "prod": _product,
    "l1_norm": lambda x, axes, keepdim: x.abs().sum(axes, keepdim=keepdim),
    "l2_norm": lambda x, axes, keepdim: x.square().sum(axes, keepdim=keepdim).sqrt(),
    "log_sum": lambda x, axes, keepdim: x.sum(axes, keepdim=keepdim).log(),
    "log_sum_exp": torch.logsumexp,
    "sum_square": lambda x, axes, keepdim: x.square().sum(axes, keepdim=keepdim),
}  # fmt: skip

OPERATORS: dict[str, Operator] = {
    **{name: _unary(function) for name, function in _UNARY.items()},
    **{name: _binary(function) for name, function in _BINARY.items()},
    **{f"reduce_{name}": _reduce(function) for name, function in _REDUCTIONS.items()},
    "argsort": _argsort,
    "avg_pool": lambda a: _pool(a, "average"),
    "band_part": _band_part,
    "batch_norm": _batch_norm,
    "cast": _cast,
    "clamped_relu": _clamped_relu,
    "clip": lambda a: a["x"].clamp(a.number("alpha"), a.number("beta")),
    "concat": _concat,
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "cumsum": _cumsum,
    "depth_to_space": _depth_to_space,
    "einsum": lambda a: torch.einsum(a.text("equation", ""), *a.all("values")),
    "elu": lambda a: F.elu(a["x"], a.number("alpha")),
    "expand_dims": _expand_dims,
    "fill": lambda a: torch.full(a.ints("shape"), a.number("value")),
    "fill_like": _fill_like,
    "flatten2d": _flatten2d,
    "gather": _gather,
    "gather_along_axis": _gather_along_axis,
    "gather_nd": _gather_nd,
    "gelu": _gelu,
    "instance_norm": _instance_norm,
    "inverse": lambda a: 1 / (a["x"] + a.number("epsilon", 1e-4)),
    "l2_norm": _l2_norm,
    "l2_pool": lambda a: _pool(a, "l2"),
    "layer_norm": _layer_norm,
    "leaky_relu": lambda a: F.leaky_relu(a["x"], a.number("alpha")),
    "linear": lambda a: F.linear(a["x"], a["weight"], a.get("bias")),
    "linear_activation": lambda a: a["x"] * a.number("alpha") + a.number("beta"),
    "log": _log,
    "matmul": _matmul,
    "max_pool": lambda a: _pool(a, "max"),
    "one_hot": _one_hot,
    "pad": _pad,
    "pixel_shuffle": lambda a: F.pixel_shuffle(a["x"], a.int("upscale_factor")),
    "pixel_unshuffle": lambda a: F.pixel_unshuffle(a["x"], a.int("downscale_factor")),
    "prelu": lambda a: torch.where(a["x"] >= 0, a["x"], a["x"] * _per_channel(a, "alpha")),
    "range_1d": lambda a: torch.arange(a["start"].item(), a["end"].item(), a["step"].item()),
    "reduce_argmax": _reduce_arg(torch.argmax),
    "reduce_argmin": _reduce_arg(torch.argmin),
    "reshape": _reshape,
    "resize_bilinear": _resize_bilinear,
    "reverse": lambda a: a["x"].flip(_axes(a)),
    "rsqrt": lambda a: (a["x"] + a.number("epsilon", 1e-12)).rsqrt(),
    "scaled_dot_product_attention": _attention,
    "scaled_tanh": lambda a: a.number("alpha") * (a["x"] * a.number("beta")).tanh(),
    "select": lambda a: torch.where(a["cond"], a["a"], a["b"]),
    "shape": lambda a: torch.tensor(a["x"].shape),
    "sigmoid_hard": lambda a: (a["x"] * a.number("alpha") + a.number("beta")).clamp(0, 1),
    "slice_by_index": _slice_by_index,
    "slice_by_size": _slice_by_size,
    "softmax": lambda a: a["x"].softmax(a.int("axis", -1)),
    "softplus_parametric": lambda a: _per_channel(a, "alpha") * F.softplus(a["x"] * _per_channel(a, "beta")),
    "space_to_depth": _space_to_depth,
    "split": _split,
    "squeeze": _squeeze,
    "stack": lambda a: torch.stack(a.all("values"), a.int("axis")),
    "thresholded_relu": lambda a: torch.where(a["x"] >= a.number("alpha"), a["x"], 0.0),
    "threshold": lambda a: a["x"].clamp(min=a.number("alpha")),
    "tile": lambda a: a["x"].tile(a.ints("reps")),
    "topk": _topk,
    "transpose": lambda a: a["x"].permute(a.ints("perm")),
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest,
}
