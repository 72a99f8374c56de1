"""Which accuracy counts for a row: the published one, or what was measured on a data set that somebody asks about."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from edgevit.records.choice import Candidate
from edgevit.records.measurement import Accuracy, Measurement
from edgevit.records.model import IMAGENET, ModelCard, Provenance

TOP1 = "top1_percent"  # the metric that is chosen by
NOT_AT_CARD_SIZE = "not at the card's input size"  # flag of a row whose accuracy nobody published
_FLOAT = ("fp32", "fp16", "bf16")  # precisions that a card's accuracy is taken to hold for


class Top1(NamedTuple):
    """An accuracy in percent, who says so, half the width of its 95% interval, and flags for whoever reads it."""

    percent: float | None
    provenance: Provenance
    error_percent: float | None = None
    flags: tuple[str, ...] = ()


class Ratings(NamedTuple):
    """Accuracies ready to be looked up. Without a data set asked about they are published ones, of ImageNet.

    of_model: those that the database keeps of what others published. sets_of: by artifact, the data sets that it was
    evaluated on.
    """

    dataset: str | None = None
    of_artifact: Mapping[str, Accuracy] = {}
    of_graph: Mapping[Hashable, Collection[Accuracy]] = {}
    of_model: Mapping[str, Collection[Accuracy]] = {}
    sets_of: Mapping[str, Collection[str]] = {}

    @classmethod
    def of(cls, known: Iterable[Accuracy], dataset: str | None) -> Ratings:
        """Of these accuracies. Of one artifact, that from most images counts, and of those the newest."""
        known = [item for item in known if item.metric == TOP1]
        measured = sorted(filter(_is_measured, known), key=lambda item: (item.examples or 0, *_newness(item)))
        published = (item for item in known if item.provenance == "published" and not item.artifact_sha256)
        of_artifact = {item.artifact_sha256: item for item in measured if item.dataset == dataset}
        of_graph: dict[Hashable, list[Accuracy]] = {}
        for item in of_artifact.values():
            of_graph.setdefault(_graph(item), []).append(item)
        sets_of: dict[str, set[str]] = {}
        for item in measured:
            sets_of.setdefault(item.artifact_sha256, set()).add(item.dataset)
        of_model: dict[str, list[Accuracy]] = {}
        for item in published:
            if item.dataset == (dataset or IMAGENET):
                of_model.setdefault(item.model, []).append(item)
        return cls(dataset, of_artifact, of_graph, of_model, sets_of)

    def top1(self, row: Measurement, card: ModelCard | None) -> Top1:
        """The accuracy of what a row ran.

        Where a data set is asked about, what was measured of this very artifact comes first, then of the one other
        artifact with its graph, target and precision. Then comes what is published of the model: for ImageNet by its
        card, and where that tells none, or for another data set, by the database.
        """
        if found := self.of_artifact.get(row.artifact_sha256):
            return Top1(found.value, "measured", found.error)
        others = self.of_graph.get(_graph(row), ()) if row.graph_digest else ()
        if len(others) == 1:
            [other] = others
            return Top1(other.value, "measured", other.error, ("top-1 was measured with other weights",))
        of_card = _by_card(row, card) if self.dataset in (None, IMAGENET) else Top1(None, "published")
        if of_card.percent is not None or of_card.provenance == "reconstructed":
            return of_card
        told = [item for item in self.of_model.get(row.model, ()) if _may_be_of(row, item, of_card)]
        return _published(row, told) if told else of_card

    def notes(
        self, rows: Sequence[Measurement], candidates: Collection[Candidate], picked: Candidate | None
    ) -> Iterable[str]:
        """What the accuracies of an answer are of, where that may surprise."""
        sets = sorted({name for row in rows for name in self.sets_of.get(row.artifact_sha256, ())})
        kept = f"measured ones are kept of {', '.join(sets)}"
        if self.dataset is None:
            if sets:
                yield f"accuracies are published ones; {kept}: --dataset NAME chooses by them"
        elif not any(item.top1_provenance == "measured" for item in candidates):
            yield f"nothing here was evaluated on {self.dataset!r}{f'; {kept}' if sets else ''}: edgevit evaluate"
        elif picked and picked.top1_provenance != "measured":
            yield f"the pick was not evaluated on {self.dataset!r}, others were: edgevit evaluate"


def _by_card(row: Measurement, card: ModelCard | None) -> Top1:
    if card is None:
        return Top1(None, "published")
    if row.inputs and not _at_card_size(row, card):
        return Top1(None, card.provenance, flags=(NOT_AT_CARD_SIZE,))
    return Top1(card.top1_percent, card.provenance, flags=() if card.top1_percent is None else _of_the_model(row))


def _at_card_size(row: Measurement, card: ModelCard) -> bool:
    expected = [spec.at_batch(row.batch).shape for spec in card.inputs]
    return expected == [spec.at_batch(row.batch).shape for spec in row.inputs]


def _may_be_of(row: Measurement, told: Accuracy, of_card: Top1) -> bool:
    """Whether what a source tells of a model may be that of what a row ran: nothing that both tell differs.

    A row that is not at the card's input size needs one that names its size.
    """
    size = image_size(row.inputs[0].shape) if row.inputs else ()
    if NOT_AT_CARD_SIZE in of_card.flags and not told.input_size:
        return False
    pairs = ((told.input_size, size), (told.target, row.target), (told.precision, row.precision))
    return all(a == b or not a or not b for a, b in pairs)


def _published(row: Measurement, told: Collection[Accuracy]) -> Top1:
    """Of several that one of the row's own source: it is of the very same run. Else the highest, which names its
    weights or its system, so that a reader can have those.
    """
    best = max(told, key=lambda item: (item.source == row.source, item.value, *_newness(item)))
    whose = f"top-1 from {best.source}{f', {best.note}' if best.note else ''}"
    flags = () if best.precision and best.precision == row.precision else _of_the_model(row)
    return Top1(best.value, "published", best.error, (*flags, whose))


def image_size(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Height and width in pixels, of images as (N, C, H, W) or (N, H, W, 3); empty: not known, or no image."""
    if len(shape) != 4:
        return ()
    channels_last = shape[3] == 3 and shape[1] != 3
    return shape[1:3] if channels_last else shape[2:]


def _of_the_model(row: Measurement) -> tuple[str, ...]:
    return () if row.precision in _FLOAT else ("top-1 is that of the fp32 model",)


def _graph(item: Accuracy | Measurement) -> Hashable:
    return (item.graph_digest, item.target, item.precision)


def _is_measured(item: Accuracy) -> bool:
    return item.provenance == "measured" and bool(item.artifact_sha256)


def _newness(item: Accuracy) -> tuple[str, str]:
    return (item.started, item.accuracy_id)
