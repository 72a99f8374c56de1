"""`edgevit.export(...)`: one model, one target, one verified artifact."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgevit.artifacts.folder_lock import locked_folder
from edgevit.concurrency.lock_file import warn_in_log
from edgevit.errors import UsageError
from edgevit.exporting.child_process import export_here, export_separately
from edgevit.exporting.forked_exports import Export
from edgevit.recipes import load_recipe, require_torch
from edgevit.records.artifact import Artifact, ExportRequest, SampleRequest
from edgevit.records.input_shapes import read_input_shapes
from edgevit.records.preprocessing import read_stated
from edgevit.records.quantization import DEFAULT_FLOOR_DB, read_quantization
from edgevit.records.tuning import DEFAULT
from edgevit.sweeps.plan import record_built, require_weights_kept
from edgevit.sweeps.tunings import with_tuning

if TYPE_CHECKING:
    from torch import Tensor, nn


def export(
    model: str | nn.Module,
    target: str,
    *,
    precision: str = "fp32",
    out: str | Path = "artifacts",
    name: str = "",
    inputs: Mapping[str, Tensor] | Sequence[Tensor] | None = None,
    weights: str | Path | None = None,
    weights_key: str = "",
    seed: int = 0,
    input_size: int | tuple[int, int] | None = None,
    input_shape: str | Sequence[str | int] | Mapping[str, str | Sequence[int]] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    batch_size: int = 1,
    dynamic_batch: bool = False,
    unfolded: bool = False,
    form: str = DEFAULT,
    embed_preprocess: bool = False,
    labels: str | Path | None = None,
    options: Mapping[str, str] | None = None,
    input_range: tuple[float, float] | None = None,
    samples: str | Path | None = None,
    data: str | Path | None = None,
    floor_db: float = DEFAULT_FLOOR_DB,
    ranges: str = "minmax",
    absorb: bool = True,
    correct: bool = True,
    own_process: bool = True,
    db: str | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> Artifact:
    """Fold, export and verify a model; return the artifact, which is a folder below `out`.

        >>> import edgevit
        >>> artifact = edgevit.export("mobilevig_ti", "onnx", precision="fp16", out="artifacts")
        >>> artifact.parity.status, artifact.folder

    Parameters
    ----------
    model
        Name from `edgevit.list_models()`, "FILE.py:FUNCTION", "package.module:FUNCTION", "timm:NAME", "hf:FOLDER", or
        an nn.Module in eval mode.
    target, precision, options
        Name from `edgevit targets`, a precision that it has, and options of its own.
    out
        Folder below which the artifact's own folder is written.
    name
        Name of an nn.Module in files and rows; default: its class and a digest of its structure and weights.
    inputs
        Example inputs of an nn.Module. They fix its input names, sizes and types, not the batch size.
    weights, weights_key, seed
        Checkpoint of a named model, and which of its sets of weights; default: the averaged one. Without a checkpoint
        the weights are random, from this seed, or those of the function.
    input_size
        Input size in pixels, as a number or as (height, width); default: the model card's.
    input_shape
        Shapes of all inputs, the batch of 1 first: (1, 1, 28, 28), "tokens=1x77:int64", or a mapping from their names.
    preprocessing
        How an image becomes the input, as a mapping with some of mean, std, range, resize, crop, interpolation and
        color. Default: as the model says, and the rest as for ImageNet, which the artifact marks as assumed.
    batch_size, dynamic_batch
        Batch size of the artifact, or an open one.
    unfolded
        Training form in place of the folded one, for comparisons.
    form
        Which exactly equal form: "default", that of the recipe; "portable", none; "tuned", what `edgevit.tune` chose;
        or the name of a form, wherever it applies.
    embed_preprocess
        Input of uint8 images (N, H, W, 3), normalized inside as the model's card says; without a card as for ImageNet.
    labels
        Text file with one class name per line.
    input_range, samples
        Lowest and highest number of an input, such as (0, 255), or a file of `numpy.save` with samples (N, ..) of it:
        what the artifact is compared on. Default: noise around 0, photographs as the model's card preprocesses them.
    data, floor_db, ranges, absorb, correct
        How the numbers of int8, w8 and w6 are found, as in `edgevit.quantize`; other precisions take no notice of it.
    own_process
        Export of a named model in a process of its own, so that a converter cannot change or crash this one.
    db
        Latency database that records artifacts whose payload or model is code; default: EDGEVIT_DB, else the user's
        own.
    on_stage
        Function that is called with the name of each stage as it starts.

    Raises ParityError where the artifact does not compute the model's function, UsageError and UnknownNameError for a
    request that makes no sense, TargetUnavailableError for a missing converter, and ModelError, CheckpointError,
    FoldError, ExportError or ArtifactError from the stage that failed.
    """
    require_torch()
    request = ExportRequest(
        load_recipe(target).RECIPE.target,
        Path(out),
        precision,
        model if isinstance(model, str) else name,
        weights=None if weights is None else Path(weights),
        weights_key=weights_key,
        seed=seed,
        input_size=(input_size, input_size) if isinstance(input_size, int) else input_size,
        input_shapes=() if input_shape is None else read_input_shapes(input_shape),
        preprocessing=read_stated(preprocessing or {}),
        batch=batch_size,
        dynamic_batch=dynamic_batch,
        unfolded=unfolded,
        form=form,
        embed_preprocess=embed_preprocess,
        labels=None if labels is None else Path(labels),
        options=dict(options or {}),
        samples=SampleRequest(input_range, None if samples is None else Path(samples)),
        quantization=read_quantization(data, floor_db, ranges, absorbs=absorb, corrects=correct),
    )
    request = with_tuning(request, db)
    if isinstance(model, str):
        _require_name_alone(model, inputs, name)
        return export_named(request, db, run=export_separately if own_process else export_here, on_stage=on_stage)
    return _export_module(model, request, inputs, db, on_stage)


def _require_name_alone(model: str, inputs: object, name: str) -> None:
    """Raise UsageError for what a module needs beside it, and a model's name does not."""
    if inputs is not None:
        raise UsageError("inputs are of an nn.Module", why=f"{model!r} is a name", fix="input_size=(height, width)")
    if name:
        raise UsageError("a name is for an nn.Module", why=f"{model!r} has one", fix="leave name= out")


def export_named(
    request: ExportRequest,
    db: str | None = None,
    *,
    run: Export = export_separately,
    on_stage: Callable[[str], None] | None = None,
    on_wait: Callable[[str], None] = warn_in_log,
) -> Artifact:
    """Export a model that the request names, and record it as built here. Raise as `export` does.

    run: one of the ways to export, such as export_separately() or what exports_of() yields.
    on_wait: called with the run that holds the output folder, before waiting for its end.
    """
    require_torch()
    from edgevit.exporting.requirements import check_request

    check_request(load_recipe(request.target), request.precision, options=request.options)
    with locked_folder(request.out, on_wait):
        require_weights_kept(request)
        artifact = run(request, on_stage or _ignore)
        record_built(artifact, db)
    return artifact


def _export_module(
    module: nn.Module,
    request: ExportRequest,
    inputs: Mapping[str, Tensor] | Sequence[Tensor] | None,
    db: str | None,
    on_stage: Callable[[str], None] | None,
) -> Artifact:
    """Export a module of this process in this process, and record it as built here."""
    from edgevit.exporting.child_process import export_loaded
    from edgevit.models.source import subject_of

    if request.weights is not None:
        raise UsageError("weights are of a named model", why="a module has its own", fix="leave weights= out")
    subject = subject_of(
        module,
        inputs,
        request.input_size,
        request.model,
        input_shapes=request.input_shapes,
        preprocessing=request.preprocessing,
    )
    with locked_folder(request.out):
        artifact = export_loaded(subject, request, on_stage or _ignore)
        record_built(artifact, db)
    return artifact


def _ignore(stage: str) -> None:
    """Ignore the start of a stage."""
