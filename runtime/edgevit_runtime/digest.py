"""Digest of an artifact: one sha256 over the names and contents of a folder's files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

_BLOCK_BYTES = 1 << 20


class DigestError(ValueError):
    """The folder contains a file that is not allowed in an artifact."""


def file_sha256(path: Path) -> str:
    """Return the sha256 of one file's content, in hex."""
    digest = hashlib.sha256()
    # hashlib.file_digest() is missing in Python 3.10, which boards have.
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def tree_files(folder: Path, leave_out: Iterable[str] = ()) -> list[Path]:
    """Return every file below the folder, sorted by its relative POSIX name.

    Raises DigestError for links and special files, whose content is not part of the artifact.
    """
    skipped, files = set(leave_out), []
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise DigestError(f"{path} is a link or a special file; an artifact holds plain files only")
        if path.is_file() and path.relative_to(folder).as_posix() not in skipped:
            files.append(path)
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def file_digests(folder: Path, leave_out: Iterable[str] = ("manifest.json",)) -> dict[str, str]:
    """Return the sha256 of every file below the folder by its relative POSIX name, in the order of `tree_files`.

    The manifest is left out because it contains these digests; its own digest protects it.
    """
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in tree_files(folder, leave_out)}


def digest_of(files: Mapping[str, str]) -> str:
    """Return the sha256 over (name, NUL, content sha256, newline) of every file, in the order of the mapping."""
    lines = (f"{name}\0{content}\n" for name, content in files.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def tree_sha256(folder: Path, leave_out: Iterable[str] = ("manifest.json",)) -> str:
    """Return one sha256 for the names and contents of all files below the folder."""
    return digest_of(file_digests(folder, leave_out))


def tree_bytes(folder: Path, leave_out: Iterable[str] = ("manifest.json",)) -> int:
    """Return the total size of the files that `tree_sha256` covers, in bytes."""
    return sum(path.stat().st_size for path in tree_files(folder, leave_out))
