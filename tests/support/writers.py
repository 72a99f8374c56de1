"""Processes that write to a database at once, and are killed: for tests."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support.command_line import programs
from support.new_databases import OWN
from support.speed import seconds

# The folder of the package `support`.
HERE = Path(__file__).parents[1]
WRITE_MANY = """
import sys
for i in range(int(sys.argv[3])):
    assert db.add(measured([[1000 + i]], nonce=sys.argv[2], model=f'net_{i % 50}'))
"""
WRITE_AND_TELL = """
import itertools, sys
for i in itertools.count():
    row = measured([[1000 + i] * 400] * 5, nonce=sys.argv[2])
    db.add(row); print(row.measurement_id, flush=True)
"""
# Batches of the third argument's size; a line is printed when the import begins.
IMPORT = """
import sys
from edgevit.store import exchange
exchange.BATCH_ROWS = int(sys.argv[3])
print('begun', flush=True); db.import_jsonl(sys.argv[2]); print('done', flush=True)
"""


def script(body: str, *arguments: object, fresh: bool = False) -> subprocess.Popen[str]:
    """Start a process that has `db` open and the arguments in sys.argv, the database first.

    It is forked from one that has imported edgevit, unless it is to be `fresh`.
    """
    code = (
        "import sys, dataclasses; from support.measured import *; from edgevit.store import LatencyDB\n"
        "db = LatencyDB.open(sys.argv[1], shipped=False)\n" + body
    )
    if fresh:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    number, name = tempfile.mkstemp(suffix=".py")
    given = ["", *map(str, arguments)]
    first = f"import os, sys; os.unlink(__file__); sys.path.insert(0, {str(HERE)!r}); sys.argv = {given!r}\n"
    with os.fdopen(number, "w", encoding="utf-8") as file:
        file.write(first + code)
    command = [str(programs() / "python"), name]
    environment = os.environ | {OWN: "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def write_at_once(url: str, processes: int, rows: int) -> list[tuple[str, int]]:
    """Run writers at once. Return the standard error and the exit code of each."""
    writers = [script(WRITE_MANY, url, name, rows) for name in range(processes)]
    return [(writer.communicate(timeout=seconds(600))[1], writer.returncode) for writer in writers]


def write_and_kill(url: str, kills: int, noise: random.Random) -> set[str]:
    """Kill writers at random moments. Return the ids of the rows that they acknowledged before."""
    acknowledged: set[str] = set()
    for turn in range(kills):
        # The first writer is killed anywhere, perhaps while it makes the tables or before it has begun.
        with script(WRITE_AND_TELL, url, turn, fresh=not turn) as writer:
            assert writer.stdout
            if turn:
                acknowledged.add(writer.stdout.readline().strip())
            time.sleep(noise.uniform(0.0, 0.3))
            writer.kill()
            lines = writer.stdout.read().splitlines(keepends=True)
        acknowledged |= {line.strip() for line in lines if line.endswith("\n")}
    return acknowledged
