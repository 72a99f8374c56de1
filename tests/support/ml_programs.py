"""Packages of a few ML operators, built by coremltools and run by the reference evaluator."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import HealthCheck, settings
from torch import Tensor

from edgevit.recipes import load_recipe
from edgevit.verification.mil import load
from support.nets import image

RECIPE = load_recipe("coreml")
EXAMPLES = int(os.environ.get("EDGEVIT_EXAMPLES", "8"))  # of each operator; `make test-all` tries more
few_examples = settings(
    max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
X = image(2, 4, 5, 6, dtype=torch.float32)
INDEX = np.array([[2, 0], [3, 1]], np.int32)
_numbers = itertools.count()


def quiet() -> AbstractContextManager[None]:
    """Return a context in which coremltools prints nothing."""
    context: AbstractContextManager[None] = vars(RECIPE)["_quiet"]()
    return context


def saved(folder: Path, build: Callable[..., Any], *inputs: Tensor, half: bool = False, system: str = "iOS17") -> Path:
    """Save a package of the operators that `build(mb, *inputs)` adds, none of them rewritten, for a system."""
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb  # noqa: N813
    from coremltools.converters.mil.mil import types

    names = [f"in_{i}" for i in range(len(inputs))]
    dtype = types.fp16 if half else types.fp32
    specs = [mb.TensorSpec(tuple(tensor.shape), dtype=dtype) for tensor in inputs]
    opset = ct.target[system]
    program = mb.program(input_specs=specs, opset_version=opset)(_named(names, lambda *a: build(mb, *a)))
    path = folder / f"{next(_numbers)}.mlpackage"
    with quiet():
        nothing = ct.PassPipeline.EMPTY
        package = ct.convert(program, convert_to="mlprogram", pass_pipeline=nothing, skip_model_load=True,
                          minimum_deployment_target=opset)  # fmt: skip
        package.save(str(path))
    return path


def _named(names: list[str], function: Callable[..., Any]) -> Any:
    """Name the function's arguments, from which mb.program reads the names of the inputs."""
    arguments = ", ".join(names)
    return eval(f"lambda {arguments}: function({arguments})", {"function": function})  # noqa: S307


def evaluate(path: Path, *inputs: Tensor) -> list[np.ndarray]:
    """Run a package through load(), as the worker does."""
    session = load(path, threads=1)
    arrays = [tensor.numpy().astype(spec.dtype) for tensor, spec in zip(inputs, session.inputs, strict=True)]
    session.feed([np.ascontiguousarray(tensor).tobytes() for tensor in arrays], 1)
    session.run()
    pairs = zip(session.fetch(), session.outputs, strict=True)
    return [np.frombuffer(raw, spec.dtype).reshape(spec.shape) for raw, spec in pairs]


def as_array(tensor: Tensor) -> np.ndarray:
    return tensor.numpy()


def assert_close(computed: np.ndarray, expected: Tensor | np.ndarray, limit: float = 1e-5) -> None:
    reference = np.asarray(expected)
    assert computed.shape == reference.shape
    assert np.abs(computed.astype("f8") - reference.astype("f8")).max() <= limit * max(np.abs(reference).max(), 1e-3)
