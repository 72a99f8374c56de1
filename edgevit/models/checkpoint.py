"""Checkpoints as people save them: the weights of a model are found, checked and loaded, all of them or none.

checkpoint_file reads a file without running code of it, and checkpoint_sets finds the weights in it. Where a file has
raw and averaged weights the averaged ones are taken, as the papers' READMEs evaluate them.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgevit.checkpoint_files import checkpoint_sha256
from edgevit.errors import CheckpointError, ModelError
from edgevit.models.checkpoint_file import SAVE_AGAIN, read_content
from edgevit.models.checkpoint_sets import (
    WHOLE_FILE,
    Expected,
    WeightSet,
    averaged_elsewhere,
    find_sets,
    flatten,
    is_dense,
    is_same,
)
from edgevit.records.artifact import WeightsChoice, is_named

_NAME_IT = "name the model that these weights were trained as: edgevit models"
_WITH_CLASSES = "create_model(NAME, WEIGHTS, classes={}), which on the command line FILE.py:FUNCTION returns"
_OTHER_CHECKPOINT = "take a checkpoint from before the training diverged, or download the file again"
_VARIANCES = ("running_var", "moving_variance")
SHOWN = 10  # names of each kind in a refusal


@dataclass(frozen=True)
class LoadedWeights:
    """Which weights of a checkpoint a model has now, and the digest of the files that they were read from."""

    choice: WeightsChoice
    sha256: str


def load_weights(
    model: nn.Module, path: str | Path, *, key: str = "", earlier_key: str = "", classes: int | None = None
) -> LoadedWeights:
    """Copy the weights of a checkpoint into the model, every one or none, and return which ones they are.

    path: a .pth, .pt, .ckpt, .bin or .safetensors file, an index of shards, or a folder that has one. key: which of
    several sets of weights; without one the set of `earlier_key`, if there is one, else the averaged set. Precision
    follows the model (a half-precision file fills a float32 model). `classes` is the model's number of classes, so
    that a refusal can name the file's.

    Raises CheckpointError for a file that is missing, damaged or needs code, for weights of another model, for several
    sets that could be meant, and for numbers that cannot be weights: beyond the model's precision, NaN, a variance
    below 0. All is checked before the first tensor is copied.
    """
    path = Path(path)
    content = read_content(path)
    flat = flatten(content, path)
    expected = Expected.of(model)
    if not any(isinstance(value, Tensor) for value in flat.values()):
        kind = f"a {type(content).__name__} without tensors" if content else "an empty file"
        raise CheckpointError("no weights in this checkpoint", where=str(path), why=f"it holds {kind}", fix=SAVE_AGAIN)
    sets = find_sets(flat, expected, path)
    if not key and any(weights.key == earlier_key for weights in sets):
        key = earlier_key
    weights, choice = _Chooser(path, flat, expected, sets).choose(key, model, classes)
    for name, value in weights.tensors.items():
        _check_value(name, value, expected.tensors[name].dtype, path)
    try:
        # Counters may be missing, and a model may refuse its own extra state before any tensor is copied.
        model.load_state_dict(dict(weights.tensors), strict=False)
    except ModelError as error:
        raise CheckpointError(error.what, where=str(path), why=error.why, fix="save the model again") from error
    return LoadedWeights(choice, checkpoint_sha256(path))


def count_classes(model: nn.Module, path: str | Path, classes: int, *, key: str = "") -> int | None:
    """Return a checkpoint's number of classes where it differs from the model in that alone, else None.

    Raises CheckpointError for a file that cannot be read.
    """
    expected = Expected.of(model)
    sets = find_sets(flatten(read_content(Path(path)), path), expected, path)
    counts = [_its_classes(expected, weights, classes) for weights in sets if not key or is_named(key, weights.key)]
    return next((count for count in counts if count), None)


def require_sound(model: nn.Module, where: str) -> None:
    """Raise CheckpointError where a model's own parameters or variances cannot be: NaN, beyond float32, below 0."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    for name, value in named.items():
        if isinstance(value, nn.Parameter) or name.rpartition(".")[2] in _VARIANCES:
            _check_value(name, value.detach(), torch.float32 if value.is_floating_point() else value.dtype, Path(where))


@dataclass(frozen=True)
class _Chooser:
    """Chooses among the sets of weights of one file."""

    path: Path
    flat: Mapping[tuple[str, ...], Any]
    expected: Expected
    sets: Sequence[WeightSet]

    def choose(self, key: str, model: nn.Module, classes: int | None) -> tuple[WeightSet, WeightsChoice]:
        """Return the set that the key names, else the averaged one, else the only one."""
        fitting = [weights for weights in self.sets if weights.fits]
        completed = {weights.key: self._completed(weights, fitting) for weights in self.sets}
        candidates = [weights for weights in completed.values() if weights.fits]
        if key:
            candidates = self._named(key, candidates)
        elif not candidates:
            raise self._mismatch(model, classes)
        elif any(weights.is_averaged for weights in candidates):
            candidates = [weights for weights in candidates if weights.is_averaged]
        elif elsewhere := averaged_elsewhere(self.flat, self.expected, candidates):
            raise self._unreadable_average(elsewhere, candidates[0])
        first, *others = candidates
        if different := [weights for weights in others if not is_same(first, weights)]:
            raise self._ambiguous([first, *different])
        every_key = [weights.key for weights in completed.values() if weights.fits]
        left_out = self._left_out([weights for weights in completed.values() if weights.fits])
        whole = first.key in {weights.key for weights in fitting}
        choice = WeightsChoice(
            key=first.key,
            averaged=first.is_averaged,
            others=tuple(one for one in every_key if one != first.key),
            buffers_from="" if whole else fitting[0].key,
            left_out=left_out[:SHOWN],
            left_out_count=len(left_out),
        )
        return first, choice

    def _completed(self, weights: WeightSet, fitting: Sequence[WeightSet]) -> WeightSet:
        """Return averages of parameters alone with the statistics of the raw weights, as their tools use them."""
        lacks_buffers_only = weights.missing and set(weights.missing) <= self.expected.buffers
        raw = [other for other in fitting if not other.is_averaged]
        if not (weights.is_averaged and lacks_buffers_only and len(raw) == 1):
            return weights
        if weights.problems or weights.unexpected:
            return weights
        added = {name: raw[0].tensors[name] for name in weights.missing}
        return dataclasses.replace(weights, tensors={**weights.tensors, **added}, missing=())

    def _named(self, key: str, candidates: Sequence[WeightSet]) -> list[WeightSet]:
        exact = [weights for weights in candidates if weights.key == key]
        matches = exact or [weights for weights in candidates if is_named(key, weights.key)]
        if matches:
            return matches
        others = [weights for weights in self.sets if is_named(key, weights.key) and not weights.fits]
        if others:
            problem, why = f"the weights under {key!r} are not of this model", "; ".join(_problems(others[0]))
        else:
            problem, why = f"no weights under {key!r} in this checkpoint", ""
        listed = ", ".join(weights.key for weights in candidates) or "none"
        why = f"{why}; sets of this model: {listed}" if why else f"sets of this model: {listed}"
        fix = " or ".join(_option(weights.key) for weights in candidates[:3]) or _NAME_IT
        raise CheckpointError(problem, where=str(self.path), why=why, fix=fix)

    def _ambiguous(self, candidates: Sequence[WeightSet]) -> CheckpointError:
        keys = [weights.key for weights in candidates]
        kind = "averaged weights" if all(weights.is_averaged for weights in candidates) else "weights"
        return CheckpointError(
            f"several sets of {kind} in this checkpoint",
            where=str(self.path),
            why=f"all of them fit the model, and they differ: {_first(keys)}",
            fix=" or ".join(map(_option, keys[:SHOWN])),
        )

    def _unreadable_average(self, key: str, raw: WeightSet) -> CheckpointError:
        near = [weights for weights in self.sets if weights.is_averaged and not weights.fits]
        why = "; ".join(_problems(near[0])) if near else "its tensors do not have the model's names"
        return CheckpointError(
            f"the averaged weights under {key!r} cannot be told",
            where=str(self.path),
            why=why,
            fix=f"{_option(raw.key)} takes the raw ones knowingly; or save the averaged ones as a state dict",
        )

    def _left_out(self, used: Sequence[WeightSet]) -> tuple[str, ...]:
        """Return floating tensors beside the sets, which the model has no use for."""
        matched = {path for weights in used for path in weights.names.values()}
        return tuple(
            ".".join(path)
            for path, value in self.flat.items()
            if path not in matched and isinstance(value, Tensor) and value.is_floating_point() and value.dim()
        )

    def _mismatch(self, model: nn.Module, classes: int | None) -> CheckpointError:
        """Return the refusal of weights of another model, by the set that is nearest to it."""
        message, fix = f"these weights are not of this {type(model).__name__}", _NAME_IT
        if not self.sets:
            keys = [".".join(path) for path, value in self.flat.items() if isinstance(value, Tensor)]
            lines = _counted(missing=self.expected.lacks({}), unexpected=keys)
            return CheckpointError(message, where=str(self.path), why="; ".join(lines), fix=fix)
        nearest = self.sets[0]
        if classes is not None and (other := _its_classes(self.expected, nearest, classes)):
            message = f"these weights are of a {type(model).__name__} with {other} classes, not {classes}"
            fix = _WITH_CLASSES.format(other)
        under = f"under {nearest.key!r}: " if nearest.key != WHOLE_FILE else ""
        return CheckpointError(message, where=str(self.path), why=under + "; ".join(_problems(nearest)), fix=fix)


def _option(key: str) -> str:
    return f"--weights-key {shlex.quote(key)}"


def _check_value(name: str, value: Tensor, precision: torch.dtype, path: Path) -> None:
    """Raise CheckpointError for numbers that the model cannot have: NaN, too large for it, a variance below 0."""
    message, problem, fix = "weights that cannot be", "", _OTHER_CHECKPOINT
    # Floats of 8 bits have no isfinite.
    wide = value.float() if value.is_floating_point() and value.element_size() < 4 else value
    if bad := int((~torch.isfinite(wide)).sum()):
        message = "weights that are not finite"
        problem = f"{name} holds NaN or infinity in {bad} of {value.numel()} values"
    elif value.is_floating_point() and (bad := int((~torch.isfinite(value.to(precision))).sum())):
        kind = str(precision).removeprefix("torch.")
        problem = f"{name} holds numbers beyond {kind} in {bad} of {value.numel()} values"
        fix = "scale the network so that its weights fit, and save it again"
    elif name.rpartition(".")[2] in _VARIANCES and (bad := int((wide < 0).sum())):
        problem = f"{name} is a variance, and {bad} of {value.numel()} values are below 0"
    if problem:
        raise CheckpointError(message, where=str(path), why=problem, fix=fix)


def _problems(weights: WeightSet) -> list[str]:
    """Return one line per kind of mismatch: the number, and the first names."""
    return _counted(missing=weights.missing, unexpected=weights.unexpected, of_another_shape=weights.problems)


def _counted(**kinds: Sequence[str]) -> list[str]:
    return [f"{len(names)} {kind.replace('_', ' ')}: {_first(names)}" for kind, names in kinds.items() if names]


def _its_classes(expected: Expected, weights: WeightSet, classes: int) -> int | None:
    """Return a checkpoint's number of classes if it differs from the model in that alone, else None."""
    if weights.missing or weights.unexpected or not all(map(is_dense, weights.tensors.values())):
        return None
    shapes = ((expected.tensors[name].shape, value.shape) for name, value in weights.tensors.items())
    sides = {pair for both in shapes for pair in zip_longest(*both, fillvalue=0) if pair[0] != pair[1]}
    return next((other for want, other in sides if want == classes), None) if len(sides) == 1 else None


def _first(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
