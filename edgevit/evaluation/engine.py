"""Classification by the artifact's own engine in a separate process. A pipe feeds it, so no pixel is stored on disk."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgevit.concurrency.scratch import scratch_folder
from edgevit.devices.registry import local_device
from edgevit.devices.transports import WORKER, load_transport
from edgevit.devices.worker_archive import pack_recipe
from edgevit.errors import ArtifactError, TargetUnavailableError
from edgevit.evaluation.prefetch import Batch
from edgevit.recipes import evaluator_source, load_recipe, recipe_file
from edgevit.records.artifact import Artifact
from edgevit_runtime.record import Job, Reply

STALL_S = 300.0  # limit of one batch: the reference evaluators need seconds for an image
_LOADING_S = 600.0
_POLL_S = 0.01
_ARTIFACT, _FEEDS = "artifact", "feeds.pipe"


def classify(
    artifact: Artifact, batches: Iterator[Batch], count: int, *, batch: int, threads: int, keep: int
) -> tuple[Reply, bool]:
    """Return the `keep` best classes of each sample of `count` batches, and whether a reference evaluator ran.

    A target's reference evaluator runs where its engine cannot run on this machine. Raises the errors of `batches`,
    ArtifactError where the engine fails, crashes or hangs, and TargetUnavailableError where nothing computes it.
    """
    recipe, by_reference = load_recipe(artifact.target).RECIPE, False
    options = {"batch": batch, "threads": threads, "keep": keep}
    reply = _run(recipe_file(recipe.target), artifact, batches, count, **options)
    # An unsupported engine has taken no batch yet.
    if reply.status == "unsupported" and recipe.evaluator:
        reply, by_reference = _run(evaluator_source(recipe), artifact, batches, count, **options), True
    if reply.status == "unsupported":
        raise TargetUnavailableError(f"target {recipe.target} cannot run here", why=reply.error, fix="edgevit doctor")
    if reply.status != "ok":
        payload = str(artifact.folder / artifact.payload)
        raise ArtifactError(f"the engine {reply.status} on the artifact", where=payload, why=reply.error)
    return reply, by_reference


def _run(
    recipe: Path, artifact: Artifact, batches: Iterator[Batch], count: int, *, batch: int, threads: int, keep: int
) -> Reply:
    job = Job(
        task="classify",
        target=recipe.stem,
        folder=_ARTIFACT,
        payload=artifact.payload,
        sha256=artifact.sha256,
        threads=threads,
        batch=batch,
        feeds=_FEEDS,
        count=count,
        keep=keep,
        stall_s=STALL_S,
    )
    device = local_device()
    with scratch_folder("evaluate") as name, ThreadPoolExecutor(1) as feeder:
        pipe = Path(name) / _FEEDS
        os.mkfifo(pipe, 0o600)
        files = {WORKER: pack_recipe(recipe, Path(name) / WORKER), _ARTIFACT: artifact.folder, _FEEDS: pipe}
        worker_ended = threading.Event()
        feeding = feeder.submit(_feed, pipe, batches, worker_ended)
        try:
            limit_s = _LOADING_S + STALL_S * count
            reply = load_transport(device.transport).run(device, files, job, timeout_s=limit_s)
        finally:  # also after Ctrl-C
            worker_ended.set()
        # An error that ended the feeding is the reason for the worker's failure, so it is raised first.
        feeding.result()
    return reply


def _feed(pipe: Path, batches: Iterator[Batch], worker_ended: threading.Event) -> None:
    """Write every batch into the pipe, until the worker is gone."""
    descriptor = _open_pipe(pipe, worker_ended)
    if descriptor is None:
        return
    try:
        for batch in batches:
            pending = memoryview(batch.tobytes())
            while pending:
                pending = pending[os.write(descriptor, pending) :]
    except BrokenPipeError:
        pass  # the worker's reply contains the reason
    finally:
        os.close(descriptor)


def _open_pipe(pipe: Path, worker_ended: threading.Event) -> int | None:
    """Open the pipe once the worker has opened its end; None where it never does."""
    while not worker_ended.is_set():
        try:
            descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # the pipe has no reader yet
                raise
            worker_ended.wait(_POLL_S)
            continue
        os.set_blocking(descriptor, True)
        return descriptor
    return None
