"""The digest of an artifact: one sha256 over the names and contents of a whole folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path


class DigestError(ValueError):
    """The folder holds something that an artifact may not hold."""


def file_sha256(path: Path) -> str:
    """sha256 of one file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_files(folder: Path, leave_out: Iterable[str] = ()) -> list[Path]:
    """Every file below the folder, sorted by its relative POSIX name.

    Raises DigestError for links and special files: what they point to is not part of the artifact.
    """
    skipped, files = set(leave_out), []
    for path in folder.rglob("*"):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise DigestError(f"{path} is a link or a special file; an artifact holds plain files only")
        if path.is_file() and path.relative_to(folder).as_posix() not in skipped:
            files.append(path)
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def file_digests(folder: Path, leave_out: Iterable[str] = ("manifest.json",)) -> dict[str, str]:
    """The sha256 of every file below the folder by its relative POSIX name, in the order of `tree_files`.

    The manifest is left out because it holds these digests; it is protected by its own.
    """
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in tree_files(folder, leave_out)}


def digest_of(files: Mapping[str, str]) -> str:
    """sha256 over (name, NUL, content sha256, newline) of every file, in the order given."""
    lines = (f"{name}\0{content}\n" for name, content in files.items())
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def tree_sha256(folder: Path, leave_out: Iterable[str] = ("manifest.json",)) -> str:
    """One sha256 for the names and contents of all files below the folder."""
    return digest_of(file_digests(folder, leave_out))


def tree_bytes(folder: Path, leave_out: Iterable[str] = ("manifest.json",)) -> int:
    """Bytes of every file counted by `tree_sha256`."""
    return sum(path.stat().st_size for path in tree_files(folder, leave_out))
