"""`edgevit.profile(...)`: the latency of artifacts on a device."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import overload

from edgevit.artifacts.folder import open_artifact
from edgevit.artifacts.origin import require_origin
from edgevit.devices.registry import LOCAL, load_device
from edgevit.measurement.runner import Progress, Protocol
from edgevit.records.artifact import Artifact, WeightsRequest
from edgevit.records.measurement import Measurement
from edgevit.records.measurements import Measurements
from edgevit.records.tag import require_tag
from edgevit.sweeps.recording import RecordLabels, describe_epoch, measure_and_record

_LOG = logging.getLogger(__name__)


@overload
def profile(
    artifact: str | Path | Artifact,
    *,
    device: str = ...,
    threads: int = ...,
    batch_size: int = ...,
    quick: bool = ...,
    percentile: int | None = ...,
    rate: float | None = ...,
    max_memory_gb: float | None = ...,
    weights: str | Path | None = ...,
    weights_key: str = ...,
    labels: str | Path | None = ...,
    trust: bool = ...,
    tag: str = ...,
    db: str | None = ...,
    on_progress: Callable[[Progress], None] | None = ...,
) -> Measurement: ...
@overload
def profile(
    artifact: list[str | Path | Artifact] | tuple[str | Path | Artifact, ...],
    *,
    device: str = ...,
    threads: int = ...,
    batch_size: int = ...,
    quick: bool = ...,
    percentile: int | None = ...,
    rate: float | None = ...,
    max_memory_gb: float | None = ...,
    weights: str | Path | None = ...,
    weights_key: str = ...,
    labels: str | Path | None = ...,
    trust: bool = ...,
    tag: str = ...,
    db: str | None = ...,
    on_progress: Callable[[Progress], None] | None = ...,
) -> Measurements: ...
def profile(
    artifact: str | Path | Artifact | list[str | Path | Artifact] | tuple[str | Path | Artifact, ...],
    *,
    device: str = LOCAL,
    threads: int = 1,
    batch_size: int = 1,
    quick: bool = False,
    percentile: int | None = None,
    rate: float | None = None,
    max_memory_gb: float | None = None,
    weights: str | Path | None = None,
    weights_key: str = "",
    labels: str | Path | None = None,
    trust: bool = False,
    tag: str = "",
    db: str | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Measurement | Measurements:
    """Measure an artifact in fresh processes, keep the row in the database, and return it.

    Of several artifacts the processes are interleaved in random order, and all rows are returned:

        >>> import edgevit
        >>> row = edgevit.profile("artifacts/mobilevig_ti-onnx-fp32", threads=2, quick=True)
        >>> row.p90_ns, row.p90_upper_ns
        >>> edgevit.profile(["artifacts/a-onnx-fp32", "artifacts/b-onnx-fp32"]).to_frame()

    Parameters
    ----------
    artifact
        Folder that `edgevit.export` wrote, the artifact that it returned, or a list of these.
    device, threads, batch_size
        Name from `edgevit devices`, number of engine threads, batch size of a run.
    quick
        Quick look with fewer runs; the row is flagged and graded accordingly.
    percentile
        Percentile whose upper bound must become known, 90 or 99; default: 99, with quick=True 90.
    rate
        Camera frames per second; default: back-to-back runs.
    max_memory_gb
        Memory limit of a process; default: 80% of the device's memory.
    weights, weights_key, labels
        Checkpoint and set of its weights that the artifact must be made from, and file with the labels that it must
        have; default: any.
    tag
        Name for the new rows, by which `edgevit db compare` finds them; empty: none.
    trust, db
        Permission to run a payload's native code that this database did not record as built here; the database.
    on_progress
        Function that is called after each process.

    A row's status says whether the artifact ran. Raises ArtifactError for a damaged artifact or code of unknown origin,
    CheckpointError for other weights, UsageError and UnknownNameError for a request that makes no sense, DeviceError
    where the device is lost, and RowRefusedError for a row that cannot be true, after all others were stored.
    """
    labels_of_rows = RecordLabels(tag=tag and require_tag(tag))
    several = isinstance(artifact, list | tuple)
    opened = [_opened(one) for one in (artifact if isinstance(artifact, list | tuple) else [artifact])]
    origin = WeightsRequest(None if weights is None else Path(weights), weights_key)
    for one in opened:
        require_origin(one, origin, None if labels is None else Path(labels))
    outcome = measure_and_record(
        opened,
        load_device(device),
        threads,
        protocol_of(batch_size, quick=quick, percentile=percentile, rate=rate, max_memory_gb=max_memory_gb),
        db,
        trust=trust,
        labels=labels_of_rows,
        on_progress=on_progress,
    )
    for epoch in outcome.epochs:
        _LOG.warning(describe_epoch(epoch))
    outcome.require_all()
    return Measurements(outcome.rows) if several else outcome.rows[0]


def protocol_of(
    batch_size: int = 1,
    *,
    quick: bool = False,
    percentile: int | None = None,
    rate: float | None = None,
    max_memory_gb: float | None = None,
) -> Protocol:
    """Return the measuring protocol, or its quick form."""
    chosen: dict[str, int | float | None] = {"batch": batch_size, "rate_hz": rate}
    chosen |= {} if percentile is None else {"percentile": percentile}
    chosen |= {} if max_memory_gb is None else {"max_memory_bytes": round(max_memory_gb * 1e9)}
    return Protocol.quick(**chosen) if quick else Protocol(**chosen)  # type: ignore[arg-type]


def _opened(artifact: str | Path | Artifact) -> Artifact:
    """Return an artifact, every byte of it checked."""
    return open_artifact(artifact.folder if isinstance(artifact, Artifact) else Path(artifact))
