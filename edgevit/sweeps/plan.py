"""The plan of a sweep: which artifacts it needs, which are there already, and which measurements the database lacks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from edgevit import __version__
from edgevit.artifacts.folder import folder_name, open_artifact
from edgevit.artifacts.trust import require_built_here
from edgevit.cards import load_cards
from edgevit.errors import OWN_MODEL, ArtifactError, UnknownNameError, UsageError
from edgevit.exporting.child_process import export_separately
from edgevit.measurement.runner import Protocol
from edgevit.measurement.summary import FEW_PROCESSES as CUT_SHORT
from edgevit.measurement.summary import PROTOCOL_PROCESSES
from edgevit.recipes import engine_of, load_recipe, require_torch, toolchain
from edgevit.records.artifact import Artifact, ExportRequest, SampleRequest
from edgevit.records.measurement import PROTOCOL_VERSION, SUMMARY_ONLY, Device, Measurement
from edgevit.store import LatencyDB

_LOG = logging.getLogger(__name__)

if TYPE_CHECKING:
    from edgevit.models.source import Subject


def artifact_folder(request: ExportRequest) -> Path:
    """Return where the artifact of a request is, or will be."""
    return request.out / folder_name(request.model, request.target, request.precision)


def plan(
    models: Sequence[str],
    targets: Sequence[str],
    precisions: Sequence[str],
    seed: int,
    input_size: tuple[int, int] | None,
    out: Path,
    input_range: tuple[float, float] | None = None,
) -> list[ExportRequest]:
    """Return a request for every model in every target in each of these precisions that the target has.

    input_range: that of the inputs on which every artifact is verified.
    Raises UnknownNameError for a name or pattern that means nothing, UsageError where no combination is left,
    TargetUnavailableError for a target whose tools are missing.
    """
    names = [name for pattern in models for name in _expand(pattern)]
    recipes = [load_recipe(target).RECIPE for target in targets]
    for recipe in recipes:
        toolchain(recipe)
    requests = [
        ExportRequest(
            recipe.target,
            out,
            precision,
            name,
            seed=seed,
            input_size=input_size,
            samples=SampleRequest(input_range),
        )
        for name in dict.fromkeys(names)
        for recipe in recipes
        for precision in precisions
        if precision in recipe.precisions
    ]
    if not requests:
        offered = "; ".join(f"{recipe.target}: {', '.join(recipe.precisions)}" for recipe in recipes)
        raise UsageError(f"no target has the precision {', '.join(precisions)}", why=offered)
    return requests


def _expand(pattern: str) -> list[str]:
    if ".py:" in pattern:
        return [pattern]
    cards = load_cards()
    names = [name for name in cards if fnmatchcase(name, pattern)]
    if not names:
        raise UnknownNameError("model", pattern, cards, listing="edgevit models", or_else=OWN_MODEL)
    return names


def artifact_for(request: ExportRequest, db: str | None = None) -> Artifact:
    """Return the artifact, from its folder if it is just the one that would be made now, else exported anew.

    Raises what an export raises.
    """
    try:
        artifact = open_artifact(artifact_folder(request))
        require_built_here(artifact, load_recipe(request.target).RECIPE, built_here([artifact], db))
    except ArtifactError:  # not there, damaged, or from elsewhere: make it
        artifact = None
    if artifact is not None and _is_current(artifact, request):
        _LOG.debug("cache hit: %s is in %s", request.label, artifact.folder)
        return artifact
    _LOG.info("exporting %s", request.label)
    exported = _export(request)
    record_built(exported, db)
    return exported


def record_built(artifact: Artifact, db: str | None = None) -> None:
    """Record an artifact that holds code as built here."""
    if load_recipe(artifact.target).RECIPE.executes_code:
        with LatencyDB.open(db) as database:
            database.record_built(artifact)


def built_here(artifacts: Sequence[Artifact], db: str | None = None, *, trust: bool = False) -> frozenset[str]:
    """Return the digests of these artifacts that may run their own code: built here, or trusted."""
    with_code = frozenset(
        artifact.sha256 for artifact in artifacts if load_recipe(artifact.target).RECIPE.executes_code
    )
    if trust or not with_code:
        return with_code
    with LatencyDB.open(db) as database:
        return with_code & database.built()


def held_artifact(request: ExportRequest) -> Artifact | None:
    """Return the artifact in the request's folder if it is current, as far as that shows without torch."""
    try:
        artifact = open_artifact(artifact_folder(request))
    except ArtifactError:
        return None
    own_file = request.model not in load_cards()
    return artifact if (own_file and _in_range(artifact, request)) or _is_current(artifact, request) else None


def _in_range(artifact: Artifact, request: ExportRequest) -> bool:
    """Return whether an artifact was verified in the range that the request names, if it names one."""
    return request.samples.value_range in (None, artifact.input_range)


def _is_current(artifact: Artifact, request: ExportRequest) -> bool:
    """Return whether an export now would make just this artifact: same weights, size, form and tools."""
    same_tools = artifact.toolchain == {"edgevit": __version__, **toolchain(load_recipe(request.target).RECIPE)}
    good = artifact.parity is not None and artifact.parity.status != "failed"
    as_asked = artifact.folded and not artifact.dynamic_batch and not artifact.options
    if not (same_tools and good and as_asked and _in_range(artifact, request)):
        return False
    card = load_cards().get(request.model)
    if card is None:  # a person's own file may have changed: only the weights it makes now can tell
        return _subject(request).source == artifact.source
    size = request.input_size or card.inputs[0].shape[-2:]
    same_source = (artifact.source.weights, artifact.source.seed) == ("random", request.seed)
    shape = artifact.inputs[0].shape
    return same_source and shape[0] == 1 and shape[-2:] == size


def _export(request: ExportRequest) -> Artifact:
    """Export in a process of its own, so that a converter that crashes costs one row of the sweep."""
    require_torch()
    return export_separately(request)


def _subject(request: ExportRequest) -> Subject:
    # torch comes in here and not at the top: a sweep whose artifacts are all there never needs it.
    require_torch()
    from edgevit.models.source import load_subject

    return load_subject(request.model, seed=request.seed, input_size=request.input_size)


def still_to_measure(
    artifacts: Sequence[Artifact],
    device: Device,
    threads: int,
    db: str | None,
    protocol: Protocol,
    *,
    engines: Mapping[str, str] | None = None,
) -> list[Artifact]:
    """Return artifacts without a row of this device, thread count, batch, rate, engine version and protocol.

    `engines` are the device's, distribution -> version; None: those of this machine. A row of a quick look does not
    stand in for the whole protocol, one without the percentile's bound not for one that was asked for it, unless the
    program that measured it tells no bound at all. A throttled row says that the device was hot, and is tried again.
    """
    with LatencyDB.open(db) as database:
        rows = database.measurements(device=device.device_id, threads=threads)
    standing = [row for row in rows if _stands_for(row, protocol)]
    return [artifact for artifact in artifacts if not any(_is_of(row, artifact, engines) for row in standing)]


def _stands_for(row: Measurement, protocol: Protocol) -> bool:
    key = (PROTOCOL_VERSION, protocol.batch, protocol.rate_hz)
    if (row.protocol_version, row.batch, row.rate_hz) != key or row.status == "throttled":
        return False
    bound = "p50_ns" if protocol.percentile is None else f"p{protocol.percentile}_upper_ns"
    whole = CUT_SHORT not in row.flags or protocol.processes < PROTOCOL_PROCESSES
    tells = getattr(row, bound) is not None or SUMMARY_ONLY in row.flags
    return row.status != "ok" or (whole and tells)


def _is_of(row: Measurement, artifact: Artifact, engines: Mapping[str, str] | None) -> bool:
    """Return whether a row is of this artifact. Engines add a build to their distribution's version: 2026.4.1-22982."""
    version = _engine_version(artifact, engines)
    same_engine = row.engine_version == version or row.engine_version.startswith((f"{version}-", f"{version}+"))
    return row.artifact_sha256 == artifact.sha256 and same_engine


def _engine_version(artifact: Artifact, engines: Mapping[str, str] | None) -> str:
    recipe = load_recipe(artifact.target).RECIPE
    if engines is not None:
        names = (recipe.engine, *recipe.engine_choices, recipe.native)
        return next((engines[name] for name in names if name in engines), "")
    return toolchain(recipe).get(engine_of(recipe), "")
