"""The networks of the stranger matrix: timm's by name, transformers' by their configuration, and own_networks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import own_networks

STUB = Path(__file__).parents[1] / "torchvision_stub"
SIZE = 224
_LINES = (Path(__file__).parent / "timm.txt").read_text(encoding="utf-8").splitlines()
# timm's names, each with the size of its input.
TIMM = {name: int(size) for name, size in map(str.split, _LINES)}
HUGGING_FACE = ("hf_segformer", "hf_yolos", "hf_depth_anything", "hf_cvt", "hf_rt_detr")
OWN = tuple(own_networks.PREFIX + name for name in own_networks.NAMES)
# One of each kind that converters find hard, small enough for seven of them.
OF_ALL_TARGETS = (
    *OWN, "hf_segformer", "hf_yolos", "hf_depth_anything", "hf_rt_detr", "levit_128s", "mobileone_s0",
    "mobilenetv4_conv_small", "poolformer_s12", "swin_tiny_patch4_window7_224", "tiny_vit_5m_224",
)  # fmt: skip
OF_LATENCY = (
    "deit_tiny_patch16_224", "efficientformerv2_s0", "efficientnet_lite0", "efficientvit_b0", "fastvit_t8",
    "ghostnetv2_100", "hgnetv2_b0", "levit_128s", "mobilenetv3_small_100", "mobilenetv4_conv_small", "mobileone_s0",
    "mobilevitv2_050", "poolformer_s12", "repghostnet_050", "repvgg_a0", "repvit_m0_9", "resnet18", "shvit_s1",
    "swiftformer_xs", "tiny_vit_5m_224", "own_ffnet", "own_yolov8n",
)  # fmt: skip


def needs_packages(name: str) -> bool:
    """Return whether a network comes from timm or transformers."""
    return not name.startswith(own_networks.PREFIX)


def open_packages(name: str, packages: Path | None) -> None:
    """Let this process import timm or transformers from a folder, ahead of what is installed."""
    if packages is not None and needs_packages(name):
        # transformers does without torchvision, and needs more of it where it is.
        sys.path[:0] = [str(STUB)] * (name in TIMM) + [str(packages)]


def _hugging_face() -> dict[str, tuple[Callable[[], Any], int]]:
    """Return networks of transformers by name, each with the size of its input."""
    import transformers as hf

    small = {"num_labels": 10}
    return {
        "hf_segformer": (lambda: hf.SegformerForSemanticSegmentation(hf.SegformerConfig(**small)), 128),
        "hf_yolos": (lambda: hf.YolosForObjectDetection(hf.YolosConfig(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, image_size=[128, 128],
            num_detection_tokens=10, **small)), 128),
        "hf_depth_anything": (lambda: hf.DepthAnythingForDepthEstimation(hf.DepthAnythingConfig()), 70),
        "hf_cvt": (lambda: hf.CvtForImageClassification(hf.CvtConfig(**small)), SIZE),
        "hf_rt_detr": (lambda: hf.RTDetrForObjectDetection(hf.RTDetrConfig(
            encoder_layers=1, decoder_layers=1, num_queries=30, anchor_image_size=[128, 128], **small)), 128),
    }  # fmt: skip


def build(name: str) -> tuple[Any, int]:
    """Return a network in evaluation mode with random norms, and the size of its input."""
    import torch

    from edgevit.models import randomize

    torch.manual_seed(0)
    if name in TIMM:
        import timm

        model, size = timm.create_model(name, pretrained=False), TIMM[name]
    elif name in OWN:
        model, size = own_networks.build(name.removeprefix(own_networks.PREFIX))
    else:
        make, size = _hugging_face()[name]
        model = make()
    model.eval()
    randomize(model, 0)
    return model, size


def fused_by_timm(name: str) -> Any | None:
    """Return a network as timm's own fusion leaves it; None where the network is not timm's."""
    if name not in TIMM:
        return None
    from timm.utils.model import reparameterize_model

    model = reparameterize_model(build(name)[0])
    for module in [module for module in model.modules() if hasattr(module, "fuse")]:
        module.fuse()
    return model
