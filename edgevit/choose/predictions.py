"""What a device has no row of, predicted: from its other rows, other devices' rows and what models are made of.

Nothing is imported or read for it before it is clear that there is something to predict from: an answer from measured
rows alone does not wait for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgevit.choose.candidates import Predicted, Wanted, unwanted
from edgevit.choose.limits import BOUNDS, Percentile, kept_above
from edgevit.choose.sources import Names, Place, is_comparable, latency_ns
from edgevit.choose.speaking import overruled
from edgevit.choose.versions import age, grouped
from edgevit.types import EMULATED, PROVEN, Basis, Graph, Measurement, ModelCard, OperatorCost

if TYPE_CHECKING:
    from edgevit.predict import Prediction, Predictor

LEAST_ROWS = 3  # of a column, before the predictor says anything but that two graphs are one (predict.LEAST_ANCHORS)


class Elsewhere(NamedTuple):
    """What is read only where it is needed.

    models: names of all models that have rows. others: rows of other devices. graphs: operators of networks that the
    database keeps. operators: those of the zoo, by name.
    """

    models: Callable[[], Collection[str]]
    others: Callable[[], Sequence[Measurement]]
    graphs: Callable[[], Sequence[Graph]]
    operators: Callable[[], Mapping[str, tuple[OperatorCost, ...]]]


NOWHERE = Elsewhere(tuple, tuple, tuple, dict)


def predictions(
    rows: Sequence[Measurement],
    cards: Mapping[str, ModelCard],
    wanted: Wanted,
    percentile: int,
    confidence: float,
    elsewhere: Elsewhere = NOWHERE,
) -> list[Predicted]:
    """Of every model and place (engine, precision, threads) of a device that has rows, what has no row there.

    rows: the device's, of its current epoch; a device class may have several units, and the slowest of them counts.
    Models are those of `cards`, and those that somebody measured somewhere; published ones where they are wanted. Where
    nothing can be said the answer says why.
    """
    task = _Task(rows, cards, wanted, kept_above(percentile), percentile, confidence)
    if not task.places:
        return []
    return sorted(task.answers(elsewhere), key=lambda item: item.row.measurement_id)


class _Task:
    """One device and what is asked of it. anchors: the rows that its other latencies are told from, by place."""

    def __init__(
        self,
        rows: Sequence[Measurement],
        cards: Mapping[str, ModelCard],
        wanted: Wanted,
        kept: int,
        percentile: int,
        confidence: float,
    ) -> None:
        self.cards, self.wanted, self.kept, self.asked, self.confidence = cards, wanted, kept, percentile, confidence
        self.rows = [row for row in rows if EMULATED not in row.flags]
        silent: set[str] = set()
        for unit in grouped(self.rows, lambda row: row.device_id):
            silent |= overruled(unit, Percentile(kept)).keys()
        self.places: dict[Place, list[Measurement]] = {}
        for row in sorted(self.rows, key=age):
            if row.measurement_id not in silent and is_comparable(row) and not unwanted(row, "", self._of_any_licence):
                self.places.setdefault(Place.of(row), []).append(row)

    @property
    def _of_any_licence(self) -> Wanted:
        """What says how fast a device is may be of any licence."""
        return self.wanted._replace(licences=None)

    def answers(self, elsewhere: Elsewhere) -> Iterator[Predicted]:
        """A prediction, or why there is none, for each missing cell."""
        named = frozenset(elsewhere.models())
        if not any(self._may_tell(anchors, named) for anchors in self.places.values()):
            yield from self._refusals()
            return
        others = [row for row in elsewhere.others() if is_comparable(row)]
        sources = _Sources(self, others, elsewhere)
        yield from sources.slowest()

    def _may_tell(self, anchors: Sequence[Measurement], named: frozenset[str]) -> bool:
        """Whether rows of a place may say something of a model without one, as far as names tell."""
        models = {row.model for row in anchors}
        if named - models:
            return True
        described = models & set(self.cards) if not any(row.graph_digest for row in anchors) else models
        return len(described) >= LEAST_ROWS and bool(set(self.cards) - models)

    def _refusals(self) -> Iterator[Predicted]:
        """That too little is known of each place to say anything of the zoo's models."""
        names = Names(self.rows, self.cards)
        tried = _Tried(self.rows, names)
        for place, anchors in self.places.items():
            for name, card in self.cards.items():
                if not tried.has(name, place):
                    row = stand_in(anchors[-1], name, card, None)
                    yield self.refused(row, _few(len(anchors)), len(anchors))

    def refused(self, row: Measurement, why: str, anchors: int) -> Predicted:
        """A cell of which nothing can be said."""
        return Predicted(row, (None, None), Basis("refused", self.confidence, anchors), why)


def _few(rows: int) -> str:
    return f"{rows} row(s) of this engine, precision and thread count; {LEAST_ROWS} say how fast it is"


class _Tried:
    """What was measured or tried on the device: of a run that failed at once nobody knows the engine."""

    def __init__(self, rows: Iterable[Measurement], names: Names) -> None:
        self._ran: set[tuple[str, Place]] = set()
        self._failed: set[tuple[str, str, str, int]] = set()
        for row in rows:
            if is_comparable(row):
                self._ran.add((names.of(row), Place.of(row)._replace(device_id="")))
            elif row.batch == 1 and row.status not in ("ok", "throttled"):
                self._failed.add((names.of(row), row.target, row.precision, row.threads))

    def has(self, name: str, place: Place) -> bool:
        """Whether a model ran or failed at a place, on any unit of the device asked about."""
        failed = (name, place.target, place.precision, place.threads) in self._failed
        return failed or (name, place._replace(device_id="")) in self._ran


class _Sources:
    """The predictor over the device's rows and those of others, and what is known of each model."""

    def __init__(self, task: _Task, others: Sequence[Measurement], elsewhere: Elsewhere) -> None:
        self.task = task
        mine = [row for anchors in task.places.values() for row in anchors]
        self.rows = sorted([*mine, *others], key=age)
        self.names = Names([*task.rows, *others], task.cards)
        self.tried = _Tried(task.rows, self.names)
        self.newest = {self.names.of(row): row for row in self.rows}
        self.made = {(self.names.of(row), row.target, row.precision): row for row in self.rows if row.parity_status}
        self._elsewhere = elsewhere
        self._says: dict[str, str] = {}
        self._predictor: Predictor | None = None

    def slowest(self) -> Iterator[Predicted]:
        """For each cell the answer of the unit that is predicted to be slowest; a refusal only where all refuse."""
        found: dict[str, Predicted] = {}
        for place, anchors in self.task.places.items():
            for item in self._at(place, anchors):
                old = found.setdefault(item.row.measurement_id, item)
                if (item.reading[1] or 0) > (old.reading[1] or 0):
                    found[item.row.measurement_id] = item
        yield from found.values()

    def _at(self, place: Place, anchors: Sequence[Measurement]) -> Iterator[Predicted]:
        missing = [name for name in self._candidates() if not self.tried.has(name, place)]
        if not missing:
            return
        column = place.column(BOUNDS[self.task.kept][0])
        if len(anchors) < LEAST_ROWS and not self._twins(anchors, missing):
            yield from (self.task.refused(self._row(name, anchors[-1]), _few(len(anchors)), len(anchors)) for name in
                        missing)  # fmt: skip
            return
        said = self.predictor.predict(column, missing, confidence=self.task.confidence)
        for name in missing:
            yield self._answer(self._row(name, anchors[-1]), said[name])

    def _candidates(self) -> list[str]:
        """The names of models that may be asked about, in their order."""
        wanted = {self.names.of(row) for row in self.rows if row.provenance == "measured" or self.task.wanted.published}
        return sorted(wanted | set(self.task.cards))

    def _twins(self, anchors: Sequence[Measurement], missing: Collection[str]) -> bool:
        digests = {row.graph_digest for row in anchors} - {""}
        return any(name in self.newest and self.newest[name].graph_digest in digests for name in missing)

    def _row(self, name: str, like: Measurement) -> Measurement:
        """What would run: the artifact that is known of this model, target and precision, where there is one."""
        known = self.made.get((name, like.target, like.precision))
        source = known or self.newest.get(name)
        return stand_in(like, source.model if source else name, self.task.cards.get(name), known, source, name)

    def _answer(self, row: Measurement, said: Prediction) -> Predicted:
        task = self.task
        if row.parity_status and row.parity_status not in PROVEN:
            return task.refused(row, f"parity {row.parity_status}: the artifact is not proven", said.anchors)
        level = said.level
        if level == "refused" or level == "measured" or said.latency_ns is None or said.at_most_ns is None:
            return task.refused(row, said.why.replace("\0", " "), said.anchors)
        ends = (value if value is None else value / 1e6 for value in (said.lower_ns, said.upper_ns))
        near = self._says.get(said.nearest, "")
        basis = Basis(level, task.confidence, said.anchors, near, *ends)
        flags = () if task.kept == task.asked else (f"predicted at p{task.kept}",)
        reading = (round(said.latency_ns), round(said.at_most_ns))
        return Predicted(dataclasses.replace(row, flags=flags), reading, basis)

    @property
    def predictor(self) -> Predictor:
        """Made when it is first asked: importing it takes longer than a choice may."""
        if self._predictor is None:
            self._predictor, self._says = predictor_of(self.rows, self.names, self.task.cards, self.task.kept,
                                                       self._elsewhere)  # fmt: skip
        return self._predictor


def predictor_of(
    rows: Sequence[Measurement], names: Names, cards: Mapping[str, ModelCard], kept: int, elsewhere: Elsewhere
) -> tuple[Predictor, dict[str, str]]:
    """A predictor over comparable rows, oldest first, at a percentile that rows keep; and the names of its columns."""
    from edgevit.predict import Predictor, Row, structural_features

    given, says = [], dict[str, str]()
    for row in rows:
        if told := latency_ns(row, kept):
            column = Place.of(row).column(told[0])
            says.setdefault(column, Place.of(row).says(row.device))
            given.append(Row(names.of(row), column, told[1]))
    newest = {names.of(row): row for row in rows}
    families = {name: card.family for name, card in cards.items()}
    families |= {name: row.family for name, row in newest.items() if row.family}
    graphs = {name: row.graph_digest for name, row in newest.items() if row.graph_digest}
    operators = _operators(graphs, cards, elsewhere)
    features = {name: structural_features(costs) for name, costs in operators.items()}
    return Predictor(given, features=features, families=families, graphs=graphs), says


def _operators(
    graphs: Mapping[str, str], cards: Mapping[str, ModelCard], elsewhere: Elsewhere
) -> dict[str, tuple[OperatorCost, ...]]:
    """Operators by name: of the zoo at the cards' sizes, of others as the database keeps them."""
    kept = {graph.graph_digest: graph.operators for graph in reversed(elsewhere.graphs())}
    found = {name: kept[digest] for name, digest in graphs.items() if digest in kept}
    return found | {name: costs for name, costs in elsewhere.operators().items() if name in cards}


def stand_in(
    like: Measurement,
    model: str,
    card: ModelCard | None,
    made: Measurement | None,
    source: Measurement | None = None,
    name: str = "",
) -> Measurement:
    """A row without times of a model at the place of another row. made: a row of its artifact, source: any of its rows.

    name: what tells the model apart from others at other inputs; default: its own name.
    """
    inputs = source.inputs if source else tuple(spec.at_batch(1) for spec in card.inputs) if card else ()
    what = (name or model, like.target, like.precision, like.threads, like.compute_unit, like.engine)
    none = {field.name: None for field in dataclasses.fields(Measurement) if field.name.endswith("_ns")}
    return dataclasses.replace(
        like,
        **{**none, "samples_ns": (), "snapshots": (), "told": ()},  # type: ignore[arg-type]
        measurement_id=" ".join(("predicted", *map(str, what))),
        measurement_key="",
        provenance="predicted",
        model=model,
        family=card.family if card else source.family if source else "",
        artifact_sha256=made.artifact_sha256 if made else "",
        artifact_bytes=made.artifact_bytes if made else 0,
        parity_status=made.parity_status if made else "",
        graph_digest=source.graph_digest if source else "",
        inputs=inputs,
        started="",
        grade="",
        flags=(),
        peak_rss_bytes=None,
        energy_j=None,
        engine_version="",
        source="",
        licence="",
        untold=(),
    )
