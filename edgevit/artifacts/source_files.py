"""Source files of networks: which checkpoint and code gave a network on this machine, and whether they still do.

Rows and manifests name no folder of a person, because they travel. So the places are kept in the user's data folder,
in one small file for each network and place. Nothing is said of a network whose files are not here.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import platformdirs

from edgevit.checkpoint_files import checkpoint_sha256
from edgevit.concurrency.scratch import mark
from edgevit.errors import CheckpointError
from edgevit.records.model_reference import place_digest
from edgevit.records.network import Network
from edgevit_runtime.codec import RecordError, from_json
from edgevit_runtime.digest import file_sha256

_LOG = logging.getLogger(__name__)
_DIGITS = 16


class ChangedFile(NamedTuple):
    """A file that gave a network once, and holds something else now. kind: a checkpoint decides, code may not."""

    path: str
    kind: Literal["checkpoint", "code"]


class SourceFiles:
    """The memory of source files in a folder. Each network is looked up once."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = platformdirs.user_data_path("edgevit") / "networks" if folder is None else folder
        self._states: dict[Network, tuple[ChangedFile | None, bool]] = {}

    def record(self, network: Network, checkpoint: Path | None, code: Iterable[Path]) -> None:
        """Remember the files that give a network now. A folder that cannot be written is no error."""
        files = {"checkpoint": [checkpoint] if checkpoint else [], "code": list(code)}
        try:
            facts = {kind: {str(path.resolve()): _facts(path) for path in paths} for kind, paths in files.items()}
            if not any(facts.values()):
                return
            place = place_digest("\n".join([*facts["checkpoint"], *facts["code"]]))
            path = self.folder / f"{_key(network)}-{place}.json"
            self.folder.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.{mark()}")
            part.write_text(json.dumps(facts, sort_keys=True), encoding="utf-8")
            part.replace(path)
        except (OSError, CheckpointError) as error:
            _LOG.info("the files of %s are not remembered: %s", network.label, error)

    def change_of(self, network: Network) -> ChangedFile | None:
        """Return a file of a network that holds something else now; None where none does, or none is here."""
        return self._state(network)[0]

    def is_current(self, network: Network) -> bool:
        """Return whether the files of a network are all here, and give it still."""
        return self._state(network)[1]

    def _state(self, network: Network) -> tuple[ChangedFile | None, bool]:
        if network not in self._states:
            states = [_state_of(path) for path in sorted(self.folder.glob(f"{_key(network)}-*.json"))]
            is_current = any(current for _, current in states)
            changed = None if is_current else next((change for change, _ in states if change), None)
            self._states[network] = (changed, is_current)
        return self._states[network]


def _key(network: Network) -> str:
    text = f"{network.weights_sha256} {network.network_sha256}"
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _state_of(path: Path) -> tuple[ChangedFile | None, bool]:
    """Return a changed file of one record, and whether all of its files are here as they were."""
    try:
        record = from_json(dict[str, dict[str, tuple[Any, ...]]], path.read_bytes())
    except (OSError, RecordError):
        return None, False
    kinds: tuple[Literal["checkpoint", "code"], ...] = ("checkpoint", "code")
    if record.keys() != set(kinds):
        return None, False
    files = [(ChangedFile(name, kind), list(facts)) for kind in kinds for name, facts in record[kind].items()]
    states = [(file, _is_same(Path(file.path), facts)) for file, facts in files]
    changed = next((file for file, same in states if same is False), None)
    return changed, all(same for _, same in states)


def _facts(path: Path) -> list[object]:
    """Return the digest of a file, and what tells without reading it that it was not written since."""
    return [_sha256(path), *_stamp(path)]


def _sha256(path: Path) -> str:
    return file_sha256(path) if path.suffix == ".py" else checkpoint_sha256(path)


def _stamp(path: Path) -> list[object]:
    """Return size and times of a file; nothing for a folder or an index, whose other files tell nothing of it."""
    if path.is_dir() or path.suffix == ".json":
        return []
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, os.fspath(path.resolve())]


def _is_same(path: Path, facts: list[object]) -> bool | None:
    """Return whether a file holds what it held; None where it is not here."""
    # ValueError: a path with a NUL
    with suppress(OSError, ValueError, CheckpointError):
        stamp = _stamp(path)
        return bool(stamp and stamp == facts[1:]) or [_sha256(path)] == facts[:1]
    return None
