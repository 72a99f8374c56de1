"""`edgevit.sweep(...)`: models x targets x precisions x thread counts, from names to rows in the database."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevit.artifacts.folder_lock import locked_folder
from edgevit.devices.enroll import detect
from edgevit.devices.registry import LOCAL, load_device
from edgevit.errors import RowRefusedError
from edgevit.measurement.runner import Progress, Protocol
from edgevit.records.artifact import ExportRequest, SampleRequest
from edgevit.records.input_shapes import read_input_shapes
from edgevit.records.measurement import Measurement
from edgevit.records.measurements import Measurements
from edgevit.records.preprocessing import read_stated
from edgevit.records.quantization import DEFAULT_FLOOR_DB, read_quantization
from edgevit.records.tag import require_tag
from edgevit.store import LatencyDB
from edgevit.sweeps.plan import plan
from edgevit.sweeps.recording import describe_epoch
from edgevit.sweeps.run import SweepFailure, SweepPlan, SweepRun, by_model
from edgevit.verbs.profile import protocol_of
from edgevit_runtime import environment

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepResult:
    """What a sweep added to the database, what that already had, what failed, and what remained when the time ended.

    known_failures: rows that the database already had, which did not run, and whose cause still stands. refused: of
    measurements that cannot be true.
    """

    measurements: Measurements
    already_measured: int
    failures: tuple[SweepFailure, ...]
    remaining: tuple[str, ...]
    known_failures: tuple[Measurement, ...] = ()
    refused: tuple[RowRefusedError, ...] = ()

    @property
    def has_measurement(self) -> bool:
        """Whether at least one latency was measured, now or before."""
        return any(row.status == "ok" for row in self.measurements) or self.already_measured > len(self.known_failures)

    def to_frame(self) -> Any:
        """Return a pandas.DataFrame of the new rows. Raise UsageError where pandas is missing."""
        return self.measurements.to_frame()

    def __repr__(self) -> str:
        return (
            f"SweepResult({len(self.measurements)} new rows, {self.already_measured} already measured, "
            f"{len(self.failures)} failures, {len(self.remaining)} remaining)"
        )


def sweep(
    models: str | Sequence[str],
    targets: str | Sequence[str],
    *,
    device: str = LOCAL,
    precision: str | Sequence[str] = "fp32",
    threads: int | Sequence[int] = 1,
    weights: str | Path | None = None,
    weights_key: str = "",
    seed: int = 0,
    input_size: int | tuple[int, int] | None = None,
    input_shape: str | Sequence[str | int] | Mapping[str, str | Sequence[int]] | None = None,
    preprocessing: Mapping[str, Any] | None = None,
    labels: str | Path | None = None,
    input_range: tuple[float, float] | None = None,
    data: str | Path | None = None,
    floor_db: float = DEFAULT_FLOOR_DB,
    ranges: str = "minmax",
    absorb: bool = True,
    correct: bool = True,
    out: str | Path = "artifacts",
    quick: bool = False,
    percentile: int | None = None,
    rate: float | None = None,
    max_memory_gb: float | None = None,
    max_time_s: float | None = None,
    again: bool = False,
    tag: str = "",
    db: str | None = None,
    on_export: Callable[[str, int], None] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> SweepResult:
    """Export, verify and measure a set of models; skip artifacts and rows that exist already.

        >>> import edgevit
        >>> result = edgevit.sweep(["mobilevig_ti", "mobilevig_s"], "onnx", threads=[1, 2], quick=True)
        >>> result.to_frame(), result.failures

    Parameters
    ----------
    models
        Names or shell patterns of the zoo, FILE.py:FUNCTION, timm:NAME or hf:FOLDER; one or several.
    targets, precision
        Names from `edgevit targets`, and precisions. Combinations that a target lacks are left out.
    device, threads
        Name from `edgevit devices`, and thread counts of the engine.
    weights, weights_key, seed
        Checkpoint of the only model, and which of its sets of weights; default: the averaged one. Without a checkpoint
        weights are random, from this seed.
    input_size, input_shape, preprocessing, labels
        What the models take and put out, as for `edgevit.export`.
    input_range, out
        Range of the inputs that artifacts are verified on, and the folder for artifacts.
    data, floor_db, ranges, absorb, correct
        How the numbers of int8, w8 and w6 are found, as for `edgevit.quantize`.
    quick, percentile, rate, max_memory_gb
        How each artifact is measured, as for `edgevit.profile`.
    max_time_s
        Time in seconds after which nothing new begins. The sweep then goes model by model.
    again
        New measurements of what the database already has.
    tag
        Name for the new rows, by which `edgevit db compare` finds them; empty: none. Rows that were there get none.
    db
        Latency database: a file or a URL; default: EDGEVIT_DB, else the user's own.
    on_export, on_progress
        Functions that are called before each export, with its label and the number of exports, and after each process.

    An export that fails is one of the result's failures and stops no other. Raises UnknownNameError and UsageError for
    a request that makes no sense, TargetUnavailableError for a missing converter, DeviceError where the device is lost.
    """
    protocol = protocol_of(quick=quick, percentile=percentile, rate=rate, max_memory_gb=max_memory_gb)
    template = ExportRequest(
        "",
        Path(out),
        weights=None if weights is None else Path(weights),
        weights_key=weights_key,
        seed=seed,
        input_size=(input_size, input_size) if isinstance(input_size, int) else input_size,
        input_shapes=() if input_shape is None else read_input_shapes(input_shape),
        preprocessing=read_stated(preprocessing or {}),
        labels=None if labels is None else Path(labels),
        samples=SampleRequest(input_range),
        quantization=read_quantization(data, floor_db, ranges, absorbs=absorb, corrects=correct),
    )
    requests = plan(_several(models), _several(targets), _several(precision), template)
    counts = [threads] if isinstance(threads, int) else list(threads)
    swept = sweep_plan(requests, device, counts, protocol, again=again, tag=tag)
    run = SweepRun(swept, db, _end(max_time_s), on_export or (lambda label, total: None), on_progress)
    return finish(run, in_turns=max_time_s is not None)


def sweep_plan(
    requests: Sequence[ExportRequest],
    device: str,
    thread_counts: Sequence[int],
    protocol: Protocol,
    *,
    again: bool,
    tag: str = "",
) -> SweepPlan:
    """Return the plan of a sweep. Raise DeviceError at once for a remote device that does not answer."""
    name, unit = tag and require_tag(tag), load_device(device)
    if unit.name == LOCAL:
        return SweepPlan(requests, unit, thread_counts, protocol, again, host=environment.host(), tag=name)
    detected = detect(unit)
    engines, host = detected.detected.engines, detected.host
    return SweepPlan(requests, unit, thread_counts, protocol, again, engines, host, name)


def finish(run: SweepRun, *, in_turns: bool) -> SweepResult:
    """Run a sweep, model by model or all in one go, and return what came of it."""
    requests = run.plan.requests
    with LatencyDB.open(run.db) as database:
        database.require_writable()
    # Another sweep into the same folder ends first; what it measured is not measured again.
    with locked_folder(requests[0].out, run.on_wait):
        run.run(by_model(requests) if in_turns else [requests])
    for epoch in run.epochs:
        _LOG.warning(describe_epoch(epoch))
    return SweepResult(
        Measurements(run.rows),
        run.already_measured,
        tuple(run.failures),
        tuple(run.remaining),
        tuple(run.known_failures),
        tuple(run.refused),
    )


def _end(max_time_s: float | None) -> float:
    """Return the end of the time by time.monotonic()."""
    return math.inf if max_time_s is None else time.monotonic() + max_time_s


def _several(names: str | Sequence[str]) -> list[str]:
    """Return one or several names as a list."""
    return [names] if isinstance(names, str) else list(names)
