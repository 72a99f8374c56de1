"""Rows as the predictor takes them: which are comparable, and what names a model and a column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from edgevit.devices.registry import LOCAL
from edgevit.records.measurement import EMULATED, NOT_AS_VERIFIED, PROTOCOL_VERSION, Measurement
from edgevit.records.model import ModelCard
from edgevit.selection.limits import BOUNDS


class Place(NamedTuple):
    """A column of the predictor, but for the percentile: where and how models ran."""

    device_id: str
    compute_unit: str
    target: str
    engine: str
    precision: str
    threads: int

    @classmethod
    def of(cls, row: Measurement) -> Place:
        """Where and how a row ran."""
        return cls(row.device_id, row.compute_unit, row.target, row.engine, row.precision, row.threads)

    def column(self, percentile: str) -> str:
        """The name of the column. It sorts, and is told apart from all others."""
        return "\0".join((*map(str, self), percentile))

    def says(self, row: Measurement) -> str:
        """`pi5, onnx fp32, 4 thread(s)`, with the name that a row of it has for the device.

        That is not `local`, which is another machine wherever it was written: it is told by its class.
        """
        threads = f", {self.threads} thread(s)" if self.threads else ""
        device = row.device_class if row.device == LOCAL else row.device
        return f"{device}, {self.target or self.engine} {self.precision}{threads}"


def is_comparable(row: Measurement) -> bool:
    """Whether a row says how long one run of one input takes, in a way that others can be told from."""
    measured_now = row.provenance != "measured" or row.protocol_version == PROTOCOL_VERSION
    apart = row.batch != 1 or row.rate_hz is not None or EMULATED in row.flags or NOT_AS_VERIFIED in row.flags
    return row.status == "ok" and measured_now and not apart and row.provenance != "predicted"


def latency_ns(row: Measurement, percentile: int) -> tuple[str, int] | None:
    """A row's latency and which it is: the percentile where it is told, else the median, else the mean."""
    for name in dict.fromkeys((BOUNDS[percentile][0], "p50_ns", "mean_ns")):
        value: int | None = getattr(row, name)
        if value is not None:
            return name, value
    return None


class Names:
    """Names for models as the predictor tells them apart: by name, and by input where that is not the usual one.

    The usual one is the card's; of a model without a card the one that comes first in their order.
    """

    def __init__(self, rows: Iterable[Measurement], cards: Mapping[str, ModelCard]) -> None:
        shapes: dict[str, set[tuple[tuple[int, ...], ...]]] = {}
        for row in rows:
            if row.inputs and row.model not in cards:
                shapes.setdefault(row.model, set()).add(_shapes(row))
        self._usual = {name: min(found) for name, found in shapes.items()}
        self._usual |= {name: tuple(spec.at_batch(1).shape for spec in card.inputs) for name, card in cards.items()}

    def of(self, row: Measurement) -> str:
        """The name of what a row ran."""
        shapes = _shapes(row)
        if not shapes or shapes == self._usual.get(row.model, shapes):
            return row.model
        return f"{row.model} at {' and '.join('x'.join(map(str, shape)) for shape in shapes)}"


def _shapes(row: Measurement) -> tuple[tuple[int, ...], ...]:
    return tuple(spec.at_batch(1).shape for spec in row.inputs)
