"""Folds and conversions that commands of a test run share, because documents and tests export the same network often.

A conversion is kept in the run's folder, by its content: the folded graph with its weights, the recipes' files and
the request. It is converted once; later requests for the same get a copy, which they verify anew. The zygote of
commands uses this (zygote.py). Tests that call the pipeline themselves convert each time, because they may have
changed a recipe.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import nn

from edgevit.exporting import pipeline, preparation
from edgevit.folding import Folded, fold, fold_and_digest
from edgevit.folding.digest import operator_list
from edgevit.models.source import load_subject, state_sha256
from edgevit_runtime.codec import from_data, to_data
from edgevit_runtime.record import RecipeModule, Stage

# The documents' example.
OFTEN = "mobilevig_ti"
_ROOT = Path(__file__).parents[2]


def share(folder: Path) -> None:
    """Let every later export of this process and of its forks share conversions in this folder, and one fold."""
    pipeline.convert = functools.partial(convert_once, folder, pipeline.convert)  # type: ignore[attr-defined]
    subject = load_subject(OFTEN)
    inputs = tuple(subject.example().values())
    known = {module_key(subject.module, inputs): fold_and_digest(subject.module, inputs)}
    preparation.fold_and_digest = functools.partial(fold_once, known)  # type: ignore[attr-defined]
    pipeline.fold = functools.partial(refold_once, known)  # type: ignore[attr-defined]


def fold_once(known: Mapping[str, tuple[Folded, str]], model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Folded, str]:
    """Return the known fold and digest of a network with the same code, weights and sizes, or fold it."""
    return known.get(module_key(model, inputs)) or fold_and_digest(model, inputs)


def refold_once(
    known: Mapping[str, tuple[Folded, str]], model: nn.Module, inputs: tuple[Any, ...], *, check: bool = True
) -> Folded:
    """Return the known fold of a network with the same code, weights and sizes, or fold it."""
    found = known.get(module_key(model, inputs))
    return fold(model, inputs, check=check) if found is None else found[0]


def convert_once(
    folder: Path,
    convert: Callable[..., tuple[Stage, ...]],
    model: nn.Module,
    recipe: RecipeModule,
    payload: Path,
    **form: Any,
) -> tuple[Stage, ...]:
    """Convert a folded network, or copy what was converted from the same network by the same request."""
    if not isinstance(model, Folded):
        return convert(model, recipe, payload, **form)
    kept = folder / conversion_key(model, recipe, payload.name, form)
    if kept.exists():
        shutil.copytree(kept / "files", payload.parent, dirs_exist_ok=True)
        stages = [from_data(Stage, data) for data in json.loads((kept / "stages.json").read_text())]
        return tuple(dataclasses.replace(stage, path=payload.parent / stage.path) for stage in stages)
    converted = convert(model, recipe, payload, **form)
    folder.mkdir(parents=True, exist_ok=True)
    new = Path(tempfile.mkdtemp(dir=folder))
    shutil.copytree(payload.parent, new / "files")
    relative = [dataclasses.replace(stage, path=stage.path.relative_to(payload.parent)) for stage in converted]
    (new / "stages.json").write_text(json.dumps([to_data(stage) for stage in relative]))
    try:
        os.rename(new, kept)  # noqa: PTH104 - pathlib's replaces an empty folder of the same name
    except OSError:
        # Another process was faster.
        shutil.rmtree(new)
    return converted


def conversion_key(model: Folded, recipe: RecipeModule, payload: str, form: Mapping[str, Any]) -> str:
    """Return the digest of all that a conversion depends on."""
    files = sorted([*(_ROOT / "export_recipes").glob("*.py"), *(_ROOT / "runtime").rglob("*.py")])
    text: list[Any] = [operator_list(model.net), state_sha256(model), payload, recipe.RECIPE.target]
    text += [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    inputs = {name: [list(tensor.shape), str(tensor.dtype)] for name, tensor in form["inputs"].items()}
    text += [{**form, "inputs": inputs, "options": dict(form["options"] or {})}]
    return hashlib.sha256(json.dumps(text, sort_keys=True).encode()).hexdigest()


def module_key(model: nn.Module, inputs: tuple[Any, ...]) -> str:
    """Return what a fold depends on: the network's code, its weights, and the sizes of its inputs."""
    return f"{type(model).__module__} {model} {[tuple(tensor.shape) for tensor in inputs]} {state_sha256(model)}"
