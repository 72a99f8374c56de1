"""Checkpoint files: one file, or the shards that an index names, read completely or not at all; none of it is run."""

from __future__ import annotations

import json
import pickle
import re
import struct
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from edgevit.errors import CheckpointError
from edgevit.models.checkpoint_objects import object_with_tensors, stand_ins

SAVE_AGAIN = "have its owner save the weights alone: torch.save(model.state_dict(), path)"
_INDEX = ".index.json"
# What Hugging Face's tools name the weights of a folder, best first.
_FOLDER_NAMES = ("model.safetensors", f"model.safetensors{_INDEX}", "pytorch_model.bin", f"pytorch_model.bin{_INDEX}")
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".tar")
_SHARD = re.compile(r"-\d+-of-\d+\.")

# What torch.load raises on a damaged file, as found by cutting and overwriting files (tests/models/test_checkpoint.py).
_DAMAGE = (
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    EOFError,
    OSError,
    RuntimeError,
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    AssertionError,
    MemoryError,
    SafetensorError,
)


@dataclass(frozen=True)
class CheckpointContent:
    """What a checkpoint holds, as nested containers of tensors and stand-ins, and the files that it was read from."""

    content: Any
    files: tuple[Path, ...]


def read_content(path: Path) -> CheckpointContent:
    """Read a checkpoint: a file, a folder with weights as Hugging Face saves them, or an index of shards.

    Raises CheckpointError: no such file, damaged, needs code, several that could be meant.
    """
    if path.is_dir():
        path = _file_in(path)
    if not path.is_file():
        raise CheckpointError("no such checkpoint file", where=str(path), fix="check the path given as --weights")
    if path.name.endswith(_INDEX):
        return _read_shards(path)
    return CheckpointContent(_read(path), (path,))


def _file_in(folder: Path) -> Path:
    """Return the file with the weights of a folder. Raise CheckpointError where it is not clear which one that is."""
    if (folder / ".metadata").is_file() and any(folder.glob("*.distcp")):
        command = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} {folder}.pth"
        raise CheckpointError("a distributed checkpoint is not read as it is", where=str(folder), fix=command)
    names = sorted(file.name for file in folder.iterdir() if file.is_file())
    official = [name for name in _FOLDER_NAMES if name in names]
    others = [name for name in names if name.endswith((*_SUFFIXES, _INDEX)) and not _SHARD.search(name)]
    # With safetensors and pickles of the same weights, Hugging Face's tools take the former.
    official = [name for name in official if "safetensors" in name] or official
    matches = official or others
    if len(matches) == 1:
        return folder / matches[0]
    if not matches and (shards := [name for name in names if _SHARD.search(name)]):
        why = f"it holds {shards[0]}, and no index that tells which shard has which tensor"
        raise CheckpointError("shards without their index", where=str(folder), why=why, fix=f"fetch their *{_INDEX}")
    if not matches:
        why = f"it holds no file that ends with {', '.join(_SUFFIXES)} or {_INDEX}"
        raise CheckpointError("no such checkpoint file", where=str(folder), why=why, fix="--weights FILE")
    why = f"any of {', '.join(matches)} can be meant"
    fix = " or ".join(f"--weights {folder / name}" for name in matches[:2])
    raise CheckpointError("several checkpoints in this folder", where=str(folder), why=why, fix=fix)


def _read_shards(index: Path) -> CheckpointContent:
    """Read the tensors that an index names, each from its shard beside the index."""
    try:
        shard_of = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = {str(key): str(name) for key, name in shard_of.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError("the index of the shards cannot be read", where=str(index), why=str(error)) from error
    if outside := next((name for name in names.values() if Path(name).name != name), None):
        raise CheckpointError("an index names a file outside its folder", where=str(index), why=outside, fix=SAVE_AGAIN)
    files = tuple(index.parent / name for name in sorted(set(names.values())))
    if missing := [file.name for file in files if not file.is_file()]:
        why = f"{len(missing)} of {len(files)} are not beside the index: {', '.join(missing[:3])}"
        raise CheckpointError("shards are missing", where=str(index), why=why, fix="fetch them too")
    tensors: dict[str, Any] = {}
    for file in files:
        shard = _read(file)
        wanted_keys = [key for key, name in names.items() if name == file.name]
        if absent := [key for key in wanted_keys if not isinstance(shard, dict) or key not in shard]:
            why = f"it lacks {absent[0]}, which {index.name} says it has"
            raise CheckpointError("a shard is not the one of its index", where=str(file), why=why, fix="fetch it again")
        tensors |= {key: shard[key] for key in wanted_keys}
    return CheckpointContent(tensors, (index, *files))


def _read(path: Path) -> Any:
    try:
        if _is_safetensors(path):
            return load_file(path)
        if _is_script(path):
            fix = f"python -c \"import torch; torch.save(torch.jit.load('{path}').state_dict(), 'weights.pth')\""
            raise CheckpointError("a TorchScript program is no checkpoint", where=str(path), fix=fix)
        with warnings.catch_warnings(), torch.serialization.safe_globals(stand_ins(path)):
            # torch warns of old formats and protocols; the file is read, or refused below.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        raise _refusal(error, path) from error
    if name := object_with_tensors(content):
        why = f"it holds tensors inside an object of {name}, and only that class can tell what they are"
        raise CheckpointError("checkpoint refused as unsafe", where=str(path), why=why, fix=SAVE_AGAIN)
    return content


def _is_safetensors(path: Path) -> bool:
    """Return whether a file has the suffix or the form of safetensors, which some rename."""
    if path.suffix == ".safetensors":
        return True
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and 0 < int.from_bytes(head[:8], "little") < path.stat().st_size


def _is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("constants.pkl") for name in archive.namelist())


def _refusal(error: Exception, path: Path) -> CheckpointError:
    """Return the error to raise, without torch's own advice of weights_only=False, which runs any code in the file."""
    message = str(error).split("WeightsUnpickler error:")[-1].strip()
    if isinstance(error, pickle.UnpicklingError) and (code := re.search(r"GLOBAL (\S+)", message)):
        why = f"it asks for {code[1]}, which is neither a tensor nor a number and may run code"
        return CheckpointError("checkpoint refused as unsafe", where=str(path), why=why, fix=SAVE_AGAIN)
    why = f"{type(error).__name__}: {message.splitlines()[0][:200] if message else 'the file ends early'}"
    fix = f"download the file again; if it stays so, {SAVE_AGAIN}"
    return CheckpointError("checkpoint cannot be read", where=str(path), why=why, fix=fix)
