"""An artifact's own engine, in its own process, through the recipe's own load(): what is timed is what is tried.

Where that engine cannot run on this machine, the recipe may name a reference evaluator, a file of this folder with a
load() of its own, which goes the same way.
"""

from __future__ import annotations

import base64
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgevit.devices.registry import LOCAL, local_device
from edgevit.devices.transports import WORKER, load_transport
from edgevit.devices.worker_archive import pack_recipe
from edgevit.errors import ArtifactError
from edgevit.recipes import load_recipe, recipe_file
from edgevit.records.measurement import Device
from edgevit.verification.inputs import Arrays, Samples
from edgevit_runtime.digest import tree_sha256
from edgevit_runtime.record import Job, Reply

_TIMEOUT_S = 600.0  # for all samples together; a deadlocked engine must end


@dataclass(frozen=True)
class Computed:
    """What was computed of a payload, one tuple of arrays per set of samples, by what; None where nothing here can."""

    reply: Reply
    results: list[Arrays] | None
    by_reference: bool = False

    where: str = ""  # the device, if it is not this machine

    @property
    def how(self) -> str:
        """`onnxruntime 1.31.1 CPUExecutionProvider, separate process`; with the device, if it is not this machine."""
        if self.results is None:
            return f"not run {f'on {self.where}' if self.where else 'here'}: {self.reply.error}"
        named = (self.reply.engine or "engine", self.reply.engine_version, self.reply.provider)
        place = f" on {self.where}" if self.where else ""
        return " ".join(filter(None, named)) + f", separate process{place}"


def compute(target: str, payload: Path, samples: Samples, *, threads: int, device: Device | None = None) -> Computed:
    """Every set of samples through a payload, here or on another device, which then computes it itself or not at all.

    Raises ArtifactError where what computes it fails or crashes, DeviceError if the device cannot be reached.
    """
    here = device is None or device.name == LOCAL
    reply = _run(recipe_file(target), payload, samples, threads, device or local_device())
    where = "" if here or device is None else f"{device.name} ({device.device_class})"
    if reply.status != "unsupported":
        return Computed(reply, _results(reply, payload, samples), where=where)
    evaluator = load_recipe(target).RECIPE.evaluator
    if not evaluator or not here:
        return Computed(reply, None, where=where)
    by_reference = _run(Path(__file__).with_name(f"{evaluator}.py"), payload, samples, threads, local_device())
    if by_reference.status == "unsupported":
        return Computed(by_reference, None)
    return Computed(by_reference, _results(by_reference, payload, samples), by_reference=True)


def _run(recipe: Path, payload: Path, samples: Samples, threads: int, device: Device) -> Reply:
    with tempfile.TemporaryDirectory(prefix="edgevit-verify-") as name:
        feeds = Path(name) / "feeds.bin"
        feeds.write_bytes(b"".join(np.ascontiguousarray(item).tobytes() for one in samples.sets for item in one))
        files = {WORKER: pack_recipe(recipe, Path(name) / WORKER), "artifact": payload.parent, feeds.name: feeds}
        job = Job(
            "infer",
            recipe.stem,
            "artifact",
            payload.name,
            tree_sha256(payload.parent),
            threads,
            samples.batch,
            feeds=feeds.name,
            count=len(samples.sets),
        )
        return load_transport(device.transport).run(device, files, job, timeout_s=_TIMEOUT_S)


def _results(reply: Reply, payload: Path, samples: Samples) -> list[Arrays]:
    if reply.status != "ok":
        raise ArtifactError(f"the engine {reply.status} on the artifact", where=str(payload), why=reply.error)
    return [_decode(reply, result, samples.batch) for result in reply.results]


def _decode(reply: Reply, result: tuple[str, ...], batch: int) -> Arrays:
    specs = [spec.at_batch(batch) for spec in reply.outputs]
    raw = [base64.b64decode(text) for text in result]
    return tuple(np.frombuffer(item, spec.dtype).reshape(spec.shape) for item, spec in zip(raw, specs, strict=True))
