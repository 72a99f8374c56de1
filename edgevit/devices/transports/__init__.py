"""Ways to reach a device. A transport is one module here with a `TRANSPORT`; its file name is its name.

What every transport shares is here: how a worker is called, and what its end means when it left no reply.
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
from edgevit_runtime.record import Job, RecordError, Reply, Status, from_json

WORKER, JOB, REPLY = "worker.pyz", "job.json", "reply.json"  # names in the worker's directory
# -I: neither the user's site-packages nor PYTHON* variables. faulthandler: where a crash happened, on stderr.
PYTHON_OPTIONS = ("-I", "-X", "faulthandler")
# A worker sees these and no others: a forgotten OMP_WAIT_POLICY or LD_PRELOAD would be part of the number.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
_TAIL_CHARACTERS = 2000  # of stderr: a Python traceback's end, not the engine's whole log
_EXCEPTION, _UNSUPPORTED = 1, 5  # exit codes of an uncaught exception, and of a Python too old for the worker
_SHELL_SIGNAL = 128  # a shell in between reports death by signal N as 128 + N


class Transport(Protocol):
    """One way to run a worker on a device."""

    def run(self, device: Device, files: Mapping[str, Path], job: Job, *, timeout_s: float) -> Reply:
        """Do the job in a fresh process on the device and return what came of it.

        `files` maps names in the worker's directory to files or folders here; WORKER is one of them, and is run.
        Whatever the engine does (raise, crash, hang) is a Reply. Raises DeviceError only if the device itself fails.
        """


def list_transports() -> list[str]:
    """Names of all transports."""
    return sorted(item.name for item in pkgutil.iter_modules(__path__))


def load_transport(name: str) -> Transport:
    """The transport of this name. Raises UnknownNameError."""
    if name not in (known := list_transports()):
        raise UnknownNameError("transport", name, known, listing="edgevit devices")
    return typing.cast(Transport, importlib.import_module(f"{__name__}.{name}").TRANSPORT)


def thread_variables(threads: int) -> dict[str, str]:
    """Environment variables that hold the thread pools below an engine to the same number."""
    pools = ("OMP", "OPENBLAS", "MKL", "BLIS", "NUMEXPR")
    return {f"{pool}_NUM_THREADS": str(threads) for pool in pools} | {"VECLIB_MAXIMUM_THREADS": str(threads)}


def read_end(reply: bytes | None, stderr: bytes, code: int | None, timeout_s: float) -> Reply:
    """What a worker's end means. `code` is its exit code, negative for a signal, None if its time was over.

    A reply that was finished stands even if the process then crashed or hung while it closed down: engines do.
    """
    try:
        left = Reply("crashed") if reply is None else from_json(Reply, reply)
    except RecordError as error:
        return Reply("failed", f"the worker's reply cannot be read: {error}")
    if left.status != "crashed":  # the worker writes "crashed" at its start and the outcome at its end
        return dataclasses.replace(left, error=_plain(left.error))
    tail = stderr.decode("utf-8", errors="replace").strip()[-_TAIL_CHARACTERS:]
    status, why = _meaning(code, timeout_s, tail)
    # The watchdog that ended a worker writes the reason; a worker that just ends leaves it empty.
    if left.error:
        status, why = "crashed", left.error
    return dataclasses.replace(left, status=status, error=_plain(f"{why}\n{tail}").strip())


def _plain(text: str) -> str:
    """Text that a terminal and a database can take: an engine's log may hold NUL, escapes and half characters."""
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)


def _meaning(code: int | None, timeout_s: float, said: str) -> tuple[Status, str]:
    if code is None:
        return "timeout", f"no reply after {timeout_s:g} s"
    if code == _EXCEPTION and said:
        return "failed", ""  # the traceback says it
    if code == _UNSUPPORTED:
        return "unsupported", ""
    number = -code if code < 0 else code - _SHELL_SIGNAL
    if number in set(signal.Signals):
        return "crashed", f"the worker was killed by {signal.Signals(number).name}"
    return "crashed", f"the worker ended with exit code {code} and no reply"
