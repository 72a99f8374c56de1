"""Checkpoint files: one file, or the shards that an index names, read completely or not at all; none of it is run."""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from edgevit.checkpoint_files import INDEX, find_checkpoint, shards_of
from edgevit.errors import CheckpointError
from edgevit.models.checkpoint_objects import object_with_tensors, stand_ins

SAVE_AGAIN = "have its owner save the weights alone: torch.save(model.state_dict(), path)"

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


def read_content(path: Path) -> Any:
    """Return what a checkpoint holds, as nested containers of tensors and stand-ins.

    path: a file, a folder with weights as Hugging Face saves them, or an index of shards. Raises CheckpointError: no
    such file, damaged, needs code, several that could be meant.
    """
    file = find_checkpoint(path)
    return _read_shards(file) if file.name.endswith(INDEX) else _read(file)


def _read_shards(index: Path) -> dict[str, Any]:
    """Read the tensors that an index names, each from its shard beside the index."""
    shard_of = shards_of(index)
    tensors: dict[str, Any] = {}
    for file in sorted(set(shard_of.values())):
        shard = _read(file)
        expected_keys = [key for key, place in shard_of.items() if place == file]
        if absent := [key for key in expected_keys if not isinstance(shard, dict) or key not in shard]:
            why = f"it lacks {absent[0]}, which {index.name} says it has"
            raise CheckpointError("a shard is not the one of its index", where=str(file), why=why, fix="fetch it again")
        tensors |= {key: shard[key] for key in expected_keys}
    return tensors


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
