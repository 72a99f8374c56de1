"""Several exports of one network, each in a fork of a process that has loaded and folded it (fork_server.py)."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import IO

from edgevit.errors import EdgevitError
from edgevit.exporting.answers import death, listen
from edgevit.exporting.child_process import clear_after, end, export_separately, temporary_files
from edgevit.exporting.fork_server import CANNOT_FORK, MOST_BYTES
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact, ExportRequest
from edgevit_runtime.codec import to_json

_LOG = logging.getLogger(__name__)
# Elsewhere a system's own libraries do not survive a fork.
_FORKS = sys.platform == "linux"

Export = Callable[[ExportRequest, Callable[[str], None]], Artifact]


@contextmanager
def exports_of(requests: Sequence[ExportRequest]) -> Iterator[Export]:
    """Yield a function that exports each of these requests as export_separately() does, in less time if they are many.

    The process that they share ends with the context.
    """
    if len(requests) == 1 or not _FORKS:
        yield export_separately
        return
    server = _ForkServer(_shared_modules(requests))
    try:
        yield server.export
    finally:
        server.close()


def _shared_modules(requests: Sequence[ExportRequest]) -> list[str]:
    """Return the modules that the exports of more than one request import."""
    counts: Counter[str] = Counter()
    for request in requests:
        recipe = load_recipe(request.target).RECIPE
        source = load_recipe(recipe.source).RECIPE.imports if recipe.source else ()
        counts.update({*recipe.imports, *source})
    return [name for name, times in counts.items() if times > 1]


class _ForkServer:
    """The process that forks. It is started for the first request, and anew after it died."""

    def __init__(self, modules: Sequence[str]) -> None:
        self._modules = modules
        self._resources = ExitStack()
        self._running: _Running | None = None

    def export(self, request: ExportRequest, on_stage: Callable[[str], None] = lambda name: None) -> Artifact:
        """Export in a fork. Raises what was raised there, and ExportError where the fork or the server died."""
        running = self._running or self._start()
        # The processes that print into it share its position.
        running.printed.seek(0)
        running.printed.truncate()
        answer: Artifact | EdgevitError | None = None
        end_of_fork: int | str | None = None
        try:
            answer = running.ask(request, on_stage)
            end_of_fork = running.wait()
            if end_of_fork == CANNOT_FORK:
                return export_separately(request, on_stage)
            if answer is None:
                raise death(request, int(end_of_fork), running.printed)
        finally:
            if end_of_fork is None or running.has_died:
                self.close()
            if end_of_fork != CANNOT_FORK:
                clear_after(-signal.SIGTERM if end_of_fork is None else int(end_of_fork), request)
        if isinstance(answer, EdgevitError):
            raise answer
        return answer

    def close(self) -> None:
        """End the process with its fork, and remove their temporary files."""
        self._running = None
        self._resources.close()

    def _start(self) -> _Running:
        """Start the process. Raises ExportError without room for temporary files."""
        folder, printed = self._resources.enter_context(temporary_files())
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._resources.enter_context(here)
        with there:
            level = logging.getLogger("edgevit").getEffectiveLevel()
            details = [str(there.fileno()), str(level), *self._modules]
            command = [sys.executable, "-P", "-m", "edgevit.exporting.fork_server", *details]
            _LOG.debug("process started: %s", shlex.join(command))
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=printed, stderr=printed,
                                       pass_fds=[there.fileno()], env=os.environ | {"TMPDIR": folder})  # fmt: skip
        self._resources.callback(end, process)
        self._running = _Running(process, here, printed)
        return self._running


@dataclass
class _Running:
    """A process that forks, its socket, and the file for what it and its forks print."""

    process: subprocess.Popen[bytes]
    connection: socket.socket
    printed: IO[str]
    has_died: bool = False

    def ask(self, request: ExportRequest, on_stage: Callable[[str], None]) -> Artifact | EdgevitError | None:
        """Send a request, and return its artifact or its error; None where the process died."""
        reading, writing = os.pipe()
        with os.fdopen(reading, encoding="utf-8") as answers:
            try:
                # It may have died since.
                with suppress(ConnectionError):
                    socket.send_fds(self.connection, [to_json(request).encode()], [writing])
            finally:
                os.close(writing)
            return listen(answers, request.model, on_stage)

    def wait(self) -> int | str:
        """Return how the fork ended, or the process itself."""
        end_of_fork = b""
        with suppress(ConnectionError):
            end_of_fork = self.connection.recv(MOST_BYTES)
        if end_of_fork:
            text = end_of_fork.decode()
            return text if text == CANNOT_FORK else int(text)
        self.has_died = True
        return self.process.wait()
