"""Warm Python of tests/support/warm_python.py: streams, folder, exit codes and signals are as in the real one."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from support import new_databases, warm_python
from support.command_line import edgevit, programs
from support.processes import is_running
from support.speed import seconds, wait_until

TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d.*")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="not Linux")


def start(code: str, folder: Path, **variables: str) -> subprocess.Popen[str]:
    file = folder / "program.py"
    file.write_text(code)
    command, environment = [str(programs() / "python"), str(file)], os.environ | variables
    return subprocess.Popen(command, cwd=folder, env=environment, text=True, stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def ended(code: str, folder: Path, **variables: str) -> tuple[int, str, str]:
    with start(code, folder, **variables) as process:
        printed, complained = process.communicate("given\n")
        return process.returncode, printed, complained


def test_streams_folder_and_environment_are_its_own(tmp_path: Path) -> None:
    code = "import os, sys; print(input(), os.getcwd(), os.environ['OURS'], sys.argv); print('oh', file=sys.stderr)"
    expected = f"given {tmp_path} here ['{tmp_path}/program.py']\n"
    assert ended(code, tmp_path, OURS="here") == (0, expected, "oh\n")


@pytest.mark.parametrize(
    ("code", "number", "last"),
    [
        ("import sys; sys.exit(3)", 3, ""),
        ("import sys; sys.exit('why')", 1, "why"),
        ("1 / 0", 1, "ZeroDivisionError: division by zero"),
        ("import os; os.kill(os.getpid(), 11)", -signal.SIGSEGV, ""),
        ("raise KeyboardInterrupt", -signal.SIGINT, "KeyboardInterrupt"),
        ("import atexit; atexit.register(print, 'bye')", 0, ""),
    ],
)
def test_it_ends_as_its_program_ends(code: str, number: int, last: str, tmp_path: Path) -> None:
    returned, printed, complained = ended(code, tmp_path)
    assert (returned, "".join(complained.splitlines()[-1:])) == (number, last)
    assert printed == ("bye\n" if "bye" in code else "")


WAITS = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_program_with_it(number: signal.Signals, tmp_path: Path) -> None:
    with start(WAITS, tmp_path) as process:
        assert process.stdout is not None
        program = int(process.stdout.readline())
        assert program != process.pid and is_running(program)
        process.send_signal(number)
        assert process.wait(timeout=seconds(30)) == -number
        assert wait_until(lambda: not is_running(program))


@pytest.mark.parametrize("number", [100, *range(513, 518)])
def test_descriptors_are_handed_on(tmp_path: Path, number: int) -> None:
    reading, low = os.pipe()
    # In a process with many open files, descriptors have high numbers, such as the zygote uses itself.
    writing = fcntl.fcntl(low, fcntl.F_DUPFD, number)
    os.close(low)
    file = tmp_path / "program.py"
    file.write_text(f"import os; os.write({writing}, b'through')")
    subprocess.run([str(programs() / "python"), str(file)], pass_fds=[writing], check=True)
    os.close(writing)
    with os.fdopen(reading, "rb") as answers:
        assert answers.read() == b"through"


def test_anything_else_is_the_real_pythons() -> None:
    command = [str(programs() / "python"), "-c", "import sys; print(sys.executable)"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == sys.executable


def test_commands_are_warm(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import sys\nraise RuntimeError('torch._dynamo' in sys.modules, sys.argv)\n")
    outcome = edgevit("fold", "net.py:net", "--input-size", "32", "-v", folder=tmp_path)
    assert outcome.returncode == 1
    assert "(True, ['net.py'])" in outcome.stderr


@pytest.mark.parametrize("targets", ["onnx", "onnx,ncnn"])
def test_processes_that_exports_start_are_warm(targets: str, tmp_path: Path) -> None:
    """A new Python of an export imports no command line."""
    (tmp_path / "net.py").write_text("import sys\nraise RuntimeError('edgevit.cli.export' in sys.modules, sys.argv)\n")
    outcome = edgevit("export", "net.py:net", "-t", targets, "--input-size", "32", "--out", "out", folder=tmp_path)
    assert outcome.returncode == 1
    assert "(True, ['net.py'])" in outcome.stderr


@pytest.mark.parametrize(
    ("task", "of_tests", "of_commands"), [("infer", "onnx", "onnx"), ("time", "", "onnx"), ("detect", "", "")]
)
def test_a_timed_worker_is_warm_for_commands_alone(task: str, of_tests: str, of_commands: str, tmp_path: Path) -> None:
    job = tmp_path / "job.json"
    job.write_text(json.dumps({"task": task, "target": "onnx"}))
    for name, tasks, expected in (
        ("bin", warm_python.WARM_TASKS, of_tests),
        ("timed", warm_python.WARM_TASKS + warm_python.TIMED_TASKS, of_commands),
    ):
        assert f", {tasks!r})" in (programs().parent / name / "python").read_text()
        assert warm_python.Run("", 0, "", ("onnx",), tasks)._warm_target(str(job)) == expected


def test_what_libraries_do_at_their_end_is_left_out_of_a_program(tmp_path: Path) -> None:
    code = """import atexit, sys, weakref
class Own: pass
own = Own()
weakref.finalize(own, print, "a finalizer of its own")
others = sum(finalizer.atexit for finalizer in list(weakref.finalize._registry)) - 1
atexit.register(print, "an exit function of its own")
atexit._run_exitfuncs()
print("tabulate" in sys.modules, others)"""
    assert ended(code, tmp_path)[:2] == (0, "an exit function of its own\na finalizer of its own\nFalse 0\n")


def test_clients_that_go_away_unheard_cost_no_other_one_its_program(tmp_path: Path) -> None:
    # Starts the zygote.
    assert ended("print(1)", tmp_path)[:2] == (0, "1\n")
    warm = programs().parent
    path = next(path for path in warm.glob(f"command-{os.environ['OMP_NUM_THREADS']}-*") if path.is_socket())
    for sent in (b"", b"\xff\0\0\0", b"\xff\0\0\0{"):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(sent)
    assert ended("print(2)", tmp_path)[:2] == (0, "2\n")


def test_the_new_database_of_a_command_is_what_opening_one_makes(tmp_path: Path) -> None:
    opens = "from edgevit.store import LatencyDB; LatencyDB.open({name!r}, shipped={shipped}).close()"
    for shipped in (True, False):
        for name, variables in (("own.db", {new_databases.OWN: "1"}), ("copy.db", {})):
            (tmp_path / name).unlink(missing_ok=True)
            assert ended(opens.format(name=name, shipped=shipped), tmp_path, **variables) == (0, "", "")
        assert (programs().parent / "databases" / ("shipped.db" if shipped else "empty.db")).exists()
        own, copy = (contents(tmp_path / name) for name in ("own.db", "copy.db"))
        assert own == copy and bool(own["measurement"]) is shipped


def contents(path: Path) -> dict[str, set[object]]:
    """Return the rows of each table, without the times at which they were added and who added them."""
    with closing(sqlite3.connect(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        adding = {installation for (installation,) in connection.execute("SELECT installation FROM origin")}
        return {name: {plain(row, adding) for row in connection.execute(f"SELECT * FROM {name}")} for name in names}


def plain(row: tuple[object, ...], installations: set[object]) -> tuple[object, ...]:
    """Return a row without times; the one who opened the copied database first had an installation of its own."""
    known = ("an installation" if value in installations and value else value for value in row)
    return tuple("a time" if TIME.fullmatch(str(value)) else value for value in known)
