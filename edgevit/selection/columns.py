"""Rows as input of the predictor: comparable rows, aliases of models, and names of columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from edgevit.devices.registry import LOCAL
from edgevit.records.measurement import EMULATED, NOT_AS_VERIFIED, PROTOCOL_VERSION, Measurement
from edgevit.records.model import ModelCard
from edgevit.selection.limits import BOUNDS
from edgevit.selection.networks import NetworkIds


class Configuration(NamedTuple):
    """A device, engine, precision and thread count: a column of the predictor, but for the percentile."""

    device_id: str
    compute_unit: str
    target: str
    engine: str
    precision: str
    threads: int

    @classmethod
    def of(cls, row: Measurement) -> Configuration:
        """Return the configuration of a row."""
        return cls(row.device_id, row.compute_unit, row.target, row.engine, row.precision, row.threads)

    def column(self, percentile: str) -> str:
        """Return the name of the column. Names sort, and differ for different configurations."""
        return "\0".join((*map(str, self), percentile))

    def label(self, row: Measurement) -> str:
        """Return a label such as `pi5, onnx fp32, 4 thread(s)`, with the device's name in a row of it.

        A device called `local` is another machine wherever the row was written, so its class is shown instead.
        """
        threads = f", {self.threads} thread(s)" if self.threads else ""
        device = row.device_class if row.device == LOCAL else row.device
        return f"{device}, {self.target or self.engine} {self.precision}{threads}"


def is_comparable(row: Measurement) -> bool:
    """Return whether a row says how long one run of one input takes, so that other rows can be compared with it.

    A form that was asked for suits one engine: it says nothing of the same network elsewhere.
    """
    measured_now = row.provenance != "measured" or row.protocol_version == PROTOCOL_VERSION
    special = row.batch != 1 or row.rate_hz is not None or EMULATED in row.flags or NOT_AS_VERIFIED in row.flags
    special |= row.network is not None and bool(row.network.own_form)
    return row.status == "ok" and measured_now and not special and row.provenance != "predicted"


def latency_ns(row: Measurement, percentile: int) -> tuple[str, int] | None:
    """Return a row's latency and its column: the percentile where it is reported, else the median, else the mean."""
    for name in dict.fromkeys((BOUNDS[percentile][0], "p50_ns", "mean_ns")):
        value: int | None = getattr(row, name)
        if value is not None:
            return name, value
    return None


class ModelAliases:
    """Names of models for the predictor: the name, with the network and the input where those are not the usual ones.

    The usual input is the card's; of a model without a card it is the first one in their order. Several networks of one
    model are models of their own, which share latencies by their graph alone. Random weights of the zoo are usual.
    """

    def __init__(self, rows: Iterable[Measurement], cards: Mapping[str, ModelCard]) -> None:
        rows = list(rows)
        shapes: dict[str, set[tuple[tuple[int, ...], ...]]] = {}
        networks: dict[tuple[str, tuple[tuple[int, ...], ...]], set[str]] = {}
        self._networks = NetworkIds(rows)
        for row in rows:
            if row.inputs and row.model not in cards:
                shapes.setdefault(row.model, set()).add(_shapes(row))
            networks.setdefault((row.model, _shapes(row)), set()).add(self._networks.of(row))
        self._usual = {name: min(of_model) for name, of_model in shapes.items()}
        self._usual |= {name: tuple(spec.at_batch(1).shape for spec in card.inputs) for name, card in cards.items()}
        own = ((key, ids) for key, ids in networks.items() if key[0] not in cards)
        self._only = {key: next(iter(ids)) for key, ids in own if len(ids) == 1}

    def of(self, row: Measurement) -> str:
        """Return the alias of a row's model."""
        network = self._networks.of(row)
        shapes = _shapes(row)
        is_usual = network in ("", self._only.get((row.model, shapes)))
        name = row.model if is_usual else f"{row.model} as {network}"
        if not shapes or shapes == self._usual.get(row.model, shapes):
            return name
        return f"{name} at {' and '.join('x'.join(map(str, shape)) for shape in shapes)}"


def _shapes(row: Measurement) -> tuple[tuple[int, ...], ...]:
    return tuple(spec.at_batch(1).shape for spec in row.inputs)
