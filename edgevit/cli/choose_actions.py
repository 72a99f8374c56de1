"""Measuring what may change an answer of `edgevit choose`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from edgevit.cli.choose_export import Sources, request_of, require_known_code
from edgevit.cli.common import warn
from edgevit.errors import UsageError

if TYPE_CHECKING:
    from edgevit.records.artifact import Artifact, ExportRequest
    from edgevit.records.choice import Choice, JointChoice, Suggestion
    from edgevit.records.measurement import Measurement


def measure_suggested(
    choice: Choice | JointChoice, sources: Sources, *, quick: bool, db: str | None, quiet: bool
) -> list[Measurement]:
    """Measure the suggestions and return their rows. Artifacts that are not here are exported into `sources.out`.

    Raises UnknownNameError for a device that is only known by its rows, UsageError for a suggestion whose network
    nothing here is known to give, and the errors of an export or a device.
    """
    from edgevit.artifacts.folder_lock import locked_folder
    from edgevit.cli.options import ProtocolOptions
    from edgevit.cli.profile import measure, protocol
    from edgevit.devices.registry import load_device, reached_as
    from edgevit.records.choice import Choice
    from edgevit.sweeps.recording import RecordLabels

    rows: list[Measurement] = []
    settings = protocol(ProtocolOptions(quick, 99 if choice.budget.percentile > 90 else None))
    for one in [choice] if isinstance(choice, Choice) else choice.choices:
        suggestions = [suggestion for suggestion in one.measure_next if suggestion.does == "measure"]
        if not suggestions:
            continue
        device = load_device(reached_as(one.device) or one.device)
        for threads in sorted({suggestion.threads or 1 for suggestion in suggestions}):
            with locked_folder(sources.out, warn):
                needed = [
                    _artifact(suggestion, sources, db)
                    for suggestion in suggestions
                    if (suggestion.threads or 1) == threads
                ]
                rows += measure(needed, device, threads, settings, db, quiet, labels=RecordLabels(sweep=True))
    return rows


def _artifact(suggestion: Suggestion, sources: Sources, db: str | None) -> Artifact:
    """Return the artifact of a suggestion: the very one, another one of its network, or one that is exported now."""
    from edgevit.records.artifact import NO_CHECKPOINT
    from edgevit.sweeps.plan import artifact_for
    from edgevit.sweeps.tunings import with_tuning

    if (same := sources.find(suggestion.artifact_sha256)) is not None:
        return same
    request = with_tuning(request_of(suggestion, suggestion.input_size, NO_CHECKPOINT, sources.out), db)
    if (given := _given(request, sources)) is not None:
        return given
    network = suggestion.network
    if network is not None and network.weights in ("file", "module"):
        request = with_tuning(request_of(suggestion, suggestion.input_size, sources.weights, sources.out), db)
        if request.weights is None:
            fix = f"--artifacts FOLDER, or --weights path/to/{network.file}" if network.file else "--artifacts FOLDER"
            where = f"{suggestion.model} {suggestion.target} {suggestion.precision}"
            problem = "the artifact that is to be measured is not here"
            raise UsageError(problem, where=where, why=f"it holds {network.label}", fix=fix)
    request = dataclasses.replace(request, labels=sources.labels)
    if network is None and suggestion.artifact_sha256 and ":" in suggestion.model:
        problem = "nothing tells which network is to be measured"
        why = f"its rows keep no digest of it: they are of artifact {suggestion.artifact_sha256[:8]}"
        raise UsageError(problem, where=suggestion.model, why=why, fix="--artifacts FOLDER, or edgevit sweep it anew")
    require_known_code(suggestion.model, (suggestion.artifact_sha256,), sources, db)
    return artifact_for(request, db)


def _given(request: ExportRequest, sources: Sources) -> Artifact | None:
    """Return the artifact of a suggestion among the given ones: of its model, form, input size and network."""
    from edgevit.sweeps.freshness import is_of_form

    key = (request.model, request.target, request.precision)
    same = (one for one in sources.artifacts if (one.model, one.target, one.precision) == key)
    expected = request.network
    return next(
        (one for one in same if is_of_form(one, request) and (expected is None or one.network.is_same(expected))), None
    )
