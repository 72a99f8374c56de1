"""The latency database with many rows: size of the file, rate of import and merge, and what a choice waits for.

python benchmarks/store_scale.py [--rows 1000000] [--db FILE or URL] [--devices 1000] [--lines FILE]

`--lines` keeps the rows as JSON lines: where the file is there already it is taken as it is, for another database. A
database of `--db` that has the rows already is only asked.
Rows are synthetic and whole: each has 20 samples, a key and an id that follow from them, and passes the
same validation as any other. `choose` asks for all rows of one device; `edgevit choose` adds starting an interpreter.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from common import report
from sqlalchemy import text

from edgevit.records.choice import Budget
from edgevit.records.identity import identify
from edgevit.records.measurement import Measurement
from edgevit.records.model import ModelCard
from edgevit.selection import choose_among
from edgevit.store import LatencyDB
from edgevit.store.jsonl import write_lines
from edgevit_runtime.record import Host, Snapshot, TensorSpec

MODELS, QUESTIONS, COMMANDS, PROCESSES, RUNS = 50, 200, 9, 1, 20


def main(rows: int, db: str | None, devices: int, lines: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        database = db or f"{folder}/latency.db"
        with LatencyDB.open(database, shipped=False) as opened:
            result: dict[str, Any] = {"rows": rows, "samples_per_row": PROCESSES * RUNS, "devices": devices}
            if opened.stats().tables["measurement"] < rows:
                result |= imported(opened, lines or Path(folder) / "rows.jsonl", rows, devices)
            result |= {
                "load_1min": round(os.getloadavg()[0], 1),
                "database_mb": round(size_bytes(opened, database) / 1e6, 1),
                "sql_ms": quantiles(questions(opened, devices, sql_only)),
                "rows_of_device_ms": quantiles(questions(opened, devices, rows_of_device)),
                "choose_ms": quantiles(questions(opened, devices, choice)),
                "choose_current_epoch_ms": quantiles(questions(opened, devices, current_epoch)),
                "command": command(database),
            }
            result["add_ms"] = quantiles([cost(functools.partial(opened.add, row)) for row in one_by_one(100)])
            check_s, checked = timed(opened.check)
            result |= {"check_s": round(check_s, 1), "problems": checked.problems}
    result["peak_rss_mb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1)
    report("store_scale", result)


def imported(db: LatencyDB, file: Path, rows: int, devices: int) -> dict[str, float]:
    """How long the import of the file takes, which is made where it is not there."""
    made_s = 0.0 if file.exists() else timed(lambda: write_lines(file, synthetic(rows, devices)))[0]
    start = time.process_time()
    import_s, came = timed(lambda: db.import_jsonl(file))
    cpu_s = time.process_time() - start  # less than import_s by what the disk, the server and other programs took
    if came.added != rows:
        raise SystemExit(f"{came.added} of {rows} rows added: {came.refused[:2]}")
    return {
        "made_s": round(made_s, 1),
        "jsonl_mb": round(file.stat().st_size / 1e6, 1),
        "import_s": round(import_s, 1),
        "import_cpu_s": round(cpu_s, 1),
        "import_rows_per_s": round(rows / import_s),
        "import_rows_per_cpu_s": round(rows / cpu_s),
    }


def synthetic(count: int, devices: int) -> Iterator[Measurement]:
    """Rows of MODELS models, in equal shares over devices; times differ by model, device and run."""
    draw = random.Random(0)
    for number in range(count):
        device, model = number % devices, (number // devices) % MODELS
        centre = 1_000_000 * (1 + model) * (1 + device % 7)
        yield row(draw, centre, f"net_{model}", f"board-{device}", number)


def one_by_one(count: int) -> Iterator[Measurement]:
    """Rows that are added each in a transaction of its own."""
    draw = random.Random(1)
    for number in range(count):
        yield row(draw, 5_000_000, f"net_{number % MODELS}", "board-new", 10**9 + number)


def row(draw: random.Random, centre: int, model: str, device: str, number: int) -> Measurement:
    """One row with its summary."""
    samples = [sorted(round(centre * draw.lognormvariate(0, 0.01)) for _ in range(RUNS)) for _ in range(PROCESSES)]
    medians, all_samples = (
        sorted(round(statistics.median(part)) for part in samples),
        sorted(chain.from_iterable(samples)),
    )
    return identify(
        dataclasses.replace(
            TEMPLATE,
            model=model,
            device=device,
            device_id=f"unit-of-{device}",
            device_class=f"class-{hash_of(device) % 40}",
            artifact_sha256=f"{hash_of(model):064x}",
            started=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(1_700_000_000 + number)),
            nonce=str(number),
            samples_ns=tuple(map(tuple, samples)),
            p50_ns=round(statistics.median(medians)),
            p50_low_ns=medians[0],
            p50_high_ns=medians[-1],
            p90_ns=all_samples[-2],
            p90_upper_ns=all_samples[-1],
            p99_ns=all_samples[-1],
            min_ns=all_samples[0],
            mean_ns=round(statistics.fmean(all_samples)),
        )
    )


def hash_of(text_: str) -> int:
    """The same in every process."""
    return sum(ord(letter) * 31**exponent for exponent, letter in enumerate(text_))


def sql_only(db: LatencyDB, device: str) -> object:
    """The bare columns of a choice, without digests: what the database itself takes."""
    query = text(
        "SELECT m.p90_upper_ns, m.grade, a.size_bytes, o.name FROM measurement m JOIN artifact a USING (artifact_no) "
        "JOIN model o USING (model_no) WHERE m.device_no IN (SELECT device_no FROM device WHERE name = :name)"
    )
    with db._transaction() as connection:
        return connection.execute(query, {"name": device}).all()


def rows_of_device(db: LatencyDB, device: str) -> object:
    """All rows of a device, each held against its digest, and their number against the tally."""
    return db.measurements(device=device)


def current_epoch(db: LatencyDB, device: str) -> object:
    """The same, of the device's current epoch."""
    return db.measurements(device=device, current_epoch=True)


def choice(db: LatencyDB, device: str) -> object:
    """A whole choice for a budget."""
    return choose_among(db.measurements(device=device), device, Budget(max_latency_ms=25.0), cards=CARDS)


def command(database: str) -> dict[str, float]:
    """What `edgevit choose` costs on the command line, the median of COMMANDS calls; its models have no cards here."""
    edgevit = Path(sys.executable).with_name("edgevit")
    command_line = [str(edgevit), "choose", "--device", "board-1", "--max-latency", "25ms", "--db", database]
    walls, cpus = [], []
    for _ in range(COMMANDS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        wall_s, completed = timed(lambda: subprocess.run(command_line, capture_output=True))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Without cards no accuracy is known (7).
        if completed.returncode not in (0, 3, 7):
            raise SystemExit(completed.stderr.decode())
        walls.append(wall_s)
        cpus.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"wall_s": round(statistics.median(walls), 2), "cpu_s": round(statistics.median(cpus), 2)}


def questions(db: LatencyDB, devices: int, ask: Callable[[LatencyDB, str], object]) -> list[tuple[float, float]]:
    """What a question costs, of random devices; the first one is not counted."""
    draw = random.Random(2)
    return [cost(lambda: ask(db, f"board-{draw.randrange(devices)}")) for _ in range(1 + QUESTIONS)][1:]


def cost(call: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of wall time, to which other programs add, and of this process' own CPU time, without a server's."""
    start = time.process_time()
    wall_s, _ = timed(call)
    return wall_s, time.process_time() - start


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def quantiles(costs: list[tuple[float, float]]) -> dict[str, float]:
    """Median and 99th percentile in milliseconds, of wall time and of CPU time."""
    figures = {}
    for name, seconds in zip(("", "cpu_"), zip(*costs, strict=True), strict=True):
        ordered = sorted(seconds)
        figures[f"{name}p50_ms"] = round(1e3 * statistics.median(ordered), 2)
        figures[f"{name}p99_ms"] = round(1e3 * ordered[int(0.99 * len(ordered))], 2)
    return figures


def size_bytes(db: LatencyDB, database: str) -> int:
    """Of the file, or of the database on its server."""
    if Path(database).is_file():
        return Path(database).stat().st_size
    return int(db.query("SELECT pg_database_size(current_database())").rows[0][0])


SNAPSHOT = Snapshot(1, (0, 1, 2, 3), "performance", 2_400_000, None, 0.5, 3, 900, None)
TEMPLATE_FACTS: dict[str, Any] = {
    **dict.fromkeys(("measurement_id", "measurement_key", "error", "artifact_sha256", "model"), ""),
    **dict.fromkeys(("device", "device_id", "device_class", "started"), ""),
    **dict.fromkeys(("p50_ns", "p50_low_ns", "p50_high_ns", "p90_ns", "p90_upper_ns", "p99_ns", "p99_upper_ns"), None),
    **dict.fromkeys(("min_ns", "mean_ns", "iqr_ns", "mad_ns"), None),
    "status": "ok", "provenance": "measured", "family": "net", "target": "onnx", "precision": "fp32",
    "artifact_bytes": 4_000_000, "engine": "onnxruntime", "engine_version": "1.31.1",
    "provider": "CPUExecutionProvider", "compute_unit": "cpu", "threads": 4, "batch": 1,
    "inputs": (TensorSpec("x", (1, 3, 224, 224)),), "parity_status": "passed", "protocol_version": 1,
    "processes": PROCESSES, "runs": PROCESSES * RUNS, "load_ns": 90_000_000,
    "first_ns": 20_000_000, "peak_rss_bytes": 200_000_000, "grade": "A", "flags": (), "samples_ns": (),
}  # fmt: skip
TEMPLATE = Measurement(
    **TEMPLATE_FACTS,
    host=Host("aarch64", "Linux", "6.6.1", "3.11.7", "Cortex-A76", 4, 8_000_000_000),
    snapshots=(SNAPSHOT,) * (2 * PROCESSES),
)
CARDS = {
    f"net_{model}": ModelCard(
        f"net_{model}", "net", (TensorSpec("x", (-1, 3, 224, 224)),), "", "MIT", "published", 60.0 + model / 2, "paper"
    )
    for model in range(MODELS)
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--devices", type=int, default=1000)
    parser.add_argument("--db")
    parser.add_argument("--lines", type=Path)
    arguments_parsed = parser.parse_args()
    main(arguments_parsed.rows, arguments_parsed.db, arguments_parsed.devices, arguments_parsed.lines)
