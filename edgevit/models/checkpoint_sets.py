"""Sets of weights in a checkpoint: found by the names and shapes that a model has, under any prefix and container.

Content is flattened, so that a container is a prefix like any other: `state_dict.module.conv.weight`. What precedes
the model's own names is the key of a set. Several sets in one file are told apart by it: `ema`, `state_dict`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from edgevit.errors import CheckpointError
from edgevit.models.checkpoint_file import SAVE_AGAIN
from edgevit.models.checkpoint_objects import StoredArray

Path = tuple[str, ...]  # of a tensor in nested containers, names split at dots
WHOLE_FILE = "."  # the key of a set that has no prefix
# Wrappers put these before the names of a model or of a part of it.
WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
EXTRA_STATE = "_extra_state"  # torch's key for what a module saves beside tensors; a model may do without it
COUNTER = "num_batches_tracked"  # of batch norms; no answer depends on it
_AVERAGED = re.compile(r"(?<![a-z])(?:ema|swa|avg|average|averaged|polyak)(?![a-z])|(?<![A-Z])(?:EMA|Ema)(?![a-z])")
# State of the training that has tensors of the model's names and shapes, and is no weights.
_NO_WEIGHTS = re.compile(r"(?<![a-z])(?:opt|optim|optimizers?|schedulers?|scaler|amp|grads?|gradients?)(?![a-z])")
_CONTAINERS = (Mapping, list, tuple)
_DEEPEST = 32  # steps of a path; a container may contain itself
# Ten containers that each hold the next one ten times would be ten thousand million values.
_MOST_REPEATED = 100_000
_MOST_COMPARISONS = 10_000_000  # of paths with the keys of sets, some of them in a microsecond
_COUNTS = frozenset({"n_averaged", "num_updates", "decay", "initted", "step", "global_step", "epoch", "updates"})
# Lightning's weight averaging puts the averaged weights in the place of the raw ones, and its count here.
_AVERAGING_STATE = "averaging_state"


@dataclass(frozen=True)
class WeightSet:
    """Tensors of a file under the names of a model, in so far as they match.

    key: what precedes the names in the file. names: the model's name -> the path in the file. unexpected: names
    beneath the same key that the model lacks.
    """

    key: str
    names: Mapping[str, Path]
    tensors: Mapping[str, Any]
    is_averaged: bool
    problems: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether the set has all that the model needs, and nothing else."""
        return not (self.problems or self.missing or self.unexpected)


@dataclass(frozen=True)
class Expected:
    """What a model needs of a checkpoint: its tensors by name, and which of them may be absent."""

    tensors: Mapping[str, Tensor]
    buffers: frozenset[str]
    optional: frozenset[str]
    twins: Mapping[str, frozenset[str]] = field(default_factory=dict)  # names of one and the same tensor

    @classmethod
    def of(cls, model: nn.Module) -> Expected:
        """Return what a model needs."""
        tensors = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
        optional = {name for name in tensors if name.split(".")[-1] in (EXTRA_STATE, COUNTER)}
        shared: dict[tuple[int, torch.Size, tuple[int, ...]], set[str]] = {}
        for name, value in tensors.items():
            if value.numel():
                shared.setdefault((value.data_ptr(), value.shape, value.stride()), set()).add(name)
        twins = {name: frozenset(names) for names in shared.values() if len(names) > 1 for name in names}
        return cls(tensors, frozenset(dict(model.named_buffers())), frozenset(optional), twins)

    def lacks(self, names: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the names that are needed and not among these."""
        return tuple(
            name
            for name in self.tensors
            if name not in names and name not in self.optional and not self.twins.get(name, frozenset()) & set(names)
        )


def flatten(content: Any, file: object) -> dict[Path, Any]:
    """Return the leaves of nested containers by their paths; names with dots are several steps of a path.

    file: that they were read from. Raises CheckpointError where containers hold one another without end.
    """
    flat: dict[Path, Any] = {}
    pending: list[tuple[Path, Any]] = [((), content)]
    opened, repeated = set[int](), 0
    while pending:
        path, value = pending.pop()
        if not isinstance(value, _CONTAINERS) or len(path) > _DEEPEST:
            flat[path] = _as_tensor(value)
            continue
        repeated += len(value) if id(value) in opened else 0
        opened.add(id(value))
        if repeated > _MOST_REPEATED:
            why = f"containers in it hold others again and again: more than {_MOST_REPEATED} values are repetitions"
            raise CheckpointError("checkpoint cannot be read", where=str(file), why=why, fix=SAVE_AGAIN)
        pairs = value.items() if isinstance(value, Mapping) else enumerate(value)
        inner = [((*path, *str(key).split(".")), child) for key, child in pairs]
        pending += [
            (place, child)
            for place, child in reversed(inner)
            if not (isinstance(child, _CONTAINERS) and _NO_WEIGHTS.search(place[-1]))
        ]
    return flat


def find_sets(flat: Mapping[Path, Any], expected: Expected, file: object) -> list[WeightSet]:
    """Return the sets that share names with a model, those that fit first, each with what is wrong with it.

    Raises CheckpointError for a file with more of them than can be compared in seconds.
    """
    groups: dict[Path, dict[str, Path]] = {}
    names_by_steps = _names_by_steps(expected)
    for path in flat:
        for prefix, name in _matches(path, names_by_steps):
            groups.setdefault(prefix, {}).setdefault(name, path)
    if len(groups) * len(flat) > _MOST_COMPARISONS:
        why = f"{len(groups)} parts of it have names of the model, and each would be compared with {len(flat)} values"
        raise CheckpointError("too many sets of weights in this checkpoint", where=str(file), why=why, fix=SAVE_AGAIN)
    half = max(1, len(expected.tensors) // 2)
    large = [prefix for prefix, names in groups.items() if len(names) >= half]
    sets = [_examined(prefix, groups[prefix], flat, expected, large) for prefix in groups]
    return sorted(sets, key=lambda weights: (not weights.fits, -len(weights.names), len(weights.unexpected)))


def averaged_elsewhere(flat: Mapping[Path, Any], expected: Expected, sets: Sequence[WeightSet]) -> str:
    """Return the key of averaged weights that fit no set, if the file has as many numbers there as the model needs."""
    sizes: dict[Path, int] = {}
    in_sets = {path for weights in sets if weights.fits for path in weights.names.values()}
    for path, value in flat.items():
        steps = [number for number, step in enumerate(path[:-1], 1) if _AVERAGED.search(step)]
        if steps and path not in in_sets:
            numbers = value.numel() if isinstance(value, Tensor) else 1
            sizes[path[: steps[0]]] = sizes.get(path[: steps[0]], 0) + numbers
    needed = sum(value.numel() for name, value in expected.tensors.items() if name not in expected.buffers)
    return next((".".join(path) for path, size in sizes.items() if needed and size >= needed / 2), "")


def is_same(first: WeightSet, second: WeightSet) -> bool:
    """Return whether two sets that fit hold the same numbers."""
    if first.tensors.keys() != second.tensors.keys():
        return False
    return all(
        tensor.dtype == second.tensors[name].dtype and torch.equal(tensor, second.tensors[name])
        for name, tensor in first.tensors.items()
    )


def describe_form(tensor: Any) -> str:
    """Return shape and kind of number; floats of all precisions are one kind, integers another."""
    if not is_dense(tensor):
        return f"{type(tensor).__name__}, not a dense tensor"
    kind = "float" if tensor.is_floating_point() else "complex" if tensor.is_complex() else "integer"
    return f"{kind} {tuple(tensor.shape)}"


def is_dense(value: Any) -> bool:
    """Return whether a value is a tensor with all its numbers."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized


def _as_tensor(value: Any) -> Any:
    if isinstance(value, StoredArray):
        try:
            return value.tensor()
        except (ValueError, TypeError):
            return None
    return value


def _names_by_steps(expected: Expected) -> dict[Path, list[str]]:
    """Return the model's names by their steps: as they are, without wrappers, and run together in one step.

    Latent diffusion's averages have names that are run together.
    """
    names_by_steps: dict[Path, list[str]] = {}
    for name in expected.tensors:
        steps = tuple(name.split("."))
        bare = tuple(step for step in steps if step not in WRAPPERS)
        for form in dict.fromkeys((steps, bare, ("".join(steps),))):
            names_by_steps.setdefault(form, []).append(name)
    return {steps: names for steps, names in names_by_steps.items() if len(names) == 1 or ".".join(steps) in names}


def _matches(path: Path, names_by_steps: Mapping[Path, list[str]]) -> Iterator[tuple[Path, str]]:
    """Yield each ending of a path that is a name of the model, wrappers left out, with what precedes it."""
    ending: Path = ()
    for place in range(len(path) - 1, -1, -1):
        longer = (path[place], *ending)
        if path[place] in WRAPPERS and longer not in names_by_steps:
            continue
        ending = longer
        for name in names_by_steps.get(ending, ())[:1]:
            yield path[:place], name


def _examined(
    prefix: Path, names: Mapping[str, Path], flat: Mapping[Path, Any], expected: Expected, large: Sequence[Path]
) -> WeightSet:
    """Return a set with what is wrong with it."""
    tensors = {name: flat[path] for name, path in names.items()}
    forms = {name: (describe_form(value), describe_form(expected.tensors[name])) for name, value in tensors.items()}
    inner = [other for other in large if len(other) > len(prefix) and other[: len(prefix)] == prefix]
    matched = set(names.values())
    unexpected = [
        ".".join(path[len(prefix) :])
        for path, value in flat.items()
        if path[: len(prefix)] == prefix and path not in matched and isinstance(value, Tensor)
        if not any(path[: len(other)] == other for other in inner) and not _is_count(path, value)
    ]
    for name in expected.lacks({}):
        twin = next((twin for twin in expected.twins.get(name, ()) if twin in tensors), "")
        if name not in tensors and twin:
            tensors[name] = tensors[twin]
    return WeightSet(
        key=".".join(prefix) or WHOLE_FILE,
        names=names,
        tensors=tensors,
        is_averaged=_is_averaged(prefix, flat),
        problems=tuple(
            f"{name} is {has}, not {needs}"
            for name, (has, needs) in forms.items()
            if has != needs and name.split(".")[-1] != EXTRA_STATE
        ),
        missing=expected.lacks(tensors),
        unexpected=tuple(unexpected),
    )


def _is_count(path: Path, value: Tensor) -> bool:
    """Return whether a tensor counts something, or is the state of random numbers: no weights."""
    is_count = value.numel() == 1 and (path[-1] in _COUNTS or path[-1] == COUNTER)
    return is_count or value.dtype == torch.uint8


def _is_averaged(prefix: Path, flat: Mapping[Path, Any]) -> bool:
    """Return whether the key of a set, or a count beside it, says that its weights are averages over the training."""
    if any(_AVERAGED.search(step) for step in prefix):
        return True
    beside = {prefix, prefix[:-1] if prefix and prefix[-1] in WRAPPERS else prefix}
    if any((*place, "n_averaged") in flat for place in beside):
        return True
    containers = [path[: path.index(_AVERAGING_STATE)] for path in flat if _AVERAGING_STATE in path]
    return any(prefix[: len(place) + 1] == (*place, "state_dict") for place in containers)
