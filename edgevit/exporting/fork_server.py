"""A process that loads and folds a network once, and forks an export of it for each request.

A fork shares the memory of the packages and the network, and saves the seconds that they take to import and to fold.
It may change any of it, or crash, as a process of its own may. `python -m edgevit.exporting.fork_server NUMBER LEVEL
MODULE ..` imports the modules, and gets its requests on the socket of that number, each with a pipe for its answers. It
sends back how the fork ended: its exit code, or that the process cannot fork.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import socket
import sys
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from edgevit.exporting.answers import Answers, end_with, leave
from edgevit.exporting.child_process import imports_to_stay
from edgevit.recipes import import_shared
from edgevit.records.artifact import ExportRequest, SampleRequest
from edgevit_runtime.codec import from_json

if TYPE_CHECKING:
    from edgevit.exporting.preparation import Preparation

CANNOT_FORK = "cannot_fork"
MOST_BYTES = 1 << 17  # of a request or an answer


class _Server:
    """Keeps the network of the last request, and answers requests.

    It computes with one thread, because a fork would wait forever for threads that it does not have.
    """

    def __init__(self, connection: socket.socket) -> None:
        import torch

        self._connection = connection
        self._known: tuple[ExportRequest, Preparation] | None = None
        self._fork = 0
        self._threads = torch.get_num_threads()
        torch.set_num_threads(1)

    def serve(self) -> None:
        """Answer requests until the socket is closed. A signal ends the fork as well."""
        try:
            while True:
                message, descriptors, _, _ = socket.recv_fds(self._connection, MOST_BYTES, 1)
                if not message:
                    return
                end = self._export(from_json(ExportRequest, message), *descriptors)
                self._connection.send(str(end).encode())
        finally:
            if self._fork:
                os.kill(self._fork, signal.SIGTERM)
                os.waitpid(self._fork, 0)

    def _export(self, request: ExportRequest, pipe_number: int) -> int | str:
        """Export in a fork, and return how it ended. An error of the network itself is answered here."""
        with os.fdopen(pipe_number, "w", encoding="utf-8") as pipe:
            answers = Answers(pipe, request)
            prepared: list[Preparation] = []
            with answers.relayed():
                prepared.append(self._prepared(request, answers))
            # Its error is answered.
            if not prepared:
                return 0
            if not _can_fork():
                return CANNOT_FORK
            sys.stdout.flush()
            sys.stderr.flush()
            server = os.getpid()
            with warnings.catch_warnings():
                # Of the threads of a library for linear algebra, which that library looks after itself.
                warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
                self._fork = os.fork()
            if self._fork == 0:
                self._in_fork(server, prepared[0], request, answers)
        _, status = os.waitpid(self._fork, 0)
        self._fork = 0
        return os.waitstatus_to_exitcode(status)

    def _prepared(self, request: ExportRequest, answers: Answers) -> Preparation:
        """Return the preparation for a request, with all in it that is the same for every target."""
        import torch

        from edgevit.exporting.child_process import completed
        from edgevit.exporting.preparation import Preparation
        from edgevit.folding.restoration import unchanged
        from edgevit.models.source import load_requested, require_taken

        network = _network_of(request)
        if self._known is not None and self._known[0] == network:
            preparation = self._known[1]
            for stage in preparation.stages:
                answers.stage(stage.name)
        else:
            self._known = None
            subject = load_requested(request)
            # The network's own code may have set a number, and computed with it.
            self._threads = self._threads if torch.get_num_threads() == 1 else 1
            torch.set_num_threads(1)
            require_taken(subject, request.batch)
            subject = completed(subject, request)
            with unchanged(subject.module):
                preparation = Preparation(subject, request, answers.stage)
            self._known = (network, preparation)
        with unchanged(preparation.subject.module):
            preparation.complete(request)
        return preparation

    def _in_fork(self, server: int, preparation: Preparation, request: ExportRequest, answers: Answers) -> NoReturn:
        """Export, send the artifact, and end as a program of its own would."""
        import torch

        from edgevit.exporting.child_process import import_converter
        from edgevit.exporting.pipeline import export_subject

        code = 1
        try:
            self._fork = 0
            end_with(server)
            self._connection.close()
            torch.set_num_threads(self._threads)
            with answers.relayed():
                with imports_to_stay():
                    import_converter(request.target)
                artifact = export_subject(preparation.subject, request, answers.stage, preparation)
                answers.artifact(artifact)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        finally:
            if (error := sys.exception()) is not None:
                sys.excepthook(type(error), error, error.__traceback__)
            leave(code)


def _network_of(request: ExportRequest) -> ExportRequest:
    """Return the part of a request that says which network is exported, and how it is folded."""
    neutral = {"target": "", "out": Path(), "precision": "", "dynamic_batch": False, "options": {}}
    return dataclasses.replace(request, samples=SampleRequest(), **neutral)  # type: ignore[arg-type]


def _can_fork() -> bool:
    """Return whether a fork of this process works: none of its threads holds a lock, and CUDA is not in use."""
    import torch

    return threading.active_count() == 1 and not torch.cuda.is_initialized()  # type: ignore[no-untyped-call]


if __name__ == "__main__":
    end_with(os.getppid())
    number, level, *modules = sys.argv[1:]
    logging.getLogger("edgevit").setLevel(int(level))
    # No fork looks for garbage in what is here already, and copies it by that.
    with imports_to_stay():
        import_shared(modules)
    with socket.socket(fileno=int(number)) as connection:
        _Server(connection).serve()
    leave()
