"""Batches into the artifact's own engine, in a process of its own, through a pipe: no pixel is written to a disk."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from edgevit.devices.registry import local_device
from edgevit.devices.transports import WORKER, load_transport
from edgevit.devices.worker_archive import pack_recipe
from edgevit.errors import ArtifactError, TargetUnavailableError
from edgevit.evaluation.prefetch import Batch
from edgevit.recipes import evaluator_source, load_recipe, recipe_file
from edgevit.records.artifact import Artifact
from edgevit_runtime.record import Job, Reply

STALL_S = 300.0  # that one batch may take: the reference evaluators need seconds for an image
_LOADING_S = 600.0
_POLL_S = 0.01
_ARTIFACT, _FEEDS = "artifact", "feeds.pipe"


def classify(
    artifact: Artifact, batches: Iterator[Batch], count: int, *, batch: int, threads: int, keep: int
) -> tuple[Reply, bool]:
    """The `keep` best classes of each sample of `count` batches, and whether a reference evaluator computed them.

    That is so where the engine cannot run on this machine and the target has an evaluator. Raises what `batches`
    raises, ArtifactError where the engine fails, crashes or hangs, TargetUnavailableError where nothing computes it.
    """
    recipe, by_reference = load_recipe(artifact.target).RECIPE, False
    how = {"batch": batch, "threads": threads, "keep": keep}
    reply = _run(recipe_file(recipe.target), artifact, batches, count, **how)
    if reply.status == "unsupported" and recipe.evaluator:  # then no batch has been taken
        reply, by_reference = _run(evaluator_source(recipe), artifact, batches, count, **how), True
    if reply.status == "unsupported":
        raise TargetUnavailableError(f"target {recipe.target} cannot run here", why=reply.error, fix="edgevit doctor")
    if reply.status != "ok":
        where = str(artifact.folder / artifact.payload)
        raise ArtifactError(f"the engine {reply.status} on the artifact", where=where, why=reply.error)
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
    with tempfile.TemporaryDirectory(prefix="edgevit-evaluate-") as name, ThreadPoolExecutor(1) as feeder:
        pipe = Path(name) / _FEEDS
        os.mkfifo(pipe, 0o600)
        files = {WORKER: pack_recipe(recipe, Path(name) / WORKER), _ARTIFACT: artifact.folder, _FEEDS: pipe}
        over = threading.Event()
        fed = feeder.submit(_feed, pipe, batches, over)
        try:
            limit_s = _LOADING_S + STALL_S * count
            reply = load_transport(device.transport).run(device, files, job, timeout_s=limit_s)
        finally:  # Ctrl-C too
            over.set()
        fed.result()  # what ended the feeding is why the worker failed
    return reply


def _feed(pipe: Path, batches: Iterator[Batch], over: threading.Event) -> None:
    """Write every batch into the pipe, until the worker is gone."""
    descriptor = _opened(pipe, over)
    if descriptor is None:
        return
    try:
        for batch in batches:
            rest = memoryview(batch.tobytes())
            while rest:
                rest = rest[os.write(descriptor, rest) :]
    except BrokenPipeError:
        pass  # its reply says why
    finally:
        os.close(descriptor)


def _opened(pipe: Path, over: threading.Event) -> int | None:
    """The pipe once the worker has opened its end; None where it never does."""
    while not over.is_set():
        try:
            descriptor = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nobody reads yet
                raise
            over.wait(_POLL_S)
            continue
        os.set_blocking(descriptor, True)
        return descriptor
    return None
