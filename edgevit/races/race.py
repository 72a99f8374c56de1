"""A race: the search for a network's fastest form on a device, from the fold to the tuning."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevit.errors import TuningError
from edgevit.exporting.preparation import Preparation
from edgevit.models.source import Subject
from edgevit.races.bench import RaceBench, tuning_of
from edgevit.recipes import load_recipe
from edgevit.records.artifact import ExportRequest
from edgevit.records.identity import identify_tuning
from edgevit.records.measurement import Device, NoiseFloor
from edgevit.records.tuning import DEFAULT, OperatorTime, TriedForm, Tuning
from edgevit.tuning.places import places_of
from edgevit.tuning.search import Search


@dataclass(frozen=True)
class Course:
    """What is raced, and where: a network, the request of its export into a folder, a device, and the seconds for it.

    floor: the noise floor of the device; None: it was not measured.
    """

    subject: Subject
    request: ExportRequest
    device: Device
    threads: int
    budget_s: float
    floor: NoiseFloor | None = None


def race(
    course: Course,
    stored: Sequence[OperatorTime],
    keep: Callable[[Sequence[OperatorTime]], object],
    on_tried: Callable[[TriedForm], None] = lambda tried: None,
) -> Tuning:
    """Search on a device, and return what was found.

    stored: times that are known. keep: stores new ones. Raises TuningError where the network does not run there, and
    what an export of it raises.
    """
    subject, request = course.subject, course.request
    prepared = Preparation(subject, request)
    if prepared.folded is None or not prepared.graph_sha256:
        raise TuningError("the network has no graph whose parts could be written otherwise", where=subject.name)
    places = places_of(prepared.folded, request.batch)
    default = prepared.formed(load_recipe(request.target).RECIPE, dataclasses.replace(request, form=DEFAULT))
    bench = RaceBench(
        prepared,
        request,
        {place.site: alone for place, alone in places},
        course.device,
        course.threads,
        stored,
        course.floor,
        Path(request.out),
        course.budget_s,
        keep,
    )
    row = bench.start()
    search = Search([place for place, _ in places], bench, bench.judge, tuple(sorted(default.sites)), on_tried)
    outcome = search.run()
    draft = tuning_of(row, prepared.graph_sha256, outcome.forms)
    found = {field.name: getattr(outcome, field.name) for field in dataclasses.fields(outcome)}
    return identify_tuning(dataclasses.replace(draft, **found))
