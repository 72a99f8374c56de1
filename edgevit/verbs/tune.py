"""`edgevit.tune(...)`: the exactly equal form that a device computes a network fastest in, found by measuring."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevit.concurrency.scratch import scratch_folder
from edgevit.devices.device_lock import locked_device
from edgevit.devices.registry import LOCAL, load_device
from edgevit.errors import UsageError
from edgevit.recipes import load_recipe, require_torch
from edgevit.records.artifact import ExportRequest, SampleRequest
from edgevit.records.input_shapes import read_input_shapes
from edgevit.records.preprocessing import read_stated
from edgevit.records.quantization import DEFAULT_FLOOR_DB, read_quantization
from edgevit.records.tuning import TriedForm, Tuning
from edgevit.store import LatencyDB

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

DEFAULT_BUDGET_S = 600.0


def tune(
    model: str | nn.Module,
    target: str,
    *,
    device: str = LOCAL,
    threads: int = 1,
    precision: str = "fp32",
    budget_s: float = DEFAULT_BUDGET_S,
    name: str = "",
    inputs: Mapping[str, Tensor] | Sequence[Tensor] | None = None,
    weights: str | Path | None = None,
    weights_key: str = "",
    seed: int = 0,
    input_size: int | tuple[int, int] | None = None,
    input_shape: str | Sequence[str | int] | Mapping[str, str | Sequence[int]] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    batch_size: int = 1,
    options: Mapping[str, str] | None = None,
    input_range: tuple[float, float] | None = None,
    data: str | Path | None = None,
    db: str | None = None,
    on_tried: Callable[[TriedForm], None] | None = None,
) -> Tuning:
    """Search for the form that a network is fastest in on an engine of a device, keep what was measured, return it.

        >>> import edgevit
        >>> tuning = edgevit.tune("vanillanet_5", "litert", budget_s=300)
        >>> tuning.label, tuning.forms
        >>> edgevit.export("vanillanet_5", "litert", form="tuned")

    Each form is exactly equal: it is proven in float64, and every export of it is verified. Each kind of site is timed
    by itself in all forms that apply, in fresh processes and in turns. The best are then timed together in the whole
    network. A form is taken only where the whole network is faster beyond what the device resolves.

    Parameters
    ----------
    model
        Name from `edgevit.list_models()`, "FILE.py:FUNCTION", "package.module:FUNCTION", "timm:NAME", "hf:FOLDER", or
        an nn.Module in eval mode.
    target, precision, options
        Name from `edgevit targets`, a precision that it has, and options of its own.
    device, threads, batch_size
        Name from `edgevit devices`, number of engine threads, batch size of a run.
    budget_s
        Seconds after which no more sites are tried. What was measured is kept, and the next search begins with it.
    name, inputs
        Name of an nn.Module, and its example inputs.
    weights, weights_key, seed, input_size, input_shape, preprocessing, input_range, data
        As in `edgevit.export`.
    db
        Latency database that keeps times of operators and the result; default: EDGEVIT_DB, else the user's own.
    on_tried
        Function that is called with each form that was tried.

    Raises TuningError where the network does not run on the device, UsageError and UnknownNameError for a request that
    makes no sense, DeviceError where the device is lost, and the errors of an export.
    """
    require_torch()
    if budget_s <= 0:
        raise UsageError(f"a budget of {budget_s:g} s is no time", fix="budget_s=600")
    request = ExportRequest(
        load_recipe(target).RECIPE.target,
        Path(),
        precision,
        model if isinstance(model, str) else name,
        weights=None if weights is None else Path(weights),
        weights_key=weights_key,
        seed=seed,
        input_size=(input_size, input_size) if isinstance(input_size, int) else input_size,
        input_shapes=() if input_shape is None else read_input_shapes(input_shape),
        preprocessing=read_stated(preprocessing or {}),
        batch=batch_size,
        options=dict(options or {}),
        samples=SampleRequest(input_range),
        quantization=read_quantization(data, DEFAULT_FLOOR_DB, "minmax", absorbs=True, corrects=True),
    )
    from edgevit.exporting.requirements import check_request
    from edgevit.races.race import Course, race

    check_request(load_recipe(request.target), precision, options=request.options)
    subject = _subject(model, inputs, request)
    unit = load_device(device)
    with locked_device(unit), LatencyDB.open(db) as store, scratch_folder() as folder:
        request = dataclasses.replace(request, model=subject.name, out=Path(folder))
        course = Course(subject, request, unit, threads, budget_s, store.noise(unit.device_id))
        tuning = race(course, store.operator_times(request.target), store.add_operator_times, on_tried or _ignore)
        store.add_tuning(tuning)
        return tuning


def _ignore(tried: TriedForm) -> None:
    """Ignore what was tried."""


def _subject(model: str | nn.Module, inputs: Any, request: ExportRequest) -> Any:
    from edgevit.exporting.child_process import completed
    from edgevit.models.source import load_requested, require_taken, subject_of

    if not isinstance(model, str):
        shapes, stated = request.input_shapes, request.preprocessing
        return subject_of(model, inputs, request.input_size, request.model, input_shapes=shapes, preprocessing=stated)
    subject = completed(load_requested(request), request)
    require_taken(subject, request.batch)
    return subject
