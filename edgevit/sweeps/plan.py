"""The plan of a sweep: which artifacts it needs, which are there already, and which measurements the database lacks."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from edgevit.artifacts.folder import folder_of, open_artifact
from edgevit.artifacts.trust import code_digests, require_built_here
from edgevit.cards import load_cards
from edgevit.errors import OWN_MODEL, ArtifactError, UnknownNameError, UsageError
from edgevit.exporting.child_process import export_separately
from edgevit.measurement.runner import Protocol
from edgevit.measurement.summary import FEW_PROCESSES as CUT_SHORT
from edgevit.measurement.summary import PROTOCOL_PROCESSES
from edgevit.recipes import engine_of, load_recipe, require_torch, toolchain
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit.records.measurement import PROTOCOL_VERSION, SUMMARY_ONLY, Device, Measurement
from edgevit.records.model_reference import ModelReference
from edgevit.store import LatencyDB, has_own_database
from edgevit.sweeps.freshness import failure_stands, is_current, is_current_so_far, lost_statements, lost_weights
from edgevit_runtime.record import Host

_LOG = logging.getLogger(__name__)


def artifact_folder(request: ExportRequest) -> Path:
    """Return where the artifact of a request is, or will be."""
    card = load_cards().get(request.model)
    return folder_of(request, card.inputs if card else ())


def plan(
    models: Sequence[str], targets: Sequence[str], precisions: Sequence[str], template: ExportRequest
) -> list[ExportRequest]:
    """Return a request for every model in every target in each of these precisions that the target has.

    template: everything else of the requests, such as the input size and the folder.
    Raises UnknownNameError for a name or pattern that means nothing, UsageError where no combination is left or one
    checkpoint would be of several models, TargetUnavailableError for a target whose tools are missing.
    """
    names = [name for pattern in models for name in _expand(pattern)]
    if template.weights is not None and len(set(names)) > 1:
        why = f"{len(set(names))} models are to be swept"
        raise UsageError("a checkpoint is of one model", where=str(template.weights), why=why, fix="--models NAME")
    recipes = [load_recipe(target).RECIPE for target in targets]
    for recipe in recipes:
        toolchain(recipe)
    requests = [
        dataclasses.replace(template, model=name, target=recipe.target, precision=precision)
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
    if ModelReference.parse(pattern).is_own:
        return [pattern]
    cards = load_cards()
    names = [name for name in cards if fnmatchcase(name, pattern)]
    if not names:
        raise UnknownNameError("model", pattern, cards, listing="edgevit models", or_else=OWN_MODEL)
    return names


def artifact_for(request: ExportRequest, db: str | None = None) -> Artifact:
    """Return the artifact, from its folder if it is just the one that would be made now, else exported anew.

    Raises what an export raises, and UsageError where it would replace an artifact by one for which less was stated.
    """
    try:
        artifact = open_artifact(artifact_folder(request))
        require_built_here(artifact, load_recipe(request.target).RECIPE, built_here([artifact], db))
    except ArtifactError:  # not there, damaged, or from elsewhere: make it
        artifact = None
    if artifact is not None and is_current(artifact, request):
        _LOG.debug("cache hit: %s is in %s", request.label, artifact.folder)
        _require_expected(artifact, request)
        return artifact
    if artifact is not None and (lost := lost_statements(artifact, request)):
        raise _loss(artifact, lost)
    _LOG.info("exporting %s", request.label)
    exported = _export(request)
    record_built(exported, db)
    return exported


def require_weights_kept(request: ExportRequest) -> None:
    """Raise UsageError where an export without a checkpoint would replace the artifact of one."""
    try:
        artifact = open_artifact(artifact_folder(request))
    except ArtifactError:
        return
    if lost := lost_weights(artifact.source, request):
        raise _loss(artifact, lost)


def _loss(artifact: Artifact, lost: Sequence[str]) -> UsageError:
    problem = "the artifact there was made with options that are missing now"
    fix = f"{' '.join(lost)} as at its export, or another folder: -o FOLDER"
    return UsageError(problem, where=str(artifact.folder), why=f"missing: {', '.join(lost)}", fix=fix)


def _require_expected(artifact: Artifact, request: ExportRequest) -> None:
    """Raise UsageError where the artifact of a name is not of the network that the request is about."""
    expected = request.network
    if expected is None:
        return
    labels_differ = artifact.network.labels_sha256 != expected.labels_sha256
    if labels_differ or not artifact.network.is_same(expected):
        why = f"those are of {expected.label}, {artifact.source.model} is {artifact.network.label} now"
        why += ", and has other labels" * labels_differ
        fix = "--artifacts FOLDER with the artifact that was measured, or measure and evaluate what it is now"
        raise UsageError("this is not the network that the numbers are of", where=request.label, why=why, fix=fix)


def record_built(artifact: Artifact, db: str | None = None) -> None:
    """Record as built here an artifact whose payload or model is code."""
    if digests := code_digests(artifact):
        with LatencyDB.open(db, shipped=False) as database:
            database.record_built(artifact, digests)


def built_here(artifacts: Sequence[Artifact], db: str | None = None, *, trust: bool = False) -> frozenset[str]:
    """Return the digests of the code of these artifacts that may run: built here, or trusted."""
    digests = frozenset(digest for artifact in artifacts for digest in code_digests(artifact))
    return digests if trust else recorded_as_built(digests, db)


def recorded_as_built(digests: frozenset[str], db: str | None = None) -> frozenset[str]:
    """Return those of these digests of code that this database, or the user's own one, has as built here.

    An export without `--db` records its code in the user's own database, whichever one a later command names.
    """
    known = frozenset[str]()
    for url in dict.fromkeys((db, None)):
        if digests - known and (url is not None or has_own_database()):
            with LatencyDB.open(url, shipped=False) as database:
                known |= digests & database.built()
    return known


def held_artifact(request: ExportRequest) -> Artifact | None:
    """Return the artifact in the request's folder if it is current, as far as that shows without torch."""
    try:
        artifact = open_artifact(artifact_folder(request))
    except ArtifactError:
        return None
    shows = is_current_so_far if request.model not in load_cards() or request.weights else is_current
    return artifact if shows(artifact, request) else None


def _export(request: ExportRequest) -> Artifact:
    """Export in a process of its own, so that a converter that crashes costs one row of the sweep."""
    require_torch()
    return export_separately(request)


class RowQuery(NamedTuple):
    """A query for the rows that count: of this device, thread count, batch, rate, engine version and protocol.

    db: the database; None: the user's own. engines: the device's, distribution -> version; None: those of this machine.
    host: the device's system now; None: not known.
    """

    device: Device
    threads: int
    db: str | None
    protocol: Protocol
    engines: Mapping[str, str] | None = None
    host: Host | None = None

    def rows(self, artifacts: Sequence[Artifact]) -> list[list[Measurement]]:
        """Return the rows of each artifact: measured, or failed where nothing has changed since.

        A row of a quick look does not stand in for the whole protocol, one without the percentile's bound not for one
        that was asked for it, unless the program that measured it tells no bound at all. A throttled row says that the
        device was hot, and does not count.
        """
        with LatencyDB.open(self.db) as database:
            stored = database.trusting("trusted").measurements(device=self.device.device_id, threads=self.threads)
        standing = [row for row in stored if _stands_for(row, self.protocol)]
        return [[row for row in standing if self._counts_for(row, artifact)] for artifact in artifacts]

    def _counts_for(self, row: Measurement, artifact: Artifact) -> bool:
        if not _is_of(row, artifact, self.engines):
            return False
        return row.status == "ok" or failure_stands(row, artifact, self.host)


def still_to_measure(artifacts: Sequence[Artifact], query: RowQuery) -> list[Artifact]:
    """Return the artifacts for which no row counts.

    One that did not run is tried again once its artifact or the device's system is another.
    """
    return [artifact for artifact, rows in zip(artifacts, query.rows(artifacts), strict=True) if not rows]


def known_failures(artifacts: Sequence[Artifact], query: RowQuery) -> list[Measurement]:
    """Return the newest row of each artifact that did not run and is not tried again, as still_to_measure decides."""
    return [
        max(of_one, key=lambda row: row.started)
        for of_one in query.rows(artifacts)
        if of_one and not any(row.status == "ok" for row in of_one)
    ]


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
