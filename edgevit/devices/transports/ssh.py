"""Transport over ssh: one connection per job, with a small agent on the device that receives files and runs the worker.

The system's own `ssh` connects with the user's configuration: keys, agents, jump hosts, known hosts. Only one user
input passes the device's shell: the quoted path of its Python. Everything else travels as data
(runtime/edgevit_runtime/agent.py). docs/decisions/0007-ssh-binary-and-agent.md gives the reasons.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.resources
import json
import logging
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
from edgevit_runtime.codec import RecordError, from_json, to_json
from edgevit_runtime.digest import file_sha256, tree_files
from edgevit_runtime.record import Job, Reply

_LOG = logging.getLogger(__name__)

_GRACE_S = 60.0  # beyond a worker's own limit, for the device to hash its files and to clean up
_SLOWEST_LINK = 100_000  # bytes per second: a slower link counts as broken
_BLOCK_BYTES = 1 << 20


class SshTransport:
    """Runs the worker with the device's Python."""

    def run(self, device: Device, files: Mapping[str, Path], job: Job, *, timeout_s: float) -> Reply:
        """Run the worker as Transport.run does. Files in the device's cache are not sent again."""
        target = SshTarget.of(device)
        trees = {name: _Tree.of(path) for name, path in files.items()}
        with Connection(target) as connection:
            connection.start((importlib.resources.files("edgevit_runtime") / "agent.py").read_bytes())
            connection.allow(_GRACE_S)
            connection.send(json.dumps(_request(device, trees, job, timeout_s)).encode())
            # In the order in which the agent reads them.
            missing = _answer(connection, target, ("missing",))["missing"]
            for name, tree in trees.items():
                if tree.key not in missing:
                    _LOG.debug("cache hit: %s is on %s", name, device.name)
            lacking = {tree.key: tree for tree in trees.values() if tree.key in missing}
            connection.allow(_GRACE_S + sum(tree.size for tree in lacking.values()) / _SLOWEST_LINK)
            for key in missing:
                lacking[key].send(connection)
            connection.allow(timeout_s + 2 * _GRACE_S)
            end = _answer(connection, target, ("replied", "code"))
            written, stderr = connection.receive(), connection.receive()
        reply = read_end(written if end["replied"] else None, stderr, end["code"], timeout_s)
        _require_room(reply, target)
        require_same_unit(device, reply)
        return reply


@dataclass(frozen=True)
class _Tree:
    """A file or a folder: (name, bytes, sha256) of each file in it, and the digest of that list as its key."""

    files: tuple[tuple[str, int, str], ...]
    paths: tuple[Path, ...]
    key: str
    inner: str  # the file's name, empty for a folder

    @classmethod
    def of(cls, path: Path) -> _Tree:
        # The manifest is left out: it changes, and the worker does not need it.
        paths = tree_files(path, (MANIFEST,)) if path.is_dir() else [path]
        names = [file.relative_to(path if path.is_dir() else path.parent).as_posix() for file in paths]
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


def _answer(connection: Connection, target: SshTarget, keys: Sequence[str]) -> dict[str, Any]:
    """Receive the agent's next answer, which has these keys.

    Raises DeviceError where it has not, and where it reports a failure of the device itself.
    """
    try:
        answer: dict[str, Any] = from_json(dict[str, Any], connection.receive())
        if "error" not in answer and not answer.keys() >= set(keys):
            raise RecordError(f"it has {', '.join(answer) or 'nothing'}, and not {', '.join(keys)}")
    except RecordError as error:
        why = f"its agent's answer cannot be read: {error}"
        raise DeviceError("the device cannot run a worker", where=target.label, why=why) from error
    if not {"error", "errno", "where"} <= answer.keys():
        return answer
    if answer["errno"] == errno.ENOSPC:
        raise _full(target, answer["where"])
    path = f"{target.label}: {answer['where']}" if answer["where"] else target.label
    fix = "check free space and permissions there, or choose another folder with the device's option `cache`"
    raise DeviceError("the device cannot run a worker", where=path, why=answer["error"], fix=fix)


def _require_room(reply: Reply, target: SshTarget) -> None:
    """Raise DeviceError for a full disk, which is no failure of the artifact."""
    if reply.status != "ok" and f"[Errno {errno.ENOSPC}]" in reply.error:
        raise _full(target, "")


def _full(target: SshTarget, path: str) -> DeviceError:
    fix = "make room there; edgevit's own files there are in ~/.cache/edgevit and may be removed"
    return DeviceError("the device's disk is full", where=f"{target.label}: {path}".rstrip(": "), fix=fix)


TRANSPORT = SshTransport()
