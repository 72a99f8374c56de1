"""The worker: one job, one fresh process, one reply.

It catches only what it can name. An engine raises classes that nobody can list, so anything else ends the process with
a traceback, which the transport turns into a Reply; so does a crash, about which the process itself can say nothing.
For that case a reply that says "crashed" is written before the engine sees the file, and replaced at the end: a row of
a crash then still knows host, engine and version.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import importlib
import os
import sys
import time
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgevit_runtime import environment, timing
from edgevit_runtime.containment import SUFFIX, ContainmentError, check_contained
from edgevit_runtime.digest import DigestError, tree_sha256
from edgevit_runtime.record import Job, RecipeModule, Reply, Session, Timing, UnsupportedError, from_json, to_json

RECIPES = "edgevit_recipes"  # package in the zipapp; a recipe on the path itself would hide an engine of its name
_PR_SET_PDEATHSIG, _SIGKILL = 1, 9


class JobError(ValueError):
    """The job cannot be done as asked; the message says why."""


def main(arguments: Sequence[str]) -> int:
    """Do the job in the file named first, write the reply under the name given second. 0: a reply is there."""
    job_path, reply_path = map(Path, arguments)
    _expect_death()
    job = from_json(Job, job_path.read_bytes())
    recipe = _recipe(job.target)
    engine, version = environment.installed((recipe.RECIPE.engine, *recipe.RECIPE.engine_choices))
    start = Reply(
        status="crashed",
        error="the worker ended without another word",
        host=environment.host(),
        engine=engine,
        engine_version=version,
    )
    write_reply(reply_path, start)
    write_reply(reply_path, perform(job, recipe, start))
    return 0


def write_reply(path: Path, reply: Reply) -> None:
    """Write under another name, sync, rename: who finds the reply finds all of it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(to_json(reply))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def perform(job: Job, recipe: RecipeModule, start: Reply) -> Reply:
    """Check the artifact, load it and do the task. Errors of the engine are not caught, but for a missing one."""
    try:
        payload = checked_payload(job, recipe.RECIPE.suffix)
        begin = time.perf_counter_ns()
        try:
            session = recipe.load(payload, threads=job.threads)
        except ImportError as error:
            why = f"{recipe.RECIPE.engine} cannot be imported: {error}"
            return dataclasses.replace(start, status="unsupported", error=why)
        except UnsupportedError as error:
            return dataclasses.replace(start, status="unsupported", error=str(error))
        load_ns = time.perf_counter_ns() - begin
        _check_batch(session, job)
        loaded = dataclasses.replace(
            start,
            status="ok",
            error="",
            engine_version=session.engine_version,
            provider=session.provider,
            inputs=session.inputs,
            outputs=session.outputs,
        )
        if job.task == "time":
            return dataclasses.replace(loaded, timing=time_session(session, job, load_ns))
        return dataclasses.replace(loaded, results=infer(session, job))
    except JobError as error:
        return dataclasses.replace(start, status="failed", error=str(error))


def checked_payload(job: Job, suffix: str) -> Path:
    """The payload's path, once the folder is the one that was sealed and its weights lie in it.

    `suffix` is that of the target's payloads. Raises JobError before any engine sees the folder.
    """
    folder = Path(job.folder).resolve()  # the local transport links the folder instead of copying it
    payload = (folder / job.payload).resolve()
    if folder not in payload.parents:
        raise JobError(f"the payload {job.payload!r} is not inside the artifact")
    if not folder.is_dir():
        raise JobError(f"there is no artifact at {folder}")
    try:
        found = tree_sha256(folder)
    except (DigestError, OSError) as error:
        raise JobError(f"the artifact cannot be read: {error}") from error
    if found != job.sha256:
        raise JobError(f"the artifact is damaged: sha256 of its files is {found[:12]}, expected {job.sha256[:12]}")
    try:
        check_contained(payload, is_onnx=suffix == SUFFIX)  # the rest of the folder nobody opens
    except (ContainmentError, OSError) as error:
        raise JobError(f"the artifact is not safe to open: {error}") from error
    return payload


def time_session(session: Session, job: Job, load_ns: int) -> Timing:
    """Feed noise, warm up, take the samples. load_ns: load() with the engine's import, from a warm file cache."""
    before = environment.snapshot()
    session.feed(timing.noise(session.inputs, job.batch, job.seed), job.batch)
    first_ns = timing.timed(session.run)
    warmup = timing.warm_up(session.run, job)
    samples = timing.sample(session.run, job.min_runs, job.min_ns)
    return Timing(
        load_ns=load_ns,
        first_ns=first_ns,
        warmup_ns=warmup.times_ns,
        samples_ns=samples,
        warm=warmup.warm,
        peak_rss_bytes=environment.peak_rss_bytes(),
        before=before,
        after=environment.snapshot(),
    )


def infer(session: Session, job: Job) -> tuple[tuple[str, ...], ...]:
    """Run every set of inputs in job.feeds; each output in base64. Raises JobError if the file has another size."""
    return tuple(_outputs(session, tensors, job.batch) for tensors in _feeds(session, job))


def _outputs(session: Session, tensors: Sequence[bytes], batch: int) -> tuple[str, ...]:
    session.feed(tensors, batch)
    session.run()
    return tuple(base64.b64encode(output).decode("ascii") for output in session.fetch())


def _feeds(session: Session, job: Job) -> Iterator[tuple[bytes, ...]]:
    sizes = [spec.at_batch(job.batch).nbytes for spec in session.inputs]
    path = Path(job.feeds)
    if path.stat().st_size != sum(sizes) * job.count:
        raise JobError(f"{job.feeds} has {path.stat().st_size} bytes, {job.count} x {sum(sizes)} expected")
    with path.open("rb") as file:
        for _ in range(job.count):
            yield tuple(file.read(size) for size in sizes)


def _check_batch(session: Session, job: Job) -> None:
    """An artifact of fixed batch would run at its own and be reported under the job's."""
    batches = [spec.at_batch(job.batch).shape[:1] for spec in session.inputs]
    if job.batch != 1 and (job.batch,) not in batches:
        raise JobError(f"the artifact has a fixed batch, inputs {[spec.shape for spec in session.inputs]}, "
                       f"and cannot run at batch {job.batch}")  # fmt: skip


def _recipe(target: str) -> RecipeModule:
    if not target.isidentifier():
        raise JobError(f"{target!r} is not the name of a target")
    return typing.cast(RecipeModule, importlib.import_module(f"{RECIPES}.{target}"))


def _expect_death() -> None:
    """Linux: die with the process that started us, and be the first to go when memory runs out."""
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
