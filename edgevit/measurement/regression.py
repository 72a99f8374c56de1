"""A regression gate: rows of a baseline against rows of a candidate, pair by pair of equal configuration.

A gate fails where a candidate is slower. It passes only where every pair was judged and at least one was: a row without
a counterpart, a run that failed and other silicon leave it undecided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from edgevit.measurement.compare import Comparison, Obstacle, compare, why_incomparable
from edgevit.records.measurement import Measurement, NoiseFloor

Outcome = Literal["passed", "failed", "undecided"]
FailIf = Literal["slower", "ambiguous"]
CaveatCode = Literal[
    "other_engine", "other_network", "other_unit", "other_configuration", "silicon_not_told", "no_noise_floor"
]
# Fields of a row that its pair has, too, beside its device and its network.
CONFIGURATION = (
    "model", "target", "precision", "engine", "compute_unit", "threads", "batch", "inputs", "rate_hz",
    "protocol_version",
)  # fmt: skip
# What else two rows of a pair have in common, closest first. A later one pairs only what the earlier ones left alone.
_STAGES = (("device_id", "network_id"), ("device_id",), ("device", "network_id"), ("device",))


@dataclass(frozen=True)
class Caveat:
    """What a reader of a comparison must know. It does not keep the comparison from judging."""

    code: CaveatCode
    detail: str = ""


@dataclass(frozen=True)
class RowPair:
    """A row of the baseline and its counterpart. None: that side has no such row."""

    baseline: Measurement | None
    candidate: Measurement | None


@dataclass(frozen=True)
class JudgedPair:
    """A pair with its comparison, candidate over baseline; None where an obstacle forbids it."""

    pair: RowPair
    comparison: Comparison | None
    obstacles: tuple[Obstacle, ...] = ()
    caveats: tuple[Caveat, ...] = ()

    @property
    def is_judged(self) -> bool:
        """Whether the comparison may decide."""
        return self.comparison is not None and not self.obstacles

    @property
    def row(self) -> Measurement:
        """The candidate, else the baseline: one of them is there."""
        row = self.pair.candidate or self.pair.baseline
        assert row is not None
        return row

    def fails(self, fail_if: FailIf) -> bool:
        """Return whether this pair alone makes a gate fail."""
        verdicts = {"SLOWER"} if fail_if == "slower" else {"SLOWER", "AMBIGUOUS"}
        return self.is_judged and self.comparison is not None and self.comparison.verdict in verdicts


def configuration(row: Measurement, also: Sequence[str] = ()) -> tuple[object, ...]:
    """Return the configuration of a row, and other fields of it."""
    return tuple(getattr(row, name) for name in (*CONFIGURATION, *also))


def newest(rows: Sequence[Measurement], also: Sequence[str]) -> list[Measurement]:
    """Return the newest row of each configuration, oldest first, as `rows` are. `also`: fields that tell more apart."""
    last = {configuration(row, also): row.measurement_id for row in rows}
    ids = set(last.values())
    return [row for row in rows if row.measurement_id in ids]


def reduced(
    baseline: Sequence[Measurement], candidates: Sequence[Measurement]
) -> tuple[list[Measurement], list[Measurement]]:
    """Return the newest rows of both sides. Rows are oldest first.

    Networks of one model are rows of their own only where both sides have several in a configuration. Beside a single
    one the newest row counts: a tag that every night uses again is that of last night.
    """
    strict = [newest(rows, ("device_id", "network_id")) for rows in (baseline, candidates)]
    counts = [Counter(configuration(row, ("device_id",)) for row in rows) for rows in strict]
    newest_rows: list[list[Measurement]] = []
    for rows, other in zip(strict, reversed(counts), strict=True):
        last = {row.measurement_id for row in newest(rows, ("device_id",))}
        several = [row for row in rows if other[configuration(row, ("device_id",))] > 1]
        names = last | {row.measurement_id for row in several}
        newest_rows.append([row for row in rows if row.measurement_id in names])
    return newest_rows[0], newest_rows[1]


def paired(baseline: Sequence[Measurement], candidates: Sequence[Measurement]) -> list[RowPair]:
    """Pair rows of equal configuration, closest first. What is left pairs where each side has one row."""
    pairs: list[RowPair] = []
    remaining, opposite = list(baseline), list(candidates)
    for stage in _STAGES:
        for one, other in list(_unique_matches(remaining, opposite, stage)):
            pairs.append(RowPair(one, other))
            remaining.remove(one)
            opposite.remove(other)
    pairs += [RowPair(row, None) for row in remaining] + [RowPair(None, row) for row in opposite]
    return sorted(pairs, key=_order)


def _unique_matches(
    baseline: Sequence[Measurement], candidates: Sequence[Measurement], stage: Sequence[str]
) -> Iterator[tuple[Measurement, Measurement]]:
    """Yield the rows that have one counterpart each."""
    groups: dict[tuple[object, ...], tuple[list[Measurement], list[Measurement]]] = {}
    for number, rows in enumerate((baseline, candidates)):
        for row in rows:
            groups.setdefault(configuration(row, stage), ([], []))[number].append(row)
    for ones, others in groups.values():
        if len(ones) == len(others) == 1:
            yield ones[0], others[0]


def _order(pair: RowPair) -> tuple[str, ...]:
    row = pair.candidate or pair.baseline
    assert row is not None
    return row.model, row.target, row.precision, f"{row.threads:05}", row.device, row.measurement_id


def judge(
    pair: RowPair, floors: Collection[NoiseFloor], percentile: int, untrusted: Mapping[str, str] = MappingProxyType({})
) -> JudgedPair:
    """Compare a candidate with its baseline, and say what forbids or qualifies the verdict.

    untrusted: ids of rows that decide nothing, each with the source that it was read from.
    """
    baseline, candidate = pair.baseline, pair.candidate
    if baseline is None or candidate is None:
        side = "the baseline" if baseline is None else "the candidates"
        return JudgedPair(pair, None, (Obstacle("no_counterpart", f"{side} have no row of this configuration"),))
    if (obstacle := why_incomparable(candidate, baseline, percentile)) is not None:
        return JudgedPair(pair, None, (obstacle,), tuple(_caveats(baseline, candidate, ())))
    comparison = compare(candidate, baseline, floors, percentile)
    obstacles = (*_origin_obstacles(pair, untrusted), *_silicon_obstacles(baseline, candidate))
    return JudgedPair(pair, comparison, obstacles, tuple(_caveats(baseline, candidate, floors)))


def outcome(pairs: Sequence[JudgedPair], fail_if: FailIf) -> Outcome:
    """Return what a gate says. A slower candidate outweighs a pair that could not be judged."""
    if any(pair.fails(fail_if) for pair in pairs):
        return "failed"
    return "passed" if pairs and all(pair.is_judged for pair in pairs) else "undecided"


def _origin_obstacles(pair: RowPair, untrusted: Mapping[str, str]) -> Iterator[Obstacle]:
    for side, row in (("A", pair.baseline), ("B", pair.candidate)):
        if row is not None and row.measurement_id in untrusted:
            yield Obstacle("untrusted_origin", f"{side} from {untrusted[row.measurement_id]} (edgevit db trust)")


def _silicon_obstacles(baseline: Measurement, candidate: Measurement) -> Iterator[Obstacle]:
    before, after = (row.host.silicon if row.host else None for row in (baseline, candidate))
    if before is not None and after is not None:
        if before != after:
            yield Obstacle("other_silicon", f"{baseline.device_class} and {candidate.device_class}")
    elif baseline.device_class != candidate.device_class:
        yield Obstacle("other_silicon", f"{baseline.device_class} and {candidate.device_class}")
    elif baseline.device_id != candidate.device_id:
        yield Obstacle("unknown_silicon", baseline.device_class)


def _caveats(baseline: Measurement, candidate: Measurement, floors: Collection[NoiseFloor]) -> Iterator[Caveat]:
    different = [name for name in CONFIGURATION if getattr(baseline, name) != getattr(candidate, name)]
    if different:
        yield Caveat("other_configuration", ", ".join(different))
    engines = [f"{row.engine} {row.engine_version} {row.provider}".strip() for row in (baseline, candidate)]
    if engines[0] != engines[1]:
        yield Caveat("other_engine", f"{engines[0]} -> {engines[1]}")
    if baseline.network_id != candidate.network_id and baseline.model == candidate.model:
        yield Caveat("other_network", f"{baseline.artifact_sha256[:8]} -> {candidate.artifact_sha256[:8]}")
    if baseline.device_id != candidate.device_id:
        yield Caveat("other_unit", f"{baseline.device_id} -> {candidate.device_id}")
    elif any(row.host is None or row.host.silicon is None for row in (baseline, candidate)):
        yield Caveat("silicon_not_told")
    if {floor.device_id for floor in floors}.isdisjoint((baseline.device_id, candidate.device_id)):
        yield Caveat("no_noise_floor", candidate.device)


_CAVEATS: dict[CaveatCode, str] = {
    "other_engine": "another engine",
    "other_network": "another network of this model (artifacts)",
    "other_unit": "two units",
    "other_configuration": "rows of two configurations, which differ in",
    "silicon_not_told": "a row does not tell its silicon",
    "no_noise_floor": "no noise floor was measured (edgevit devices noise): 1% is assumed on",
}


def describe_caveat(caveat: Caveat) -> str:
    """Return a caveat in words."""
    return f"{_CAVEATS[caveat.code]} {caveat.detail}".strip()
