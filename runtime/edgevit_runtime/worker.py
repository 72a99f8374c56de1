"""The worker: one job, one fresh process, one reply.

It catches specific exceptions only. An engine may raise any class, so other exceptions end the process with a
traceback, which the transport turns into a Reply. A crash of the process ends it without a traceback. So a reply with
the status "crashed" is written before the engine opens the file, and replaced at the end. The row of a crash then still
contains host, engine and version.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import faulthandler
import importlib
import os
import sys
import time
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from edgevit_runtime import environment, hardware, memory_watchdog, power, timing
from edgevit_runtime.codec import RecordError, from_json, to_json
from edgevit_runtime.containment import SUFFIX, ContainmentError, check_contained
from edgevit_runtime.digest import DigestError, tree_sha256
from edgevit_runtime.emulation import emulated
from edgevit_runtime.record import (
    Job,
    LayerTime,
    ProcessorError,
    RecipeModule,
    Reply,
    Session,
    Timing,
    UnsupportedError,
)
from edgevit_runtime.topk import ClassesError, top_classes

RECIPES = "edgevit_recipes"  # package in the zipapp; a recipe directly on the path would hide an engine of its name
_PR_SET_PDEATHSIG, _SIGKILL = 1, 9


class JobError(ValueError):
    """The job cannot be done; the message gives the reason."""


def main(arguments: Sequence[str]) -> int:
    """Run the job in the file named first, and write the reply to the second name. 0: there is a reply."""
    job_path, reply_path = map(Path, arguments)
    _expect_death()
    try:
        job = from_json(Job, job_path.read_bytes())
        recipe = None if job.task == "detect" else _recipe(job.target)
    except (RecordError, JobError) as error:
        write_reply(reply_path, Reply("failed", f"the job makes no sense: {error}"))
        return 0
    if recipe is None:
        reply = Reply("ok", host=environment.host(), unit=hardware.unit(), emulated=emulated())
        reply = dataclasses.replace(reply, clonable_unit=hardware.is_clonable())
        write_reply(reply_path, dataclasses.replace(reply, detected=hardware.detect(job.engines)))
        return 0
    engine, version = environment.installed((recipe.RECIPE.engine, *recipe.RECIPE.engine_choices))
    start = Reply(
        status="crashed",
        host=environment.host(),
        engine=engine,
        engine_version=version,
        unit=hardware.unit(),
        emulated=emulated(),
    )
    write_reply(reply_path, start)
    watcher = _watch_memory(job, reply_path, start)
    try:
        write_reply(reply_path, perform(job, recipe, start))
    finally:
        memory_watchdog.stop(watcher)
    return 0


def _watch_memory(job: Job, reply_path: Path, start: Reply) -> int | None:
    """Start the watchdog with the job's memory limit, else a share of all memory. Its kill leaves a reply."""
    memory = start.host.memory_bytes if start.host else None
    limit = job.max_memory_bytes or (round(memory * memory_watchdog.MEMORY_SHARE) if memory else None)
    why = f"used more than {(limit or 0) / 1e9:.3g} GB of memory"
    return memory_watchdog.start(limit, lambda: write_reply(reply_path, dataclasses.replace(start, error=why)))


def write_reply(path: Path, reply: Reply) -> None:
    """Write under a temporary name, sync and rename, so that a reader never sees part of a reply."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(to_json(reply))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def perform(job: Job, recipe: RecipeModule, start: Reply) -> Reply:
    """Check the artifact, load it and run the task. Errors of the engine are not caught, except a missing engine."""
    try:
        payload = checked_payload(job, recipe.RECIPE.suffix)
        cold = job.cold and environment.drop_from_cache(payload)
        begin = time.perf_counter_ns()
        try:
            if job.task == "layers":
                return dataclasses.replace(start, status="ok", error="", layers=layers(recipe, payload, job))
            import_engine = getattr(recipe, "import_engine", None)
            import_ns = timing.timed(import_engine) if import_engine else None
            session = recipe.load(payload, threads=job.threads)
        except ImportError as error:
            install = f"{sys.executable} -m pip install {recipe.RECIPE.engine}"
            why = f"{recipe.RECIPE.engine} cannot be imported: {error}; where the worker runs: {install}"
            return dataclasses.replace(start, status="unsupported", error=why)
        except ProcessorError as error:
            unsupported = dataclasses.replace(start, status="unsupported", error=str(error))
            return dataclasses.replace(unsupported, missing_instructions=error.missing_instructions)
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
            timed = dataclasses.replace(time_session(session, job, load_ns), import_ns=import_ns, cold=cold)
            return dataclasses.replace(loaded, timing=timed)
        if job.task == "classify":
            return dataclasses.replace(loaded, classes=tuple(classify(session, job)))
        return dataclasses.replace(loaded, results=infer(session, job))
    except JobError as error:
        return dataclasses.replace(start, status="failed", error=str(error))


def checked_payload(job: Job, suffix: str) -> Path:
    """Return the payload's path, after checking the folder's digest and the location of its weights.

    `suffix` is that of the target's payloads. Raises JobError before any engine opens the folder.
    """
    # The local transport links the folder instead of copying it.
    folder = Path(job.folder).resolve()
    payload = (folder / job.payload).resolve()
    if folder not in payload.parents:
        raise JobError(f"the payload {job.payload!r} is not inside the artifact")
    if not folder.is_dir():
        raise JobError(f"there is no artifact at {folder}")
    try:
        digest = tree_sha256(folder)
    except (DigestError, OSError) as error:
        raise JobError(f"the artifact cannot be read: {error}") from error
    if digest != job.sha256:
        raise JobError(f"the artifact is damaged: sha256 of its files is {digest[:12]}, expected {job.sha256[:12]}")
    try:
        # No engine opens the other files of the folder.
        check_contained(payload, is_onnx=suffix == SUFFIX)
    except (ContainmentError, OSError) as error:
        raise JobError(f"the artifact is not safe to open: {error}") from error
    return payload


def time_session(session: Session, job: Job, load_ns: int) -> Timing:
    """Feed noise, warm up and take the samples. load_ns: load() with the engine's import, from a warm file cache."""
    before = environment.snapshot()
    session.feed(timing.noise(session.inputs, job.batch, job.seed), job.batch)
    first_ns = timing.timed(session.run)
    camera = timing.Camera(job.rate_hz) if job.rate_hz else None
    warmup = timing.warm_up(session.run, job, camera.frame if camera else timing.timed)
    meter = power.meter()
    if camera:
        samples = camera.sample(session.run, job.min_runs, job.min_ns, meter)
    else:
        samples = timing.sample(session.run, job.min_runs, job.min_ns, meter)
    energy_j = meter.stop() if meter else None
    after = environment.snapshot()
    return Timing(
        load_ns=load_ns,
        first_ns=first_ns,
        warmup_ns=warmup.times_ns,
        samples_ns=samples,
        warm=warmup.warm,
        peak_rss_bytes=environment.peak_rss_bytes(),
        before=before,
        after=after,
        compile_ns=getattr(session, "compile_ns", None),
        missed=camera.missed if camera else None,
        energy_j=energy_j,
    )


def layers(recipe: RecipeModule, payload: Path, job: Job) -> tuple[LayerTime, ...]:
    """Measure each operator's time over min_runs runs. Raises UnsupportedError for a recipe without these times."""
    measure_layers = getattr(recipe, "layers", None)
    if measure_layers is None:
        raise UnsupportedError(f"{recipe.RECIPE.engine} or its recipe does not report the times of operators")
    # The session has the names and shapes of the inputs.
    session = recipe.load(payload, threads=job.threads)
    tensors = timing.noise(session.inputs, job.batch, job.seed)
    del session
    return tuple(measure_layers(payload, threads=job.threads, tensors=tensors, batch=job.batch, runs=job.min_runs))


def infer(session: Session, job: Job) -> tuple[tuple[str, ...], ...]:
    """Run every set of inputs in job.feeds, with outputs in base64. Raises JobError if the file has another size."""
    return tuple(_outputs(session, tensors, job.batch) for tensors in _feeds(session, job))


def classify(session: Session, job: Job) -> Iterator[tuple[int, ...]]:
    """Yield the `keep` most likely classes of every sample in job.feeds, best first.

    The model's only output contains the scores, (N, classes). Raises JobError for another output, and where the feeds
    end early. A set that takes longer than `stall_s` ends the process with a traceback, even if the engine hangs.
    """
    try:
        for tensors in _feeds(session, job):
            if job.stall_s is not None:
                faulthandler.dump_traceback_later(job.stall_s, exit=True)
            session.feed(tensors, job.batch)
            session.run()
            outputs = session.fetch()
            faulthandler.cancel_dump_traceback_later()
            yield from top_classes(session.outputs, outputs, job.batch, job.keep)
    except ClassesError as error:
        raise JobError(str(error)) from error


def _outputs(session: Session, tensors: Sequence[bytes], batch: int) -> tuple[str, ...]:
    session.feed(tensors, batch)
    session.run()
    return tuple(base64.b64encode(output).decode("ascii") for output in session.fetch())


def _feeds(session: Session, job: Job) -> Iterator[tuple[bytes, ...]]:
    sizes = [spec.at_batch(job.batch).nbytes for spec in session.inputs]
    path = Path(job.feeds)
    if not path.is_fifo() and path.stat().st_size != sum(sizes) * job.count:
        raise JobError(f"{job.feeds} has {path.stat().st_size} bytes, {job.count} x {sum(sizes)} expected")
    with path.open("rb") as file:
        for number in range(job.count):
            yield tuple(_exactly(file, size, f"{job.feeds} ended in set {number + 1} of {job.count}") for size in sizes)


def _exactly(file: BinaryIO, size: int, problem: str) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise JobError(problem)
    return data


def _check_batch(session: Session, job: Job) -> None:
    """Raise JobError for a fixed batch that differs from the job's, which would appear in the row."""
    batches = [spec.at_batch(job.batch).shape[:1] for spec in session.inputs]
    if job.batch != 1 and (job.batch,) not in batches:
        raise JobError(f"the artifact has a fixed batch, inputs {[spec.shape for spec in session.inputs]}, "
                       f"and cannot run at batch {job.batch}")  # fmt: skip


def _recipe(target: str) -> RecipeModule:
    if not target.isidentifier():
        raise JobError(f"{target!r} is not the name of a target")
    try:
        return typing.cast(RecipeModule, importlib.import_module(f"{RECIPES}.{target}"))
    except ModuleNotFoundError as error:
        if error.name != f"{RECIPES}.{target}":
            raise
        raise JobError(f"the worker has no recipe for {target}") from error


def _expect_death() -> None:
    """Ask Linux to kill this process with its parent, and before others when memory runs out."""
    if sys.platform != "linux":
        return
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, _SIGKILL)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
