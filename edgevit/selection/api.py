"""`edgevit.choose(...)`, and the question behind it, from Python and from the command line alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple, overload

from edgevit.cards import load_cards
from edgevit.devices.registry import LOCAL, list_devices, local_device
from edgevit.errors import OWN_MODEL, UnknownNameError, UsageError
from edgevit.recipes import load_recipe
from edgevit.records.choice import Budget, Candidate, Choice, JointChoice, Note, Objective
from edgevit.records.model import CLASSIFY, ModelCard
from edgevit.records.origin import OriginPolicy
from edgevit.selection.candidates import EVERYTHING, CandidateFilter
from edgevit.selection.joint import choose_jointly
from edgevit.selection.limits import check_budget, check_confidence, parse_latency
from edgevit.selection.query import USUAL, PredictionOptions, ask
from edgevit.selection.wording import note
from edgevit_runtime import environment

if TYPE_CHECKING:
    from edgevit.store import DeviceSummary, LatencyDB


class Question(NamedTuple):
    """A question to the database: devices, a budget, the candidates in question, and the options of predictions."""

    devices: tuple[str, ...]
    budget: Budget
    candidate_filter: CandidateFilter = EVERYTHING
    prediction: PredictionOptions = USUAL
    dataset: str | None = None
    origin: OriginPolicy = "trusted"


@overload
def choose(
    device: str = ...,
    *,
    max_latency: str | float | None = ...,
    percentile: int = ...,
    min_top1: float | None = ...,
    max_size_mb: float | None = ...,
    max_memory_mb: float | None = ...,
    max_energy_mj: float | None = ...,
    objective: Objective = ...,
    models: str | Collection[str] | None = ...,
    task: str = ...,
    target: str | Collection[str] | None = ...,
    precision: str | Collection[str] | None = ...,
    engine: str | Collection[str] | None = ...,
    threads: int | None = ...,
    licence: str | Collection[str] | None = ...,
    published: bool = ...,
    reconstructed: bool = ...,
    outdated: bool = ...,
    allow_unevaluated: bool = ...,
    origin: OriginPolicy = ...,
    predict: bool = ...,
    confidence: float = ...,
    dataset: str | None = ...,
    db: str | LatencyDB | None = ...,
) -> Choice: ...
@overload
def choose(
    device: list[str] | tuple[str, ...],
    *,
    max_latency: str | float | None = ...,
    percentile: int = ...,
    min_top1: float | None = ...,
    max_size_mb: float | None = ...,
    max_memory_mb: float | None = ...,
    max_energy_mj: float | None = ...,
    objective: Objective = ...,
    models: str | Collection[str] | None = ...,
    task: str = ...,
    target: str | Collection[str] | None = ...,
    precision: str | Collection[str] | None = ...,
    engine: str | Collection[str] | None = ...,
    threads: int | None = ...,
    licence: str | Collection[str] | None = ...,
    published: bool = ...,
    reconstructed: bool = ...,
    outdated: bool = ...,
    allow_unevaluated: bool = ...,
    origin: OriginPolicy = ...,
    predict: bool = ...,
    confidence: float = ...,
    dataset: str | None = ...,
    db: str | LatencyDB | None = ...,
) -> JointChoice: ...
def choose(
    device: str | list[str] | tuple[str, ...] = LOCAL,
    *,
    max_latency: str | float | None = None,
    percentile: int = 90,
    min_top1: float | None = None,
    max_size_mb: float | None = None,
    max_memory_mb: float | None = None,
    max_energy_mj: float | None = None,
    objective: Objective = "accurate",
    models: str | Collection[str] | None = None,
    task: str = CLASSIFY,
    target: str | Collection[str] | None = None,
    precision: str | Collection[str] | None = None,
    engine: str | Collection[str] | None = None,
    threads: int | None = None,
    licence: str | Collection[str] | None = None,
    published: bool = False,
    reconstructed: bool = False,
    outdated: bool = False,
    allow_unevaluated: bool = False,
    origin: OriginPolicy = "trusted",
    predict: bool = True,
    confidence: float = 0.9,
    dataset: str | None = None,
    db: str | LatencyDB | None = None,
) -> Choice | JointChoice:
    """Choose the most accurate model whose latency fits, on a device or on each of several.

    The answer has the pick, all that fits, and the reasons against every other candidate. The pick is a choice only
    where `outcome` is "chosen":

        >>> import edgevit
        >>> answer = edgevit.choose("x86_64-zen5-avx512bf16-2c", max_latency="40fps", min_top1=70)
        >>> answer.outcome, answer.picked.model, answer.picked.latency_upper_ms
        >>> answer.to_frame()

    Parameters
    ----------
    device
        A name, device_id or device_class; `local` is this very machine. Several ask for one artifact for all of them.
    max_latency
        Latency budget, as "25ms", "40fps" or in milliseconds, compared with the upper bound at `percentile`.
    percentile
        Latency percentile of the budget, 1-99.
    min_top1
        Lowest top-1 accuracy in percent.
    max_size_mb
        Largest artifact, 10^6 bytes.
    max_memory_mb
        Highest memory of the process, 10^6 bytes.
    max_energy_mj
        Highest energy of a run in millijoules.
    objective
        Number by which candidates that fit rank: "accurate", "fastest" or "smallest".
    models
        Patterns of the names of models in question, one or several: "mobilevig_*", "mine.py:*".
    task
        Task of the models in question: "classify", a task that sources of published rows name, or "any". Measured
        models of unknown task are always in question.
    target, precision, engine, licence
        Names of the candidates in question, one or several; a target may be an alias.
    threads
        Thread count of the candidates in question.
    published
        Include rows that others published.
    reconstructed
        Include models rebuilt from papers that released no weights.
    outdated
        Include networks whose checkpoint or code was overwritten on this machine.
    allow_unevaluated
        Count networks in int8 that were not evaluated by a bound: the published accuracy, less what the images may cost
        that get another class in int8 than in float.
    origin
        Whose rows and accuracies decide: `own`, those of this installation alone; `trusted`, those of trusted sources
        too (`edgevit db sources`); `any`.
    predict
        Predict configurations that were not measured.
    confidence
        Confidence of predicted upper bounds.
    dataset
        Data set of measured accuracies; without one they are published ones, of ImageNet.
    db
        A LatencyDB, the path of an SQLite file, or a URL; default: EDGEVIT_DB, else the user's own.

    Raises
    ------
    UsageError
        For a question that makes no sense; its subclass UnknownNameError for a device without rows, and for a pattern
        that no model has.
    StoreError
        For a database that cannot be read.
    """
    from edgevit.store import LatencyDB

    latency_ms = parse_latency(max_latency) if isinstance(max_latency, str) else max_latency
    candidate_filter = CandidateFilter(
        targets=targets_named(_several(target)),
        precisions=_several(precision),
        threads=threads,
        published=published,
        engines=_several(engine),
        licences=_several(licence),
        reconstructed=reconstructed,
        models=_several(models),
        task=task,
        outdated=outdated,
        unevaluated=allow_unevaluated,
    )
    question = Question(
        (device,) if isinstance(device, str) else tuple(device),
        Budget(latency_ms, percentile, min_top1, max_size_mb, max_memory_mb, max_energy_mj, objective),
        candidate_filter,
        PredictionOptions(predict, confidence),
        dataset,
        origin,
    )
    with nullcontext(db) if isinstance(db, LatencyDB) else LatencyDB.open(db, create_file=False) as database:
        choices = answers(database, question)
    return choices[0] if isinstance(device, str) else choose_jointly(choices)


def answers(db: LatencyDB, question: Question) -> list[Choice]:
    """Answer a question for each of its devices, each device once.

    Raises UsageError for a question that makes no sense, UnknownNameError for a device without rows, StoreError.
    """
    check_budget(question.budget)
    check_confidence(question.prediction.confidence)
    if not question.devices:
        raise UsageError("no device named", fix="name one of edgevit devices")
    cards = load_cards()
    _check_models(db, question.candidate_filter.models, cards)
    choices = []
    deciding = db.trusting(question.origin)
    for name in dict.fromkeys(question.devices):
        choice = ask(
            deciding,
            unit_or_class(name),
            question.budget,
            cards=cards,
            candidate_filter=question.candidate_filter,
            prediction=question.prediction,
            dataset=question.dataset,
            label=name,
        )
        notes = (*_owner_note(deciding, name), *_origin_notes(db, deciding, name, choice.picked), *choice.notes)
        if question.origin == "any":
            notes = (*_noise_notes(db, deciding, name), *notes)
        choices.append(dataclasses.replace(choice, notes=notes))
    return choices


def _check_models(db: LatencyDB, patterns: Collection[str] | None, cards: Mapping[str, ModelCard]) -> None:
    """Raise UnknownNameError for a pattern that no model of the zoo and none with a row has."""
    names = {*cards, *db.models()} if patterns else set()
    for pattern in patterns or ():
        if not any(map(CandidateFilter(models=(pattern,)).names, names)):
            raise UnknownNameError("model", pattern, names, listing="edgevit db show", or_else=OWN_MODEL)


def unit_or_class(device: str) -> str:
    """Return the key to look up rows by: `local` is this very unit, not every machine that was called local."""
    return local_device().device_id if device == LOCAL else device


def targets_named(names: Sequence[str] | None) -> list[str] | None:
    """Return the targets of these names and aliases. Raises UnknownNameError."""
    return None if names is None else [load_recipe(name).RECIPE.target for name in names]


def _several(names: str | Collection[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    return (names,) if isinstance(names, str) else tuple(names)


def _owner_note(db: LatencyDB, name: str) -> Iterator[Note]:
    """Yield a note where no row is of this machine or of a device enrolled here: rows ship with edgevit, or merge."""
    key = unit_or_class(name)
    units = _units(db, key)
    if not {unit.device_id for unit in units} & {device.device_id for device in list_devices()}:
        yield note("not_your_device", *sorted({unit.device_class for unit in units}), numbers=(len(units),))
        yield from _silicon_note(db, key)


def _origin_notes(db: LatencyDB, deciding: LatencyDB, name: str, picked: Candidate | None) -> Iterator[Note]:
    """Yield the notes on rows that are left out because of their origin, and on a pick that is of such a row."""
    if left_out := deciding.left_out(unit_or_class(name)):
        yield note("imported_left_out", *sorted(left_out), numbers=(sum(left_out.values()),))
    untrusted = db.trusting("trusted").undecided()
    if picked and picked.measurement_id in untrusted:
        yield note("pick_imported", untrusted[picked.measurement_id])
    if picked and picked.top1_provenance == "measured" and untrusted:
        evaluated = picked.top1_artifact_sha256 or picked.artifact_sha256
        of_pick = deciding.accuracies(artifact_sha256=evaluated, provenance="measured")
        sources = [untrusted.get(one.accuracy_id, "") for one in of_pick if one.value == picked.top1_percent]
        if sources and all(sources):
            yield note("pick_accuracy_imported", sources[-1])


def _noise_notes(db: LatencyDB, deciding: LatencyDB, name: str) -> Iterator[Note]:
    """Yield a note for each unit of the device whose noise floor is of a source without trust.

    By a unit's floor latencies count as equal, and a device as changed.
    """
    from edgevit.store.small_tables import noise_id

    untrusted = db.trusting("trusted").undecided()
    for unit in sorted(_units(deciding, unit_or_class(name)), key=attrgetter("device_id")) if untrusted else ():
        floor = deciding.noise(unit.device_id)
        if floor and (source := untrusted.get(noise_id(floor))):
            yield note("noise_imported", floor.device, source, numbers=(floor.share,))


def _units(db: LatencyDB, key: str) -> set[DeviceSummary]:
    """Return the units with rows that have this name, device_id or device_class."""
    return {unit for unit in db.devices() if key in (unit.name, unit.device_id, unit.device_class)}


def _silicon_note(db: LatencyDB, key: str) -> Iterator[Note]:
    """Yield a note where the rows are of this machine's architecture, and of other instruction sets than it has."""
    here = environment.host()
    if here.silicon is None:
        return
    own = set(here.silicon.instruction_sets)
    for silicon, device_class in db.silicon(key).items():
        differing = own.symmetric_difference(silicon.instruction_sets)
        if device_class.startswith(f"{here.machine}-") and differing:
            signed = (f"{'+' if name in own else '-'}{name}" for name in sorted(differing))
            yield note("other_silicon", device_class, " ".join(signed))
