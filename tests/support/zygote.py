"""A process that has imported the slow modules, and forks itself into each requested program.

`python zygote.py SOCKET OWNER worker ARCHIVE TARGET` imports the engine of a target as its worker would, and
`python zygote.py SOCKET OWNER command` torch and what exports need. Each connection to the socket is one program:
a request in JSON with the file descriptors it is to have; the answers are its process number, then how it ended.
A program whose client goes away is killed, and the server ends with the process OWNER. Linux only.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import struct
import sys
import tempfile
import threading
import warnings
import weakref
import zipimport
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

HEADER, NUMBER = struct.Struct("<I"), struct.Struct("<i")
MOST_DESCRIPTORS = 64
# Descriptors from here on are not those of a program.
_FREE = 512
_OURS = ("edgevit_runtime", "edgevit_recipes")
# What commands import beside edgevit's own modules, which read nothing of the environment when they are imported.
_FOR_COMMANDS = ("torch.export", "torch._dynamo", "torch.onnx._internal.exporter._core", "onnx", "onnxscript",
                 "onnxsim", "PIL.Image", "PIL.PngImagePlugin", "rich.table", "rich.progress")  # fmt: skip


def import_engine(archive: str, target: str) -> None:
    """Import what the worker of a target imports, and forget the worker's own modules again, but not their code."""
    zipimport._compile_source = compiled_once(zipimport._compile_source)  # type: ignore[attr-defined]
    sys.path.insert(0, archive)
    importlib.import_module("edgevit_runtime.worker")
    # The worker reports a missing engine itself.
    with contextlib.suppress(ImportError):
        recipe = importlib.import_module(f"edgevit_recipes.{target}")
        getattr(recipe, "import_engine", lambda: None)()
    sys.path.remove(archive)
    for name in [name for name in sys.modules if name.partition(".")[0] in _OURS]:
        del sys.modules[name]


def compiled_once(compiled: Callable[[str, bytes], Any]) -> Callable[[str, bytes], Any]:
    """Return a compiler of an archive's sources that knows those that it has seen under any path."""
    codes: dict[bytes, Any] = {}

    def known(path: str, source: bytes) -> Any:
        if source not in codes:
            codes[source] = compiled(path, source)
        return codes[source]

    return known


def import_for_commands(conversions: Path) -> None:
    """Import what most commands need, and all of edgevit that can be imported here. Share conversions in a folder."""
    # The folder of this file.
    folder = sys.path.pop(0)
    package = importlib.import_module("edgevit")
    modules = (module.name for module in pkgutil.walk_packages(package.__path__, "edgevit.", lambda name: None))
    for name in [*_FOR_COMMANDS, *(name for name in modules if not name.endswith(".__main__"))]:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if "torch" in sys.modules and "onnxscript" in sys.modules:
        sys.path.append(folder)
        importlib.import_module("exporters").share_registry()
        importlib.import_module("warmup").shorten_for_good()
        importlib.import_module("new_databases").share(conversions.parent / "databases")
        with one_thread():
            export_once()
            importlib.import_module("shared_exports").share(conversions)
        sys.path.remove(folder)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute with one thread, because a fork waits forever for the others."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def export_once() -> None:
    """Make torch set up its exporters, which takes longer than an export."""
    import torch

    model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU()).eval()
    with warnings.catch_warnings(action="ignore"):
        torch.onnx.export(model, (torch.zeros(2, 3, 8, 8),), dynamo=True, opset_version=20, verbose=False)


def forget_ends_of_imports() -> None:
    """Let no program run at its end what libraries do at the end of theirs: torch's report takes longer than a fork."""
    for finalizer in weakref.finalize._registry:  # type: ignore[attr-defined]
        finalizer.atexit = False
    if "torch._dynamo.utils" in sys.modules:
        atexit.unregister(sys.modules["torch._dynamo.utils"].dump_compile_times)


def serve(path: Path, owner: int) -> None:
    """Fork a program for each connection until the owner is gone and the last program has ended.

    This process attends to all of them itself: a fork of it takes 30 ms for its pages alone.
    """
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(f"{path}.new")
    listener.listen(64)
    # Clients find the socket only when it answers.
    Path(f"{path}.new").rename(path)
    gc.freeze()
    gc.enable()
    owner_end = os.pidfd_open(owner)
    watched: list[Any] = [listener, owner_end]
    programs: list[Program] = []
    while watched or programs:
        ends = [program.end for program in programs]
        clients = [program.connection for program in programs if not program.is_killed]
        ready, _, _ = select.select([*watched, *ends, *clients], [], [])
        if owner_end in ready:
            watched.clear()
        elif listener in ready:
            connection, _ = listener.accept()
            connections = [listener, *(program.connection for program in programs)]
            programs += start(connection, [owner_end, *ends, *(other.fileno() for other in connections)])
        for program in programs:
            if program.end in ready:
                program.report()
            elif program.connection in ready:
                program.kill()
        programs = [program for program in programs if program.end not in ready]


@dataclass
class Program:
    """A forked program: its process, the descriptor that shows its end, and the connection of its client."""

    process: int
    end: int
    connection: socket.socket
    is_killed: bool = False

    def kill(self) -> None:
        """Kill the program of a client that went away. One that has no group of its own yet is killed by itself."""
        self.is_killed = True
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                kill(self.process, signal.SIGKILL)

    def report(self) -> None:
        """Report how the program ended, if its client is still there."""
        _, status = os.waitpid(self.process, 0)
        with contextlib.suppress(OSError):
            self.connection.sendall(NUMBER.pack(os.waitstatus_to_exitcode(status)))
        self.connection.close()
        os.close(self.end)


def start(connection: socket.socket, others: list[int]) -> list[Program]:
    """Start the program of a connection, without the descriptors of others. A client that is already gone has none."""
    try:
        request, descriptors = receive(connection)
    except (OSError, ValueError, struct.error):
        connection.close()
        return []
    process = os.fork()
    if process == 0:
        for descriptor in [*others, connection.detach()]:
            os.close(descriptor)
        # Tests that run in the background ignore interruptions; their programs must not.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        become(request, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    # A client that is gone by now shows in serve(), as one that goes later does.
    with contextlib.suppress(OSError):
        connection.sendall(NUMBER.pack(process))
    return [Program(process, os.pidfd_open(process), connection)]


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Read a request and its descriptors. Raises ValueError or struct.error if the client went away meanwhile."""
    header, descriptors, _, _ = socket.recv_fds(connection, HEADER.size, MOST_DESCRIPTORS)
    (size,) = HEADER.unpack(header)
    text = b""
    while len(text) < size and (more := connection.recv(size - len(text))):
        text += more
    return json.loads(text), descriptors


def become(request: dict[str, Any], descriptors: list[int]) -> NoReturn:
    """Take over the descriptors, folder, environment and arguments of the program, run it, and end as it ends."""
    os.setsid()
    # Above every number that is asked for: a client with many open files asks for high ones.
    free = max(_FREE, *request["numbers"]) + 1
    moved = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, free) for descriptor in descriptors]
    for descriptor in descriptors:
        os.close(descriptor)
    for descriptor, number in zip(moved, request["numbers"], strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115 - as long as the program
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    # So that TMPDIR counts.
    tempfile.tempdir = None
    sys.argv = [request["program"], *request["arguments"]]
    if request["executable"]:
        sys.executable = request["executable"]
    code = 1
    try:
        run(request)
        code = 0
    except SystemExit as end:
        code = exit_code(end)
    finally:
        if (error := sys.exception()) and not isinstance(error, SystemExit):
            sys.excepthook(type(error), error, error.__traceback__)
        leave(code, interrupted=isinstance(error, KeyboardInterrupt))


def run(request: dict[str, Any]) -> None:
    """Run an archive's or a module's `__main__`."""
    if request["module"]:
        # The current folder is not on the path: neither a script nor `-P -m` puts it there.
        # A module is run anew, without an earlier import of it.
        if not hasattr(sys.modules.get(request["module"]), "__path__"):
            sys.modules.pop(request["module"], None)
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    else:
        if request["program"].endswith(".py"):
            sys.path.insert(0, str(Path(request["program"]).parent))
        runpy.run_path(request["program"], run_name="__main__")


def exit_code(end: SystemExit) -> int:
    """Return the code that the interpreter would exit with."""
    if end.code is None or isinstance(end.code, int):
        return end.code or 0
    print(end.code, file=sys.stderr)
    return 1


def leave(code: int, *, interrupted: bool) -> NoReturn:
    """End as an interpreter does, but without taking apart what was imported."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code & 0xFF)


if __name__ == "__main__":
    socket_path, owner_number, kind, *details = sys.argv[1:]
    # Collections take a fifth of the time of these imports and find nothing.
    gc.disable()
    if kind == "worker":
        import_engine(*details)
    else:
        import_for_commands(Path(socket_path).parent / "conversions")
    forget_ends_of_imports()
    serve(Path(socket_path), int(owner_number))
