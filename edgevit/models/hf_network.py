"""Networks of Hugging Face's transformers: `hf:FOLDER`, a folder as save_pretrained() writes it. No network access.

Labels are those of config.json; input size and preprocessing are those of preprocessor_config.json. Code that a folder
brings along is never run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgevit.checkpoint_files import checkpoint_sha256
from edgevit.errors import CheckpointError, ModelError
from edgevit.models.checkpoint import SHOWN, LoadedWeights, load_weights, require_sound
from edgevit.models.hf_preprocessing import read_preprocessing
from edgevit.models.library_network import LibraryNetwork, distinct, has_weights, require_library
from edgevit.models.random_weights import randomize
from edgevit.models.user_code import UserCode
from edgevit.plain_files import read_plain
from edgevit.records.artifact import WeightsChoice, WeightsRequest
from edgevit_runtime.record import TensorSpec

_CLASSIFIERS = ("ForImageClassification", "ForImageClassificationWithTeacher")


class Logits(nn.Module):
    """A classifier of transformers that returns its logits alone."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Map images to one score for each class."""
        logits: Tensor = self.model(pixel_values=pixel_values).logits
        return logits


def build_hf(name: str, weights: WeightsRequest) -> LibraryNetwork:
    """Return the network of a folder with the weights of a file, of the folder, or random ones from the seed.

    Raises TargetUnavailableError without transformers, ModelError and CheckpointError.
    """
    model, folder = f"hf:{name}", Path(name)
    require_library("transformers", "hf", model)
    config = _read_json(folder / "config.json", model)
    architecture = _architecture(config, folder)
    with UserCode(model):
        import transformers

    network_class = getattr(transformers, architecture, None)
    if network_class is None:
        why = f"transformers {transformers.__version__} has no {architecture}"
        raise ModelError(f"{model} is no network of transformers", why=why, fix="pip install -U 'edgevit[hf]'")
    file = weights.file or (folder if has_weights(folder) else None)
    if file == folder:
        module, loaded = _pretrained(network_class, folder, model)
    else:
        module, loaded = _untrained(network_class, folder, model, weights.seed), None
        if file is None:
            randomize(module, weights.seed)
        else:
            loaded = load_weights(module, file, key=weights.key, earlier_key=weights.earlier_key)
    stated, size = read_preprocessing(folder, module.config.to_dict())
    if size is None:
        inputs: tuple[TensorSpec, ...] = ()
    else:
        channels = int(getattr(module.config, "num_channels", 3))
        inputs = (TensorSpec(str(module.main_input_name), (-1, channels, *size)),)
    is_classifier = architecture.endswith(_CLASSIFIERS)
    network = Logits(module).eval() if is_classifier else module
    labels = _labels(config) if is_classifier else ()
    return LibraryNetwork(network, "transformers", inputs, stated, labels, loaded, file.name if file else "")


def _read_json(file: Path, model: str) -> dict[str, Any]:
    if not file.parent.is_dir():
        fix = f"hf download {file.parent} --local-dir FOLDER, then hf:FOLDER"
        raise ModelError(f"{model} names no folder", why="edgevit downloads nothing", fix=fix)
    try:
        content = json.loads(read_plain(file))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{model} has no readable config.json", where=str(file), why=str(error)) from error
    if not isinstance(content, dict):
        raise ModelError(f"{model} has no readable config.json", where=str(file), why="it is no JSON object")
    return content


def _architecture(config: Mapping[str, Any], folder: Path) -> str:
    """Return the name of the network's class. Raise ModelError where the folder does not say, or needs its own code."""
    if "architecture" in config and "architectures" not in config:
        raise ModelError("this folder is a network of timm", where=str(folder), fix=f"timm:{folder}")
    if "auto_map" in config:
        why = "its config.json has an auto_map: the network is defined by code in the folder, which edgevit never runs"
        raise ModelError("this network needs code of its own", where=str(folder), why=why, fix="FILE.py:FUNCTION")
    names = config.get("architectures")
    if not (isinstance(names, list) and names and isinstance(names[0], str)):
        why = "its config.json has no `architectures`"
        raise ModelError("this folder does not say which network it is", where=str(folder), why=why)
    return names[0]


def _pretrained(network_class: Any, folder: Path, model: str) -> tuple[Any, LoadedWeights]:
    """Return the network with its folder's weights. Raise CheckpointError where one of its tensors would be random."""
    with UserCode(model):
        module, report = network_class.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, output_loading_info=True, dtype=torch.float32
        )
    absent = sorted(map(str, report["missing_keys"]))
    mismatched = sorted(str(entry[0] if isinstance(entry, tuple) else entry) for entry in report["mismatched_keys"])
    if absent or mismatched:
        counts = (("missing", absent), ("of another shape", mismatched))
        why = "; ".join(f"{len(names)} {kind}: {', '.join(names[:SHOWN])}" for kind, names in counts if names)
        problem = f"the weights of this folder are not of its {network_class.__name__}"
        raise CheckpointError(problem, where=str(folder), why=why, fix="save it again: model.save_pretrained(FOLDER)")
    require_sound(module, str(folder))
    unexpected = sorted(map(str, report["unexpected_keys"]))
    choice = WeightsChoice(".", left_out=tuple(unexpected[:SHOWN]), left_out_count=len(unexpected))
    return module.eval(), LoadedWeights(choice, checkpoint_sha256(folder))


def _untrained(network_class: Any, folder: Path, model: str, seed: int) -> Any:
    with UserCode(model), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        config = network_class.config_class.from_pretrained(str(folder), local_files_only=True)
        return network_class(config).float().eval()


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the labels of config.json in the order of the classes; none where they are numbers without a meaning."""
    names = config.get("id2label")
    if not isinstance(names, dict):
        return ()
    try:
        labels = [str(names[str(number)]) for number in range(len(names))]
    except KeyError:
        return ()
    if labels == [f"LABEL_{number}" for number in range(len(labels))]:
        return ()
    return distinct(labels)
