"""Predictor: rows in, predictions out, each with its interval and its evidence."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from edgevit.errors import UsageError
from edgevit.prediction.conformal import quantile
from edgevit.prediction.cross_validation import Sources, pose, rehearse
from edgevit.prediction.ensemble import Mixture, Rehearsal, estimate, mix
from edgevit.prediction.gaussian_process import Problem
from edgevit.prediction.record import LEAST_ANCHORS, Level, LogEstimate, Margins, Prediction, predicted
from edgevit.prediction.table import Array, Indices, Row, feature_matrix, make_table
from edgevit.records.choice import RefusalCode

MOST_COLUMNS = 24  # sources of one prediction
MOST_ANCHORS = 1200  # of more, so many that are spread evenly over their latencies: time grows with the cube
_SAME_GRAPH = math.log(1.1)  # log units: 90% of the repeats of one job on one device are within 10%
_REPEAT = math.log(1.005)  # the same on a quiet device: no prediction is surer
_RANGE = 0.5  # how far beyond the range that anchors span a model may be off its profile: in ranges
_BEYOND = math.log(1.25)  # and this much more


class Predictor:
    """Predicts latencies from rows of some models on some columns.

    features: of a model, by name (see `structural_features`). families: models of one family resemble each other. The
    interval of a model whose family has no anchor comes from families that were held out whole. graphs: models of one
    graph take the same time, with any weights. The order of all of them does not matter. Raises UsageError for
    latencies that are not positive and features that are not finite.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        *,
        features: Mapping[str, Mapping[str, float]] | None = None,
        families: Mapping[str, str] | None = None,
        graphs: Mapping[str, str] | None = None,
    ) -> None:
        features, families = features or {}, families or {}
        self._table = make_table(rows, also={name for name, values in features.items() if values})
        self._numbers = {name: i for i, name in enumerate(self._table.models)}
        self._features, self._is_size = feature_matrix(self._table.models, features)
        self._graphs = dict(graphs or {})
        kin = [(name in families, families.get(name, name)) for name in self._table.models]
        numbers = {family: i for i, family in enumerate(sorted(set(kin)))}
        self._families = np.array([numbers[family] for family in kin], dtype=np.intp)

    def predict(
        self, column: str, models: Collection[str] | None = None, *, confidence: float = 0.9
    ) -> dict[str, Prediction]:
        """Predict each model (default: all of `models`) on this column, in the order of their names.

        Raises UsageError for a confidence outside (0, 1).
        """
        if not 0 < confidence < 1:
            raise UsageError(f"the confidence is {confidence}", why="it is a share between 0 and 1", fix="ask for 0.9")
        names = sorted(self._table.models if models is None else set(models))
        predictions = self._from_rows(column, names, confidence)
        for blind in (False, True):
            predictions |= self._from_others(
                column, [name for name in names if name not in predictions], confidence, blind=blind
            )
        return {name: predictions.get(name) or self._refusal(column, name, confidence) for name in names}

    @property
    def models(self) -> tuple[str, ...]:
        """All models with a row or a feature, sorted."""
        return self._table.models

    def logs(self, column: str) -> Array:
        """Return (models,): natural logarithms of the nanoseconds on this column, NaN where there is no row."""
        return self._table.column(column)

    def sources(self, column: str, *, blind: bool = False, linked: bool = False) -> Sources:
        """Return the evidence beside this column; of many other columns those that explain its rows best.

        linked: only columns that have models in common with it, directly or over others. No row compares the speed of
        the remaining columns with this one.
        """
        target = self._table.column(column)
        others = [j for j, name in enumerate(self._table.columns) if name != column]
        if linked:
            others = sorted(set(others) & self._table.linked(column, LEAST_ANCHORS))
        if len(others) > MOST_COLUMNS:
            spread = _spreads(self._table.logs[:, others], target)
            rows = (~np.isnan(self._table.logs[:, others])).sum(axis=0)
            others = sorted(others[j] for j in np.lexsort((-rows, spread))[:MOST_COLUMNS])
        return Sources(self._table.logs[:, others], self._features, self._is_size, self._families, blind)

    # One method for each level

    def _from_rows(self, column: str, names: list[str], confidence: float) -> dict[str, Prediction]:
        """Predict models with a row on this column, or with one of a model of the same graph."""
        logs = self._table.column(column)
        with_row = {name: float(logs[i]) for name, i in self._numbers.items() if not math.isnan(logs[i])}
        by_graph: dict[str, list[float]] = {}
        for name, log in with_row.items():
            by_graph.setdefault(self._graphs.get(name, ""), []).append(log)
        by_graph.pop("", None)
        predictions = {}
        for name in names:
            if name in with_row:
                log_estimate = LogEstimate("measured", with_row[name], Margins(0, 0), 1)
            elif twins := by_graph.get(self._graphs.get(name, "")):
                log_estimate = LogEstimate(
                    "same graph", float(np.median(twins)), _repeat(confidence, _SAME_GRAPH), len(twins)
                )
            else:
                continue
            predictions[name] = predicted(name, column, confidence, log_estimate)
        return predictions

    def _from_others(self, column: str, names: list[str], confidence: float, *, blind: bool) -> dict[str, Prediction]:
        """Predict models measured on other columns, or (blind) known by their features alone."""
        target, sources = self._table.column(column), self.sources(column, blind=blind, linked=not blind)
        anchors = _thinned(np.flatnonzero(sources.usable & ~np.isnan(target)), target)
        at = [self._numbers[name] for name in names if name in self._numbers]
        requested = np.array([i for i in at if sources.usable[i]], dtype=np.intp)
        if len(anchors) < LEAST_ANCHORS or not len(requested):
            return {}
        level: Level = "features" if blind else "transfer"
        nearest = "" if blind else self._nearest(column, target)
        strange = ~np.isin(sources.families[requested], sources.families[anchors])
        # With fewer families no anchor is left to predict a held-out family from.
        many = len(set(sources.families[anchors].tolist())) >= LEAST_ANCHORS
        predictions: dict[str, Prediction] = {}
        groups = [(requested[~strange], False)]
        # Features alone do not say how far another family is off, until there are several.
        if many or not blind:
            groups.append((requested[strange], many))
        for group, whole_families in groups:
            if len(group):
                logs, margins = _solve(
                    sources, anchors, target[anchors], group, confidence, whole_families=whole_families
                )
                for i, log, margin in zip(group.tolist(), logs.tolist(), margins, strict=True):
                    log_estimate = LogEstimate(level, log, margin, len(anchors), nearest)
                    predictions[self._table.models[i]] = predicted(
                        self._table.models[i], column, confidence, log_estimate
                    )
        return predictions

    def _refusal(self, column: str, name: str, confidence: float) -> Prediction:
        """Return the refusal of a prediction, with its reason."""
        rows = int((~np.isnan(self._table.column(column))).sum())
        index = self._numbers.get(name)
        code: RefusalCode
        if index is None:
            code = "measured_nowhere"
        elif rows < LEAST_ANCHORS:
            code = "few_rows"
        elif not np.isnan(self._features[index]).all():
            code = "unseen_family"
        else:
            code = "unlinked"
        return Prediction(name, column, "refused", confidence, anchors=rows, refusal=code)

    def _nearest(self, column: str, target: Array) -> str:
        others = [name for name in self._table.columns if name != column]
        spread = _spreads(np.stack([self._table.column(name) for name in others], axis=1), target)
        return others[int(np.argmin(spread))]


def _solve(
    sources: Sources, anchors: Indices, target: Array, at: Indices, confidence: float, *, whole_families: bool
) -> tuple[Array, list[Margins]]:
    """Return log latencies of the models `at`, and their margins."""
    problem = pose(sources, anchors, target, whole_families=whole_families)
    rehearsals = rehearse(sources, anchors, at, whole_families=whole_families)
    mixture, mixtures = mix(problem, rehearsals)
    estimated = estimate(problem, mixture, at)
    others = [_scores(rehearsal, mixed) for rehearsal, mixed in zip(rehearsals, mixtures, strict=True)]
    half = quantile(np.abs(estimated.held_out), [np.abs(scores) for scores in others], confidence)
    at_most = quantile(estimated.held_out, others, confidence)
    repeat = _repeat(confidence, _REPEAT)
    margins = [Margins(repeat.half + half * d, repeat.at_most + at_most * d) for d in estimated.deviation.tolist()]
    return _bounded(problem, estimated.mean, at), margins


def _scores(rehearsal: Rehearsal, mixture: Mixture) -> Array:
    """Return errors over deviations of a column that was taken for new."""
    estimated = estimate(rehearsal.problem, mixture, rehearsal.at)
    return (rehearsal.truth - _bounded(rehearsal.problem, estimated.mean, rehearsal.at)) / estimated.deviation


def _bounded(problem: Problem, logs: Array, at: Indices) -> Array:
    """Return logs that are no further off the profile than those of anchors, by half their range and a quarter more.

    The profile: the mean of the other columns, or the one that explains the anchors best, whichever allows more.
    """
    profiles = problem.profiles if problem.profiles.shape[1] else np.zeros((len(problem.profiles), 1))
    best = int(np.argmin(_spreads(profiles[problem.anchors], problem.target)))
    lowest, highest = [], []
    for profile in (profiles.mean(axis=1), profiles[:, best]):
        off = problem.target - profile[problem.anchors]
        margin = _RANGE * float(np.ptp(off)) + _BEYOND
        lowest.append(profile[at] + off.min() - margin)
        highest.append(profile[at] + off.max() + margin)
    return np.asarray(np.clip(logs, np.minimum(*lowest), np.maximum(*highest)))


def _spreads(logs: Array, target: Array) -> Array:
    """Return (columns,): the distance to the target at another clock, in log units; more for few common rows."""
    common = ~np.isnan(logs) & ~np.isnan(target)[:, None]
    spreads = np.full(logs.shape[1], math.inf)
    for j in np.flatnonzero(common.sum(axis=0) >= LEAST_ANCHORS):
        offsets = target[common[:, j]] - logs[common[:, j], j]
        spreads[j] = np.abs(offsets - np.median(offsets)).mean() * (1 + 1 / len(offsets))
    return spreads


def _thinned(anchors: Indices, target: Array) -> Indices:
    by_latency = anchors[np.argsort(target[anchors], kind="stable")]
    return np.sort(by_latency[np.linspace(0, len(anchors) - 1, min(len(anchors), MOST_ANCHORS)).astype(int)])


def _repeat(confidence: float, at_90: float) -> Margins:
    """Return the margins of two runs of one graph: exponential tails, nine in ten errors below at_90."""
    half, at_most = (math.log(share) / math.log(0.1) * at_90 for share in (1 - confidence, 2 * (1 - confidence)))
    return Margins(half, max(at_most, 0.0))
