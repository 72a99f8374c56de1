"""The published tables themselves into a database: rows in, rows refused and why, rows per second, epochs.

python benchmarks/import_published.py [--data ../shared/data] [--only NAME]

Where a file is absent, the report says so in its place. Each file goes into a database of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from common import report

from edgevit.published.importers import Publication, files_of, screened
from edgevit.records.measurement import Accuracy, Measurement
from edgevit.store import LatencyDB

DATA = Path(__file__).parents[2] / "shared/data"
FILES = {
    "mlperf_edge_krai.csv": "mlperf",
    "aihub_v0.47.0_perf.csv": "aihub",
    "aihub_history.parquet": "aihub",
    "benchmark-infer-fp32-nchw-pt240-cpu-i7_12700h-dynamo.csv": "timm",
    "benchmark-infer-fp32-nchw-pt240-cpu-i9_10940x-dynamo.csv": "timm",
    "benchmark-infer-amp-nchw-pt240-cu124-rtx4090.csv": "timm",
    "results-imagenet.csv": "timm",
}
ABSENT = "reference data absent"


def main(data: Path, only: str | None) -> None:
    results: dict[str, Any] = {}
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:  # the peak of memory is a process's
        if only is None:
            with files_of("papers", []) as [cards]:
                results["the model cards"] = pool.apply(imported, ("papers", cards))
        for name, form in FILES.items():
            if only in (None, name):
                results[name] = pool.apply(imported, (form, data / name)) if (data / name).is_file() else ABSENT
    report("import_published", {"files": results, "joined": joined(data)})


def imported(form: str, path: Path) -> dict[str, Any]:
    """One file into an empty database."""
    with tempfile.TemporaryDirectory() as folder:
        screening = screened(form, [Publication(path)])
        with LatencyDB.open(f"{folder}/latency.db", shipped=False) as db:
            start, cpu_start = time.perf_counter(), time.process_time()
            came = db.import_records(screening.records(), "benchmark")
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
            stats = db.stats()
            epochs = [
                {
                    "device": entry.device,
                    "started": entry.started[:10],
                    "ratio": round(entry.ratio, 2),
                    "why": entry.reason,
                }
                for entry in db.opened_epochs
            ]
        records = came.added + came.duplicates + len(came.refused)
        return {
            "records": records,
            "measurements": stats.tables["measurement"],
            "accuracies": stats.tables["accuracy"],
            "refused": len(came.refused),
            "refused_because": dict(Counter(refusal.code for refusal in came.refused).most_common()),
            "counts": dict(screening.counts),
            "seconds": round(seconds, 1),
            "records_per_s": round(records / seconds),
            "cpu_seconds": round(cpu_seconds, 1),  # on a machine that others use, too
            "records_per_cpu_s": round(records / cpu_seconds),
            "database_mb": round(Path(f"{folder}/latency.db").stat().st_size / 1e6, 1),
            "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3, 1),
            "epochs": epochs,
        }


def joined(data: Path) -> dict[str, Any] | str:
    """How many rows of timm's benchmarks have an accuracy under the same name and size of image."""
    accuracies = data / "results-imagenet.csv"
    benchmarks = [data / name for name in FILES if name.startswith("benchmark-") and (data / name).is_file()]
    if not accuracies.is_file() or not benchmarks:
        return ABSENT
    published_models = set()
    for entry in screened("timm", [Publication(accuracies)]).records():
        if isinstance(entry.record, Accuracy):
            published_models.add((entry.record.model, *entry.record.input_size))
    table_counts: dict[str, Any] = {}
    for path in benchmarks:
        records = [entry.record for entry in screened("timm", [Publication(path)]).records()]
        rows = [record for record in records if isinstance(record, Measurement)]
        table_counts[path.name] = {
            "rows": len(rows),
            "with_accuracy": sum((row.model, *row.inputs[0].shape[-2:]) in published_models for row in rows),
        }
    return table_counts


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--only", choices=FILES)
    arguments = parser.parse_args()
    main(arguments.data, arguments.only)
