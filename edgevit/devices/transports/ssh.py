"""A device behind ssh: one connection per job, over which a small agent on the device takes files and runs the worker.

The system's own `ssh` connects, with what the user has set up for it: keys, agents, jump hosts, known hosts. Of what
anybody typed only the path of the device's Python passes its shell, quoted; all else travels as data
(runtime/edgevit_runtime/agent.py). docs/decisions/0007-ssh-binary-and-agent.md says why.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.resources
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgevit.artifacts.folder import MANIFEST
from edgevit.devices.openssh import Connection, SshTarget
from edgevit.devices.registry import require_same_unit
from edgevit.devices.transports import (
    INHERITED,
    JOB,
    PYTHON_OPTIONS,
    REPLY,
    WORKER,
    read_end,
    thread_variables,
)
from edgevit.errors import DeviceError
from edgevit.records.measurement import Device
from edgevit_runtime.digest import file_sha256, tree_files
from edgevit_runtime.record import Job, Reply, to_json

_GRACE_S = 60.0  # beyond a worker's own limit, for the device to hash what it has and to clean up
_SLOWEST_LINK = 100_000  # bytes per second: a link slower than that is taken for a broken one
_BLOCK_BYTES = 1 << 20


class SshTransport:
    """Runs the worker with the device's Python."""

    def run(self, device: Device, files: Mapping[str, Path], job: Job, *, timeout_s: float) -> Reply:
        """See Transport.run. What the device's cache holds already is not sent again."""
        place = SshTarget.of(device)
        trees = {name: _Tree.of(path) for name, path in files.items()}
        with Connection(place) as connection:
            connection.start((importlib.resources.files("edgevit_runtime") / "agent.py").read_bytes())
            connection.allow(_GRACE_S)
            connection.send(json.dumps(_request(device, trees, job, timeout_s)).encode())
            missing = _answer(connection, place)["missing"]
            lacking = {tree.key: tree for tree in trees.values() if tree.key in missing}
            connection.allow(_GRACE_S + sum(tree.size for tree in lacking.values()) / _SLOWEST_LINK)
            for key in missing:
                lacking[key].send(connection)
            connection.allow(timeout_s + 2 * _GRACE_S)
            end = _answer(connection, place)
            left, stderr = connection.receive(), connection.receive()
        reply = read_end(left if end["replied"] else None, stderr, end["code"], timeout_s)
        _require_room(reply, place)
        require_same_unit(device, reply)
        return reply


@dataclass(frozen=True)
class _Tree:
    """A file, or a folder with all that is in it: (name, bytes, sha256) of each, and a digest of that as its name."""

    files: tuple[tuple[str, int, str], ...]
    paths: tuple[Path, ...]
    key: str
    inner: str  # the file's name, empty for a folder

    @classmethod
    def of(cls, path: Path) -> _Tree:
        paths = tree_files(path, (MANIFEST,)) if path.is_dir() else [path]  # it changes, and the worker needs none
        names = [item.relative_to(path if path.is_dir() else path.parent).as_posix() for item in paths]
        files = tuple((n, p.stat().st_size, file_sha256(p)) for n, p in zip(names, paths, strict=True))
        key = hashlib.sha256(json.dumps(files).encode()).hexdigest()
        return cls(files, tuple(paths), key, "" if path.is_dir() else names[0])

    @property
    def size(self) -> int:
        return sum(size for _, size, _ in self.files)

    def send(self, connection: Connection) -> None:
        for path in self.paths:
            with path.open("rb") as file:
                while block := file.read(_BLOCK_BYTES):
                    connection.send_raw(block)


def _request(device: Device, trees: Mapping[str, _Tree], job: Job, timeout_s: float) -> dict[str, Any]:
    command: Sequence[str] = (*PYTHON_OPTIONS, WORKER, JOB, REPLY)
    return {
        "trees": {tree.key: tree.files for tree in trees.values()},
        "files": {name: (tree.key, tree.inner) for name, tree in trees.items()},
        "job": to_json(job),
        "job_name": JOB,
        "reply": REPLY,
        "command": command,
        "inherited": INHERITED,
        "variables": thread_variables(job.threads),
        "timeout_s": timeout_s,
        "cache": device.options.get("cache", ""),
    }


def _answer(connection: Connection, place: SshTarget) -> dict[str, Any]:
    """The agent's next answer. Raises DeviceError where it is that the device itself failed."""
    answer: dict[str, Any] = json.loads(connection.receive())
    if "error" not in answer:
        return answer
    if answer["errno"] == errno.ENOSPC:
        raise _full(place, answer["where"])
    where = f"{place.label}: {answer['where']}" if answer["where"] else place.label
    fix = "check free space and permissions there, or choose another folder with the device's option `cache`"
    raise DeviceError("the device cannot run a worker", where=where, why=answer["error"], fix=fix)


def _require_room(reply: Reply, place: SshTarget) -> None:
    """A worker that met a full disk says nothing about its artifact."""
    if reply.status != "ok" and f"[Errno {errno.ENOSPC}]" in reply.error:
        raise _full(place, "")


def _full(place: SshTarget, where: str) -> DeviceError:
    fix = "make room there; what edgevit keeps there is in ~/.cache/edgevit and may be removed"
    return DeviceError("the device's disk is full", where=f"{place.label}: {where}".rstrip(": "), fix=fix)


TRANSPORT = SshTransport()
