"""The accuracy of a row or a cell: the published one, or the one that was measured on the data set of the question."""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from typing import NamedTuple

from edgevit.records.choice import Candidate, Note
from edgevit.records.measurement import AGREEMENT, TASK, Accuracy, Measurement
from edgevit.records.model import CLASSIFY, IMAGENET, ModelCard, Provenance
from edgevit.records.proportion import Proportion
from edgevit.selection.cells import Run
from edgevit.selection.wording import (
    NOT_AT_CARD_SIZE,
    NOT_EVALUATED_IN_INT8,
    TOP1_BOUNDED,
    TOP1_OF_FP32,
    TOP1_OF_OFFICIAL,
    TOP1_OF_OTHER_FILE,
    TOP1_OF_OTHER_LABELS,
    TOP1_OF_OTHER_WEIGHTS,
    describe_assumptions,
    note,
)

TOP1 = "top1_percent"  # the metric that is chosen by
_FLOAT = ("fp32", "fp16", "bf16", "tf32", "amp")  # precisions that a card's accuracy is taken to hold for
# Precisions in which numbers are rounded to few steps, as sources name them: int8, w8, w8a16, u8, fp8.
_ROUNDED = re.compile(r"(u?int|[uwiq]|fp)[2-8](?!\d)")


class Top1(NamedTuple):
    """An accuracy in percent with its provenance, half the width of its 95% interval, flags, and its source.

    source: of a published accuracy that is not the card's. task: of the model; empty: not known. assumed: what it rests
    on and was not stated. measured: the accuracy itself, where it was measured.
    """

    percent: float | None
    provenance: Provenance
    error_percent: float | None = None
    flags: tuple[str, ...] = ()
    source: str = ""
    task: str = ""
    assumed: tuple[str, ...] = ()
    measured: Accuracy | None = None


class Ratings(NamedTuple):
    """Accuracies, indexed for look-up. Without a data set they are published ones, of ImageNet.

    of_artifact, of_network, of_graph: measured on the data set; those of networks with and without their labels.
    of_model: published ones that the database keeps. sets_of: by artifact, the data sets that it was evaluated on.
    rated: models with a top-1 accuracy on any data set. bounded: what was not evaluated in int8 counts by a bound.
    """

    dataset: str | None = None
    of_artifact: Mapping[str, Accuracy] = {}
    of_network: Mapping[Hashable, Accuracy] = {}
    of_graph: Mapping[Hashable, Collection[Accuracy]] = {}
    of_model: Mapping[str, Collection[Accuracy]] = {}
    sets_of: Mapping[str, Collection[str]] = {}
    rated: Collection[str] = frozenset()
    bounded: bool = False

    @classmethod
    def of(cls, accuracies: Iterable[Accuracy], dataset: str | None, *, bounded: bool = False) -> Ratings:
        """Return the index of these accuracies.

        Of one artifact, an accuracy that rests on nothing assumed comes first, then that from most images, then the
        newest. Of several files of one network the lowest accuracy counts for another file, whichever came last.
        """
        top1 = [accuracy for accuracy in accuracies if accuracy.metric == TOP1]
        measured = sorted(
            filter(_is_measured, top1), key=lambda one: (not one.assumed, one.examples or 0, *_newness(one))
        )
        of_artifact = {accuracy.artifact_sha256: accuracy for accuracy in measured if accuracy.dataset == dataset}
        best_last = sorted(of_artifact.values(), key=_strength)
        of_network = {key: one for one in best_last if one.network_id for key in (_network(one), _labelled(one))}
        of_graph: dict[Hashable, dict[str, Accuracy]] = {}
        for accuracy in best_last:
            of_graph.setdefault(_graph(accuracy), {})[accuracy.network_id or accuracy.artifact_sha256] = accuracy
        sets_of: dict[str, set[str]] = {}
        for accuracy in measured:
            sets_of.setdefault(accuracy.artifact_sha256, set()).add(accuracy.dataset)
        of_model: dict[str, list[Accuracy]] = {}
        for accuracy in top1:
            published = accuracy.provenance == "published" and not accuracy.artifact_sha256
            if published and accuracy.dataset == (dataset or IMAGENET):
                of_model.setdefault(accuracy.model, []).append(accuracy)
        rated = frozenset(accuracy.model for accuracy in top1)
        of_graphs = {graph: tuple(of_one.values()) for graph, of_one in of_graph.items()}
        return cls(dataset, of_artifact, of_network, of_graphs, of_model, sets_of, rated, bounded)

    def top1(self, run: Run, card: ModelCard | None) -> Top1:
        """Return the accuracy and the task of the model that a row ran, or that a cell would run."""
        return self._top1(run, card)._replace(task=self._task(run, card))

    def _task(self, run: Run, card: ModelCard | None) -> str:
        """Return the task that the source of a row names, else that of models with a top-1 accuracy; empty: unknown."""
        named = next((flag.removeprefix(TASK) for flag in run.flags if flag.startswith(TASK)), "")
        return named or (CLASSIFY if card or run.model in self.rated else "")

    def _top1(self, run: Run, card: ModelCard | None) -> Top1:
        """Return the accuracy of a run.

        With a data set, a measurement of this very artifact comes first, then one of its network in another file. Where
        that file has other labels, it is the candidate itself. A row of random weights takes the accuracy of the only
        network with its graph, target and precision that was evaluated, and is then that network's. No checkpoint gets
        the accuracy of another one. Then come published ones: for ImageNet the card's, and where that has none, or for
        another data set, the database's. Neither is that of a network in int8, unless it names that precision.
        """
        if accuracy := self.of_artifact.get(run.artifact_sha256):
            return _measured(accuracy)
        if is_rounded(run.precision):
            # Another file of this network has numbers from other samples, and is another network.
            return self._of_rounded(run, card)
        if accuracy := self.of_network.get(_labelled(run)):
            return _measured(accuracy, TOP1_OF_OTHER_FILE)
        if accuracy := self.of_network.get(_network(run)):
            return _measured(accuracy, TOP1_OF_OTHER_LABELS)
        others = self.of_graph.get(_graph(run), ()) if run.graph_digest and _is_stand_in(run) else ()
        if len(others) == 1:
            [other] = others
            return _measured(other, TOP1_OF_OTHER_WEIGHTS)
        of_card = _by_card(run, card) if self.dataset in (None, IMAGENET) else Top1(None, "published")
        if of_card.percent is not None or of_card.provenance == "reconstructed":
            return of_card
        published = [accuracy for accuracy in self.of_model.get(run.model, ()) if _may_be_of(run, accuracy, of_card)]
        return _published(run, published) if published else of_card

    def _of_rounded(self, run: Run, card: ModelCard | None) -> Top1:
        """Return the accuracy of a network in int8 whose very file was not evaluated: one of its precision, if any."""
        of_card = _by_card(run, card) if self.dataset in (None, IMAGENET) else Top1(None, "published")
        of_model = (one for one in self.of_model.get(run.model, ()) if one.precision == run.precision)
        own = [one for one in of_model if _may_be_of(run, one, of_card)]
        return _published(run, own) if own else self._not_evaluated(run, of_card)

    def _not_evaluated(self, run: Run, of_card: Top1) -> Top1:
        """Return what is known of a network in int8 of which only the accuracy in float is.

        It loses at most as many right answers as it gives other classes than in float. So the share of equal classes
        gives a bound, as far as the images of both are alike.
        """
        agreement = next((flag.removeprefix(AGREEMENT) for flag in run.flags if flag.startswith(AGREEMENT)), "")
        same, _, total = agreement.partition("/")
        if not (self.bounded and total and of_card.percent is not None):
            return Top1(None, of_card.provenance, flags=(NOT_EVALUATED_IN_INT8,))
        lost = 100 - Proportion(int(same), int(total)).interval_percent[0]
        return Top1(max(0.0, of_card.percent - lost), "predicted", flags=(*of_card.flags, TOP1_BOUNDED))

    def notes(
        self, rows: Sequence[Measurement], candidates: Collection[Candidate], picked: Candidate | None
    ) -> Iterable[Note]:
        """Yield the notes on the data sets of an answer's accuracies."""
        sets = sorted({name for row in rows for name in self.sets_of.get(row.artifact_sha256, ())})
        if self.dataset is None:
            if sets:
                yield note("published_accuracies", *sets)
        elif not any(candidate.top1_provenance == "measured" for candidate in candidates):
            yield note("none_evaluated", self.dataset, *sets)
        elif picked and picked.top1_provenance != "measured":
            yield note("pick_not_evaluated", self.dataset)
        evaluated = [self.of_artifact[row.artifact_sha256] for row in rows if row.artifact_sha256 in self.of_artifact]
        images = {accuracy.dataset_sha256 for accuracy in evaluated if accuracy.dataset_sha256}
        if self.dataset is not None and len(images) > 1:
            yield note("images_differ", self.dataset, numbers=(len(images),))
        if picked and picked.top1_assumed:
            yield note("pick_accuracy_assumed", describe_assumptions(picked.top1_assumed))


def is_rounded(precision: str) -> bool:
    """Return whether the numbers of a precision, or its weights at least, have few steps."""
    return _ROUNDED.match(precision) is not None


def _measured(accuracy: Accuracy, *flags: str) -> Top1:
    return Top1(accuracy.value, "measured", accuracy.error, flags, assumed=accuracy.assumed, measured=accuracy)


def _is_stand_in(run: Run) -> bool:
    """Return whether a row ran weights that mean nothing, so that it tells how fast any weights of its graph are.

    A row of a model of the zoo that keeps no network counts as one.
    """
    return ":" not in run.model if run.network is None else run.network.weights == "random"


def _by_card(run: Run, card: ModelCard | None) -> Top1:
    if card is None:
        return Top1(None, "published")
    if run.inputs and not _at_card_size(run, card):
        return Top1(None, card.provenance, flags=(NOT_AT_CARD_SIZE,))
    return Top1(card.top1_percent, card.provenance, flags=() if card.top1_percent is None else _of_the_model(run))


def _at_card_size(run: Run, card: ModelCard) -> bool:
    expected = [spec.at_batch(run.batch).shape for spec in card.inputs]
    return expected == [spec.at_batch(run.batch).shape for spec in run.inputs]


def _may_be_of(run: Run, accuracy: Accuracy, of_card: Top1) -> bool:
    """Return whether a published accuracy may be that of a run: no fact that both have differs.

    A run that is not at the card's input size needs an accuracy that names its size.
    """
    size = image_size(run.inputs[0].shape) if run.inputs else ()
    if NOT_AT_CARD_SIZE in of_card.flags and not accuracy.input_size:
        return False
    pairs = ((accuracy.input_size, size), (accuracy.target, run.target), (accuracy.precision, run.precision))
    return all(a == b or not a or not b for a, b in pairs)


def _published(run: Run, accuracies: Collection[Accuracy]) -> Top1:
    """Return the accuracy of the row's own source, which is of the very same run; else the highest.

    The highest one names its weights or its system, so that a reader can have those.
    """
    source = run.source if isinstance(run, Measurement) else ""
    best = max(accuracies, key=lambda accuracy: (accuracy.source == source, accuracy.value, *_newness(accuracy)))
    flags = () if best.precision and best.precision == run.precision else _of_the_model(run)
    return Top1(best.value, "published", best.error, flags, f"{best.source}{f', {best.note}' if best.note else ''}")


def image_size(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return height and width in pixels of images as (N, C, H, W) or (N, H, W, 3); empty for other shapes."""
    if len(shape) != 4:
        return ()
    channels_last = shape[3] == 3 and shape[1] != 3
    return shape[1:3] if channels_last else shape[2:]


def _of_the_model(run: Run) -> tuple[str, ...]:
    """Return the flags of an accuracy that was published for official weights in single precision."""
    has_own = run.network is not None and run.network.weights != "random"
    return (*(() if run.precision in _FLOAT else (TOP1_OF_FP32,)), *((TOP1_OF_OFFICIAL,) if has_own else ()))


def _network(of: Accuracy | Run) -> Hashable:
    return (of.model, of.network_id, of.target, of.precision)


def _labelled(of: Accuracy | Run) -> Hashable:
    """Return the key of a network with the names of its classes in their order: another order is another accuracy."""
    return (_network(of), of.network.labels_sha256 if of.network else "")


def _graph(of: Accuracy | Run) -> Hashable:
    return (of.graph_digest, of.target, of.precision)


def _is_measured(accuracy: Accuracy) -> bool:
    return accuracy.provenance == "measured" and bool(accuracy.artifact_sha256)


def _strength(accuracy: Accuracy) -> tuple[object, ...]:
    """Return a sort key that puts last what counts for a network: most images, then the lowest value."""
    return (not accuracy.assumed, accuracy.examples or 0, -accuracy.value, accuracy.artifact_sha256)


def _newness(accuracy: Accuracy) -> tuple[str, str]:
    return (accuracy.started, accuracy.accuracy_id)
