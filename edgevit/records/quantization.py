"""Records about a quantization: what was asked, its samples, what each step brought, and the noise of each layer."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgevit.errors import UsageError

DEFAULT_FLOOR_DB = 25.0
# How ranges follow from values: by their ends, or by the least square error.
Method = Literal["minmax", "mse"]
StepKind = Literal["rounded", "absorbed", "corrected"]


@dataclass(frozen=True)
class QuantizationRequest:
    """What is asked of a quantization; it changes nothing about other precisions.

    data: a folder with images, or samples as `numpy.save` writes them; None: the photographs that ship, which is
    assumed. floor_db: the SNR that the network in int8 has to have, against the one in float. absorbs: scales may be
    moved between layers. corrects: biases may make up for rounded weights.
    """

    data: Path | None = None
    floor_db: float = DEFAULT_FLOOR_DB
    method: Method = "minmax"
    absorbs: bool = True
    corrects: bool = True


DEFAULT_QUANTIZATION = QuantizationRequest()


def read_quantization(
    data: str | Path | None, floor_db: float, ranges: str, *, absorbs: bool, corrects: bool
) -> QuantizationRequest:
    """Return what a person asked of a quantization. Raises UsageError for what makes no sense."""
    methods = typing.get_args(Method)
    if ranges not in methods:
        raise UsageError(f"no way to find ranges is called {ranges!r}", fix=f"--ranges {' or '.join(methods)}")
    if not math.isfinite(floor_db):
        raise UsageError(f"a floor of {floor_db:g} dB is no limit", fix=f"--floor {DEFAULT_FLOOR_DB:g}")
    place = None if data is None else Path(data)
    return QuantizationRequest(place, float(floor_db), typing.cast(Method, ranges), absorbs, corrects)


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer that an engine could run in int8.

    name: of its node in the graph. module: path of the module it comes from. kind: as the dialect names it. snr_db:
    signal over noise of the network's outputs with this layer alone in int8, of the worst output on the worst sample;
    None where the outputs stay equal to the bit, and where it was not measured. excluded: it stays in float.
    """

    name: str
    module: str
    kind: str
    snr_db: float | None
    excluded: bool


@dataclass(frozen=True)
class WeightSpread:
    """How much larger the largest weights of a folded layer are than the usual ones, all in dB.

    peak_db: root mean square of the channels' largest magnitudes over that of all weights, which int8 loses.
    channel_spread_db: the largest magnitude of all channels over that of the median one. peak_before_db: the largest
    peak of the layers that were folded into it. driver: the layer or norm of the model that raises it most, and
    without_driver_db the peak that is left without that one; empty and None where none raises it.
    """

    name: str
    module: str
    peak_db: float
    channel_spread_db: float
    peak_before_db: float | None
    driver: str = ""
    without_driver_db: float | None = None

    @property
    def label(self) -> str:
        """`stages.2.3: its largest weights are 31 dB above the usual ones, 26 of them by stages.2.3.identity`."""
        by = ""
        if self.without_driver_db is not None:
            by = f", {self.peak_db - self.without_driver_db:.0f} of them by {self.driver}"
        before = "" if self.peak_before_db is None else f" (at most {self.peak_before_db:.0f} before folding)"
        return f"{self.module}: its largest weights are {self.peak_db:.0f} dB above the usual ones{before}{by}"


@dataclass(frozen=True)
class QuantizationStep:
    """A step on the way to int8, and the SNR of the network's outputs after it, all of it in int8.

    kind: rounded numbers alone, scales that were moved between layers, or biases that make up for rounded weights.
    weight_share: of moved scales, how much of a channel's factor follows from the weights that read it.
    """

    kind: StepKind
    snr_db: float | None
    taken: bool
    weight_share: float | None = None

    @property
    def label(self) -> str:
        """The step as a report shows it: `scales absorbed, 25% weights`."""
        labels: dict[StepKind, str] = {
            "rounded": "rounded",
            "absorbed": f"scales absorbed, {self.weight_share or 0:.0%} weights",
            "corrected": "biases corrected",
        }
        return labels[self.kind]


@dataclass(frozen=True)
class Quantization:
    """How a network came to int8: number and description of the samples, the steps, the layers, and the result.

    is_assumed: the samples are not the caller's. data_sha256: of the samples that ranges come from. floor_db: the SNR
    that the result had to have. snr_db: that of the result, against the network in float32, of the worst output on the
    worst judged sample. top1_agreement: share of the judged samples with the same largest output. agreement: of a
    classifier the number of the caller's samples with the same class, and of all of them. request: what was asked, with
    the place of the data as it was named. spreads: of the noisiest layers, where that was asked.
    """

    samples: int
    description: str
    is_assumed: bool
    steps: tuple[QuantizationStep, ...]
    layers: tuple[QuantizedLayer, ...]
    floor_db: float
    snr_db: float | None
    top1_agreement: float
    agreement: tuple[int, int] | None = None
    data_sha256: str = ""
    request: QuantizationRequest = DEFAULT_QUANTIZATION
    spreads: tuple[WeightSpread, ...] = ()

    @property
    def excluded(self) -> tuple[str, ...]:
        """The nodes that stay in float."""
        return tuple(layer.name for layer in self.layers if layer.excluded)

    @property
    def summary(self) -> str:
        """`45 of 47 layers quantized, 27.3 dB, calibrated on 3 photographs (assumed)`."""
        total = len(self.layers)
        snr = "equal to the bit" if self.snr_db is None else f"{self.snr_db:.1f} dB"
        calibrated = f"calibrated on {self.description}{' (assumed)' if self.is_assumed else ''}"
        return f"{total - len(self.excluded)} of {total} layers quantized, {snr}, {calibrated}"
