"""One export in a process of its own: converters change global state, and one that crashes must take nothing with it.

A converter may compute for minutes without hearing a signal. The parent hears it, and ends the process.

The parent starts `python -m edgevit.exporting.child_process` with an ExportRequest as JSON on its standard input. The
child answers line by line in JSON on a pipe: the stages as they start, records of the log, lines that the user's code
prints, then the artifact or the error. What converters print goes to a file, whose end is shown where the child died
without an answer. Its temporary files are in a folder of the parent, which is removed however the child ends.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from edgevit import errors
from edgevit.artifacts.folder_lock import clear_output
from edgevit.concurrency.scratch import scratch_folder
from edgevit.errors import EdgevitError, ExportError
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit.visible_text import visible
from edgevit_runtime.codec import from_data, from_json, to_data, to_json

_LOG = logging.getLogger(__name__)

if TYPE_CHECKING:
    from edgevit.models.source import Subject

_PRINTED = "printed.txt"
_TAIL = 2000  # characters of what a dead child printed
_GRACE_S = 1.0  # for the child to clean up, before it is killed
_SHELL = 128  # what a shell adds to the number of a signal
_PR_SET_PDEATHSIG = 1


def export_separately(request: ExportRequest, on_stage: Callable[[str], None] = lambda name: None) -> Artifact:
    """Export in a fresh process. Raises what was raised there, and ExportError where the process itself died."""
    with _temporary_files() as (folder, printed):
        reading, writing = os.pipe()
        level = logging.getLogger("edgevit").getEffectiveLevel()
        command = [sys.executable, "-m", "edgevit.exporting.child_process", str(writing), str(level)]
        _LOG.debug("process started: %s", shlex.join(command))
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=printed, stderr=printed, pass_fds=[writing],
                                 env=os.environ | {"TMPDIR": folder})  # fmt: skip
        os.close(writing)
        try:
            assert child.stdin is not None
            with suppress(BrokenPipeError), child.stdin:  # it may die before it reads
                child.stdin.write(to_json(request).encode())
            with os.fdopen(reading, encoding="utf-8") as answers:
                artifact = _listen(answers, request.model, on_stage)
            code = child.wait()
        finally:
            _end(child, request)
        if artifact is None:
            raise _death(request, code, printed)
        return artifact


@contextmanager
def _temporary_files() -> Iterator[tuple[str, IO[str]]]:
    """Yield the child's folder for temporary files, and the file for what it prints. Raise ExportError without room."""
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(scratch_folder("export"))
            printed = stack.enter_context((folder / _PRINTED).open("w+", errors="replace"))
        except OSError as error:
            raise ExportError(
                "cannot write temporary files",
                where=str(error.filename or tempfile.gettempdir()),
                why=str(error.strerror or error),
                fix="check free space and permissions of the folder for temporary files (TMPDIR)",
            ) from error
        yield str(folder), printed


def _end(child: subprocess.Popen[bytes], request: ExportRequest) -> None:
    """End the child if it still runs, and remove what it could not remove itself."""
    try:
        if child.poll() is None:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE_S)
    finally:
        child.kill()
        child.wait()
    if child.returncode != 0:
        clear_output(request.out)
        with suppress(OSError):
            # Empty, it held nothing but what was removed.
            request.out.rmdir()


def export_here(request: ExportRequest, on_stage: Callable[[str], None] = lambda name: None) -> Artifact:
    """Export in this process. Raise what load_requested() and export_loaded() raise."""
    from edgevit.models.source import load_requested, require_taken

    subject = load_requested(request)
    require_taken(subject, request.batch)
    return export_loaded(subject, request, on_stage)


def export_loaded(subject: Subject, request: ExportRequest, on_stage: Callable[[str], None]) -> Artifact:
    """Export a loaded model in this process, with the preprocessing and labels of the request.

    Raise what export_subject() raises, and CheckpointError or UsageError where it is not the network of the request.
    """
    from edgevit.artifacts.labels import read_labels
    from edgevit.exporting.pipeline import export_subject
    from edgevit.exporting.same_network import require_expected
    from edgevit.models.source import with_labels, with_preprocessing

    subject = with_preprocessing(subject) if request.embed_preprocess else subject
    labels = subject.labels if request.labels is None else read_labels(request.labels)
    if request.network is not None:
        require_expected(subject, labels, request.network, request.batch)
    if labels:
        subject = with_labels(subject, labels, str(request.labels or f"`labels` of {subject.name}"), request.batch)
    return export_subject(subject, request, on_stage)


def _listen(answers: IO[str], model: str, on_stage: Callable[[str], None]) -> Artifact | None:
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
            raise _raised(data)
    return None


def _raised(data: dict[str, str]) -> EdgevitError:
    """Return an error of the child as one of the same kind here."""
    kind: type[EdgevitError] = getattr(errors, data.pop("type"))
    error = kind.__new__(kind)
    EdgevitError.__init__(error, **data)
    return error


def _death(request: ExportRequest, code: int, printed: IO[str]) -> ExportError:
    printed.seek(0)
    tail = printed.read()[-_TAIL:].strip()
    ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    last = tail.splitlines()[-1] if tail else "it said nothing"
    fix = f"see it all: edgevit export {request.model} --target {request.target} --precision {request.precision} -v"
    return ExportError(f"the export to {request.target} ended with {ended}", why=last, fix=fix)


def _answer(pipe: IO[str], kind: str, data: Any) -> None:
    pipe.write(json.dumps({kind: to_data(data)}, allow_nan=False) + "\n")
    pipe.flush()


def _serve(pipe: IO[str], request: ExportRequest) -> None:
    from edgevit.exporting.user_prints import UserPrints

    prints = UserPrints(request.model, lambda line: _answer(pipe, "print", line))

    def on_stage(stage: str) -> None:
        prints.is_loading = False
        _answer(pipe, "stage", stage)

    try:
        with prints.relayed():
            artifact = export_here(request, on_stage)
        _answer(pipe, "artifact", artifact)
    except EdgevitError as error:
        parts = {name: getattr(error, name) for name in ("what", "where", "why", "fix")}
        _answer(pipe, "error", {"type": type(error).__name__, **parts})


class _PipeHandler(logging.Handler):
    """Sends records of the log to the parent."""

    def __init__(self, pipe: IO[str]) -> None:
        super().__init__()
        self._pipe = pipe

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record as its text."""
        _answer(self._pipe, "log", {"name": record.name, "level": record.levelno, "text": record.getMessage()})


def _log_to(pipe: IO[str], level: int) -> None:
    logger = logging.getLogger("edgevit")
    logger.setLevel(level)
    logger.addHandler(_PipeHandler(pipe))


def _end_with_parent() -> None:
    """End on SIGTERM and SIGHUP after cleaning up; at once where the parent is killed, as far as the system tells that.

    A converter that computes on would disturb what is measured next, and hears no other signal. The next run cleans up.
    """
    parent = os.getppid()
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, lambda received, _: sys.exit(_SHELL + received))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(_SHELL + signal.SIGTERM)


if __name__ == "__main__":
    _end_with_parent()
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as answers:
        _log_to(answers, int(sys.argv[2]))
        _serve(answers, from_json(ExportRequest, sys.stdin.buffer.read()))
    logging.shutdown()
    # Its files are the parent's to remove. To take down torch and a converter object by object costs up to a second.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
