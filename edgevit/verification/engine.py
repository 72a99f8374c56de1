"""Runs an artifact in a worker process, through the recipe's own load(): verification runs what profiling times.

Where the engine cannot run on this machine, the recipe may name a reference evaluator: a package of this folder with a
load() of its own, which travels to the worker in the same way.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgevit.concurrency.scratch import scratch_folder
from edgevit.devices.registry import LOCAL, local_device
from edgevit.devices.transports import WORKER, load_transport
from edgevit.devices.worker_archive import pack_recipe
from edgevit.errors import ArtifactError
from edgevit.recipes import evaluator_source, load_recipe, recipe_file
from edgevit.records.measurement import Device
from edgevit.verification.inputs import Arrays, Samples
from edgevit_runtime.digest import tree_sha256
from edgevit_runtime.record import Job, Reply

_TIMEOUT_S = 600.0  # for all samples together, so that a deadlocked engine ends


@dataclass(frozen=True)
class Computed:
    """The outputs of a payload, one tuple of arrays per sample set; None where nothing here can compute them."""

    reply: Reply
    results: list[Arrays] | None
    by_reference: bool = False
    device: str = ""  # the device's name and class, unless it is this machine

    @property
    def computed_by(self) -> str:
        """`onnxruntime 1.31.1 CPUExecutionProvider, separate process`; with the device, if it is not this machine."""
        if self.results is None:
            return f"not run {f'on {self.device}' if self.device else 'here'}: {self.reply.error}"
        engine = (self.reply.engine or "engine", self.reply.engine_version, self.reply.provider)
        location = f" on {self.device}" if self.device else ""
        return " ".join(filter(None, engine)) + f", separate process{location}"


def compute(target: str, payload: Path, samples: Samples, *, threads: int, device: Device | None = None) -> Computed:
    """Run every sample set through a payload, here or on another device.

    The reference evaluator runs only on this machine. Raises ArtifactError where the engine fails or crashes, and
    DeviceError where the device cannot be reached.
    """
    here = device is None or device.name == LOCAL
    reply = _run(recipe_file(target), payload, samples, threads, device or local_device())
    device_label = "" if here or device is None else f"{device.name} ({device.device_class})"
    if reply.status != "unsupported":
        return Computed(reply, _results(reply, payload, samples), device=device_label)
    recipe = load_recipe(target).RECIPE
    if not recipe.evaluator or not here:
        return Computed(reply, None, device=device_label)
    by_reference = _run(evaluator_source(recipe), payload, samples, threads, local_device())
    if by_reference.status == "unsupported":
        return Computed(by_reference, None)
    return Computed(by_reference, _results(by_reference, payload, samples), by_reference=True)


def _run(recipe: Path, payload: Path, samples: Samples, threads: int, device: Device) -> Reply:
    with scratch_folder("verify") as name:
        feeds = Path(name) / "feeds.bin"
        arrays = (array for sample_set in samples.sets for array in sample_set)
        feeds.write_bytes(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays))
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
    buffers = [base64.b64decode(text) for text in result]
    return tuple(np.frombuffer(b, spec.dtype).reshape(spec.shape) for b, spec in zip(buffers, specs, strict=True))
