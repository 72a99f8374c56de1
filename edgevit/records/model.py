"""Records about models: cards, operators, and how an image becomes an input.

They are frozen, and can be written to JSON and read back (see edgevit_runtime.codec).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgevit_runtime.record import TensorSpec

Provenance = Literal["published", "measured", "predicted", "reconstructed"]
IMAGENET = "imagenet-1k val"  # data set of the cards' accuracies
CLASSIFY = "classify"  # the task of every model with a top-1 accuracy
ANY_TASK = "any"


@dataclass(frozen=True)
class OperatorCost:
    """One operator of a graph; its kind names the properties that its speed depends on: `depthwise convolution 3x3`.

    macs: multiply-accumulates. parameters: numbers in its weights. activations: numbers that it reads and writes.
    count: number of such operators; the other fields are those of one.
    """

    kind: str
    macs: float
    parameters: float
    activations: float
    count: int = 1


@dataclass(frozen=True)
class Graph:
    """The operators of a folded network at batch 1, without weights and without their order.

    graph_digest is the network's digest (edgevit.folding.digest). graph_id is the digest of the other fields
    (identity.graph_id). Two versions of a framework may decompose one network differently; then both lists are kept.
    """

    graph_id: str
    graph_digest: str
    operators: tuple[OperatorCost, ...]  # equal ones counted together, in an order of their own


@dataclass(frozen=True)
class ModelOperators:
    """The operators of a zoo model's folded form at its card's input size and batch 1, in the form of a Graph."""

    model: str
    operators: tuple[OperatorCost, ...]


@dataclass(frozen=True)
class PublishedLatency:
    """A published latency. Papers give no spread and no percentiles, so this record has none."""

    device: str
    engine: str
    precision: str
    latency_ms: float
    source: str


IMAGE_CHANNELS = (1, 3)  # of images that files can give: grey, or coloured
# What a person can state of a preprocessing. `crop` stands for crop_pct, resize and stretch together.
STATEABLE = ("mean", "std", "range", "crop", "interpolation", "color")


@dataclass(frozen=True)
class Preprocessing:
    """The steps from an image to the input: resize, crop the centre, then (pixel/255 - mean) / std.

    Without `resize` the shorter side is resized so that the crop is `crop_pct` of it. resize: (pixels of the shorter
    side,), or (height, width), which does not keep the ratio of the sides. stretch: neither does a resize by crop_pct.
    interpolation: that of the resize, by Pillow's names: bicubic, bilinear, nearest...
    colour: RGB, BGR or GREY, which has one channel. assumed: those of STATEABLE that were not stated.
    """

    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop_pct: float = 0.875
    layout: str = "NCHW"
    colour: str = "RGB"
    range: tuple[float, float] = (0.0, 1.0)
    interpolation: str = "bicubic"
    resize: tuple[int, ...] = ()
    stretch: bool = False
    assumed: tuple[str, ...] = ()


ASSUMED_PREPROCESSING = Preprocessing(assumed=STATEABLE)


@dataclass(frozen=True)
class ModelCard:
    """The facts about a model. `provenance` tells whether the design is the published one or reconstructed.

    `params` and `macs` are of the training form, `folded_*` of the folded one; both are counted by edgevit at the
    card's input size and batch 1. top1_percent is ImageNet-1k, as `source` reports it for the official weights.
    The card of a person's own network needs only the fields that are known; `inputs` and `preprocessing` matter most.
    """

    name: str = ""
    family: str = "custom"
    inputs: tuple[TensorSpec, ...] = ()
    source: str = ""
    licence: str = ""
    provenance: Provenance = "reconstructed"
    top1_percent: float | None = None
    top1_source: str = ""
    latencies: tuple[PublishedLatency, ...] = ()
    preprocessing: Preprocessing = ASSUMED_PREPROCESSING
    params: int | None = None
    macs: int | None = None
    folded_params: int | None = None
    folded_macs: int | None = None
