"""An artifact's own engine, in its own process, through the recipe's own load(): what is timed is what is tried."""

from __future__ import annotations

import base64
import tempfile
from pathlib import Path

import numpy as np

from edgevit.devices import local_device
from edgevit.errors import ArtifactError, TargetUnavailableError
from edgevit.pack import pack
from edgevit.transports import WORKER, load_transport
from edgevit.verify.inputs import Arrays, Samples
from edgevit_runtime.digest import tree_sha256
from edgevit_runtime.record import Job, Reply

_TIMEOUT_S = 600.0  # for all samples together; a deadlocked engine must end


def run_payload(target: str, payload: Path, samples: Samples, *, threads: int) -> tuple[Reply, list[Arrays]]:
    """Every set of samples through a payload file: the reply and the outputs, one tuple of arrays per set.

    Raises TargetUnavailableError where the engine is not installed, ArtifactError where it fails or crashes.
    """
    device = local_device()
    with tempfile.TemporaryDirectory(prefix="edgevit-verify-") as name:
        feeds = Path(name) / "feeds.bin"
        feeds.write_bytes(b"".join(np.ascontiguousarray(item).tobytes() for one in samples.sets for item in one))
        files = {WORKER: pack(target, Path(name) / WORKER), "artifact": payload.parent, feeds.name: feeds}
        digest = tree_sha256(payload.parent)
        job = Job(
            "infer",
            target,
            "artifact",
            payload.name,
            digest,
            threads,
            samples.batch,
            feeds=feeds.name,
            count=len(samples.sets),
        )
        reply = load_transport(device.transport).run(device, files, job, timeout_s=_TIMEOUT_S)
    if reply.status == "unsupported":
        raise TargetUnavailableError(f"target {target} cannot run here", why=reply.error, fix="edgevit doctor")
    if reply.status != "ok":
        raise ArtifactError(f"the engine {reply.status} on the artifact", where=str(payload), why=reply.error)
    return reply, [_decode(reply, result, samples.batch) for result in reply.results]


def _decode(reply: Reply, result: tuple[str, ...], batch: int) -> Arrays:
    specs = [spec.at_batch(batch) for spec in reply.outputs]
    raw = [base64.b64decode(text) for text in result]
    return tuple(np.frombuffer(item, spec.dtype).reshape(spec.shape) for item, spec in zip(raw, specs, strict=True))
