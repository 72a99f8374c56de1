"""What a device has no row of, predicted: from its other rows, other devices' rows and what models are made of.

Nothing is imported or read for it before it is clear that there is something to predict from: an answer from measured
rows alone does not wait for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from edgevit.records.artifact import PROVEN
from edgevit.records.choice import Basis
from edgevit.records.measurement import EMULATED, Measurement
from edgevit.records.model import ModelCard
from edgevit.selection.candidates import Predicted, Wanted, unwanted
from edgevit.selection.cells import Tried, stand_in
from edgevit.selection.columns import Names, Place, is_comparable
from edgevit.selection.limits import BOUNDS, Percentile, kept_above
from edgevit.selection.other_devices import NOWHERE, Elsewhere, predictor_of
from edgevit.selection.supersession import overruled
from edgevit.selection.versions import age, grouped

if TYPE_CHECKING:
    from edgevit.prediction import Prediction, Predictor

LEAST_ROWS = 3  # of a column, before the predictor says anything but that two graphs are one (predict.LEAST_ANCHORS)


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
    task = _Task(rows, cards, wanted, percentile, confidence)
    if not task.places:
        return []
    missing = task.missing(frozenset(elsewhere.models()))
    others = [row for row in elsewhere.others(missing) if is_comparable(row)] if missing else []
    return sorted(_Answers(task, others, elsewhere).slowest(), key=lambda item: item.row.measurement_id)


class _Task:
    """One device and what is asked of it.

    speaking: its rows that say how fast it is, oldest first. places: those of the places that are asked about, each
    with its rows: the anchors of what is predicted there.
    """

    def __init__(
        self,
        rows: Sequence[Measurement],
        cards: Mapping[str, ModelCard],
        wanted: Wanted,
        percentile: int,
        confidence: float,
    ) -> None:
        self.cards, self.wanted, self.percentile, self.confidence = cards, wanted, percentile, confidence
        self.kept = kept_above(percentile)
        self.rows = [row for row in rows if EMULATED not in row.flags]
        silent: set[str] = set()
        for unit in grouped(self.rows, lambda row: row.device_id):
            silent |= overruled(unit, Percentile(self.kept)).keys()
        told = (row for row in self.rows if row.measurement_id not in silent and is_comparable(row))
        self.speaking = sorted(told, key=age)
        self.places: dict[Place, list[Measurement]] = {}
        for row in self.speaking:  # of any licence: all of them tell how fast a device is
            if not unwanted(row, wanted):
                self.places.setdefault(Place.of(row), []).append(row)

    def missing(self, named: frozenset[str]) -> frozenset[str]:
        """Which of these models other devices may tell something of: places have no row of them, and enough others."""
        places = (
            named - {row.model for row in anchors}
            for anchors in self.places.values()
            if len(anchors) >= LEAST_ROWS or any(row.graph_digest for row in anchors)
        )
        return frozenset[str]().union(*places)


class _Answers:
    """What is said of each cell; the predictor is made when it is first asked."""

    def __init__(self, task: _Task, others: Sequence[Measurement], elsewhere: Elsewhere) -> None:
        self._task, self._elsewhere = task, elsewhere
        self._rows = sorted([*task.speaking, *others], key=age)
        self._names = Names([*task.rows, *others], task.cards)
        self._tried = Tried(task.rows, self._names)
        self._newest = {self._names.of(row): row for row in self._rows}
        self._places_of: dict[str, set[Place]] = {}
        for row in self._rows:
            self._places_of.setdefault(self._names.of(row), set()).add(Place.of(row))
        proven = (row for row in self._rows if row.parity_status)
        self._made = {(self._names.of(row), row.target, row.precision): row for row in proven}
        self._says: dict[str, str] = {}
        self._made_predictor: Predictor | None = None

    def slowest(self) -> Iterator[Predicted]:
        """For each cell the answer of the unit that is predicted to be slowest; a refusal only where all refuse."""
        found: dict[str, Predicted] = {}
        for place, anchors in self._task.places.items():
            for item in self._at(place, anchors):
                old = found.setdefault(item.row.measurement_id, item)
                if (item.reading[1] or 0) > (old.reading[1] or 0):
                    found[item.row.measurement_id] = item
        yield from found.values()

    def _at(self, place: Place, anchors: Sequence[Measurement]) -> Iterator[Predicted]:
        missing = [name for name in self._candidates() if not self._tried.has(name, place)]
        if not missing:
            return
        rows = {name: self._row(name, anchors[-1]) for name in missing}
        why = self._hopeless(anchors, missing)
        if why:
            yield from (self._refused(row, why, len(anchors)) for row in rows.values())
            return
        column = place.column(BOUNDS[self._task.kept][0])
        said = self._predictor.predict(column, missing, confidence=self._task.confidence)
        for name, row in rows.items():
            yield self._answer(row, said[name], place.says(row))

    def _candidates(self) -> list[str]:
        """The names of models that may be asked about, in their order."""
        published = self._task.wanted.published
        seen = {self._names.of(row) for row in self._rows if row.provenance == "measured" or published}
        return sorted(seen | set(self._task.cards))

    def _hopeless(self, anchors: Sequence[Measurement], missing: Sequence[str]) -> str:
        """Why nothing can be said of any of the missing models, where that is clear without the predictor."""
        digests = {row.graph_digest for row in anchors} - {""}
        if any(name in self._newest and self._newest[name].graph_digest in digests for name in missing):
            return ""
        if len(anchors) < LEAST_ROWS:
            return f"{len(anchors)} row(s) of this engine, precision and thread count; {LEAST_ROWS} say how fast it is"
        described = sum(self._names.of(row) in self._task.cards or bool(row.graph_digest) for row in anchors)
        shared = sum(len(self._places_of[self._names.of(row)]) > 1 for row in anchors)
        if described < LEAST_ROWS and (shared < LEAST_ROWS or not any(name in self._newest for name in missing)):
            return f"no {LEAST_ROWS} rows are of models that ran elsewhere, too, or whose operators are known"
        return ""

    def _row(self, name: str, like: Measurement) -> Measurement:
        """What would run: the artifact that is known of this model, target and precision, where there is one."""
        made = self._made.get((name, like.target, like.precision))
        return stand_in(like, name, self._task.cards.get(name), made, self._newest.get(name))

    def _answer(self, row: Measurement, said: Prediction, here: str) -> Predicted:
        task, level = self._task, said.level
        if row.parity_status and row.parity_status not in PROVEN:
            return self._refused(row, f"parity {row.parity_status}: the artifact is not proven", said.anchors)
        if level == "refused" or level == "measured" or said.latency_ns is None or said.at_most_ns is None:
            return self._refused(row, said.why.replace(said.column, here), said.anchors)
        ends = (value if value is None else value / 1e6 for value in (said.lower_ns, said.upper_ns))
        basis = Basis(level, task.confidence, said.anchors, self._says.get(said.nearest, ""), *ends)
        flags = () if task.kept == task.percentile else (f"predicted at p{task.kept}",)
        reading = (round(said.latency_ns), round(said.at_most_ns))
        return Predicted(dataclasses.replace(row, flags=flags), reading, basis)

    def _refused(self, row: Measurement, why: str, anchors: int) -> Predicted:
        return Predicted(row, (None, None), Basis("refused", self._task.confidence, anchors), why)

    @property
    def _predictor(self) -> Predictor:
        if self._made_predictor is None:
            task = self._task
            self._made_predictor, self._says = predictor_of(
                self._rows, self._names, task.cards, task.kept, self._elsewhere
            )
        return self._made_predictor
