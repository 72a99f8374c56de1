"""Files of a checkpoint: which ones a path names, and the digest of them all. Nothing in them is read here."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

from edgevit.errors import CheckpointError
from edgevit_runtime.digest import file_sha256

INDEX = ".index.json"
# What Hugging Face's tools name the weights of a folder, best first.
_FOLDER_NAMES = ("model.safetensors", f"model.safetensors{INDEX}", "pytorch_model.bin", f"pytorch_model.bin{INDEX}")
_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".tar")
_MOST_CHARACTERS = 80
_SHARD = re.compile(r"-\d+-of-\d+\.")


def find_checkpoint(path: Path) -> Path:
    """Return the file of a checkpoint: the path itself, or the file with the weights in a folder.

    Raises CheckpointError where it has none, or several could be meant.
    """
    if path.is_dir():
        return _file_in(path)
    if not path.is_file():
        raise CheckpointError("no such checkpoint file", where=str(path), fix="check the path given as --weights")
    return path


def shards_of(index: Path) -> dict[str, Path]:
    """Return the file of each tensor that an index of shards names. Raise CheckpointError for a damaged index."""
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        names = {str(key): str(name) for key, name in weight_map.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError("the index of the shards cannot be read", where=str(index), why=str(error)) from error
    if outside := next((name for name in names.values() if Path(name).name != name), None):
        fix = "fetch the checkpoint again, into one folder"
        raise CheckpointError("an index names a file outside its folder", where=str(index), why=outside, fix=fix)
    files = {name: index.parent / name for name in sorted(set(names.values()))}
    # A folder's own listing: a name may be one that no file can have.
    present = {file.name for file in index.parent.iterdir() if file.is_file()}
    if missing := [name for name in files if name not in present]:
        shown = ", ".join(name[:_MOST_CHARACTERS] for name in missing[:3])
        why = f"{len(missing)} of {len(files)} are not beside the index: {shown}"
        raise CheckpointError("shards are missing", where=str(index), why=why, fix="fetch them too")
    return {key: files[name] for key, name in names.items()}


def checkpoint_sha256(path: Path) -> str:
    """Return the digest of a checkpoint's file, or of its index and all shards. Raise CheckpointError without one."""
    file = find_checkpoint(path)
    try:
        if not file.name.endswith(INDEX):
            return file_sha256(file)
        files = [file, *sorted(set(shards_of(file).values()))]
        lines = "".join(f"{file_sha256(one)}  {one.name}\n" for one in files)
    except OSError as error:
        problem = "the checkpoint cannot be read"
        raise CheckpointError(problem, where=str(path), why=str(error.strerror)) from error
    return hashlib.sha256(lines.encode()).hexdigest()


def _file_in(folder: Path) -> Path:
    """Return the file with the weights of a folder. Raise CheckpointError where it is not clear which one that is."""
    if (folder / ".metadata").is_file() and any(folder.glob("*.distcp")):
        command = f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {folder} {folder}.pth"
        raise CheckpointError("a distributed checkpoint is not read as it is", where=str(folder), fix=command)
    names = sorted(file.name for file in folder.iterdir() if file.is_file())
    official = [name for name in _FOLDER_NAMES if name in names]
    others = [name for name in names if name.endswith((*_SUFFIXES, INDEX)) and not _SHARD.search(name)]
    # With safetensors and pickles of the same weights, Hugging Face's tools take the former.
    official = [name for name in official if "safetensors" in name] or official
    matches = official or others
    if len(matches) == 1:
        return folder / matches[0]
    if not matches and (shards := [name for name in names if _SHARD.search(name)]):
        why = f"it holds {shards[0]}, and no index that tells which shard has which tensor"
        raise CheckpointError("shards without their index", where=str(folder), why=why, fix=f"fetch their *{INDEX}")
    if not matches:
        why = f"it holds no file that ends with {', '.join(_SUFFIXES)} or {INDEX}"
        raise CheckpointError("no such checkpoint file", where=str(folder), why=why, fix="--weights FILE")
    why = f"any of {', '.join(matches)} can be meant"
    fix = " or ".join(f"--weights {folder / name}" for name in matches[:2])
    raise CheckpointError("several checkpoints in this folder", where=str(folder), why=why, fix=fix)
