"""A user's function that returns a network: called with seeded random numbers, and examined for weights they decide."""

from __future__ import annotations

import contextlib
import hashlib
import io
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgevit.errors import ModelError, UnknownNameError
from edgevit.models.user_code import UserCode, import_definitions
from edgevit.records.model_reference import ModelReference


@dataclass(frozen=True)
class BuiltModel:
    """A network as a user's function returned it, that function, and the module that defines both.

    is_drawn: its weights depend on random numbers, which came from the seed.
    """

    module: nn.Module
    function: Callable[..., Any]
    definitions: ModuleType
    is_drawn: bool = False


def call_user_function(model: str, seed: int = 0, *, keeps_weights: bool = True) -> BuiltModel:
    """Return what the function of FILE.py:FUNCTION or package.module:FUNCTION returns, in evaluation mode.

    Random numbers come from the seed, while the file is imported and while the function runs. Where the weights are
    kept as they are, the function runs once more with another seed: different weights are drawn ones.
    Raises ModelError where the code fails, and for weights that differ at each call even with one seed.
    """
    first = _call(model, seed)
    if not keeps_weights:
        return BuiltModel(first.module, first.function, first.definitions)
    # What the function prints is shown once.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            second = _call(model, seed + 1, first)
        except ModelError:
            # Some code runs once only, because it registers names. The seed keeps its weights the same.
            return BuiltModel(first.module, first.function, first.definitions)
        if _digest(second.module) == _digest(first.module):
            return BuiltModel(first.module, first.function, first.definitions)
        again = _call(model, seed, first)
    if _digest(again.module) != _digest(first.module):
        raise ModelError(
            f"{model} gives other weights at each call",
            why="its random numbers do not come from the seed, so no two artifacts would have the same weights",
            fix=f"--weights CHECKPOINT, or torch.manual_seed(0) where {ModelReference.parse(model).function} begins",
        )
    return BuiltModel(first.module, first.function, first.definitions, is_drawn=True)


@dataclass(frozen=True)
class _Call:
    """One call of the function: its network, its module, and whether the import itself drew random numbers."""

    module: nn.Module
    function: Callable[..., Any]
    definitions: ModuleType
    import_draws: bool


def _call(model: str, seed: int, earlier: _Call | None = None) -> _Call:
    """Call the function; import its module anew unless an earlier import drew no random numbers."""
    with _seeded(seed):
        begin = _random_state()
        if earlier is None or earlier.import_draws:
            definitions = import_definitions(model)
            draws = _random_state() != begin
        else:
            definitions, draws = earlier.definitions, False
        function = _find(definitions, model)
        return _Call(_network(function, model), function, definitions, draws)


def _find(definitions: ModuleType, model: str) -> Callable[..., Any]:
    function = ModelReference.parse(model).function
    callables = [name for name, value in vars(definitions).items() if callable(value) and not name.startswith("_")]
    place = definitions.__file__ or definitions.__name__
    if function not in callables:
        raise UnknownNameError(f"function in {place}", function, callables, listing=f"see {place}")
    definition: Callable[..., Any] = getattr(definitions, function)
    return definition


def _network(function: Callable[..., Any], model: str) -> nn.Module:
    with UserCode(model):
        network = function()
    if not isinstance(network, nn.Module):
        raise ModelError(f"it returned {type(network).__name__}, not a torch.nn.Module", where=model)
    require_eval(network, model)
    return network


def require_eval(module: nn.Module, location: str) -> None:
    """Raise ModelError for a module in training mode."""
    if module.training:
        raise ModelError(
            "the model is in training mode", where=location, why="its norms use the batch", fix="return model.eval()"
        )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Set the seed of torch's, NumPy's and Python's random numbers; restore their states at the end."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


def _random_state() -> tuple[object, ...]:
    """Return the states of all seeded generators in a form that compares."""
    _, keys, *position = np.random.get_state(legacy=True)
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), (np.asarray(keys).tobytes(), *position)


def _digest(module: nn.Module) -> str:
    """Return the digest of all tensors of a network, those that its state dict leaves out too."""
    digest = hashlib.sha256()
    tensors: dict[str, Tensor] = {**dict(module.named_parameters()), **dict(module.named_buffers())}
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
