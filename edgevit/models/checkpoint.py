"""Reads published checkpoints safely and completely, or not at all: no code in the file runs.

A training checkpoint nests its weights, and has the training's arguments and numbers beside them. These are read as
blanks (`_Unread`), because no part of them is needed. torch's weights-only reader refuses every other object.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from edgevit.errors import CheckpointError, ModelError

# Keys that weights are nested under, best first: the papers' READMEs evaluate the averaged weights (EMA).
NESTS = ("model_ema", "state_dict_ema", "model", "state_dict", "model_state")
EXTRA_STATE = "_extra_state"  # torch's key for what a module saves beside tensors; a model may do without it
_SAVE_AGAIN = "have its owner save the weights alone: torch.save(model.state_dict(), path)"
_NAME_IT = "name the model that these weights were trained as: edgevit models"
_WITH_CLASSES = "create_model(NAME, WEIGHTS, classes={}), which on the command line FILE.py:FUNCTION returns"
SHOWN = 10  # names of each kind in a refusal

# What torch.load raises on a damaged file, as found by cutting and overwriting files (tests/models/test_checkpoint.py).
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    SafetensorError,
)


class _Unread:
    """Stands for an unused object of a checkpoint: accepts any arguments and any state, and keeps none."""

    def __new__(cls, *_: object) -> _Unread:
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


# Arguments of the training and NumPy numbers (best accuracy so far, ...), by the names that pickles know them.
_BLANKS = ("argparse.Namespace", "numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict in a .pth, .pth.tar, .pt or .safetensors file: key -> tensor, on the CPU.

    Nested weights are found under NESTS in that order, else the file itself is the state dict. The prefix `module.`,
    which data-parallel training puts before every key, is removed. Raises CheckpointError: no such file, damaged,
    needs code, no weights in it, a value that is no dense tensor, NaN or infinity.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError("no such checkpoint file", where=str(path), fix="check the path given as --weights")
    state = _without_module(_unnested(_read(path), path))
    for key, value in state.items():
        _check_value(key, value, path)
    return state


def load_weights(model: nn.Module, path: str | Path, *, classes: int | None = None) -> None:
    """Copy a checkpoint into the model, every key or none: all are checked before the first tensor is copied.

    Precision follows the model (a half-precision file fills a float32 model). `classes` is the model's number of
    classes, so that a refusal can name the file's. Raises CheckpointError as read_checkpoint does, and where keys are
    missing, unexpected, or of another shape or kind than the model's.
    """
    state = read_checkpoint(path)
    expected = model.state_dict()
    if problems := _mismatches(expected, state):
        message, fix = f"these weights are not of this {type(model).__name__}", _NAME_IT
        if classes is not None and (other := _its_classes(expected, state, classes)):
            message = f"these weights are of a {type(model).__name__} with {other} classes, not {classes}"
            fix = _WITH_CLASSES.format(other)
        raise CheckpointError(message, where=str(path), why="; ".join(problems), fix=fix)
    try:
        # A model may refuse its own extra state, before any tensor is copied.
        model.load_state_dict(state, strict=True)
    except ModelError as error:
        raise CheckpointError(error.what, where=str(path), why=error.why, fix="save the model again") from error


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals([(_Unread, name) for name in _BLANKS]):
            # torch warns of old formats and protocols; the file is read, or refused below.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        raise _refusal(error, path) from error


def _refusal(error: Exception, path: Path) -> CheckpointError:
    """Return the error to raise, without torch's own advice of weights_only=False, which runs any code in the file."""
    message = str(error).split("WeightsUnpickler error:")[-1].strip()
    if isinstance(error, pickle.UnpicklingError) and (code := re.search(r"GLOBAL (\S+)", message)):
        why = f"it asks for {code[1]}, which is neither a tensor nor a number and may run code"
        return CheckpointError("checkpoint refused as unsafe", where=str(path), why=why, fix=_SAVE_AGAIN)
    why = f"{type(error).__name__}: {message.splitlines()[0][:200] if message else 'the file ends early'}"
    fix = f"download the file again; if it stays so, {_SAVE_AGAIN}"
    return CheckpointError("checkpoint cannot be read", where=str(path), why=why, fix=fix)


def _unnested(content: Any, path: Path) -> dict[str, Any]:
    if isinstance(content, Mapping) and content:
        inner = (content[nest] for nest in NESTS if content.get(nest) is not None)
        return dict(next((weights for weights in inner if isinstance(weights, Mapping) and weights), content))
    kind = "an empty file" if isinstance(content, Mapping) else f"a {type(content).__name__}"
    raise CheckpointError("no weights in this checkpoint", where=str(path), why=f"it holds {kind}", fix=_SAVE_AGAIN)


def _without_module(state: dict[str, Any]) -> dict[str, Any]:
    if all(str(key).startswith("module.") for key in state):
        return {str(key).removeprefix("module."): value for key, value in state.items()}
    return state


def _check_value(key: object, value: Any, path: Path) -> None:
    if not isinstance(key, str) or not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized:
        why = f"{key!r} is {type(value).__name__}, not a dense tensor; weights are looked for under {', '.join(NESTS)}"
        raise CheckpointError("no state dict in this checkpoint", where=str(path), why=why, fix=_SAVE_AGAIN)
    # Floats of 8 bits have no isfinite.
    wide = value.float() if value.is_floating_point() and value.element_size() < 4 else value
    if bad := int((~torch.isfinite(wide)).sum()):
        why = f"{key} holds NaN or infinity in {bad} of {value.numel()} values"
        fix = "take a checkpoint from before the training diverged, or download the file again"
        raise CheckpointError("weights that are not finite", where=str(path), why=why, fix=fix)


def _mismatches(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Return one line per kind of mismatch: the number, and the first names."""
    missing = [key for key in expected if key not in state and key.split(".")[-1] != EXTRA_STATE]
    unexpected = [key for key in state if key not in expected]
    common = ((key, expected[key], state[key]) for key in expected if key in state)
    wrong = [f"{key} is {_form(has)}, not {_form(want)}" for key, want, has in common if _form(want) != _form(has)]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
    return [f"{len(names)} {kind}: {_first(names)}" for kind, names in kinds if names]


def _its_classes(expected: Mapping[str, Tensor], state: Mapping[str, Tensor], classes: int) -> int | None:
    """Return a checkpoint's number of classes if it differs from the model in that alone, else None."""
    needed = {key for key in expected if key.split(".")[-1] != EXTRA_STATE}
    if not needed <= state.keys() <= expected.keys():
        return None
    shapes = ((expected[key].shape, value.shape) for key, value in state.items())
    sides = {pair for both in shapes for pair in zip_longest(*both, fillvalue=0) if pair[0] != pair[1]}
    return next((other for want, other in sides if want == classes), None) if len(sides) == 1 else None


def _form(tensor: Tensor) -> str:
    """Return shape and kind of number; floats of all precisions are one kind, integers another."""
    kind = "float" if tensor.is_floating_point() else "complex" if tensor.is_complex() else "integer"
    return f"{kind} {tuple(tensor.shape)}"


def _first(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
