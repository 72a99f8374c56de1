"""Shapes of inputs as people write them: `1x3x96x96`, `tokens=1x77:int64`, in options or beside a function."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgevit.errors import UsageError
from edgevit_runtime.record import TensorSpec

DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")
EXAMPLE = "1x3x224x224, or NAME=1x77:int64"
_TEXT = re.compile(r"(?:(?P<name>[^=:]*)=)?(?P<shape>\d+(?:x\d+)*)(?::(?P<dtype>\w+))?")
_IMAGE_DIMENSIONS = 4
_MAX_NUMBERS = 2**31  # of one input


@dataclass(frozen=True)
class InputRequest:
    """What options say of a network's inputs: all of them, or height and width of its image; nothing by default."""

    size: tuple[int, int] | None = None
    shapes: tuple[TensorSpec, ...] = ()


def read_input_shapes(value: Any, where: str = "") -> tuple[TensorSpec, ...]:
    """Return the inputs that a text, a shape, several of both, or a mapping from names to them describes.

    The batch is open, as -1. An input without a name has the empty one; name_inputs() names it. Raises UsageError.
    """
    is_sequence = isinstance(value, Sequence)
    if isinstance(value, Mapping):
        specs = [_read_one(shape, where, str(name)) for name, shape in value.items()]
    elif isinstance(value, str) or (is_sequence and value and all(isinstance(side, int) for side in value)):
        specs = [_read_one(value, where)]
    elif is_sequence:
        specs = [_read_one(shape, where) for shape in value]
    else:
        raise _unreadable(value, where)
    names = [spec.name for spec in specs if spec.name]
    if len(set(names)) < len(names):
        raise UsageError(f"two inputs have the name {max(names, key=names.count)!r}", where=where, fix=_fix(where))
    return tuple(specs)


def name_inputs(
    specs: Sequence[TensorSpec], parameters: Sequence[str], required: int, model: str
) -> tuple[TensorSpec, ...]:
    """Return the inputs with names, in the order in which the model takes them.

    parameters: names of those that its forward takes, the first `required` of which have no default; empty where they
    have no names. A single image is called `image`, and another single input `input`. Several are called as forward
    calls them. Raises UsageError where the number or the order of the inputs cannot be the model's.
    """
    if parameters and not required <= len(specs) <= len(parameters):
        listed = " ".join(f"--input-shape {name}=..." for name in parameters)
        why = f"its forward takes {', '.join(parameters)}"
        raise UsageError(f"{model} takes {required} input(s), and {len(specs)} were stated", why=why, fix=listed)
    named = {spec.name: spec for spec in specs if spec.name in parameters}
    if len(named) == len(specs):
        # The names are those of the parameters, so they decide the order.
        ordered = [named[name] for name in parameters if name in named]
        if [spec.name for spec in ordered] != list(parameters[: len(ordered)]):
            missing = next(name for name in parameters if name not in named)
            raise UsageError(f"{model} takes {missing!r} before others", fix=f"--input-shape {missing}=...")
        return tuple(ordered)
    if named and any(parameters.index(spec.name) != place for place, spec in enumerate(specs) if spec.name in named):
        why = f"its forward takes {', '.join(parameters)}"
        raise UsageError(f"the order of the inputs of {model} is not clear", why=why, fix="name all of them as there")
    return tuple(
        TensorSpec(spec.name or _default_name(place, specs, parameters), spec.shape, spec.dtype)
        for place, spec in enumerate(specs)
    )


def describe_inputs(specs: Sequence[TensorSpec]) -> str:
    """Return `image 1x3x224x224, tokens 1x77 int64`."""
    return ", ".join(
        f"{spec.name} {'x'.join(map(str, spec.at_batch(1).shape))}{f' {spec.dtype}' * (spec.dtype != 'float32')}"
        for spec in specs
    )


def _default_name(place: int, specs: Sequence[TensorSpec], parameters: Sequence[str]) -> str:
    if len(specs) == 1:
        return "image" if len(specs[0].shape) == _IMAGE_DIMENSIONS else "input"
    return parameters[place] if parameters else f"input{place}"


def _read_one(value: Any, where: str, name: str = "") -> TensorSpec:
    """Return one input. Raise UsageError for what describes none."""
    text = value if isinstance(value, str) else "x".join(map(str, value)) if isinstance(value, Sequence) else ""
    match = _TEXT.fullmatch(text)
    if match is None or (name and match["name"]):
        raise _unreadable(value, where)
    batch, *shape = map(int, match["shape"].split("x"))
    name, dtype = name or (match["name"] or "").strip(), match["dtype"] or "float32"
    if match["name"] is not None and not name.isidentifier():
        raise UsageError(f"{name!r} is no name of an input", where=where, why="it is letters, digits and _")
    if batch != 1:
        why = "the first number is the batch, which --batch-size decides"
        raise UsageError(f"the shape {match['shape']} begins with {batch}", where=where, why=why, fix=_fix(where))
    if not shape or min(shape) < 1 or math.prod(shape) > _MAX_NUMBERS:
        raise _unreadable(value, where)
    if dtype not in DTYPES:
        raise UsageError(f"{dtype!r} is no type of an input", where=where, why=f"types: {', '.join(DTYPES)}")
    return TensorSpec(name, (-1, *shape), dtype)


def _unreadable(value: Any, where: str) -> UsageError:
    return UsageError(f"{value!r} is no shape of an input", where=where, fix=_fix(where))


def _fix(where: str) -> str:
    return f"--input-shape {EXAMPLE}" if not where else "input_shape = (1, 3, 224, 224), the batch of 1 first"
