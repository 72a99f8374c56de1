"""Transport to this machine: each job runs in a fresh process, with its own process group and folder."""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from edgevit.concurrency.scratch import scratch_folder
from edgevit.devices.transports import (
    INHERITED,
    JOB,
    PYTHON_OPTIONS,
    REPLY,
    WORKER,
    read_end,
    thread_variables,
)
from edgevit.errors import DeviceError
from edgevit.records.measurement import Device
from edgevit_runtime.codec import to_json
from edgevit_runtime.record import Job, Reply

_LOG = logging.getLogger(__name__)

_STDERR = "stderr.txt"
_STDERR_BYTES = 8192  # read from the end: an engine that hangs in an error loop writes gigabytes


class LocalTransport:
    """Runs the worker with this Python."""

    def run(self, device: Device, files: Mapping[str, Path], job: Job, *, timeout_s: float) -> Reply:
        """Run the worker as Transport.run does. Nothing is copied: the worker's folder contains links to the files."""
        try:
            with scratch_folder() as name:
                return _run(Path(name), files, job, timeout_s)
        except OSError as error:
            raise DeviceError(
                "cannot run a worker process on this machine",
                where=str(error.filename or tempfile.gettempdir()),
                why=str(error.strerror or error),
                fix="check free space and permissions of the folder for temporary files (TMPDIR)",
            ) from error


def _run(folder: Path, files: Mapping[str, Path], job: Job, timeout_s: float) -> Reply:
    for name, path in files.items():
        (folder / name).symlink_to(path.resolve())
    (folder / JOB).write_text(to_json(job), encoding="utf-8")
    command = [sys.executable, *PYTHON_OPTIONS, WORKER, JOB, REPLY]
    with (folder / _STDERR).open("wb") as stderr:
        environment = worker_environment(folder, job.threads)
        code = run_group(command, folder, environment, timeout_s, subprocess.DEVNULL, stderr)
    reply = folder / REPLY
    return read_end(reply.read_bytes() if reply.exists() else None, _tail(folder / _STDERR), code, timeout_s)


def worker_environment(folder: Path, threads: int) -> dict[str, str]:
    """Return the environment of a measured process. It does not depend on the caller's other variables."""
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return inherited | thread_variables(threads) | {"TMPDIR": str(folder)}


def run_group(
    command: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    timeout_s: float,
    stdout: int | IO[bytes],
    stderr: int | IO[bytes],
) -> int | None:
    """Run a program, end its whole process group in any case, and return its exit code; None after the time limit.

    A timer and a blocking wait enforce the limit, because Popen.wait(timeout=...) polls, which disturbs a worker on the
    same cores.
    """
    timed_out = threading.Event()
    _LOG.debug("process started: %s", shlex.join(command))
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
    )
    timer = threading.Timer(timeout_s, _time_out, (process.pid, timed_out))
    timer.daemon = True
    timer.start()
    try:
        code = process.wait()
    finally:
        # This also runs after Ctrl-C. An engine may have started processes that outlive the worker.
        timer.cancel()
        _kill_group(process.pid)
        process.wait()
    return None if timed_out.is_set() else code


def _time_out(pid: int, timed_out: threading.Event) -> None:
    timed_out.set()
    _kill_group(pid)


def _kill_group(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _STDERR_BYTES))
        return file.read()


TRANSPORT = LocalTransport()
