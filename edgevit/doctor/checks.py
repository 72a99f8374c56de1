"""Checks of what every target needs: Python, torch, photographs, a worker process, the latency database."""

from __future__ import annotations

import dataclasses
import platform
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from edgevit.concurrency.scratch import scratch_folder
from edgevit.devices.registry import local_device
from edgevit.devices.transports import WORKER, load_transport
from edgevit.devices.worker_archive import pack
from edgevit.doctor.imports import Import, why_not_importable
from edgevit.doctor.records import Check, describe_versions
from edgevit.errors import EdgevitError, StoreError
from edgevit.recipes import MODELS_NEED, list_recipes
from edgevit.store import LatencyDB
from edgevit_runtime.record import Job

PHOTOGRAPHS = "scikit-image"
_OLDEST = (3, 11)
_TIMEOUT_S = 60.0


def check_python() -> Check:
    """Check the version of the Python that runs this."""
    oldest = ".".join(map(str, _OLDEST))
    detail = f"{platform.python_version()} in {sys.prefix}"
    return Check("python", sys.version_info >= _OLDEST, detail, f"install Python {oldest} or later")


def check_torch(imports: Mapping[str, Import]) -> Check:
    """Check torch and the other distributions that models are made with. Listing, choosing and measuring need none."""
    check = _importable("torch", MODELS_NEED, imports, "export")
    threads = imports[MODELS_NEED[0]].output
    return dataclasses.replace(check, detail=f"{check.detail}, {threads} thread(s)") if check.works else check


def check_photographs(imports: Mapping[str, Import]) -> Check:
    """Check for the real images that artifacts are verified on, besides noise."""
    return _importable("photographs", (PHOTOGRAPHS,), imports, "photos")


def _importable(component: str, names: tuple[str, ...], imports: Mapping[str, Import], extra: str) -> Check:
    if reason := why_not_importable(names, imports):
        return Check(component, False, reason, f"pip install 'edgevit[{extra}]'")
    return Check(component, True, describe_versions({name: imports[name].version for name in names}))


def check_worker() -> Check:
    """Start a worker process as every measurement does, and check that it replies that there is no artifact."""
    start = time.perf_counter()
    target = list_recipes()[0].target
    job = Job("time", target, "absent", "absent", "", 1)
    try:
        device = local_device()
        with scratch_folder("doctor") as folder:
            files = {WORKER: pack(target, Path(folder) / WORKER)}
            reply = load_transport(device.transport).run(device, files, job, timeout_s=_TIMEOUT_S)
    except EdgevitError as error:
        return Check("worker", False, f"{error.what}: {error.why}", error.fix)
    if reply.status != "failed" or reply.host is None:
        fix = "pip install --force-reinstall --no-deps edgevit"
        return Check("worker", False, f"{reply.status}: {reply.error}", fix)
    seconds = f"{time.perf_counter() - start:.1f} s"
    return Check("worker", True, f"Python {reply.host.python} alone in a process, replied in {seconds}")


def check_database(url: str | None) -> Check:
    """Check that the latency database opens, and measure the free space beside it."""
    try:
        with LatencyDB.open(url) as database:
            stats = database.stats()
    except StoreError as error:
        return Check("latency database", False, f"{error.what} {error.why}".strip(), error.fix)
    folder = Path(stats.location).parent
    room = f", {shutil.disk_usage(folder).free / 1e9:.0f} GB free" if Path(stats.location).exists() else ""
    return Check("latency database", True, f"{stats.tables.get('measurement', 0)} rows in {stats.location}{room}")
