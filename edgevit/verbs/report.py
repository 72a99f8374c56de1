"""`edgevit.report(...)`: the latency database as one HTML file."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevit.cards import load_cards
from edgevit.reporting import ReportOptions, collect, write
from edgevit.selection import not_measured, unit_or_class
from edgevit.store import LatencyDB

CONFIDENCE = 0.9


@dataclass(frozen=True)
class ReportFile:
    """A report that was written: its size and what it shows; `problems` are artifact folders that were not read."""

    path: Path
    size_bytes: int
    rows: int
    predictions: int
    devices: tuple[str, ...]
    problems: tuple[str, ...]
    left_out: Mapping[str, int]  # rows of sources that are not trusted, by source

    def __repr__(self) -> str:
        size = f"{self.size_bytes / 1e6:.1f} MB"
        return f"ReportFile({str(self.path)!r}, {self.rows} rows of {len(self.devices)} device(s), {size})"


def report(
    out: str | Path = "report.html",
    *,
    device: str | Sequence[str] | None = None,
    published: bool = False,
    dataset: str | None = None,
    confidence: float = CONFIDENCE,
    predict: bool = True,
    artifacts: str | Path | None = None,
    db: str | None = None,
    on_device: Callable[[str, int], None] | None = None,
) -> ReportFile:
    """Write one HTML file with accuracy against latency, the front, and every row; it needs no network.

        >>> import edgevit
        >>> edgevit.report("report.html", device="x86_64-zen5-avx512bf16-2c")

    Parameters
    ----------
    out
        The file.
    device
        Names, ids or classes of devices, one or several; default: all that have rows.
    published
        Include rows that others published.
    dataset
        Data set of accuracies that `edgevit.evaluate` measured; default: published ones, ImageNet.
    confidence, predict
        Confidence of predicted upper bounds, and whether anything is predicted.
    artifacts
        Folder of artifacts, whose proofs are shown.
    db
        Latency database: a file or a URL; default: EDGEVIT_DB, else the user's own.
    on_device
        Function that is called before each device with its label and the number of devices.

    Raises UnknownNameError for a device without rows, UsageError where all rows are published and were not requested,
    StoreError for an empty database.
    """
    names = None if device is None else [device] if isinstance(device, str) else list(device)
    folder = None if artifacts is None else Path(artifacts)
    with LatencyDB.open(db, create_file=False) as whole:
        database = whole.trusting("trusted")
        devices = None if names is None else [_known(name, whole) for name in names]
        options = ReportOptions(devices, dataset, published, predict, confidence, folder)
        # `edgevit choose` has the same options.
        shared = {
            "--dataset": dataset,
            "--db": None if db is None else database.location,
            "--confidence": None if confidence == CONFIDENCE else confidence,
        }
        page_options = {"--out": out, "--device": None if names is None else ",".join(names), "--artifacts": folder}
        flags = [name for name, is_on in (("--published", published), ("--measured-only", not predict)) if is_on]
        left_out = Counter[str]()
        for key in (None,) if devices is None else tuple(devices):
            left_out.update(database.left_out(key))
        collected = collect(
            database,
            load_cards(),
            options,
            command=shlex.join(["edgevit", "report", *_words({**page_options, **shared}), *flags]),
            choose_options=_words(shared),
            on_device=on_device,
        )
    size = write(collected, Path(out))
    predictions = sum(part.predicted for part in collected.devices)
    labels = tuple(part.label for part in collected.devices)
    rows = len(collected.entries) - predictions
    return ReportFile(Path(out), size, rows, predictions, labels, _texts(collected.problems), left_out)


def _texts(problems: Iterable[object]) -> tuple[str, ...]:
    """Return problems as text."""
    return tuple(str(problem) for problem in problems)


def _known(device: str, database: LatencyDB) -> str:
    """Return what a device is looked up by. Raise UnknownNameError for one without rows."""
    key = unit_or_class(device)
    if not any(key in (unit.name, unit.device_id, unit.device_class) for unit in database.devices()):
        raise not_measured(database, device)
    return key


def _words(options: Mapping[str, object]) -> list[str]:
    """Return the options that have a value as words of a command line; a URL has lost its password."""
    return [word for name, value in options.items() if value is not None for word in (name, str(value))]
