"""Statements about a network, by options or beside its function: shapes of inputs, preprocessing and labels."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from edgevit.errors import UsageError
from edgevit.models.user_code import UserCode
from edgevit.records.input_shapes import InputRequest, describe_inputs, name_inputs, read_input_shapes
from edgevit.records.model import ASSUMED_PREPROCESSING, ModelCard, Preprocessing
from edgevit.records.preprocessing import StatedPreprocessing, complete, read_stated
from edgevit_runtime.record import TensorSpec

_NAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_RGB_IMAGE = TensorSpec("image", (-1, 3, 0, 0))
# A function or an imported module of one of these names states nothing.
_NO_STATEMENTS = (types.FunctionType, types.BuiltinFunctionType, types.ModuleType, type)


class Statements(NamedTuple):
    """What stands beside a function; empty: nothing."""

    inputs: tuple[TensorSpec, ...] = ()
    preprocessing: Preprocessing | StatedPreprocessing | None = None
    labels: tuple[str, ...] = ()


def read_statements(names: Mapping[str, Any], function: Callable[..., Any], where: str) -> Statements:
    """Return what a function's attributes, or else the names of its file, state. Raises UsageError for nonsense."""

    def statement(name: str) -> Any:
        value = getattr(function, name, names.get(name))
        return None if isinstance(value, _NO_STATEMENTS) else value

    shape, preprocessing, labels = map(statement, ("input_shape", "preprocessing", "labels"))
    if isinstance(preprocessing, Mapping):
        preprocessing = read_stated(preprocessing, f"`preprocessing` of {where}")
    elif not isinstance(preprocessing, Preprocessing | None):
        why = f"it is a {type(preprocessing).__name__}"
        fix = "preprocessing = {'mean': (0.5, 0.5, 0.5), 'std': (0.5, 0.5, 0.5), 'resize': 256}, or another name"
        raise UsageError(f"`preprocessing` of {where} is no mapping", why=why, fix=fix)
    if labels is not None and (isinstance(labels, str) or not all(isinstance(label, str) for label in labels)):
        raise UsageError(f"`labels` of {where} are no names of classes", fix="labels = ['cat', 'dog'], or another name")
    inputs = () if shape is None else read_input_shapes(shape, f"`input_shape` of {where}")
    return Statements(inputs, preprocessing, tuple(labels or ()))


def stated_inputs(
    module: nn.Module, known: Sequence[TensorSpec], request: InputRequest, name: str
) -> tuple[TensorSpec, ...]:
    """Return the inputs of a network: those of the request, else the known ones, at the size that was asked for.

    Raises UsageError where nothing tells them, or the request contradicts itself or the network.
    """
    if request.size and request.shapes:
        raise UsageError("--input-size and --input-shape say the same", fix="leave one of them out")
    specs = request.shapes or tuple(known)
    if specs:
        specs = name_inputs(specs, *_parameters(module), name)
    if request.size is None:
        if not specs:
            fix = "--input-size 224 for an RGB image, or --input-shape 1x1x28x28, or `input_shape` beside the function"
            raise UsageError(f"{name} does not say what it takes", fix=fix)
        return specs
    first, *others = specs or (_RGB_IMAGE,)
    if len(first.shape) != len(_RGB_IMAGE.shape):
        why = f"it takes {describe_inputs(specs)}"
        raise UsageError(f"{name} takes no image", why=why, fix="--input-shape in place of --input-size")
    return (dataclasses.replace(first, shape=(*first.shape[:-2], *request.size)), *others)


def stated_preprocessing(
    card: ModelCard | None,
    beside: Preprocessing | StatedPreprocessing | None,
    options: StatedPreprocessing,
    inputs: Sequence[TensorSpec],
) -> Preprocessing:
    """Return the preprocessing by what was stated. Options count first, then what stands beside the function.

    Raises UsageError where it does not fit the inputs.
    """
    base = card.preprocessing if card else ASSUMED_PREPROCESSING
    if isinstance(beside, Preprocessing):
        base = beside
    elif beside is not None:
        base = complete(base, beside, inputs)
    return complete(base, options, inputs)


def require_taken(module: nn.Module, inputs: Mapping[str, Tensor], model: str, *, guessed: bool) -> None:
    """Raise ModelError where a network cannot compute inputs of these shapes. guessed: an RGB image was assumed."""
    specs = [
        TensorSpec(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in inputs.items()
    ]
    how = "which was assumed: one RGB image of --input-size" if guessed else "which was stated"
    with UserCode(model, f"{describe_inputs(specs)}, {how}"), torch.inference_mode():
        module(*inputs.values())


def _parameters(module: nn.Module) -> tuple[tuple[str, ...], int]:
    """Return the names of what forward takes, and how many have no default; nothing where it takes any number."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (ValueError, TypeError):
        return (), 0
    named = [parameter for parameter in parameters if parameter.kind in _NAMED]
    if any(parameter.kind is inspect.Parameter.VAR_POSITIONAL for parameter in parameters):
        return (), 0
    required = sum(parameter.default is inspect.Parameter.empty for parameter in named)
    return tuple(parameter.name for parameter in named), required
