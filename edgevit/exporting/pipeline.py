"""The rooms in a row: a subject -> folded -> exported -> verified -> an artifact under its final name, or nothing.

Work happens in a hidden folder beside the final one. Only a verified artifact is renamed to its name; one that fails
verification is moved to `quarantine/` with its stages, so that the failing one can be looked at.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import torch
from torch import nn

from edgevit import __version__
from edgevit.artifacts.export_command import export_command
from edgevit.artifacts.folder import folder_of, publish, require_sealed, reseal, seal, short_name
from edgevit.artifacts.folder_lock import is_full, unwritable
from edgevit.artifacts.trust import require_built_here, require_known_model
from edgevit.concurrency.scratch import mark
from edgevit.errors import TargetUnavailableError
from edgevit.exporting.convert import SOURCE, convert
from edgevit.exporting.outputs import plain_outputs
from edgevit.exporting.preparation import Preparation
from edgevit.exporting.quantized_again import calibration_again, require_simulated, simulated_again, verify_saturated
from edgevit.exporting.quarantine import QUARANTINE, refuse
from edgevit.exporting.requirements import check_request
from edgevit.exporting.same_network import compared_network, remember_files, require_same_network
from edgevit.folding import Folded, fold
from edgevit.folding.restoration import unchanged
from edgevit.models.source import Subject, reload_subject
from edgevit.quantization import Quantized
from edgevit.recipes import load_recipe, recipe_sha256
from edgevit.records.artifact import (
    NO_CHECKPOINT,
    Artifact,
    ExportRequest,
    Parity,
    ParityCheck,
    SampleRequest,
    StageTime,
    WeightsRequest,
)
from edgevit.records.measurement import Device
from edgevit.records.model_reference import ModelReference
from edgevit.records.tuning import AppliedForm
from edgevit.verification import (
    ARTIFACT_STAGE,
    References,
    Samples,
    VerificationRun,
    judge,
    make_samples,
    verify_half,
    verify_payload,
    verify_simulation,
    verify_stages,
)
from edgevit_runtime.codec import to_json
from edgevit_runtime.dialect import QUANTIZED
from edgevit_runtime.record import Operators, Quantizing, Recipe, RecipeModule, Reply, Stage, TensorSpec


def export_subject(
    subject: Subject,
    request: ExportRequest,
    on_stage: Callable[[str], None] = lambda name: None,
    preparation: Preparation | None = None,
) -> Artifact:
    """Fold, export, verify and publish one artifact; returns it as it lies under its final name.

    preparation: that of an earlier export of this subject, in which the fold is made already.
    Raises ParityError (exit 4) where a comparison fails, and the errors of each room; nothing is left under the final
    name then, and an older artifact of that name is untouched.
    """
    recipe = load_recipe(request.target)
    dtypes = [spec.dtype for spec in subject.inputs]
    versions = check_request(
        recipe, request.precision, dynamic_batch=request.dynamic_batch, options=request.options, dtypes=dtypes
    )
    name = _final(subject, request).name
    clock = _Clock(on_stage)
    with _staging(request.out, name) as folder, unchanged(subject.module):
        prepared = preparation or Preparation(subject, request, on_stage)
        clock.times += prepared.stages
        formed = prepared.formed(recipe.RECIPE, request)
        quantized = _quantized(prepared, recipe, request, clock)
        payload = folder / f"{_stem(subject)}{recipe.RECIPE.suffix}"
        with clock.stage("export"):
            stages = convert(
                formed.model if quantized is None else quantized.simulation,
                recipe,
                payload,
                inputs=prepared.example,
                precision=request.precision,
                dynamic_batch=request.dynamic_batch,
                allow_unfolded=request.unfolded,
                options=request.options,
            )
        clock.replace("export", stages)
        with clock.stage("verify"):
            parity, reply, value_range = _verify(prepared, quantized, recipe, stages, payload, request)
        draft = _draft(prepared, request, recipe, payload, formed.applied)
        draft = dataclasses.replace(
            draft,
            input_range=value_range,
            network_sha256=prepared.network_sha256,
            quantization=None if quantized is None else quantized.report,
            toolchain={"edgevit": __version__, **versions},
        )
        parity = dataclasses.replace(parity, network=compared_network(draft, subject))
        if parity.status == "failed":
            failed = dataclasses.replace(draft, parity=parity, stages=tuple(clock.times))
            refuse(failed, request.out / QUARANTINE / name, subject, prepared.model, recipe, request)
        shutil.rmtree(folder / "stages")
        if (folder / SOURCE).exists():
            shutil.rmtree(folder / SOURCE)
        inputs, outputs = (reply.inputs, reply.outputs) if reply.inputs else _ends(prepared, request)
        sealed = dataclasses.replace(
            draft,
            inputs=inputs,
            outputs=outputs,
            operators=recipe.operators(payload),
            stages=tuple(clock.times),
            parity=parity,
        )
        published = publish(seal(sealed), _final(subject, request))
        remember_files(published, request)
        return published


def _final(subject: Subject, request: ExportRequest) -> Path:
    """Return the folder that the artifact will have."""
    is_zoo = subject.card is not None and not ModelReference.parse(subject.name).is_own
    named = dataclasses.replace(request, target=load_recipe(request.target).RECIPE.target)
    return folder_of(named, subject.card.inputs if is_zoo and subject.card else (), subject.name)


def verify_artifact(
    artifact: Artifact,
    weights: WeightsRequest = NO_CHECKPOINT,
    *,
    built_here: Container[str] = (),
    device: Device | None = None,
    model: nn.Module | str = "",
    samples: SampleRequest | None = None,
    data: Path | None = None,
    processor: str = "",
) -> Parity:
    """Verify an artifact again, against the model it was made from; run here, or on this device.

    `built_here` are the digests of code that may run (artifacts/trust.py). `model` is the model itself, or its name as
    a person gives it again. `samples` default to the range that the artifact was exported with, and `data` of an int8
    artifact to where its samples were. `processor` stands for one that is not here, whose sums are simulated. Raises
    CheckpointError for other weights, ArtifactError for code of unknown origin and for a folder that is not as it was
    sealed, TargetUnavailableError where its engine is not there, DeviceError. Raises UsageError for samples that do not
    fit, for another model's name, and for a network that was changed since the export.
    """
    require_sealed(artifact)
    require_built_here(artifact, load_recipe(artifact.target).RECIPE, built_here)
    if isinstance(model, str):
        require_known_model(artifact, built_here, model)
    if processor:
        require_simulated(artifact, processor)
    subject = reload_subject(artifact, weights, model)
    command = export_command(artifact, weights=weights.file, weights_key=weights.key)
    require_same_network(artifact, subject, f"{command}, or give back its code as it was")
    batch = 1 if artifact.dynamic_batch else artifact.inputs[0].shape[0]
    # The comparisons below judge the fold.
    folded = fold(subject.module, tuple(subject.example(batch).values()), check=False) if artifact.folded else None
    samples = samples or SampleRequest(artifact.input_range)
    # An open batch is tried open.
    batch = 2 if artifact.dynamic_batch else batch
    calibration = None
    if artifact.quantization is not None:
        calibration = calibration_again(artifact.quantization, subject, samples, data, batch)
    pictures = calibration.judged if calibration else None
    drawn = make_samples(subject.inputs, subject.preprocessing, samples, batch=batch, pictures=pictures)
    with unchanged(subject.module):
        references = References.of(drawn, subject.module, folded)
        if _needs_half(load_recipe(artifact.target).RECIPE, artifact.precision):
            references = references.with_half(subject.module if folded is None else folded)
        if calibration is not None and folded is not None:
            examples = tuple(subject.example(batch).values())
            references, simulation = simulated_again(artifact, folded, calibration, references, examples)
            if processor:
                run = verify_saturated(simulation, references, artifact.precision)
                return judge(run, (*verify_half(references), *verify_simulation(references)), references.samples)
    run = verify_payload(artifact.target, artifact.folder / artifact.payload, references, artifact.precision, device)
    if not run.checks:
        raise _not_here(artifact.target, run, device)
    earlier = _stages_of(artifact) if device else (*verify_half(references), *verify_simulation(references))
    parity = judge(run, earlier, references.samples)
    return dataclasses.replace(parity, network=compared_network(artifact, subject))


def _stages_of(artifact: Artifact) -> tuple[ParityCheck, ...]:
    """Return the comparisons that were made on the way to the artifact, which no other machine can make again."""
    return tuple(check for check in artifact.parity.checks if check.stage != ARTIFACT_STAGE) if artifact.parity else ()


def record_parity(artifact: Artifact, parity: Parity) -> Artifact | None:
    """Put what was found on a device into the manifest, where that knew no better; None if it stays as it was.

    What passed stays passed: that another device computes it wrongly is known of that device, not of the artifact.
    Raises ArtifactError where it cannot be written, or was changed meanwhile.
    """
    if artifact.parity is not None and artifact.parity.status == "passed":
        return None
    return reseal(artifact, parity)


def _needs_half(recipe: Recipe, precision: str) -> bool:
    """Return whether torch has to try half precision, because the engine that is to prove it would hide an overflow."""
    widens = recipe.widens_half or (bool(recipe.source) and load_recipe(recipe.source).RECIPE.widens_half)
    return precision == "fp16" and widens


def _quantized(prepared: Preparation, recipe: RecipeModule, request: ExportRequest, clock: _Clock) -> Quantized | None:
    """Return the network in the int8 that the target's engine has; None for another precision."""
    if request.precision not in QUANTIZED:
        return None
    assert isinstance(recipe, Quantizing)
    with clock.stage("quantize"):
        return prepared.quantized(recipe.dialect(request.precision, request.options), request, recipe.RECIPE)


def _verify(
    prepared: Preparation,
    quantized: Quantized | None,
    recipe: RecipeModule,
    stages: Sequence[Stage],
    payload: Path,
    request: ExportRequest,
) -> tuple[Parity, Reply, tuple[float, float] | None]:
    """Judge the stages, write what was found into the payload's metadata, then judge the payload as it will ship.

    Return the parity, the reply of the engine, and the range of the samples.
    """
    references = prepared.references(request)
    if _needs_half(recipe.RECIPE, request.precision):
        references = references.with_half(prepared.model)
    if quantized is not None:
        references = prepared.simulated(quantized, request)
    target = recipe.RECIPE.target
    checks = verify_stages(target, stages, references)
    if not all(check.passed for check in checks):
        parity = judge(VerificationRun(Reply("failed"), (), ""), checks, references.samples)
        return parity, Reply("failed"), references.samples.value_range
    recipe.annotate(payload, metadata(prepared, references, request, target, _found(checks, references.samples)))
    shipped = _alone(payload)
    try:
        run = verify_payload(target, shipped, references, request.precision)
    finally:
        shutil.rmtree(shipped.parent)
    # An engine that another machine or processor would run is no error; one that is broken here is.
    if not (run.checks or recipe.RECIPE.needs or run.reply.missing_instructions):
        raise _not_here(target, run)
    return judge(run, checks, references.samples), run.reply, references.samples.value_range


def _found(checks: Sequence[ParityCheck], samples: Samples) -> str:
    """Return what a payload says of its own verification in the moment before it is verified itself."""
    if not checks:
        return "not verified: nothing computed any stage of it where it was made"
    return f"passed: max_rel {checks[-1].figures[0]}, {samples.description}, at stage {checks[-1].stage}"


def _not_here(target: str, run: VerificationRun, device: Device | None = None) -> TargetUnavailableError:
    if device is None:
        problem, fix = f"target {target} cannot run here", "edgevit doctor"
    else:
        problem, fix = f"target {target} cannot run on {device.name}", f"edgevit devices show {device.name}"
    return TargetUnavailableError(problem, why=run.reply.error, fix=fix)


def _ends(prepared: Preparation, request: ExportRequest) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return inputs and outputs as the model has them, where no engine here can say what the artifact has."""
    batch = -1 if request.dynamic_batch else request.batch
    model, examples = prepared.model, prepared.example
    names = plain_outputs(model, examples)[1]
    with torch.inference_mode():
        leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(model(*examples.values())) if torch.is_tensor(leaf)]
    shapes = [(batch, *leaf.shape[1:]) if leaf.shape[0] == request.batch else tuple(leaf.shape) for leaf in leaves]
    inputs = (TensorSpec(name, (batch, *tensor.shape[1:]), str(tensor.dtype)[6:]) for name, tensor in examples.items())
    return tuple(inputs), tuple(TensorSpec(name, shape) for name, shape in zip(names, shapes, strict=True))


def _alone(payload: Path) -> Path:
    """Copy the payload without its stages into a folder of its own, as it will be published, and return the copy.

    Not linked: weights with a second name are refused by those who open them.
    """
    folder = payload.parent / "shipped"
    shutil.copytree(payload.parent, folder, ignore=shutil.ignore_patterns("shipped", "stages", SOURCE))
    return folder / payload.name


def metadata(
    prepared: Preparation, references: References, request: ExportRequest, target: str, parity: str
) -> dict[str, str]:
    """Return what a payload says of itself, under the keys that other tools read, and ours under `edgevit.`.

    `names`, `imgsz` and `stride` are there where they can be told: classes of a classifier, sides of an image, and how
    many input pixels a side of the smallest feature map's pixel spans.
    """
    subject, model = prepared.subject, prepared.model
    card, shape = subject.card, subject.inputs[0].shape
    is_image = len(shape) == 4
    sides = list(shape[1:3] if subject.preprocessing_inside else shape[2:])
    logits = references.trained[0]
    classes = logits[0].shape[-1] if card and len(logits) == 1 and logits[0].ndim == 2 else 0
    side = model.smallest_side if isinstance(model, Folded) else None
    labels = subject.labels or tuple(f"class{number}" for number in range(classes))
    optional = {
        "names": str(dict(enumerate(labels))) if labels else "",
        "stride": str(round(sides[-1] / side)) if side and is_image else "",
        "imgsz": str(sides) if is_image else "",
    }
    required = {
        "description": f"{subject.name} for {target}, {request.precision}",
        "author": card.source if card else "unknown",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "version": __version__,
        "license": card.licence if card else "unknown",
        "task": "classify" if card else "unknown",
        "batch": "dynamic" if request.dynamic_batch else str(request.batch),
        "edgevit.fold": "unfolded" if request.unfolded else "folded",
        "edgevit.source": to_json(subject.source),
        "edgevit.preprocessing": to_json(subject.preprocessing),
        "edgevit.preprocessing_inside": str(subject.preprocessing_inside).lower(),
        "edgevit.precision": request.precision,
        "edgevit.toolchain": json.dumps(check_request(load_recipe(target), request.precision)),
        "edgevit.parity": parity,
    }
    return required | {key: value for key, value in optional.items() if value}


def _draft(
    prepared: Preparation,
    request: ExportRequest,
    recipe: RecipeModule,
    payload: Path,
    forms: tuple[AppliedForm, ...],
) -> Artifact:
    subject, model = prepared.subject, prepared.model
    return Artifact(
        folder=payload.parent,
        model=subject.name,
        family=subject.family,
        target=recipe.RECIPE.target,
        precision=request.precision,
        payload=payload.name,
        sha256="",
        size_bytes=0,
        inputs=subject.inputs,
        outputs=(),
        dynamic_batch=request.dynamic_batch,
        folded=not request.unfolded,
        fold_summary=model.report.summary if isinstance(model, Folded) else "not folded",
        params=prepared.count.params,
        macs=prepared.count.macs // request.batch,
        source=subject.source,
        preprocessing=subject.preprocessing,
        toolchain={},
        stages=(),
        operators=Operators({}),  # of a payload that may not be readable
        options=dict(request.options),
        preprocessing_inside=subject.preprocessing_inside,
        labels=subject.labels,
        labels_file="" if request.labels is None else str(request.labels),
        model_inputs=subject.model_inputs,
        recipe_sha256=recipe_sha256(recipe.RECIPE.target),
        batch=request.batch,
        graph_digest=prepared.graph_sha256,
        costs=prepared.costs,
        form=request.form,
        forms=forms,
        tuning=request.tuning,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _stem(subject: Subject) -> str:
    return short_name(subject.name)


@contextmanager
def _staging(out: Path, name: str) -> Iterator[Path]:
    """Yield a hidden folder in `out`; remove it at the end unless it was renamed. Raise ArtifactError if it fails."""
    is_new, folder = not out.exists(), out / f".{name}.{mark()}.partial"
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except OSError as error:
        raise unwritable(out, error) from error
    try:
        yield folder
    except OSError as error:
        if not is_full(error):
            raise
        raise unwritable(out, error) from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if is_new:
            with suppress(OSError):  # not empty: something came of it
                out.rmdir()


class _Clock:
    """Names each stage as it starts and keeps what it cost."""

    def __init__(self, on_stage: Callable[[str], None]) -> None:
        self._on_stage, self.times = on_stage, list[StageTime]()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        self._on_stage(name)
        start = time.perf_counter()
        yield
        self.times.append(StageTime(name, round(time.perf_counter() - start, 3)))

    def replace(self, name: str, stages: Sequence[Stage]) -> None:
        """Put the stages that a step consisted of in its place."""
        inner = [StageTime(stage.name, round(stage.seconds, 3)) for stage in stages]
        self.times = [tensor for tensor in self.times if tensor.name != name] + inner
