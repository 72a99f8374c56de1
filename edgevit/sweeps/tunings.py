"""Tunings of the database, as an export asks for them."""

from __future__ import annotations

import dataclasses
import shlex

from edgevit.errors import TuningError, UsageError
from edgevit.records.artifact import ExportRequest
from edgevit.records.tuning import TUNED, Tuning, describe_forms
from edgevit.store import LatencyDB


def with_tuning(request: ExportRequest, db: str | None = None) -> ExportRequest:
    """Return a request for `tuned`, or for `tuned:FORMS`, with the tuning of the database that it means.

    Any other request stays as it is. Raises TuningError where it has no such tuning, and UsageError where several
    devices are fastest with different forms.
    """
    form, _, forms = request.form.partition(":")
    if form != TUNED or request.tuning is not None:
        return request
    with LatencyDB.open(db) as store:
        stored = store.tunings(request.target)
    settings = (request.model, request.precision, request.batch)
    of_request = [one for one in stored if (one.model, one.precision, one.batch) == settings]
    # The latest of each configuration replaces earlier ones, but one that its budget ended no complete one.
    ordered = sorted(of_request, key=lambda one: one.complete)
    latest = {(one.device_class or one.device_id, one.threads): one for one in ordered}
    meant = {describe_forms(one.forms): one for one in latest.values() if not forms}
    for one in of_request:
        if forms and describe_forms(one.forms) == forms:
            meant[forms] = one
    if not meant:
        raise _unknown(request, forms)
    if len(meant) > 1:
        raise _several(request, meant)
    [tuning] = meant.values()
    return dataclasses.replace(request, form=TUNED, tuning=tuning)


def _unknown(request: ExportRequest, forms: str) -> TuningError:
    words = ["edgevit", "tune", request.model, "--target", request.target, "--precision", request.precision]
    where = f"{request.model} {request.target} {request.precision}"
    why = f"the database has none with the forms {forms}" if forms else "the database has no search for its forms"
    return TuningError("no tuning of this network is known", where=where, why=why, fix=shlex.join(words))


def _several(request: ExportRequest, meant: dict[str, Tuning]) -> UsageError:
    devices = ", ".join(
        f"{one.device_class or one.device} with {one.threads} threads: {forms or 'no form'}"
        for forms, one in sorted(meant.items())
    )
    options = " or ".join(f"--form {TUNED}:{forms}" if forms else "--form portable" for forms in sorted(meant))
    where = f"{request.model} {request.target} {request.precision}"
    return UsageError("devices are fastest with different forms", where=where, why=devices, fix=options)
