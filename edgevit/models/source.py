"""What a person means by MODEL: a name of the zoo, a function of their own, or a network of timm or transformers."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from edgevit.errors import CheckpointError, UsageError
from edgevit.models import create_model, list_models, load_weights, model_card, randomize, statements
from edgevit.models.checkpoint import require_sound
from edgevit.models.hf_network import build_hf
from edgevit.models.preprocess import Preprocessed, normalised_image, raw_image
from edgevit.models.statements import read_statements, stated_inputs, stated_preprocessing
from edgevit.models.timm_network import build_timm
from edgevit.models.user_function import call_user_function, require_eval
from edgevit.records.artifact import NO_CHECKPOINT, Artifact, ExportRequest, Source, WeightsRequest
from edgevit.records.input_shapes import InputRequest, describe_inputs
from edgevit.records.model import ASSUMED_PREPROCESSING, ModelCard, Preprocessing
from edgevit.records.model_reference import ModelReference, place_digest
from edgevit.records.preprocessing import (
    CHANNELS_FIRST,
    NOTHING_STATED,
    StatedPreprocessing,
    complete,
    has_channels_last,
    takes_image,
)
from edgevit_runtime.record import TensorSpec

_ZOO_CLASSES = 1000


@dataclass(frozen=True)
class Subject:
    """A model in training form and eval mode, with all that an export must know of it."""

    name: str
    family: str
    module: nn.Module
    inputs: tuple[TensorSpec, ...]  # the batch open, as -1
    source: Source
    preprocessing: Preprocessing
    card: ModelCard | None
    preprocessing_inside: bool = False
    labels: tuple[str, ...] = ()  # of the classes, in the order of the output; empty: not told
    inputs_assumed: bool = False  # one RGB image, because only its size was stated

    @property
    def model_inputs(self) -> tuple[TensorSpec, ...]:
        """The inputs of the model as it was loaded, before preprocessing went inside."""
        return tuple(map(normalised_image, self.inputs)) if self.preprocessing_inside else self.inputs

    def example(self, batch: int = 1) -> dict[str, Tensor]:
        """Return zeros of the inputs' sizes, by name."""
        specs = (spec.at_batch(batch) for spec in self.inputs)
        return {spec.name: torch.zeros(spec.shape, dtype=getattr(torch, spec.dtype)) for spec in specs}


def subject_of(
    module: nn.Module,
    inputs: Mapping[str, Tensor] | Sequence[Tensor] | None = None,
    input_size: tuple[int, int] | None = None,
    name: str = "",
    input_shapes: tuple[TensorSpec, ...] = (),
    preprocessing: StatedPreprocessing = NOTHING_STATED,
) -> Subject:
    """Return a module of this process as a Subject, with these example inputs, these shapes, or those of its card.

    Without a name it is called by its class and a digest of its structure and weights. It never has its card's name:
    published accuracies are of the official weights, and these may be any. Raise ModelError in training mode,
    UsageError where nothing says what the module takes, and for a name of the zoo.
    """
    name = name or _own_name(module)
    if name in list_models():
        why = "this module may have other weights"
        raise UsageError(f"{name!r} is a model of the zoo", why=why, fix="another name")
    require_eval(module, name)
    module, widened = _in_single_precision(module)
    card = getattr(module, "card", None)
    known_card = card if isinstance(card, ModelCard) else None
    if inputs is not None and widened:
        inputs = _widened(inputs)
    known = _specs(inputs) if inputs is not None else known_card.inputs if known_card else ()
    if not (known or input_size or input_shapes):
        raise UsageError(f"{name} does not say what it takes", fix="inputs=(example tensor, ...), or input_size=224")
    specs = stated_inputs(module, known, InputRequest(input_size, input_shapes), name)
    completed = stated_preprocessing(known_card, None, preprocessing, specs)
    source = Source(name, "module", state_sha256=state_sha256(module))
    return Subject(name, "custom", module, specs, source, completed, None)


def _in_single_precision(module: nn.Module) -> tuple[nn.Module, bool]:
    """Return a copy in float32 of a module that is all in another floating type, and whether it is one.

    Half precision and bfloat16 are widened exactly. Which precision an artifact has is asked for at its export.
    """
    tensors = (*module.parameters(), *module.buffers())
    kinds = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    if len(kinds) != 1 or torch.float32 in kinds:
        return module, False
    return copy.deepcopy(module).float(), True


def _widened(inputs: Mapping[str, Tensor] | Sequence[Tensor]) -> dict[str, Tensor] | list[Tensor]:
    def widen(tensor: Tensor) -> Tensor:
        return tensor.float() if tensor.is_floating_point() else tensor

    if isinstance(inputs, Mapping):
        return {name: widen(tensor) for name, tensor in inputs.items()}
    return [widen(tensor) for tensor in inputs]


def _own_name(module: nn.Module) -> str:
    """Return the class of a module and a digest, so that two networks never share a folder or a row's name."""
    digest = hashlib.sha256(f"{state_sha256(module)}\n{module}".encode()).hexdigest()
    return f"{type(module).__name__}-{digest[:8]}"


def _specs(inputs: Mapping[str, Tensor] | Sequence[Tensor]) -> tuple[TensorSpec, ...]:
    """Return inputs as specifications with an open batch; unnamed ones are called as the zoo calls its own."""
    if not isinstance(inputs, Mapping):
        names = ["image"] if len(inputs) == 1 else [f"input{number}" for number in range(len(inputs))]
        inputs = dict(zip(names, inputs, strict=True))
    return tuple(
        TensorSpec(name, (-1, *tensor.shape[1:]), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in inputs.items()
    )


def load_subject(
    model: str,
    *,
    weights: WeightsRequest = NO_CHECKPOINT,
    input_size: tuple[int, int] | None = None,
    input_shapes: tuple[TensorSpec, ...] = (),
    preprocessing: StatedPreprocessing = NOTHING_STATED,
) -> Subject:
    """Load a model by what a person typed, with the inputs and the preprocessing that the options state.

    Without weights a model of the zoo is random, norms and scales too, so that its folds and exports are tested on
    values that could go wrong; such an artifact is honest for latency and parity and says that it is random.
    Raises UnknownNameError, ModelError, CheckpointError, UsageError.
    """
    if weights.key and weights.file is None:
        raise UsageError("a key of weights without their file", fix=f"--weights FILE --weights-key {weights.key}")
    request = InputRequest(input_size, input_shapes)
    loaders = {"zoo": _zoo, "file": _own, "module": _own, "timm": _library, "hf": _library}
    return loaders[ModelReference.parse(model).kind](model, weights, request, preprocessing)


def _zoo(name: str, weights: WeightsRequest, request: InputRequest, preprocessing: StatedPreprocessing) -> Subject:
    card = model_card(name)
    module = create_model(name, seed=weights.seed)
    if weights.file is None:
        randomize(module, weights.seed)
    source = _source(name, module, weights, classes=_ZOO_CLASSES, seed=weights.seed)
    inputs = stated_inputs(module, card.inputs, request, name)
    completed = stated_preprocessing(card, None, preprocessing, inputs)
    return Subject(name, card.family, module, inputs, source, completed, card)


def _source(
    name: str, module: nn.Module, weights: WeightsRequest, *, classes: int | None = None, seed: int | None = None
) -> Source:
    """Load the weights of a file, if there is one, and return where the module's weights come from.

    seed: that of random weights; None: they are those of a user's function.
    """
    origin = ModelReference.parse(name).origin
    if weights.file is None:
        kind: Literal["random", "function"] = "random" if seed is not None else "function"
        return Source(name, kind, seed, state_sha256=state_sha256(module), origin=origin)
    loaded = load_weights(module, weights.file, key=weights.key, earlier_key=weights.earlier_key, classes=classes)
    facts = (weights.file.name, loaded.sha256, state_sha256(module), origin, loaded.choice)
    return Source(name, "file", None, *facts, place_digest(weights.file.resolve()))


def _own(name: str, weights: WeightsRequest, request: InputRequest, preprocessing: StatedPreprocessing) -> Subject:
    """Return what a user's own function builds, with weights of a file, of the function, or drawn from the seed."""
    built = call_user_function(name, weights.seed, keeps_weights=weights.file is None)
    source = _source(name, built.module, weights, seed=weights.seed if built.is_drawn else None)
    if weights.file is None:
        require_sound(built.module, name)
    module, is_widened = _in_single_precision(built.module)
    if is_widened:
        source = dataclasses.replace(source, state_sha256=state_sha256(module))
    card = getattr(module, "card", None)
    known_card = card if isinstance(card, ModelCard) else None
    beside = read_statements(vars(built.definitions), built.function, name)
    known = beside.inputs or (known_card.inputs if known_card else ())
    inputs = stated_inputs(module, known, request, name)
    return Subject(
        name,
        known_card.family if known_card else "custom",
        module,
        inputs,
        source,
        stated_preprocessing(known_card, beside.preprocessing, preprocessing, inputs),
        known_card,
        labels=beside.labels,
        inputs_assumed=not (known or request.shapes),
    )


def _library(name: str, weights: WeightsRequest, request: InputRequest, preprocessing: StatedPreprocessing) -> Subject:
    """Return a network of timm or transformers, with what its own configuration states where the options do not."""
    reference = ModelReference.parse(name)
    network = (build_timm if reference.kind == "timm" else build_hf)(reference.name, weights)
    module, _ = _in_single_precision(network.module)
    state, origin = state_sha256(module), reference.origin
    source = Source(name, "random", weights.seed, state_sha256=state, origin=origin)
    if (loaded := network.loaded) is not None:
        place = place_digest(weights.file.resolve()) if weights.file else ""
        source = Source(name, "file", None, network.weights_file, loaded.sha256, state, origin, loaded.choice, place)
    inputs = stated_inputs(module, network.inputs, request, name)
    stated = complete(ASSUMED_PREPROCESSING, preprocessing.over(network.preprocessing), inputs)
    return Subject(name, network.family, module, inputs, source, stated, None, labels=network.labels)


def load_requested(request: ExportRequest) -> Subject:
    """Load the model of a request. Raise what `load_subject` raises."""
    return load_subject(
        request.model,
        weights=request.weights_request,
        input_size=request.input_size,
        input_shapes=request.input_shapes,
        preprocessing=request.preprocessing,
    )


def with_preprocessing(subject: Subject) -> Subject:
    """Return the model with its preprocessing in front: uint8 (N, H, W, 3) in. Raise UsageError without an image."""
    if not takes_image(subject.inputs):
        problem = f"{subject.name} takes no image, or not only one"
        raise UsageError(
            problem,
            why=f"its inputs: {describe_inputs(subject.inputs)}",
            fix=CHANNELS_FIRST if has_channels_last(subject.inputs) else "leave --embed-preprocess out",
        )
    module, inputs = Preprocessed(subject.module, subject.preprocessing), (raw_image(subject.inputs[0]),)
    return dataclasses.replace(subject, module=module, inputs=inputs, preprocessing_inside=True)


def require_taken(subject: Subject, batch: int) -> None:
    """Raise ModelError where the model cannot compute its inputs at this batch: their shapes are others."""
    statements.require_taken(subject.module, subject.example(batch), subject.name, guessed=subject.inputs_assumed)


def with_labels(subject: Subject, labels: Sequence[str], where: str, batch: int = 1) -> Subject:
    """Return the model with the names of its classes. Raise UsageError where their number or one name cannot be."""
    if repeated := [name for name, count in Counter(labels).items() if count > 1]:
        raise UsageError(f"two classes have the label {repeated[0]!r}", where=where, fix="one label a class")
    with torch.inference_mode():
        outputs = torch.utils._pytree.tree_leaves(subject.module(*subject.example(batch).values()))
    shape = list(outputs[0].shape)
    if len(outputs) != 1 or len(shape) != 2 or shape[1] != len(labels):
        problem = f"{len(labels)} labels do not fit what {subject.name} puts out"
        raise UsageError(problem, where=where, why=f"{shape} for one input", fix="one label a line, one a class")
    return dataclasses.replace(subject, labels=tuple(labels))


def reload_subject(artifact: Artifact, weights: WeightsRequest, model: nn.Module | str = "") -> Subject:
    """Return the very model an artifact was made from. Raise CheckpointError where these are not its weights.

    Without a key the set of weights is the one that the export took. `model` is the model itself, for an artifact
    whose model no name can find, or its name here; default: the manifest's. That may be a stranger's code, so the
    caller asks `require_known_model` first.
    """
    source = artifact.source
    if not isinstance(model, str):
        return _as_exported(artifact, subject_of(model, input_shapes=artifact.model_inputs), type(model).__name__)
    model = model or source.model
    if source.weights == "module":
        problem = f"the artifact was made from a module of a Python process, {source.model}"
        raise CheckpointError(problem, fix="edgevit.verify(artifact, model=MODULE) in Python")
    brings_weights = ModelReference.parse(model).brings(source.weights_file)
    if source.weights == "file" and weights.file is None and not brings_weights:
        fix = f"--weights {shlex.quote(f'path/to/{source.weights_file}')}"
        raise CheckpointError(f"the artifact was made from {source.weights_file}", fix=fix)
    weights = WeightsRequest(weights.file, weights.key, source.seed or 0, source.choice.key if source.choice else "")
    subject = load_subject(model, weights=weights, input_shapes=artifact.model_inputs)
    return _as_exported(artifact, subject, str(weights.file or model))


def _as_exported(artifact: Artifact, subject: Subject, location: str) -> Subject:
    """Return the subject as it was exported. Raise CheckpointError where its weights are others."""
    if subject.source.state_sha256 != artifact.source.state_sha256:
        choice = artifact.source.choice
        made_from = f"it was made from {choice.of(artifact.source.weights_file)}" if choice else ""
        why = "; ".join(filter(None, [made_from, subject.source.describe_weights()]))
        fix = "name the weights as they were at the export, or export the artifact again"
        raise CheckpointError("these are not the weights the artifact was made from", where=location, why=why, fix=fix)
    subject = dataclasses.replace(subject, preprocessing=artifact.preprocessing)
    return with_preprocessing(subject) if artifact.preprocessing_inside else subject


def state_sha256(module: nn.Module) -> str:
    """Return the digest of every named tensor of a model, so that the same weights are known again."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
            digest.update(
                value.detach().cpu().contiguous().view(torch.uint8).numpy().data
                if value.dim()
                else b"%r" % value.item()
            )
    return digest.hexdigest()
