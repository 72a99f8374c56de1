"""Papers: latencies and accuracies that the papers of our own zoo report, as the model cards quote them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgevit.errors import StoreError
from edgevit.published.importers import Publication
from edgevit.published.importers.reading.names import NOT_STATED, target_of
from edgevit.published.importers.reading.units import ns_from_ms
from edgevit.published.screening import Claim, ClaimError, Cost
from edgevit.records.identity import identify_accuracy
from edgevit.records.measurement import Accuracy
from edgevit.records.model import ModelCard, PublishedLatency
from edgevit.store import PublishedValues
from edgevit_runtime.codec import RecordError, from_json, to_json

FORM = "model cards of edgevit (JSON lines); without a FILE those that come with it"
# No paper names a licence for its numbers.
LICENCE = ""
FILE = "models.jsonl"
# Limit for the characters of a card, with much room.
_MAX_CARD_CHARACTERS = 2**20
# Bytes of a weight, at least, for a precision that is not stated.
_MIN_BYTES = 1
_BYTES = {"fp32": 4, "fp16": 2}
_UNTOLD = ("batch", "inputs", "licence", "p50_ns", "processes", "runs")


def recognises(path: Path) -> bool:
    """Return whether the first line is a model card."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            from_json(ModelCard, file.readline(_MAX_CARD_CHARACTERS))
    except (OSError, UnicodeDecodeError, RecordError):
        return False
    return True


def read(publication: Publication) -> Iterator[Claim]:
    """Yield every latency and accuracy as a claim. Raises StoreError where the file cannot be read."""
    name = publication.path.name
    try:
        with publication.path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                yield from _claims(f"{name}, line {number}", line)
    except (OSError, UnicodeDecodeError) as error:
        fix = "edgevit models --refresh"
        raise StoreError("the model cards cannot be read", where=name, why=str(error), fix=fix) from error


def _claims(location: str, line: str) -> Iterator[Claim]:
    try:
        card = from_json(ModelCard, line)
    except RecordError as error:
        refusal = ClaimError("not_a_model_card", str(error)).reason
        yield Claim(location, line.encode(), refusal=refusal)
        return
    for latency in card.latencies:
        content = to_json({"model": card.name, "latency": latency}).encode()
        try:
            yield Claim(location, content, _row(card, latency), cost=_cost(card, latency))
        except ClaimError as error:
            yield Claim(location, content, refusal=error.reason)
    if card.top1_percent is not None:
        yield Claim(location, line.encode(), None, (_accuracy(card, card.top1_percent),))


def _row(card: ModelCard, latency: PublishedLatency) -> PublishedValues:
    return PublishedValues(
        source=latency.source,
        licence=LICENCE,
        model=card.name,
        family=card.family,
        device=latency.device,
        device_id=f"papers/{latency.device}",
        target=target_of(latency.engine),
        precision=latency.precision,
        engine=latency.engine,
        p50_ns=ns_from_ms(latency.latency_ms, "latency_ms"),
        # Mean, median or best of how many: papers rarely say.
        flags=("headline_unstated",),
        untold=_UNTOLD + (("precision",) if latency.precision == NOT_STATED else ()),
    )


def _cost(card: ModelCard, latency: PublishedLatency) -> Cost:
    """Return the least cost of the network: that of its folded form where it has fewer products."""
    macs = [count for count in (card.macs, card.folded_macs) if count is not None]
    params = [count for count in (card.params, card.folded_params) if count is not None]
    weight_bytes = _BYTES.get(latency.precision, _MIN_BYTES)
    return Cost(min(macs, default=None), min(params) * weight_bytes if params else None)


def _accuracy(card: ModelCard, top1_percent: float) -> Accuracy:
    size = card.inputs[0].shape[-2:]
    note = "" if card.provenance == "published" else f"of the authors' network; this design is {card.provenance}"
    accuracy = Accuracy(
        "", "published", model=card.name, family=card.family, dataset="imagenet-1k val", metric="top1_percent",
        value=top1_percent, error=None, examples=None, source=card.top1_source, untold=("error", "examples", "licence"),
        input_size=size, note=note,
    )  # fmt: skip
    return identify_accuracy(accuracy)
