"""`edgevit.quantize(...)`: what int8 costs a model on a target's engine, layer by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevit.errors import UsageError
from edgevit.recipes import load_recipe, require_torch
from edgevit.records.artifact import ExportRequest, SampleRequest
from edgevit.records.input_shapes import read_input_shapes
from edgevit.records.preprocessing import read_stated
from edgevit.records.quantization import DEFAULT_FLOOR_DB, Quantization, read_quantization
from edgevit_runtime.dialect import PALETTE, QUANTIZED, UNSATURATED_WEIGHT, Dialect
from edgevit_runtime.record import Quantizing

if TYPE_CHECKING:
    from torch import Tensor, nn

    from edgevit.models.source import Subject


def quantize(
    model: str | nn.Module,
    target: str = "",
    *,
    data: str | Path | None = None,
    precision: str = "int8",
    floor_db: float = DEFAULT_FLOOR_DB,
    ranges: str = "minmax",
    absorb: bool = True,
    correct: bool = True,
    why: bool = False,
    inputs: Mapping[str, Tensor] | Sequence[Tensor] | None = None,
    weights: str | Path | None = None,
    weights_key: str = "",
    seed: int = 0,
    input_size: int | tuple[int, int] | None = None,
    input_shape: str | Sequence[str | int] | Mapping[str, str | Sequence[int]] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    input_range: tuple[float, float] | None = None,
    options: Mapping[str, str] | None = None,
) -> Quantization:
    """Quantize a model as an engine has it, and return what each step brought and what each layer costs.

        >>> import edgevit
        >>> report = edgevit.quantize("mobilevig_ti", data="photographs")
        >>> report.summary, report.layers[0].snr_db

    Parameters
    ----------
    model
        Name from `edgevit.list_models()`, "FILE.py:FUNCTION", "package.module:FUNCTION", "timm:NAME", "hf:FOLDER", or
        an nn.Module in eval mode.
    data
        Folder of images, or a file of `numpy.save` with samples (N, ..). Default: the photographs that ship, which the
        report marks as assumed.
    target, precision, options
        Name from `edgevit targets`, "int8", or "w8" or "w6" for weights alone, and options of the target. Without a
        target the numbers are those that are right on any processor: uint8, and weights of 7 bits.
    floor_db
        SNR of the outputs that int8 must keep. Layers stay in float, the noisiest first, until it does.
    ranges
        How ranges follow from values: "minmax", by their ends, or "mse", by the least square error.
    absorb, correct
        Whether scales may be moved between layers, and biases may make up for rounded weights.
    why
        Also explain the noisiest layers: how large their largest weights are, and which branch of the model makes them.
    inputs
        Example inputs of an nn.Module.
    weights, weights_key, seed, input_size, input_shape, preprocessing, input_range
        As in `edgevit.export`.

    Raises QuantizationError where no layer can be in int8 above the floor, UsageError and UnknownNameError for a
    request that makes no sense, ModelError, CheckpointError and FoldError. SNRs are simulated: what an engine without
    overflow computes.
    """
    require_torch()
    from edgevit.exporting.preparation import Preparation
    from edgevit.exporting.requirements import check_request
    from edgevit.quantization.weight_spread import spreads

    recipe = load_recipe(target) if target else None
    if precision not in QUANTIZED or not (recipe is None or isinstance(recipe, Quantizing)):
        problem = f"{target} has no int8" if precision in QUANTIZED else f"{precision!r} needs no samples"
        raise UsageError(problem, fix="--precision int8, and a target that has it: edgevit targets")
    request = ExportRequest(
        recipe.RECIPE.target if recipe else "",
        Path(),
        precision,
        model if isinstance(model, str) else "",
        weights=None if weights is None else Path(weights),
        weights_key=weights_key,
        seed=seed,
        input_size=(input_size, input_size) if isinstance(input_size, int) else input_size,
        input_shapes=() if input_shape is None else read_input_shapes(input_shape),
        preprocessing=read_stated(preprocessing or {}),
        options=dict(options or {}),
        samples=SampleRequest(input_range),
        quantization=read_quantization(data, floor_db, ranges, absorbs=absorb, corrects=correct),
    )
    if recipe is not None:
        check_request(recipe, precision, options=request.options)
    prepared = Preparation(_subject(model, inputs, request), request)
    dialect = recipe.dialect(precision, request.options) if isinstance(recipe, Quantizing) else _portable(precision)
    described = None if recipe is None else recipe.RECIPE
    report = prepared.quantized(dialect, request, described, measures_layers=True).report
    if not why or prepared.folded is None:
        return report
    examples = tuple(prepared.example.values())
    return dataclasses.replace(
        report, spreads=spreads(prepared.subject.module, prepared.folded, examples, report.layers)
    )


def _subject(
    model: str | nn.Module, inputs: Mapping[str, Tensor] | Sequence[Tensor] | None, request: ExportRequest
) -> Subject:
    """Return a model that a request names, or a module with its example inputs."""
    from edgevit.exporting.child_process import completed
    from edgevit.models.source import load_requested, require_taken, subject_of

    if not isinstance(model, str):
        shapes, stated = request.input_shapes, request.preprocessing
        return subject_of(model, inputs, request.input_size, "", input_shapes=shapes, preprocessing=stated)
    subject = completed(load_requested(request), request)
    require_taken(subject, request.batch)
    return subject


def _portable(precision: str) -> Dialect:
    """Return the numbers that are right on any processor."""
    if precision == "int8":
        return Dialect(largest_weight=UNSATURATED_WEIGHT)
    return Dialect(activations="float", palette=PALETTE if precision == "w6" else 0)
