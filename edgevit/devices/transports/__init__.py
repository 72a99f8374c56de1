"""Transports, which run a worker on a device. Each is one module here with a `TRANSPORT`, named by its file.

This module contains the parts that all transports share: the worker's command line, and the status of a worker that
left no reply.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import signal
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from edgevit.errors import UnknownNameError
from edgevit.records.measurement import Device
from edgevit_runtime.codec import RecordError, from_json
from edgevit_runtime.record import Job, Reply, Status

WORKER, JOB, REPLY = "worker.pyz", "job.json", "reply.json"  # names in the worker's directory
# -I: neither the user's site-packages nor PYTHON* variables. faulthandler: where a crash happened, on stderr.
PYTHON_OPTIONS = ("-I", "-X", "faulthandler")
# A worker sees no other variables: a forgotten OMP_WAIT_POLICY or LD_PRELOAD would affect the measurement.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
_TAIL_CHARACTERS = 2000  # of stderr: a Python traceback's end, not the engine's whole log
_EXCEPTION, _UNSUPPORTED = 1, 5  # exit codes of an uncaught exception, and of a Python too old for the worker
_SHELL_SIGNAL = 128  # a shell in between reports death by signal N as 128 + N


class Transport(Protocol):
    """A way to run a worker on a device."""

    def run(self, device: Device, files: Mapping[str, Path], job: Job, *, timeout_s: float) -> Reply:
        """Run the job in a fresh process on the device and return its reply.

        `files` maps names in the worker's directory to files or folders on this machine; WORKER is the one that is run.
        An engine that raises, crashes or hangs gives a Reply too. Raises DeviceError only if the device itself fails.
        """


def list_transports() -> list[str]:
    """Return the names of all transports."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_transport(name: str) -> Transport:
    """Return the transport of this name. Raises UnknownNameError."""
    if name not in (names := list_transports()):
        raise UnknownNameError("transport", name, names, listing="edgevit devices")
    return typing.cast(Transport, importlib.import_module(f"{__name__}.{name}").TRANSPORT)


def thread_variables(threads: int) -> dict[str, str]:
    """Return the environment variables that limit the thread pools below an engine to this number."""
    pools = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR")
    return {f"{pool}_NUM_THREADS": str(threads) for pool in pools} | {"VECLIB_MAXIMUM_THREADS": str(threads)}


def read_end(reply: bytes | None, stderr: bytes, code: int | None, timeout_s: float) -> Reply:
    """Read a worker's reply, and explain its end where the reply is missing or unfinished.

    `code` is the exit code, negative for a signal, None after the time limit. A finished reply stays valid even if the
    process then crashed or hung during shutdown, as engines do.
    """
    try:
        written = Reply("crashed") if reply is None else from_json(Reply, reply)
    except RecordError as error:
        return Reply("failed", f"the worker's reply cannot be read: {error}")
    # The worker writes "crashed" at its start and the outcome at its end.
    if written.status != "crashed":
        return dataclasses.replace(written, error=_plain(written.error))
    tail = stderr.decode("utf-8", errors="replace").strip()[-_TAIL_CHARACTERS:]
    status, why = _explain_exit(code, timeout_s, tail)
    # The watchdog that ended a worker writes the reason; a worker that just ends leaves it empty.
    if written.error:
        status, why = "crashed", written.error
    return dataclasses.replace(written, status=status, error=_plain(f"{why}\n{tail}").strip())


def _plain(text: str) -> str:
    """Return text that a terminal and a database accept: engines log NUL, escapes and incomplete characters."""
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)


def _explain_exit(code: int | None, timeout_s: float, stderr: str) -> tuple[Status, str]:
    if code is None:
        return "timeout", f"no reply after {timeout_s:g} s"
    if code == _EXCEPTION and stderr:
        return "failed", ""  # the traceback contains the reason
    if code == _UNSUPPORTED:
        return "unsupported", ""
    number = -code if code < 0 else code - _SHELL_SIGNAL
    if number in set(signal.Signals):
        return "crashed", f"the worker was killed by {signal.Signals(number).name}"
    return "crashed", f"the worker ended with exit code {code} and no reply"
