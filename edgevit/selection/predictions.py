"""Predictions for cells of a device, from its other rows, other devices' rows and the operators of models.

The predictor is imported, and other rows are read, only once there is something to predict from. An answer from
measured rows alone does not wait for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from edgevit.records.artifact import PROVEN
from edgevit.records.choice import Basis, Reason
from edgevit.records.measurement import EMULATED, Measurement
from edgevit.records.model import ModelCard
from edgevit.selection.candidates import CandidateFilter, PredictedCell, why_excluded_by_filter, zoo_in_question
from edgevit.selection.cells import AttemptedCells, Cell, cell_at
from edgevit.selection.columns import Configuration, ModelAliases, is_comparable
from edgevit.selection.limits import BOUNDS, Percentile, kept_above
from edgevit.selection.other_devices import NO_OTHER_DEVICES, OtherDevices, predictor_of
from edgevit.selection.supersession import superseded_rows
from edgevit.selection.versions import age, grouped

if TYPE_CHECKING:
    from edgevit.prediction import Prediction, Predictor

# Rows of a column below which the predictor says nothing but that two graphs are one (prediction.LEAST_ANCHORS).
LEAST_ROWS = 3


def predicted_cells(
    rows: Sequence[Measurement],
    cards: Mapping[str, ModelCard],
    candidate_filter: CandidateFilter,
    percentile: int,
    confidence: float,
    others: OtherDevices = NO_OTHER_DEVICES,
) -> list[PredictedCell]:
    """Predict each cell of a device's configurations: every model that has no row there.

    rows: the device's, of its current epoch; a device class may have several units, and the slowest of them counts.
    Models are those of the zoo that are in question, and those with a measured row anywhere; those with a published row
    where the filter includes them. A cell that cannot be predicted has a refusal.
    """
    task = _Task(rows, cards, candidate_filter, percentile, confidence)
    if not task.anchors:
        return []
    missing = task.missing(frozenset(others.models()))
    other_rows = [row for row in others.rows(missing) if is_comparable(row)] if missing else []
    return sorted(_CellPredictor(task, other_rows, others).slowest(), key=lambda one: one.cell.cell_id)


class _Task:
    """One device, and the cells in question.

    representative: its rows that say how fast it is, oldest first. anchors: of those, the rows of each configuration in
    question.
    """

    def __init__(
        self,
        rows: Sequence[Measurement],
        cards: Mapping[str, ModelCard],
        candidate_filter: CandidateFilter,
        percentile: int,
        confidence: float,
    ) -> None:
        self.cards, self.candidate_filter, self.confidence = cards, candidate_filter, confidence
        self.kept_percentile = kept_above(percentile)
        # The percentile of a Basis: only where it is not the one of the budget.
        self.other_percentile = None if self.kept_percentile == percentile else self.kept_percentile
        self.rows = [row for row in rows if EMULATED not in row.flags]
        superseded: set[str] = set()
        for unit in grouped(self.rows, lambda row: row.device_id):
            superseded |= superseded_rows(unit, Percentile(self.kept_percentile)).keys()
        current = (row for row in self.rows if row.measurement_id not in superseded and is_comparable(row))
        self.representative = sorted(current, key=age)
        self.anchors: dict[Configuration, list[Measurement]] = {}
        # Rows of any licence count here: all of them tell how fast a device is.
        for row in self.representative:
            if not why_excluded_by_filter(row, candidate_filter):
                self.anchors.setdefault(Configuration.of(row), []).append(row)

    def missing(self, names: frozenset[str]) -> frozenset[str]:
        """Return the models that a configuration with enough rows lacks: other devices may help to predict those."""
        of_configuration = (
            names - {row.model for row in anchors}
            for anchors in self.anchors.values()
            if len(anchors) >= LEAST_ROWS or any(row.graph_digest for row in anchors)
        )
        return frozenset[str]().union(*of_configuration)


class _CellPredictor:
    """Predicts the cells of a task; the predictor is built when it is first used."""

    def __init__(self, task: _Task, other_rows: Sequence[Measurement], others: OtherDevices) -> None:
        self._task, self._others = task, others
        self._rows = sorted([*task.representative, *other_rows], key=age)
        self._aliases = ModelAliases([*task.rows, *other_rows], task.cards)
        self._attempted = AttemptedCells(task.rows, self._aliases)
        self._newest = {self._aliases.of(row): row for row in self._rows}
        self._measured = {self._aliases.of(row) for row in self._rows if row.provenance == "measured"}
        self._configurations_of: dict[str, set[Configuration]] = {}
        for row in self._rows:
            self._configurations_of.setdefault(self._aliases.of(row), set()).add(Configuration.of(row))
        built = (row for row in self._rows if row.parity_status)
        self._built = {(self._aliases.of(row), row.target, row.precision): row for row in built}
        self._labels: dict[str, str] = {}
        self._predictor: Predictor | None = None

    def slowest(self) -> Iterator[PredictedCell]:
        """Yield for each cell the prediction of the slowest unit; a refusal only where all units are refused."""
        slowest: dict[str, PredictedCell] = {}
        for configuration, anchors in self._task.anchors.items():
            for one in self._at(configuration, anchors):
                other = slowest.setdefault(one.cell.cell_id, one)
                if (one.estimate[1] or 0) > (other.estimate[1] or 0):
                    slowest[one.cell.cell_id] = one
        yield from slowest.values()

    def _at(self, configuration: Configuration, anchors: Sequence[Measurement]) -> Iterator[PredictedCell]:
        missing = [alias for alias in self._candidates() if not self._attempted.has(alias, configuration)]
        if not missing:
            return
        cells = {alias: self._cell(alias, anchors[-1]) for alias in missing}
        refusal = self._why_hopeless(anchors, missing)
        if refusal:
            yield from (self._refused(cell, refusal, len(anchors)) for cell in cells.values())
            return
        column = configuration.column(BOUNDS[self._task.kept_percentile][0])
        predicted = self._built_predictor().predict(column, missing, confidence=self._task.confidence)
        label = configuration.label(anchors[-1])
        yield from (self._predicted(cell, predicted[alias], label) for alias, cell in cells.items())

    def _candidates(self) -> list[str]:
        """Return the aliases of models in question, in their order."""
        task = self._task
        published, zoo = task.candidate_filter.published, zoo_in_question(task.rows, task.cards, task.candidate_filter)
        with_rows = {
            self._aliases.of(row)
            for row in self._rows
            if (row.provenance == "measured" or published)
            and (row.model in zoo or (row.model not in task.cards and task.candidate_filter.names(row.model)))
        }
        return sorted(with_rows | zoo)

    def _why_hopeless(self, anchors: Sequence[Measurement], missing: Sequence[str]) -> Reason | None:
        """Return why no missing model can be predicted, where that is clear without the predictor."""
        digests = {row.graph_digest for row in anchors} - {""}
        if any(alias in self._newest and self._newest[alias].graph_digest in digests for alias in missing):
            return None
        if len(anchors) < LEAST_ROWS:
            return Reason("few_rows_of_configuration", value=len(anchors), limit=LEAST_ROWS)
        described = sum(self._aliases.of(row) in self._task.cards or bool(row.graph_digest) for row in anchors)
        shared = sum(len(self._configurations_of[self._aliases.of(row)]) > 1 for row in anchors)
        if described < LEAST_ROWS and (shared < LEAST_ROWS or not any(alias in self._newest for alias in missing)):
            return Reason("no_shared_rows", limit=LEAST_ROWS)
        return None

    def _cell(self, alias: str, anchor: Measurement) -> Cell:
        built = self._built.get((alias, anchor.target, anchor.precision))
        newest = self._newest.get(alias)
        published_only = newest is not None and alias not in self._measured
        return cell_at(anchor, alias, self._task.cards.get(alias), built, newest, published_only=published_only)

    def _predicted(self, cell: Cell, prediction: Prediction, label: str) -> PredictedCell:
        task, level = self._task, prediction.level
        if cell.parity_status and cell.parity_status not in PROVEN:
            return self._refused(cell, Reason("not_proven", cell.parity_status), prediction.anchors)
        if prediction.refusal:
            return self._refused(cell, Reason(prediction.refusal, label, value=prediction.anchors), prediction.anchors)
        assert level != "refused" and level != "measured", "a refusal has a code, and a cell has no row"
        assert prediction.latency_ns is not None and prediction.at_most_ns is not None
        lower_ms, upper_ms = (ns if ns is None else ns / 1e6 for ns in (prediction.lower_ns, prediction.upper_ns))
        nearest = self._labels.get(prediction.nearest, "")
        anchors, percentile = prediction.anchors, task.other_percentile
        basis = Basis(level, task.confidence, anchors, nearest, lower_ms, upper_ms, percentile)
        return PredictedCell(cell, (round(prediction.latency_ns), round(prediction.at_most_ns)), basis)

    def _refused(self, cell: Cell, refusal: Reason, anchors: int) -> PredictedCell:
        return PredictedCell(cell, (None, None), Basis("refused", self._task.confidence, anchors), refusal)

    def _built_predictor(self) -> Predictor:
        if self._predictor is None:
            task = self._task
            self._predictor, self._labels = predictor_of(
                self._rows, self._aliases, task.cards, task.kept_percentile, self._others
            )
        return self._predictor
