"""Wall time of `edgevit choose` as a person waits for it: a fresh process, on the shipped rows and on many.

python benchmarks/choose_wall.py [--rows 1000000] [--devices 1000] [--db FILE] [--rounds 9]

The commands run in turns with a bare interpreter. `db`: a database of that many rows from store_scale.py's generator,
made if it is not there. Each command says what it imports of what takes long. On the shipped rows `predicted` fills in
what was not measured; on the many rows every model is measured on every device, and `part_measured` asks about a device
of which five models are known.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import report, spread_ms
from store_scale import row, synthetic

from edgevit.store import LatencyDB
from edgevit.store.jsonl import write_lines

HEAVY = ("torch", "numpy", "scipy", "alembic", "edgevit.prediction")
LIMIT = ("--max-latency", "25ms")


def main(rows: int, devices: int, db: str | None, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        shipped, many = f"{folder}/shipped.db", db or f"{folder}/many.db"
        device = shipped_device(shipped)
        made_s = fill(Path(many), rows, devices)
        commands: dict[str, list[str]] = {"python": ["-c", "pass"]}
        for name, database, queried_device, more in (
            ("shipped", shipped, device, ["--measured-only"]),
            ("shipped_predicted", shipped, device, []),
            ("many", many, "board-1", ["--measured-only"]),
            ("many_predicted", many, "board-1", []),
            ("many_part_measured", many, "board-part", []),
        ):
            commands[name] = [
                "-m",
                "edgevit.cli",
                "choose",
                *LIMIT,
                "--device",
                queried_device,
                "--db",
                database,
                *more,
            ]
        times = timed(commands, rounds)
        command_times: dict[str, Any] = {name: spread_ms(values) for name, values in times.items()}
        for name, arguments in commands.items():
            command_times[name]["imports"] = imported(arguments)
        size_mb, found_rows = round(Path(many).stat().st_size / 1e6, 1), rows_in(many)
    shape = {
        "rows": found_rows,
        "devices": devices,
        "database_mb": size_mb,
        "made_s": round(made_s, 1),
        "rounds": rounds,
    }
    report("choose_wall", {**shape, "commands": command_times})


def shipped_device(database: str) -> str:
    """A device class with shipped rows, in a new database that has them."""
    with LatencyDB.open(database) as opened:
        return max(opened.devices(), key=lambda device_rows: device_rows.measurements).device_class


def fill(database: Path, rows: int, devices: int) -> float:
    """Make the database unless it is there; seconds. One more device has five rows only."""
    start, lines = time.perf_counter(), database.with_suffix(".jsonl")
    is_new = not database.exists()
    if is_new:
        write_lines(lines, synthetic(rows, devices))
    with LatencyDB.open(str(database), shipped=False) as opened:
        if is_new and (came := opened.import_jsonl(lines)).added != rows:
            raise SystemExit(f"{came.added} of {rows} rows added: {came.refused[:2]}")
        for number in range(0, 50, 10):
            opened.add(row(random.Random(number), 2_000_000 * (1 + number), f"net_{number}", "board-part", number))
    lines.unlink(missing_ok=True)
    return time.perf_counter() - start if is_new else 0.0


def rows_in(database: str) -> int:
    """How many rows a database has."""
    with LatencyDB.open(database, shipped=False) as opened:
        return sum(device_rows.measurements for device_rows in opened.devices())


def timed(commands: dict[str, list[str]], rounds: int) -> dict[str, list[int]]:
    """Nanoseconds of each, in turns and in random order; the first turn only warms the file cache."""
    times: dict[str, list[int]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name in random.sample(list(commands), len(commands)):
            start = time.perf_counter_ns()
            completed = subprocess.run([sys.executable, *commands[name]], capture_output=True, check=False)
            took = time.perf_counter_ns() - start
            if completed.returncode not in (0, 3, 6):
                raise SystemExit(f"{name} failed: {completed.stderr.decode()}")
            if turn:
                times[name].append(took)
    return times


def imported(arguments: list[str]) -> list[str]:
    """What of HEAVY a command imports, by the interpreter's own account."""
    completed = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=False
    )
    names = {line.rsplit("|", 1)[-1].strip() for line in completed.stderr.splitlines()}
    return [name for name in HEAVY if name in names]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--db")
    parser.add_argument("--rounds", type=int, default=9)
    arguments_parsed = parser.parse_args()
    main(arguments_parsed.rows, arguments_parsed.devices, arguments_parsed.db, arguments_parsed.rounds)
