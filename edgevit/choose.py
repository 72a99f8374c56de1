"""choose: the most accurate model that fits a budget on a device, and why each other candidate was not it.

Rows are claims about candidates. First it is settled which row speaks for a candidate (`_overruled`), then each one
that is left is held against the budget (`_verdict`), and those that fit are ranked (`_rank`). Nothing depends on the
order of the rows. What is held against a latency budget is never the percentile itself but its upper bound: choosing by
the median breaks a p90 budget in 46% of requests, and a p99 budget in 79% (84 models, 14 systems of MLPerf). Latencies
that differ by less than the device's noise floor rank alike, and the smaller artifact is the better one.

Rows that others published have no bounds and no proof of what ran. They are left out unless they are asked for; then
the percentile that the source tells is held against the budget, and the candidate says that it was published.
Models that were reconstructed from a paper are left out unless they are asked for, too: nobody published weights of
them, and that ours would reach the paper's accuracy is not known. What was measured of them on a data set counts.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

from edgevit.compare import resolution
from edgevit.errors import UnknownNameError, UsageError
from edgevit.ratings import TOP1, Ratings, Top1
from edgevit.types import (
    DIGEST,
    EMULATED,
    IMAGENET,
    MEAN_ONLY,
    NOT_AS_VERIFIED,
    PROTOCOL_VERSION,
    PROVEN,
    SUMMARY_ONLY,
    Budget,
    Candidate,
    Choice,
    Measurement,
    ModelCard,
    NoiseFloor,
    Rejection,
)

if TYPE_CHECKING:
    from edgevit.store import LatencyDB

_BOUNDS = {  # percentile -> (its column, the column of what it is at most)
    50: ("p50_ns", "p50_high_ns"),
    90: ("p90_ns", "p90_upper_ns"),
    99: ("p99_ns", "p99_upper_ns"),
}
Verdict = tuple[str, float | None, Literal["budget", "unusable", "not_asked", "superseded"]]  # of a Rejection
_NEAREST = 3
_NO_WEIGHTS = "not asked for: reconstructed from its paper, and nobody published weights"
_UNITS_MS = {"": 1.0, "ns": 1e-6, "us": 1e-3, "µs": 1e-3, "μs": 1e-3, "ms": 1.0, "s": 1e3}  # micro has two code points


def parse_latency(text: str) -> float:
    """A latency as people write it, in milliseconds: "25ms", "25 ms", "0.025s", "25000us", or "25", which means ms.

    Raises UsageError for anything that is not a positive, finite latency.
    """
    match = re.fullmatch(
        r"\s*([0-9]*\.?[0-9]+(?:e[+-]?[0-9]+)?)\s*(ns|us|µs|μs|ms|s|)\s*", text, re.ASCII | re.IGNORECASE
    )
    latency_ms = float(match[1]) * _UNITS_MS[match[2].lower()] if match else math.nan
    if not 0 < latency_ms < math.inf:
        why = "a latency is a positive number with the unit ns, us, ms or s; without a unit it is ms"
        raise UsageError(f"{text!r} is not a latency", why=why, fix="write for example 25ms, 0.025s or 25000us")
    return latency_ms


class Wanted(NamedTuple):
    """Which candidates are in question; None: all of them."""

    targets: Collection[str] | None = None
    precisions: Collection[str] | None = None
    threads: int | None = None
    published: bool = False  # rows that others published, too
    reconstructed: bool = False  # accuracies of papers that published no weights, too


EVERYTHING = Wanted()


PUBLISHED = Ratings()


def choose(
    db: LatencyDB,
    device: str,
    budget: Budget,
    *,
    cards: Mapping[str, ModelCard],
    targets: Collection[str] | None = None,
    precisions: Collection[str] | None = None,
    threads: int | None = None,
    published: bool = False,
    reconstructed: bool = False,
    dataset: str | None = None,
) -> Choice:
    """The answer for a device (its name, device_id or device_class) from the rows of a database.

    `published`: rows that others published count, too. `reconstructed`: models whose accuracy is a paper's that
    published no weights, too. `dataset`: by what was measured on it, as far as it was (see edgevit.ratings); None: by
    published accuracies.

    Raises UsageError for a budget that makes no sense, UnknownNameError for a device with no rows at all, StoreError.
    """
    check_budget(budget)
    rows = db.measurements(device=device)
    if not rows:
        known = {name for unit in db.devices() for name in (unit.name, unit.device_id, unit.device_class)}
        listing = f"measure it: edgevit sweep --device {device}"
        raise UnknownNameError("measured device", device, known or ["none yet"], listing=listing)
    wanted = Wanted(targets, precisions, threads, published, reconstructed)
    ratings = Ratings.of(db.accuracies(metric=TOP1), dataset)
    floors = noise_floors(db, rows)
    return choose_among(rows, device, budget, cards=cards, wanted=wanted, floors=floors, ratings=ratings)


def noise_floors(db: LatencyDB, rows: Iterable[Measurement]) -> list[NoiseFloor]:
    """Of the rows' devices, as far as they were measured. Raises StoreError."""
    return [floor for unit in sorted({row.device_id for row in rows}) if (floor := db.noise(unit)) is not None]


def check_budget(budget: Budget) -> None:
    """Raise UsageError for a percentile without bounds, and for limits that are not positive and finite."""
    if budget.percentile not in _BOUNDS:
        why = f"bounds are kept for {', '.join(f'p{known}' for known in _BOUNDS)}"
        raise UsageError(f"no budget can be set on p{budget.percentile}", why=why, fix="ask for 50, 90 or 99")
    for name in ("max_latency_ms", "min_top1_percent", "max_size_mb"):
        limit = getattr(budget, name)
        if limit is not None and not 0 < limit < math.inf:
            raise UsageError(
                f"{name} is {limit}", why="a limit is positive and finite", fix="leave it out for no limit"
            )


def choose_among(
    rows: Sequence[Measurement],
    device: str,
    budget: Budget,
    *,
    cards: Mapping[str, ModelCard],
    wanted: Wanted = EVERYTHING,
    floors: Collection[NoiseFloor] = (),
    ratings: Ratings = PUBLISHED,
) -> Choice:
    """The answer from these rows. Every row is in it once: `fitting` (best first, the pick leads) or `rejected`.

    `floors` are the noise floors of the rows' devices, `ratings` the accuracies to choose by.
    """
    floor = resolution(floors)
    overruled = _overruled([row for row in rows if EMULATED not in row.flags], budget.percentile)
    newest = _newest_engines(rows)
    fitting: list[Candidate] = []
    rejected: list[Rejection] = []
    for row in rows:
        candidate = _candidate(row, ratings.top1(row, cards.get(row.model)), budget.percentile, newest)
        verdict = _hindrance(row, candidate, wanted, overruled) or _verdict(candidate, budget)
        if verdict is None:
            fitting.append(candidate)
        else:
            rejected.append(Rejection(candidate, *verdict))
    fitting = _ranked(fitting, floor[0])
    rejected.sort(key=lambda rejection: _rank(rejection.candidate))
    picked = fitting[0] if fitting else None
    counted = [row for row in rows if wanted.published or row.provenance != "published"]
    return Choice(
        device=device,
        budget=budget,
        picked=picked,
        fitting=tuple(fitting),
        rejected=tuple(rejected),
        nearest_misses=() if picked else _nearest(rejected),
        unmeasured=tuple(sorted(set(cards) - {row.model for row in counted})),
        notes=(
            *_notes(counted, device, picked, newest),
            *_near(fitting, budget, floor),
            *ratings.notes(counted, [*fitting, *(item.candidate for item in rejected)], picked),
            *_left_out(rows, counted, rejected),
        ),
        dataset=ratings.dataset or IMAGENET,
    )


# Which row speaks for a candidate


def _overruled(rows: Iterable[Measurement], percentile: int) -> dict[str, str]:
    """measurement_id -> why another row speaks for its candidate."""
    reasons: dict[str, str] = {}
    for group in _groups(sorted(rows, key=_age, reverse=True), _configuration):
        for unit in _groups(group, lambda row: row.device_id):
            reasons |= _by_newer_row(unit)
            reasons |= _by_newer_engine([row for row in unit if row.measurement_id not in reasons])
        reasons |= _by_slower_unit([row for row in group if row.measurement_id not in reasons], percentile)
    return reasons


def _by_newer_row(newest_first: Iterable[Measurement]) -> dict[str, str]:
    reasons: dict[str, str] = {}
    speaking: list[Measurement] = []
    for row in newest_first:
        # A throttled run says that the device was hot, not that an earlier number was wrong.
        rivals = (new for new in speaking if not (new.status == "throttled" and row.status == "ok"))
        newer = next((new for new in rivals if _same_engine(new, row) and _alike(new, row)), None)
        if newer is None:
            speaking.append(row)
        else:
            reasons[row.measurement_id] = f"superseded by the row of {newer.started}"
    return reasons


def _by_newer_engine(rows: Iterable[Measurement]) -> dict[str, str]:
    reasons: dict[str, str] = {}
    for group in _groups((row for row in rows if row.engine_version), _variant):
        latest = _latest(row for row in group if row.status != "throttled")
        for row in group:
            if _is_older(row.engine_version, latest):
                reasons[row.measurement_id] = f"older engine: {row.engine} {row.engine_version}, superseded by {latest}"
    return reasons


def _by_slower_unit(rows: Collection[Measurement], percentile: int) -> dict[str, str]:
    """Of a device class the slowest unit counts: what fits must fit wherever it was measured."""
    reasons: dict[str, str] = {}
    for row in rows:
        for other in rows:
            decides = other.device_id != row.device_id and (other.status != "throttled" or row.status == "throttled")
            if decides and _slowness(other, percentile) > _slowness(row, percentile) and _alike(other, row):
                reasons[row.measurement_id] = f"superseded by the slower unit {other.device_id}"
    return reasons


def _slowness(row: Measurement, percentile: int) -> tuple[float, str]:
    told, bound = (getattr(row, column) if row.status == "ok" else None for column in _BOUNDS[percentile])
    bound = told if row.provenance == "published" and bound is None else bound
    return (math.inf if bound is None else bound, row.measurement_id)


def _configuration(row: Measurement) -> Hashable:
    """What a user asks about, and what is known of a run even if it crashed at once."""
    asked = (row.model, row.target, row.precision, row.threads, row.batch, row.compute_unit)
    return (*asked, row.rate_hz, row.provenance, row.protocol_version)


def _variant(row: Measurement) -> tuple[object, ...]:
    return (row.engine, row.provider, tuple(spec.shape for spec in row.inputs))


def _same_engine(one: Measurement, other: Measurement) -> bool:
    return one.engine_version == other.engine_version or not one.engine_version or not other.engine_version


def _alike(one: Measurement, other: Measurement) -> bool:
    """Whether two rows of a configuration ran the same thing. What a crashed run does not know of itself fits all."""
    return all(a == b or not a or not b for a, b in zip(_variant(one), _variant(other), strict=True))


def _groups(rows: Iterable[Measurement], key: Callable[[Measurement], Hashable]) -> list[list[Measurement]]:
    groups: dict[Hashable, list[Measurement]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.values())


def _age(row: Measurement) -> tuple[datetime, str]:
    return (datetime.fromisoformat(row.started), row.measurement_id)


@functools.lru_cache(maxsize=256)
def _version(text: str) -> tuple[tuple[int, int, str], ...]:
    """A key that sorts versions: 1.9 < 1.10, and 1.10rc1 < 1.10 because letters come before the end."""
    parts = re.findall(r"[0-9]+|[a-z]+", text.lower())
    return (*((2, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts), (1, 0, ""))


def _is_digest(version: str) -> bool:
    """Whether a version is the digest of a program that does not tell its own: such have no order but that of time."""
    return version.startswith(DIGEST)


def _is_older(version: str, latest: str) -> bool:
    if _is_digest(version) or _is_digest(latest):
        return bool(version and latest) and version != latest
    return _version(version) < _version(latest)


def _latest(rows: Iterable[Measurement]) -> str:
    """The newest engine version of these rows; of digests the one that was measured last."""
    versioned = [row for row in rows if row.engine_version]
    if any(_is_digest(row.engine_version) for row in versioned):
        return max(versioned, key=_age).engine_version
    return max((row.engine_version for row in versioned), key=_version_order, default="")


def _version_order(text: str) -> tuple[tuple[tuple[int, int, str], ...], str]:
    """The same, with an order between two spellings of one version: no answer depends on which came first."""
    return (_version(text), text)


def _newest_engines(rows: Iterable[Measurement]) -> dict[Hashable, str]:
    """(device_id, target, engine) -> the newest version seen there."""
    places = _groups(rows, lambda row: (row.device_id, row.target, row.engine))
    return {(group[0].device_id, group[0].target, group[0].engine): _latest(group) for group in places}


# Whether a candidate fits


def _candidate(row: Measurement, top1: Top1, percentile: int, newest: Mapping[Hashable, str]) -> Candidate:
    flags = dict.fromkeys((*row.flags, *top1.flags))  # a set that keeps its order
    if row.engine_version and _is_older(row.engine_version, newest[row.device_id, row.target, row.engine]):
        flags["older engine"] = None
    latency_ns, upper_ns = (getattr(row, column) for column in _BOUNDS[percentile])
    return Candidate(
        model=row.model,
        target=row.target,
        precision=row.precision,
        threads=row.threads,
        engine_version=row.engine_version,
        top1_percent=top1.percent,
        top1_provenance=top1.provenance,
        top1_error_percent=top1.error_percent,
        latency_ms=None if latency_ns is None else latency_ns / 1e6,
        latency_upper_ms=None if upper_ns is None else upper_ns / 1e6,
        latency_provenance=row.provenance,
        size_mb=row.artifact_bytes / 1e6 if row.artifact_bytes else None,
        parity_status=row.parity_status,
        grade=row.grade,
        measured=row.started,
        measurement_id=row.measurement_id,
        flags=tuple(flags),
    )


def _hindrance(row: Measurement, candidate: Candidate, wanted: Wanted, overruled: Mapping[str, str]) -> Verdict | None:
    """Why a row is not even held against the budget."""
    if unwanted := _unwanted(row, wanted) or _unproven(candidate, wanted):
        return unwanted, None, "not_asked"
    if superseded := overruled.get(row.measurement_id):
        return superseded, None, "superseded"
    if unusable := _unusable(row):
        return unusable, None, "unusable"
    return None


def _unwanted(row: Measurement, wanted: Wanted) -> str:
    if row.provenance == "published" and not wanted.published:
        return f"not asked for: published by {row.source}"
    if row.rate_hz is not None:
        return f"not asked for: at {row.rate_hz:g} frames a second, which is no measure of run after run"
    if wanted.targets is not None and row.target not in wanted.targets:
        return f"not asked for: target {row.target}"
    if wanted.precisions is not None and row.precision not in wanted.precisions:
        return f"not asked for: precision {row.precision}"
    if wanted.threads is not None and row.threads != wanted.threads:
        return f"not asked for: {row.threads} threads"
    return ""


def _unproven(candidate: Candidate, wanted: Wanted) -> str:
    if candidate.top1_provenance != "reconstructed" or wanted.reconstructed:
        return ""
    return _NO_WEIGHTS


def _unusable(row: Measurement) -> str:
    """Why a row can meet no budget at all."""
    error = f": {row.error.splitlines()[0]}" if row.error.strip() else ""
    if row.status == "throttled":
        return f"not measured: the device was throttled{error}"
    if row.status != "ok":
        return f"cannot run here: {row.status}{error}"
    if row.provenance == "measured" and row.protocol_version != PROTOCOL_VERSION:
        return f"measured by protocol {row.protocol_version}, not {PROTOCOL_VERSION}: measure again"
    if EMULATED in row.flags:
        return "measured under emulation, which says nothing of a real device"
    if NOT_AS_VERIFIED in row.flags:
        return f"{row.engine} computed with other weights or in another arithmetic than what was verified"
    if row.batch != 1:
        return f"measured in batches of {row.batch}; a budget is for one input"
    if row.provenance != "published" and row.parity_status not in PROVEN:
        return f"parity {row.parity_status or 'unknown'}: the artifact is not proven to compute the model"
    return ""


def _verdict(candidate: Candidate, budget: Budget) -> Verdict | None:
    """None if the candidate fits, else why not and the largest share by which it breaks a limit (None: a gap)."""
    broken = [*_latency(candidate, budget), *_size(candidate, budget), *_accuracy(candidate, budget)]
    if not broken:
        return None
    shares = [share for _, share in broken if share is not None]
    return "; ".join(reason for reason, _ in broken), max(shares) if len(shares) == len(broken) else None, "budget"


def _latency(candidate: Candidate, budget: Budget) -> Iterable[tuple[str, float | None]]:
    limit, held, name = budget.max_latency_ms, _held(candidate), f"p{budget.percentile}"
    if limit is None:
        return
    if held is None:
        yield _no_bound(candidate, name), None
    elif held > limit:
        is_ = "is" if candidate.latency_upper_ms is None else "is up to"
        yield f"{name} {is_} {held:.6g} ms, above {limit:.6g} ms", held / limit - 1


def _held(candidate: Candidate) -> float | None:
    """What is held against a latency budget, in ms: the bound, or of a published row what its source tells."""
    published = candidate.latency_provenance == "published" and candidate.latency_upper_ms is None
    return candidate.latency_ms if published else candidate.latency_upper_ms


def _no_bound(candidate: Candidate, name: str) -> str:
    if candidate.latency_provenance == "published":
        return f"its source tells no {name}"
    if candidate.latency_provenance != "measured":
        return f"no bound on {name} is known"
    if MEAN_ONLY in candidate.flags:
        return f"the row tells a mean and no {name}: the program that measured it keeps its samples"
    if SUMMARY_ONLY in candidate.flags:
        return f"the row tells no bound on {name}: the program that measured it keeps its samples"
    return f"too few runs for a bound on {name}"


def _size(candidate: Candidate, budget: Budget) -> Iterable[tuple[str, float | None]]:
    limit, size = budget.max_size_mb, candidate.size_mb
    if limit is None:
        return
    if size is None:
        yield "size unknown", None
    elif size > limit:
        yield f"size is {size:.6g} MB, above {limit:.6g} MB", size / limit - 1


def _accuracy(candidate: Candidate, budget: Budget) -> Iterable[tuple[str, float | None]]:
    limit, top1 = budget.min_top1_percent, candidate.top1_percent
    if limit is None:
        return
    if top1 is None:
        yield "accuracy unknown", None
    elif top1 < limit:
        yield f"top-1 is {top1:.6g}%, below {limit:.6g}%", 1 - top1 / limit


def _rank(candidate: Candidate) -> tuple[float | str, ...]:
    """Most accurate first (unknown last), then lower latency, then smaller, then by name."""
    top1, upper, size = candidate.top1_percent, _held(candidate), candidate.size_mb
    name = (candidate.model, candidate.target, candidate.precision, candidate.threads, candidate.measurement_id)
    worst = (math.inf if upper is None else upper, math.inf if size is None else size)
    return (math.inf if top1 is None else -top1, *worst, *name)


def _ranked(fitting: Iterable[Candidate], floor: float) -> list[Candidate]:
    """Best first. Of equally accurate ones all that the device cannot tell from the fastest come first, smallest first;
    then, of those that are left, the same again. Tiers and no pairwise ties: those would lead round in circles.
    """
    left, ranked = sorted(fitting, key=_rank), list[Candidate]()
    while left:
        alike = sum(_alike_in_rank(left[0], other, floor) for other in left)  # the first ones, as they are sorted
        ranked += sorted(left[:alike], key=_rank_of_alike)
        left = left[alike:]
    return ranked


def _alike_in_rank(best: Candidate, other: Candidate, floor: float) -> bool:
    fastest, upper = _held(best), _held(other)
    as_fast = upper == fastest if upper is None or fastest is None else upper <= (1 + floor) * fastest
    return as_fast and best.top1_percent == other.top1_percent


def _rank_of_alike(candidate: Candidate) -> tuple[float | str, ...]:
    return (math.inf if candidate.size_mb is None else candidate.size_mb, *_rank(candidate))


def _near(fitting: Sequence[Candidate], budget: Budget, floor: tuple[float, str]) -> Iterable[str]:
    """What the device's noise leaves open about the pick, the first of these."""
    if not fitting or fitting[0].latency_upper_ms is None:  # of a published row it is not known
        return
    picked, says = fitting[0], f"{floor[0]:.1%} ({floor[1]})"
    fastest = min(fitting, key=_rank)
    if fastest != picked:
        name = f"{fastest.model} {fastest.target} {fastest.precision}"
        yield f"{name} is faster by less than {says}: the smaller one is picked"
    if budget.max_latency_ms is not None and fitting[0].latency_upper_ms * (1 + floor[0]) > budget.max_latency_ms:
        yield f"the pick is nearer to the limit than {says}, so another measurement may break it"


def _nearest(rejected: Iterable[Rejection]) -> tuple[Rejection, ...]:
    misses = [(rejection.excess, _rank(rejection.candidate), rejection) for rejection in rejected]
    found = sorted((excess, rank, miss) for excess, rank, miss in misses if excess is not None)
    return tuple(miss for _, _, miss in found[:_NEAREST])


def _left_out(
    rows: Sequence[Measurement], counted: Sequence[Measurement], rejected: Sequence[Rejection]
) -> Iterable[str]:
    if left := len(rows) - len(counted):
        yield f"{left} published row(s) left out: others measured those, and --published takes them in"
    if models := sorted({item.candidate.model for item in rejected if item.reason == _NO_WEIGHTS}):
        yield (
            f"left out: {', '.join(models)}, reconstructed from papers that published no weights; "
            "--reconstructed takes them in by the papers' accuracies"
        )


def _notes(
    rows: Sequence[Measurement], device: str, picked: Candidate | None, newest: Mapping[Hashable, str]
) -> Iterable[str]:
    units = {row.device_id for row in rows}
    if len(units) > 1:
        yield f"{len(units)} units answer to {device!r}; for each candidate the slowest one counts"
    if picked and "older engine" in picked.flags:
        row = next(row for row in rows if row.measurement_id == picked.measurement_id)
        latest = newest[row.device_id, row.target, row.engine]
        yield f"the pick was measured with {row.engine} {row.engine_version}; {latest} is on the device: measure again"
    if picked and picked.parity_status == "evaluated":
        yield f"{picked.target}'s own engine has not been compared: the pick's file was evaluated instead"
    if not any(row.status == "ok" for row in rows):
        yield f"no run on {device!r} succeeded yet"
