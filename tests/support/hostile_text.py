"""Records with a foreign text in one of their fields: a variant for each text that a record of its class can hold.

The fields are read from the annotations, so that a new one is covered as soon as it is there.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any, Literal

from edgevit.records.identity import (
    identify,
    identify_accuracy,
    identify_graph,
    identify_operator_time,
    identify_tuning,
)
from edgevit.records.measurement import Accuracy, Measurement, NoiseFloor
from edgevit.records.model import Graph, ModelCard, Preprocessing, PublishedLatency
from edgevit.records.tuning import OperatorTime, TimeRatio, Tuning
from edgevit_runtime.codec import to_data
from support.measured import (
    HOST,
    INPUT,
    NETWORK,
    SILICON,
    VENDOR_SUMMARY,
    card,
    floor,
    measured,
    operators,
    published,
    rated,
    snapshot,
)
from support.tuned import operator_time, tuning

_EVALUATED: dict[str, Any] = {
    "provenance": "measured", "error": 0.5, "examples": 100, "untold": (), "target": "onnx", "precision": "fp32",
    "engine": "onnxruntime", "started": "2026-11-21T10:00:00+00:00", "network": NETWORK,
}  # fmt: skip
# A value of each class that stands in a field, in place of None or of no element.
_SAMPLES: dict[type, Any] = {
    type(sample): sample
    for sample in (
        HOST, INPUT, NETWORK, SILICON, VENDOR_SUMMARY, SILICON.clusters[0], snapshot(), Preprocessing(),
        operators().operators[0], *tuning().forms, *tuning().tried[:1], tuning().gain,
        PublishedLatency("a phone", "coreml", "fp16", 1.0, "a paper"),
    )
}  # fmt: skip
_HOST = dataclasses.replace(HOST, silicon=SILICON)
# The records that are varied, as they are without a foreign text. A text is in every row under a number of its own.
BASES: dict[str, Any] = {
    "measurement": measured(host=_HOST, network=NETWORK),
    "published measurement": published(),
    "accuracy": rated(),
    "measured accuracy": rated(75.5, **_EVALUATED),
    "noise floor": floor(),
    "graph": operators(),
    "operator time": operator_time(),
    "tuning": tuning(over_default=TimeRatio(0.9, 0.8, 1.0)),
}
CARD = card()
_KINDS = {
    Accuracy: "accuracy",
    NoiseFloor: "noise_floor",
    Graph: "graph",
    OperatorTime: "operator_time",
    Tuning: "tuning",
}
_IDENTIFY: dict[type, Callable[[Any], Any]] = {
    Measurement: identify,
    Accuracy: identify_accuracy,
    Graph: lambda graph: identify_graph(graph.graph_digest, graph.operators),
    OperatorTime: identify_operator_time,
    Tuning: identify_tuning,
}


def variants(record: Any, text: str) -> Iterator[tuple[str, Any]]:
    """Yield the path of each text in a record, with the record in which a foreign text stands there."""
    hints = typing.get_type_hints(type(record))
    for field in dataclasses.fields(record):
        for path, value in _values(hints[field.name], getattr(record, field.name), text):
            yield f"{field.name}{path}", dataclasses.replace(record, **{field.name: value})


def _values(hint: Any, value: Any, text: str) -> Iterator[tuple[str, Any]]:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint is str or origin is Literal:
        yield "", text
    elif origin in (typing.Union, types.UnionType):
        for member in inner:
            yield from _values(member, value, text)
    elif origin is tuple and inner[-1] is Ellipsis:
        first = value[0] if value else _SAMPLES.get(inner[0])
        yield from ((f"[0]{path}", (other, *(value or ())[1:])) for path, other in _values(inner[0], first, text))
    elif origin is tuple:
        for number, member in enumerate(inner):
            parts = list(value) if value else ["", "", "", "", ""][: len(inner)]
            for path, other in _values(member, parts[number], text):
                yield f"[{number}]{path}", (*parts[:number], other, *parts[number + 1 :])
    elif origin is dict and str in inner:
        yield "{}", {text: text}
    elif dataclasses.is_dataclass(hint):
        yield from ((f".{path}", other) for path, other in variants(value or _SAMPLES[typing.cast(type, hint)], text))


def identified(record: Any) -> Any:
    """Return a record with the ids of its contents; as it is where half a surrogate keeps it from having any."""
    try:
        return _IDENTIFY[type(record)](record) if type(record) in _IDENTIFY else record
    except UnicodeEncodeError:
        return record


def line_data(record: Any) -> Any:
    """Return the JSON data of a record in a file, without a checksum."""
    kind = _KINDS.get(type(record))
    return to_data(record) if kind is None else {kind: to_data(record)}


def foreign_records(text: str) -> Iterator[tuple[str, Any]]:
    """Yield every variant of every record with this text, each under a nonce of its own."""
    for name, base in BASES.items():
        for number, (path, record) in enumerate(variants(base, text)):
            if isinstance(record, Measurement) and path != "nonce":
                record = dataclasses.replace(record, nonce=f"{name} {number}")
            yield f"{name}.{path}", identified(record)


def foreign_cards(text: str) -> dict[str, ModelCard]:
    """Return cards with this text in each of their fields, by name."""
    cards = {CARD.name: CARD, text: dataclasses.replace(CARD, name=text)}
    for path, one in variants(CARD, text):
        name = one.name if path == "name" else f"net_{path}"
        cards[name] = dataclasses.replace(one, name=name)
    return cards
