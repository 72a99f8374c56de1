"""Wall time of `import edgevit`, `--help` and `choose`, interleaved with a bare interpreter; and that torch stays out.

python benchmarks/answer_time.py [DATABASE]   default: a database with the rows that ship
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time

from common import report, spread_ms

ROUNDS = 20


def main(database: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        db = database or f"{folder}/latency.db"
        choose = ["-m", "edgevit.cli", "choose", "--max-latency", "25ms", "--db", db, "--device"]
        device = first_device(db)
        commands = {
            "python": ["-c", "pass"],
            "import": ["-c", "import edgevit"],
            "help": ["-m", "edgevit.cli", "--help"],
            "choose": [*choose, device],
        }
        times: dict[str, list[int]] = {name: [] for name in commands}
        for turn in range(ROUNDS + 1):
            for name in random.sample(list(commands), len(commands)):
                start = time.perf_counter_ns()
                completed = subprocess.run([sys.executable, *commands[name]], capture_output=True, check=False)
                if completed.returncode not in (0, 3):
                    raise SystemExit(f"{name} failed: {completed.stderr.decode()}")
                if turn:  # the first of each only warms the file cache
                    times[name].append(time.perf_counter_ns() - start)
        imports = {name: imports_torch(arguments) for name, arguments in commands.items()}
    commands_spread = {name: {**spread_ms(values), "imports_torch": imports[name]} for name, values in times.items()}
    report("answer_time", {"rounds": ROUNDS, "commands": commands_spread})


def first_device(db: str) -> str:
    """A device class with rows in the database."""
    from edgevit.store import LatencyDB

    with LatencyDB.open(db) as opened:
        devices = opened.devices()
    if not devices:
        raise SystemExit(f"{db} has no rows; measure some with edgevit sweep, or name another database")
    return devices[0].device_class


def imports_torch(arguments: list[str]) -> bool:
    """Whether a command imports torch, by the interpreter's own account."""
    completed = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=False
    )
    return any(line.rsplit("|", 1)[-1].strip() == "torch" for line in completed.stderr.splitlines())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
