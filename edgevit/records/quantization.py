"""Records about a quantization: its samples, what each step brought, and the noise of each layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer that an engine could run in int8.

    name: of its node in the graph. module: path of the module it comes from. kind: as the dialect names it. snr_db:
    signal over noise of the network's outputs with this layer alone in int8, of the worst output on the worst sample;
    None where the outputs stay equal to the bit. excluded: it stays in float.
    """

    name: str
    module: str
    kind: str
    snr_db: float | None
    excluded: bool


@dataclass(frozen=True)
class QuantizationStep:
    """A step on the way to int8, and the SNR of the network's outputs after it, all of it in int8."""

    name: str
    snr_db: float | None
    taken: bool


@dataclass(frozen=True)
class Quantization:
    """How a network came to int8: number and description of the samples, the steps, the layers, and the result.

    is_assumed: the samples are not the caller's. floor_db: the SNR that the result had to have. snr_db: that of the
    result, against the network in float32, of the worst output on the worst judged sample. top1_agreement: share of the
    judged samples with the same largest output.
    """

    samples: int
    description: str
    is_assumed: bool
    steps: tuple[QuantizationStep, ...]
    layers: tuple[QuantizedLayer, ...]
    floor_db: float
    snr_db: float | None
    top1_agreement: float

    @property
    def excluded(self) -> tuple[str, ...]:
        """The nodes that stay in float."""
        return tuple(layer.name for layer in self.layers if layer.excluded)

    @property
    def summary(self) -> str:
        """`45 of 47 layers in int8, 27.3 dB, calibrated on 3 photographs (assumed)`."""
        total = len(self.layers)
        snr = "equal to the bit" if self.snr_db is None else f"{self.snr_db:.1f} dB"
        assumed = " (assumed)" if self.is_assumed else ""
        return (
            f"{total - len(self.excluded)} of {total} layers in int8, {snr}, calibrated on {self.description}{assumed}"
        )
