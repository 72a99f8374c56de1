"""Agent of the ssh transport on a device: it receives files and one job, runs the worker, and returns its output.

It travels as source text through the device's standard input and needs no installation there. Both sides exchange
frames, eight bytes of length (big-endian) and then that many bytes:

    host                                        device
    request: trees, files, job, limits    ->
                                          <-    {"missing": [keys of trees that are not in the cache]}
    bytes of each missing tree's files    ->    checked by digest, written under another name, renamed
                                          <-    {"code": exit code, null for a timeout}, reply, end of stderr

An error of the device itself is {"error", "errno", "where"} in place of either answer. When the standard input ends,
the host is gone: the worker's whole process group is killed and the run's folder removed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

_LENGTH_BYTES = 8
_BLOCK_BYTES = 1 << 20
_STDERR_BYTES = 8192  # read from the end: an engine that hangs in an error loop writes gigabytes
_NO_ROOM = 1 << 16  # free bytes below which a disk counts as full
_LEFTOVER_S = 86_400  # no job lasts a day: older files remain from a device that lost its power
_UNUSED_S = 30 * 86_400  # a tree that no job used for so long is removed


def main(source: BinaryIO, sink: BinaryIO) -> None:
    """Run one job, from its request to its answer."""
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number, lambda *_: sys.exit(1))
    request = json.loads(_receive(source))
    try:
        cache = _cache(request["cache"])
        missing = [key for key, files in request["trees"].items() if not _holds(cache / "trees" / key, files)]
        _answer(sink, {"missing": missing})
        for key in missing:
            _store(source, cache / "trees" / key, request["trees"][key])
        with _folder(cache / "runs") as folder:
            _lay_out(folder, cache / "trees", request)
            code = run_group(folder, request)
            # On a full disk the worker's traceback could not be written either.
            if code and shutil.disk_usage(folder).free < _NO_ROOM:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
            reply = folder / request["reply"]
            outcome = {"code": code, "replied": reply.exists()}
            bodies = reply.read_bytes() if reply.exists() else b"", _tail(folder / "stderr.txt")
        # The answer follows the removal of the folder, because the host closes the connection after it.
        _answer(sink, outcome, *bodies)
    except OSError as error:
        path = os.fsdecode(error.filename or "")
        _answer(sink, {"error": error.strerror or str(error), "errno": error.errno, "where": path})


def _receive(source: BinaryIO) -> bytes:
    return _exactly(source, int.from_bytes(_exactly(source, _LENGTH_BYTES), "big"))


def _exactly(source: BinaryIO, size: int) -> bytes:
    data = source.read(size)
    if len(data) != size:
        sys.exit(1)  # the host is gone
    return data


def _answer(sink: BinaryIO, data: dict[str, Any], *bodies: bytes) -> None:
    for body in (json.dumps(data).encode(), *bodies):
        sink.write(len(body).to_bytes(_LENGTH_BYTES, "big") + body)
    sink.flush()


def _cache(folder: str) -> Path:
    """Return the cache's folder, after removing unused files from it."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")  # noqa: PTH111, PTH118 - Path.expanduser() raises without a home
    cache = Path(os.path.expanduser(folder)) if folder else Path(home, "edgevit")  # noqa: PTH111 - the same
    for name, limit_s in (("trees", _UNUSED_S), ("runs", _LEFTOVER_S)):
        (cache / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in (cache / name).iterdir():
            partial = path.name.startswith(".")
            with suppress(OSError):  # another run may have removed it
                if time.time() - path.stat().st_mtime > (_LEFTOVER_S if partial else limit_s):
                    shutil.rmtree(path)
    return cache


def _holds(tree: Path, files: list[list[Any]]) -> bool:
    """Return whether the cache contains a whole tree with the right digests. A damaged one is removed."""
    if not re.fullmatch("[0-9a-f]{64}", tree.name):
        sys.exit(1)
    if not tree.is_dir():
        return False
    if all(_digest(tree / name) == digest for name, _, digest in files):
        os.utime(tree)
        return True
    shutil.rmtree(tree)
    return False


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with suppress(FileNotFoundError), path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _store(source: BinaryIO, tree: Path, files: list[list[Any]]) -> None:
    """Write a tree under a temporary name, and rename it once all its files have the right digests."""
    temporary = tree.with_name(f".{tree.name}.{os.getpid()}")
    try:
        for name, size, digest in files:
            path = temporary / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _write(source, path, size) != digest:
                raise OSError(0, "what arrived is not what was sent", str(tree))
        try:
            temporary.rename(tree)
        except OSError:
            # Another run may have been first; its files have the same digests.
            if not tree.is_dir():
                raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(source: BinaryIO, path: Path, size: int) -> str:
    digest = hashlib.sha256()
    with path.open("wb") as file:
        while size:
            block = _exactly(source, min(size, _BLOCK_BYTES))
            file.write(block)
            digest.update(block)
            size -= len(block)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


@contextmanager
def _folder(runs: Path) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(dir=runs))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _lay_out(folder: Path, trees: Path, request: dict[str, Any]) -> None:
    """Link to the cache, as the local transport links to its files, because an artifact may be large."""
    for name, (key, inner) in request["files"].items():
        (folder / name).symlink_to(trees.resolve() / key / inner)
    with (folder / request["job_name"]).open("w", encoding="utf-8") as file:
        file.write(request["job"])


def run_group(folder: Path, request: dict[str, Any]) -> int | None:
    """Run the worker, end its whole process group, and return its exit code; None after the time limit."""
    inherited = {name: os.environ[name] for name in request["inherited"] if name in os.environ}
    timed_out = threading.Event()
    with (folder / "stderr.txt").open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, *request["command"]],
            cwd=folder,
            env={**inherited, **request["variables"], "TMPDIR": str(folder)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            start_new_session=True,
        )
    lost = threading.Event()
    timer = threading.Timer(request["timeout_s"], _end, (process.pid, timed_out))
    timer.daemon = True
    timer.start()
    threading.Thread(target=_wait_for_host, args=(process.pid, lost), daemon=True).start()
    try:
        code = process.wait()
    finally:
        timer.cancel()
        _kill_group(process.pid)
        process.wait()
    if lost.is_set():
        sys.exit(1)
    return None if timed_out.is_set() else code


def _wait_for_host(pid: int, lost: threading.Event) -> None:
    """Block until the host closes its end or the connection breaks; the host sends nothing more."""
    with suppress(OSError):
        while os.read(0, 1):
            pass
    _end(pid, lost)


def _end(pid: int, reason: threading.Event) -> None:
    reason.set()
    _kill_group(pid)


def _kill_group(pid: int) -> None:
    # macOS raises PermissionError for a group of dead processes.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _STDERR_BYTES))
        return file.read()


if __name__ == "__main__":
    main(sys.stdin.buffer, sys.stdout.buffer)
