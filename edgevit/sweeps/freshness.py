"""Freshness: whether an artifact is just the one that an export would make now, and whether a failure still stands."""

from __future__ import annotations

import dataclasses
from datetime import datetime

from edgevit import __version__
from edgevit.artifacts.labels import read_labels
from edgevit.cards import load_cards
from edgevit.checkpoint_files import checkpoint_sha256
from edgevit.images.calibration_files import calibration_sha256
from edgevit.recipes import load_recipe, recipe_sha256, require_torch, toolchain
from edgevit.records.artifact import Artifact, ExportRequest, Source, is_named
from edgevit.records.measurement import Measurement
from edgevit.records.model import STATEABLE, ModelCard, Preprocessing
from edgevit.records.model_reference import ModelReference
from edgevit.records.preprocessing import complete, takes_image
from edgevit.records.tuning import form_name
from edgevit_runtime.record import Host, TensorSpec


@dataclasses.dataclass(frozen=True)
class NetworkFacts:
    """What loading a model shows of it: all that decides what its artifact holds."""

    source: Source
    inputs: tuple[TensorSpec, ...]
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    network_sha256: str  # empty: the network cannot be captured


def is_current(artifact: Artifact, request: ExportRequest) -> bool:
    """Return whether an export of the request would make just this artifact now.

    A model of the zoo with random weights is known by its name. Any other is loaded: only what it computes now can
    tell. Raises what loading it raises.
    """
    if not is_current_so_far(artifact, request):
        return False
    card = load_cards().get(request.model)
    if card is not None and request.weights is None and not request.input_shapes:
        return _is_of_card(artifact, request, card)
    facts = _network_facts(dataclasses.replace(request, target="", precision="", labels=None))
    labels = facts.labels if request.labels is None else read_labels(request.labels)
    found = NetworkFacts(
        artifact.source, artifact.model_inputs, artifact.preprocessing, artifact.labels, artifact.network_sha256
    )
    # What cannot be captured is never known to be the same.
    same = bool(facts.network_sha256) and found == dataclasses.replace(facts, labels=labels)
    if same:
        from edgevit.exporting.same_network import remember_files

        # A remark in the code changes the file, and not the network.
        remember_files(artifact, request)
    return same


def is_current_so_far(artifact: Artifact, request: ExportRequest) -> bool:
    """Return whether an artifact is the one of the request, as far as that shows without loading the model."""
    recipe = load_recipe(request.target).RECIPE
    same_tools = artifact.toolchain == {"edgevit": __version__, **toolchain(recipe)}
    same_recipe = artifact.recipe_sha256 == recipe_sha256(recipe.target)
    proven = artifact.parity is not None and artifact.parity.status != "failed"
    in_range = request.samples.value_range in (None, artifact.input_range)
    same_labels = request.labels is None or artifact.labels == read_labels(request.labels)
    same_weights = request.weights is None or artifact.source.weights_sha256 == checkpoint_sha256(request.weights)
    choice = artifact.source.choice
    same_weights &= not request.weights_key or (choice is not None and is_named(request.weights_key, choice.key))
    of_request = same_labels and same_weights and is_of_form(artifact, request) and _has_samples(artifact, request)
    return same_tools and same_recipe and proven and in_range and of_request


def _has_samples(artifact: Artifact, request: ExportRequest) -> bool:
    """Return whether an artifact in int8 was made as the request says, on its samples as they are now."""
    made, data = artifact.quantization, request.calibration_data
    if made is None:
        return True
    if dataclasses.replace(made.request, data=None) != dataclasses.replace(request.quantization, data=None):
        return False
    return made.data_sha256 == ("" if data is None else calibration_sha256(data))


def is_of_form(artifact: Artifact, request: ExportRequest) -> bool:
    """Return whether an artifact has the form and the input size of a request. Without a size it is the card's."""
    form = (artifact.folded, artifact.dynamic_batch, artifact.preprocessing_inside, artifact.options, artifact.batch)
    requested = (not request.unfolded, request.dynamic_batch, request.embed_preprocess, request.options, request.batch)
    written = form_name(artifact.form, artifact.tuning)
    if form != requested or written != form_name(request.form, request.tuning):
        return False
    shapes = [(spec.shape, spec.dtype) for spec in artifact.model_inputs]
    if request.input_shapes:
        return sorted(shapes) == sorted((spec.shape, spec.dtype) for spec in request.input_shapes)
    card = load_cards().get(request.model)
    if request.input_size is None:
        return card is None or shapes == [(spec.shape, spec.dtype) for spec in card.inputs]
    return bool(shapes) and shapes[0][0][-2:] == request.input_size


def lost_statements(artifact: Artifact, request: ExportRequest) -> list[str]:
    """Return the options that an artifact was made with, and that the request would lose by replacing it."""
    lost = lost_weights(artifact.source, request)
    if artifact.quantization is not None and artifact.quantization.data_sha256 and request.calibration_data is None:
        lost.append("--data FOLDER")
    has_labels = bool(artifact.labels) and request.labels is None
    stated = set(STATEABLE) - set(artifact.preprocessing.assumed) if takes_image(artifact.model_inputs) else set()
    if not (has_labels or stated) or request.model in load_cards():
        return lost
    facts = _network_facts(dataclasses.replace(request, weights=None, weights_key="", labels=None))
    lost += [f"--{name}" for name in STATEABLE if name in stated and name in facts.preprocessing.assumed]
    return [*lost, *["--labels FILE"] * (has_labels and not facts.labels)]


def lost_weights(source: Source, request: ExportRequest) -> list[str]:
    """Return the options of its weights that an artifact was made with, and that a request lacks."""
    brings_weights = ModelReference.parse(request.model).brings(source.weights_file)
    lost = ["--weights FILE"] if source.weights == "file" and request.weights is None and not brings_weights else []
    if source.choice is not None and _forgets_key(source, request):
        lost.append(f"--weights-key {source.choice.key}")
    return lost


def _forgets_key(source: Source, request: ExportRequest) -> bool:
    """Return whether a request says no set of weights, and an artifact has one that no export takes by itself.

    Where a file has averaged weights, those are taken without a key. Of the same file the averaged set is known here.
    """
    choice = source.choice
    return choice is not None and bool(choice.others) and not choice.averaged and not request.weights_key


def _is_of_card(artifact: Artifact, request: ExportRequest, card: ModelCard) -> bool:
    """Return whether an artifact has the random weights of a model of the zoo, and its preprocessing and labels."""
    same_source = (artifact.source.weights, artifact.source.seed) == ("random", request.seed)
    same_preprocessing = artifact.preprocessing == complete(
        card.preprocessing, request.preprocessing, artifact.model_inputs
    )
    return same_source and same_preprocessing and (request.labels is not None or not artifact.labels)


def _network_facts(request: ExportRequest) -> NetworkFacts:
    """Load the model of a request, and return what shows."""
    # torch comes in here and not at the top: a sweep whose artifacts are all there never needs it.
    require_torch()
    from edgevit.exporting.digests import network_sha256
    from edgevit.models.source import load_requested

    subject = load_requested(request)
    network = network_sha256(subject, request.batch)
    return NetworkFacts(subject.source, subject.model_inputs, subject.preprocessing, subject.labels, network)


def failure_stands(row: Measurement, artifact: Artifact, host: Host | None) -> bool:
    """Return whether a row that did not run would most likely not run again: nothing it depends on is newer.

    The artifact is exported again whenever its network, recipe or tools changed, so a later export may run. So may the
    same file on another system. host: the device's system now; None: not known.
    """
    same_system = host is None or row.host is None or host == row.host
    return same_system and datetime.fromisoformat(row.started) >= datetime.fromisoformat(artifact.created)
