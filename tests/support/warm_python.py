"""A Python that starts edgevit's commands and workers by forking a process that has imported their engines already.

`bin/python` of a run's folder takes the place of the real one. `-P -m edgevit.MODULE ...`, `FILE.py`, and the worker
that computes or classifies become programs of a zygote (zygote.py), which start seconds sooner. The real Python gets
anything else as it stands. `bin/edgevit` is the command line. Each such process loads this module; it imports little.
"""

from __future__ import annotations

# socket itself takes longer to import than a fork.
import _socket
import array
import json
import os
import signal
import struct
import time

WORKER_OPTIONS = ["-I", "-X", "faulthandler"]
WARM_TASKS = ("infer", "classify")
# Timed tasks start afresh, as they do for a user, except those of commands: `timed/python` is the Python of these.
TIMED_TASKS = ("time", "layers")
START_S = 300
_HEADER, _NUMBER = struct.Struct("<I"), struct.Struct("<i")
_SUPPORT = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib takes longer than a fork
SCRIPT = """#!{python} -IS
import sys
sys.path.append({support!r})
import warm_python
sys.exit(warm_python.Run({folder!r}, {owner}, {python!r}, {targets!r}, {warm_tasks!r}).main(sys.argv))
"""


class Run:
    """The zygotes of a test run: their folder, the process that they end with, the real Python, the known targets.

    warm_tasks: of workers that a zygote starts.
    """

    def __init__(
        self,
        folder: str,
        owner: int,
        python: str,
        targets: tuple[str, ...],
        warm_tasks: tuple[str, ...] = WARM_TASKS,
    ) -> None:
        self.folder, self.owner, self.python, self.targets = folder, owner, python, targets
        self.warm_tasks = warm_tasks

    def write_scripts(self) -> None:
        """Write `bin/python`, `bin/edgevit`, and the Python of commands."""
        scripts = {"bin/python": WARM_TASKS, "bin/edgevit": WARM_TASKS, "timed/python": WARM_TASKS + TIMED_TASKS}
        for name, warm_tasks in scripts.items():
            path = f"{self.folder}/{name}"
            os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
            with open(path, "w", encoding="utf-8") as file:  # noqa: PTH123
                file.write(SCRIPT.format(support=_SUPPORT, **vars(self) | {"warm_tasks": warm_tasks}))
            os.chmod(path, 0o755)  # noqa: PTH101

    def main(self, command_line: list[str]) -> int:
        """Run a program as the real Python would, and return its exit code."""
        program, *arguments = command_line
        request: dict[str, object] = {"executable": f"{self.folder}/timed/python"}
        if program.endswith("/edgevit"):
            request |= {"module": "edgevit.cli", "program": "edgevit", "arguments": arguments}
            return self.run(["command"], request)
        if arguments[:2] == ["-P", "-m"] and "".join(arguments[2:3]).startswith("edgevit."):
            request |= {"module": arguments[2], "program": arguments[2], "arguments": arguments[3:]}
            return self.run(["command"], request)
        if len(arguments) == 1 and arguments[0].endswith(".py"):
            return self.run(["command"], request | {"module": "", "program": arguments[0], "arguments": []})
        if arguments[:3] == WORKER_OPTIONS and len(arguments) == 6 and (target := self._warm_target(arguments[4])):
            archive = os.path.abspath(arguments[3])  # noqa: PTH100
            request = {"executable": "", "module": "", "program": arguments[3], "arguments": arguments[4:]}
            return self.run(["worker", archive, target], request)
        os.execv(self.python, [self.python, *arguments])

    def _warm_target(self, job: str) -> str:
        """Return the target of a job that a warm worker may do; empty for any other."""
        with open(job, encoding="utf-8") as file:  # noqa: PTH123
            described = json.load(file)
        is_warm = described["task"] in self.warm_tasks and described["target"] in self.targets
        return described["target"] if is_warm else ""

    def run(self, kind: list[str], request: dict[str, object]) -> int:
        """Let a zygote run a program with this process's descriptors, folder and environment, and end as it ends."""
        connection = self.connect(kind)
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]  # noqa: PTH208
        numbers = [number for number in numbers if number != connection.fileno() and _is_open(number)]
        text = json.dumps(request | {"folder": os.getcwd(), "environment": dict(os.environ), "numbers": numbers})  # noqa: PTH109
        content = text.encode()
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", numbers))
        connection.sendmsg([_HEADER.pack(len(content))], [rights])
        connection.sendall(content)
        program = _read_number(connection)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda received, frame: os.kill(program, received))
        code = _read_number(connection)
        if code < 0:
            signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
            os.kill(os.getpid(), -code)
        return code

    def connect(self, kind: list[str]) -> _socket.socket:
        """Connect to a zygote of this kind, which is started first if it is not there."""
        name = "-".join([kind[0], *kind[2:], *(_plain(os.environ.get(name, "")) for name in _LOADED_WITH)])
        path = f"{self.folder}/{name}"
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        if connection.connect_ex(path) != 0:
            self._start(path, kind)
            connection.connect(path)
        return connection

    def _start(self, path: str, kind: list[str]) -> None:
        """Start a zygote unless another process has done so meanwhile, and wait until it answers."""
        import fcntl
        import subprocess

        with open(f"{path}.lock", "w") as lock, open(f"{path}.log", "w") as log:  # noqa: PTH123
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.exists(path):  # noqa: PTH110
                return
            options = WORKER_OPTIONS if kind[0] == "worker" else []
            command = [self.python, *options, f"{_SUPPORT}/zygote.py", path, str(self.owner), *kind]
            # What imports leave among temporary files is not this client's, and outlives it.
            environment = {name: value for name, value in os.environ.items() if name != "TMPDIR"}
            zygote = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                                      env=environment, start_new_session=True)  # fmt: skip
            end = time.monotonic() + START_S
            while not os.path.exists(path):  # noqa: PTH110
                if zygote.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"no zygote came up: {path}.log")
                time.sleep(0.01)


# Variables that libraries read as they are loaded.
_LOADED_WITH = ("OMP_NUM_THREADS", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")


def _plain(value: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in value)[:40]


def _is_open(number: int) -> bool:
    """Return whether a descriptor outlives the listing that named it."""
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def _read_number(connection: _socket.socket) -> int:
    data = b""
    while len(data) < _NUMBER.size:
        more = connection.recv(_NUMBER.size - len(data))
        if not more:
            raise RuntimeError("the zygote went away")
        data += more
    return int(_NUMBER.unpack(data)[0])
