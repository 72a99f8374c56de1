"""Networks of PyTorch Image Models: `timm:NAME`, or `timm:FOLDER` as the Hugging Face hub stores one; no downloads.

Input size, preprocessing and labels are those of the network's `pretrained_cfg`. Weights come from the folder or from
--weights; a checkpoint of another number of classes decides that number.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgevit.errors import UnknownNameError
from edgevit.models.checkpoint import count_classes, load_weights
from edgevit.models.library_network import LibraryNetwork, distinct, has_weights, require_library
from edgevit.models.random_weights import randomize
from edgevit.models.user_code import UserCode
from edgevit.records.artifact import WeightsRequest
from edgevit.records.preprocessing import INTERPOLATIONS, StatedPreprocessing
from edgevit_runtime.record import TensorSpec

_LISTING = "python -c 'import timm; print(timm.list_models())'"


def build_timm(name: str, weights: WeightsRequest) -> LibraryNetwork:
    """Return a network of timm with the weights of a file, of its folder, or random ones from the seed.

    Raises TargetUnavailableError without timm, UnknownNameError, ModelError and CheckpointError.
    """
    model = f"timm:{name}"
    require_library("timm", "timm", model)
    with UserCode(model):
        import timm

    folder = Path(name)
    is_folder = folder.is_dir()
    if not is_folder and not timm.is_model(name.partition(".")[0]):
        raise UnknownNameError("network of timm", name, timm.list_models(), listing=_LISTING)
    full_name = f"local-dir:{folder.resolve()}" if is_folder else name
    module, classes = _create(full_name, model, weights.seed), None
    config: dict[str, Any] = dict(module.pretrained_cfg)
    file = weights.file or (folder if is_folder and has_weights(folder) else None)
    loaded = None
    if file is None:
        randomize(module, weights.seed)
    else:
        classes = count_classes(module, file, int(module.num_classes), key=weights.key)
        if classes is not None:
            module = _create(full_name, model, weights.seed, classes=classes)
        loaded = load_weights(module, file, key=weights.key, earlier_key=weights.earlier_key)
    with UserCode(model):
        data = timm.data.resolve_model_data_config(module)
    inputs = (TensorSpec("image", (-1, *data["input_size"])),)
    labels = _labels(config, int(module.num_classes)) if classes is None else ()
    return LibraryNetwork(module, "timm", inputs, _stated(data), labels, loaded, file.name if file else "")


def _create(name: str, model: str, seed: int, classes: int | None = None) -> Any:
    """Return a network of timm without pretrained weights, in evaluation mode."""
    import timm

    options = {} if classes is None else {"num_classes": classes}
    with UserCode(model), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network: nn.Module = timm.create_model(name, pretrained=False, **options)
    return network.eval()


def _stated(data: dict[str, Any]) -> StatedPreprocessing:
    """Return what timm's data configuration states; a mode of cropping that is not known here stays unstated."""
    crop, mode = float(data["crop_pct"]), data.get("crop_mode", "center")
    sides = tuple(math.floor(side / crop) for side in data["input_size"][1:])
    return StatedPreprocessing(
        mean=tuple(map(float, data["mean"])),
        std=tuple(map(float, data["std"])),
        range=(0.0, 1.0),
        crop=crop if mode == "center" else None,
        stretch=mode == "squash" and crop == 1,
        resize=sides if mode == "squash" and crop != 1 else (),
        interpolation=data["interpolation"] if data["interpolation"] in INTERPOLATIONS else "",
        color="RGB" if data["input_size"][0] == 3 else "",
    )


def _labels(config: dict[str, Any], classes: int) -> tuple[str, ...]:
    """Return the labels of a configuration, or WordNet's numbers of ImageNet's classes, which name its folders."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    if names := config.get("label_names"):
        return distinct(list(names)) if len(names) == classes else ()
    subset = infer_imagenet_subset(config) if config.get("num_classes") == classes else None
    if subset is None:
        return ()
    names = ImageNetInfo(subset).label_names()
    return tuple(names) if len(names) == classes else ()
