"""Answers of a process that exports: stages, prints of the user's code and records of the log, then the end of it.

They are lines of JSON on a pipe. The last one is the artifact or the error. A process that died left none; the end of
what it printed is shown then.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any, NoReturn

from edgevit import errors
from edgevit.errors import EdgevitError, ExportError
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit.visible_text import visible
from edgevit_runtime.codec import from_data, to_data

_TAIL = 2000  # characters of what a dead process printed
_SHELL = 128  # what a shell adds to the number of a signal
_PR_SET_PDEATHSIG = 1


def listen(answers: IO[str], model: str, on_stage: Callable[[str], None]) -> Artifact | EdgevitError | None:
    """Pass on what comes, and return the artifact or the error; None where the process died."""
    for line in answers:
        kind, data = next(iter(json.loads(line).items()))
        if kind == "stage":
            on_stage(data)
        elif kind == "print":
            print(visible(f"{model}: {data}", keep="\t"), file=sys.stderr, flush=True)
        elif kind == "log":
            logging.getLogger(data["name"]).log(data["level"], "%s", data["text"])
        elif kind == "artifact":
            return from_data(Artifact, data)
        else:
            return _error(data)
    return None


def _error(data: dict[str, str]) -> EdgevitError:
    """Return an error of the process as one of the same kind here."""
    kind: type[EdgevitError] = getattr(errors, data.pop("type"))
    error = kind.__new__(kind)
    EdgevitError.__init__(error, **data)
    return error


def death(request: ExportRequest, code: int, printed: IO[str]) -> ExportError:
    """Return the error for a process that ended without an answer."""
    printed.seek(0)
    tail = printed.read()[-_TAIL:].strip()
    ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    last = tail.splitlines()[-1] if tail else "it said nothing"
    fix = f"see it all: edgevit export {request.model} --target {request.target} --precision {request.precision} -v"
    return ExportError(f"the export to {request.target} ended with {ended}", why=last, fix=fix)


class Answers:
    """The answers to one request, as the exporting process sends them. The lines of the user's code are among them."""

    def __init__(self, pipe: IO[str], request: ExportRequest) -> None:
        from edgevit.exporting.user_prints import UserPrints

        self._pipe = pipe
        self._prints = UserPrints(request.model, lambda line: self._send("print", line))

    def _send(self, kind: str, data: Any) -> None:
        self._pipe.write(json.dumps({kind: to_data(data)}, allow_nan=False) + "\n")
        self._pipe.flush()

    def stage(self, name: str) -> None:
        """Send the start of a stage. The model is loaded then."""
        self._prints.is_loading = False
        self._send("stage", name)

    def artifact(self, artifact: Artifact) -> None:
        """Send the artifact, as the last answer."""
        self._send("artifact", artifact)

    @contextmanager
    def relayed(self) -> Iterator[None]:
        """Send what the user's code prints and what is logged meanwhile, and an error as the last answer."""
        logger, handler = logging.getLogger("edgevit"), _PipeHandler(self._send)
        logger.addHandler(handler)
        try:
            with self._prints.relayed():
                yield
        except EdgevitError as error:
            parts = {name: getattr(error, name) for name in ("what", "where", "why", "fix")}
            self._send("error", {"type": type(error).__name__, **parts})
        finally:
            logger.removeHandler(handler)


class _PipeHandler(logging.Handler):
    """Sends records of the log as their texts."""

    def __init__(self, send: Callable[[str, Any], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record."""
        self._send("log", {"name": record.name, "level": record.levelno, "text": record.getMessage()})


def end_with(parent: int) -> None:
    """End on SIGTERM and SIGHUP after cleaning up; at once where the parent is killed, as far as the system tells that.

    A converter that computes on would disturb what is measured next, and hears no other signal. The next run cleans up.
    """
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, lambda received, _: sys.exit(_SHELL + received))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(_SHELL + signal.SIGTERM)


def leave(code: int = 0) -> NoReturn:
    """End at once. To take down torch and a converter object by object costs up to a second."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
