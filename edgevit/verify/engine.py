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

from edgevit.devices import local_device
from edgevit.errors import ArtifactError
from edgevit.pack import pack_recipe
from edgevit.recipes import load_recipe, recipe_file
from edgevit.transports import WORKER, load_transport
from edgevit.verify.inputs import Arrays, Samples
from edgevit_runtime.digest import tree_sha256
from edgevit_runtime.record import Job, Reply

_TIMEOUT_S = 600.0  # for all samples together; a deadlocked engine must end


@dataclass(frozen=True)
class Computed:
    """What was computed of a payload, one tuple of arrays per set of samples, by what; None where nothing here can."""

    reply: Reply
    results: list[Arrays] | None
    by_reference: bool = False

    @property
    def how(self) -> str:
        """`onnxruntime 1.31.1 CPUExecutionProvider, separate process`."""
        if self.results is None:
            return f"not run here: {self.reply.error}"
        named = (self.reply.engine or "engine", self.reply.engine_version, self.reply.provider)
        return " ".join(filter(None, named)) + ", separate process"


def compute(target: str, payload: Path, samples: Samples, *, threads: int) -> Computed:
    """Every set of samples through a payload. Raises ArtifactError where what computes it fails or crashes."""
    reply = _run(recipe_file(target), payload, samples, threads)
    if reply.status != "unsupported":
        return Computed(reply, _results(reply, payload, samples))
    evaluator = load_recipe(target).RECIPE.evaluator
    if not evaluator:
        return Computed(reply, None)
    by_reference = _run(Path(__file__).with_name(f"{evaluator}.py"), payload, samples, threads)
    if by_reference.status == "unsupported":
        return Computed(by_reference, None)
    return Computed(by_reference, _results(by_reference, payload, samples), by_reference=True)


def _run(recipe: Path, payload: Path, samples: Samples, threads: int) -> Reply:
    device = local_device()
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
