"""One export in a process of its own: converters change global state, and one that crashes must take nothing with it.

A converter may compute for minutes without hearing a signal. The parent hears it, and ends the process.

The parent starts `python -m edgevit.exporting.child_process` with an ExportRequest as JSON on its standard input. The
child sends its answers (answers.py) on a pipe. What converters print goes to a file. The child's temporary files are in
a folder of the parent, which is removed however the child ends.
"""

from __future__ import annotations

import gc
import logging
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, TYPE_CHECKING

from edgevit.artifacts.folder_lock import clear_output
from edgevit.concurrency.scratch import scratch_folder
from edgevit.errors import EdgevitError, ExportError
from edgevit.exporting.answers import Answers, death, end_with, leave, listen
from edgevit.recipes import import_shared, load_recipe
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit_runtime.codec import from_json, to_json

_LOG = logging.getLogger(__name__)

if TYPE_CHECKING:
    from edgevit.models.source import Subject

_PRINTED = "printed.txt"
# What every export imports.
_PACKAGES = ("edgevit.exporting.pipeline", "edgevit.models.source", "torch._dynamo")
_GRACE_S = 1.0  # for a process to clean up, before it is killed


def export_separately(request: ExportRequest, on_stage: Callable[[str], None] = lambda name: None) -> Artifact:
    """Export in a fresh process. Raises what was raised there, and ExportError where the process itself died."""
    with temporary_files() as (folder, printed):
        reading, writing = os.pipe()
        level = logging.getLogger("edgevit").getEffectiveLevel()
        # -P: a module in the current folder never takes the place of a package.
        command = [sys.executable, "-P", "-m", "edgevit.exporting.child_process", str(writing), str(level)]
        _LOG.debug("process started: %s", shlex.join(command))
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=printed, stderr=printed, pass_fds=[writing],
                                 env=os.environ | {"TMPDIR": folder})  # fmt: skip
        os.close(writing)
        try:
            assert child.stdin is not None
            with suppress(BrokenPipeError), child.stdin:  # it may die before it reads
                child.stdin.write(to_json(request).encode())
            with os.fdopen(reading, encoding="utf-8") as answers:
                answer = listen(answers, request.model, on_stage)
            code = child.wait()
        finally:
            end(child)
            clear_after(child.returncode, request)
        if answer is None:
            raise death(request, code, printed)
        if isinstance(answer, EdgevitError):
            raise answer
        return answer


@contextmanager
def temporary_files() -> Iterator[tuple[str, IO[str]]]:
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


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process if it still runs."""
    try:
        if process.poll() is None:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE_S)
    finally:
        process.kill()
        process.wait()


def clear_after(code: int, request: ExportRequest) -> None:
    """Remove what a process left of an export that it could not remove itself, if its exit code says so."""
    if code != 0:
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

    Raise what completed() and export_subject() raise.
    """
    from edgevit.exporting.pipeline import export_subject

    return export_subject(completed(subject, request), request, on_stage)


def completed(subject: Subject, request: ExportRequest) -> Subject:
    """Return a loaded model with the preprocessing and labels of the request.

    Raise CheckpointError or UsageError where it is not the network of the request.
    """
    from edgevit.artifacts.labels import read_labels
    from edgevit.exporting.same_network import require_expected
    from edgevit.models.source import with_labels, with_preprocessing

    subject = with_preprocessing(subject) if request.embed_preprocess else subject
    labels = subject.labels if request.labels is None else read_labels(request.labels)
    if request.network is not None:
        require_expected(subject, labels, request.network, request.batch)
    if labels:
        subject = with_labels(subject, labels, str(request.labels or f"`labels` of {subject.name}"), request.batch)
    return subject


def import_converter(target: str) -> None:
    """Import a target's converter as a process needs it that serves this target alone."""
    # The export itself says what is missing.
    with suppress(ImportError):
        getattr(load_recipe(target), "import_converter", lambda: None)()


@contextmanager
def imports_to_stay() -> Iterator[None]:
    """Let a process of its own import what stays in it until its end, without looking for garbage meanwhile or later.

    Collections take up to a quarter of the time of such imports, and find next to nothing.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _serve(pipe: IO[str], request: ExportRequest) -> None:
    with imports_to_stay():
        import_shared(_PACKAGES)
    answers = Answers(pipe, request)
    with answers.relayed():
        with imports_to_stay():
            import_converter(request.target)
        answers.artifact(export_here(request, answers.stage))


if __name__ == "__main__":
    end_with(os.getppid())
    logging.getLogger("edgevit").setLevel(int(sys.argv[2]))
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as pipe:
        _serve(pipe, from_json(ExportRequest, sys.stdin.buffer.read()))
    # Its files are the parent's to remove.
    leave()
