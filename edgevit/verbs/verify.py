"""`edgevit.verify(...)`: an artifact against the model it was made from, again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgevit.artifacts.folder import open_artifact
from edgevit.devices.registry import load_device
from edgevit.recipes import require_torch
from edgevit.records.artifact import Artifact, Parity, SampleRequest, WeightsRequest
from edgevit.sweeps.plan import built_here

if TYPE_CHECKING:
    from torch import nn


def verify(
    artifact: str | Path | Artifact,
    *,
    model: nn.Module | str | None = None,
    weights: str | Path | None = None,
    weights_key: str = "",
    device: str | None = None,
    trust: bool = False,
    db: str | None = None,
    input_range: tuple[float, float] | None = None,
    samples: str | Path | None = None,
    data: str | Path | None = None,
    processor: str = "",
) -> Parity:
    """Check every byte of an artifact, run it against the model it was made from, and return the comparison.

        >>> import edgevit
        >>> parity = edgevit.verify("artifacts/mobilevig_ti-onnx-fp32")
        >>> parity.status, parity.max_rel

    Parameters
    ----------
    artifact
        Folder that `edgevit.export` wrote, or the artifact that it returned.
    model, weights, weights_key
        The module, or the checkpoint, that the artifact was made from, where its manifest cannot find them by name. A
        model's name, given again, lets its code run. The key names one of several sets of weights; default: the one
        that the manifest names.
    device
        Name from `edgevit devices` to run it on; the manifest then keeps the result. Default: this process's machine.
    trust
        Permission to run code that the database did not record as built here.
    db
        Latency database: a file or a URL; default: EDGEVIT_DB, else the user's own.
    input_range, samples
        Lowest and highest number of an input, or a file of NumPy with samples of it; default: the range of the export.
    data
        Samples that an int8 artifact was calibrated on, where they are not in their place any more.
    processor
        "x86-without-vnni": what an int8 artifact would compute there is simulated. Default: it runs.

    The status is "failed" where the two differ. Raises ArtifactError for a damaged folder or code of unknown origin,
    CheckpointError for other weights, UsageError for another model, TargetUnavailableError where its engine is missing,
    DeviceError.
    """
    require_torch()
    from edgevit.exporting.pipeline import record_parity, verify_artifact

    opened = open_artifact(artifact.folder if isinstance(artifact, Artifact) else Path(artifact))
    unit = load_device(device) if device else None
    checkpoint = WeightsRequest(None if weights is None else Path(weights), weights_key)
    allowed = built_here([opened], db, trust=trust)
    request = SampleRequest(input_range, None if samples is None else Path(samples)) if input_range or samples else None
    parity = verify_artifact(
        opened,
        checkpoint,
        built_here=allowed,
        device=unit,
        model=model or "",
        samples=request,
        data=None if data is None else Path(data),
        processor=processor,
    )
    if unit is not None:
        record_parity(opened, parity)
    return parity
