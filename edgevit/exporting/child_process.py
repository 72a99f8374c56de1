"""One export in a process of its own: converters change global state, and one that crashes must take nothing with it.

The parent starts `python -m edgevit.exporting.child_process` with what is wanted as JSON on its standard input. The
child answers line by line in JSON on a pipe: the stages as they start, then the artifact or the error. What converters
print goes to a file, whose end is shown where the child died without an answer.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from edgevit import errors
from edgevit.errors import EdgevitError, ExportError
from edgevit.records.artifact import Artifact
from edgevit_runtime.record import from_data, from_json, to_data, to_json

_TAIL = 2000  # characters of what a dead child printed


@dataclass(frozen=True)
class Wanted:
    """A model as a person named it, and how it is to be exported: load_subject() and Order in one record."""

    model: str
    target: str
    out: Path
    precision: str = "fp32"
    weights: Path | None = None
    seed: int = 0
    input_size: tuple[int, int] | None = None
    batch: int = 1
    dynamic_batch: bool = False
    unfolded: bool = False
    embed_preprocess: bool = False
    labels: Path | None = None
    options: dict[str, str] = field(default_factory=dict)


def export_separately(wanted: Wanted, on_stage: Callable[[str], None] = lambda name: None) -> Artifact:
    """Export in a fresh process. Raises what was raised there, and ExportError where the process itself died."""
    reading, writing = os.pipe()
    with tempfile.TemporaryFile("w+", errors="replace") as printed:
        command = [sys.executable, "-m", "edgevit.exporting.child_process", str(writing)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=printed, stderr=printed, pass_fds=[writing])
        os.close(writing)
        try:
            assert child.stdin is not None
            with suppress(BrokenPipeError), child.stdin:  # it may die before it reads
                child.stdin.write(to_json(wanted).encode())
            with os.fdopen(reading, encoding="utf-8") as answers:
                artifact = _listen(answers, on_stage)
            code = child.wait()
        finally:
            child.kill()
            child.wait()
        if artifact is None:
            raise _death(wanted, code, printed)
        return artifact


def export_here(wanted: Wanted, on_stage: Callable[[str], None] = lambda name: None) -> Artifact:
    """Export in this process. Raises what load_subject() and export_subject() raise."""
    from edgevit.exporting.pipeline import Order, export_subject
    from edgevit.models.source import load_subject, with_labels, with_preprocessing

    subject = load_subject(wanted.model, weights=wanted.weights, seed=wanted.seed, input_size=wanted.input_size)
    subject = with_preprocessing(subject) if wanted.embed_preprocess else subject
    subject = with_labels(subject, wanted.labels) if wanted.labels else subject
    order = Order(
        wanted.target,
        wanted.out,
        wanted.precision,
        wanted.batch,
        wanted.dynamic_batch,
        wanted.unfolded,
        wanted.options,
        on_stage=on_stage,
    )
    return export_subject(subject, order)


def _listen(answers: IO[str], on_stage: Callable[[str], None]) -> Artifact | None:
    for line in answers:
        kind, data = next(iter(json.loads(line).items()))
        if kind == "stage":
            on_stage(data)
        elif kind == "artifact":
            return from_data(Artifact, data)
        else:
            raise _raised(data)
    return None


def _raised(data: dict[str, str]) -> EdgevitError:
    """An error of the child as one of the same exit code here."""
    kind: type[EdgevitError] = getattr(errors, data.pop("type"))
    error = kind.__new__(kind)
    EdgevitError.__init__(error, **data)
    return error


def _death(wanted: Wanted, code: int, printed: IO[str]) -> ExportError:
    printed.seek(0)
    tail = printed.read()[-_TAIL:].strip()
    ended = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    last = tail.splitlines()[-1] if tail else "it said nothing"
    fix = f"see it all: edgevit export {wanted.model} --target {wanted.target} --precision {wanted.precision} -v"
    return ExportError(f"the export to {wanted.target} ended with {ended}", why=last, fix=fix)


def _answer(pipe: IO[str], kind: str, data: Any) -> None:
    pipe.write(json.dumps({kind: to_data(data)}, allow_nan=False) + "\n")
    pipe.flush()


def _serve(pipe: IO[str], wanted: Wanted) -> None:
    try:
        _answer(pipe, "artifact", export_here(wanted, lambda stage: _answer(pipe, "stage", stage)))
    except EdgevitError as error:
        parts = {name: getattr(error, name) for name in ("what", "where", "why", "fix")}
        _answer(pipe, "error", {"type": type(error).__name__, **parts})


if __name__ == "__main__":
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as answers:
        _serve(answers, from_json(Wanted, sys.stdin.buffer.read()))
