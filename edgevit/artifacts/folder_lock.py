"""Locks of output folders: one run at a time writes into a folder, and removes what killed runs left there."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from edgevit.artifacts.folder import MANIFEST
from edgevit.concurrency.lock_file import locked_file, warn_in_log
from edgevit.concurrency.scratch import is_left_behind, remove
from edgevit.errors import ArtifactError

_LOCK = ".edgevit.lock"


@contextmanager
def locked_folder(out: Path, on_wait: Callable[[str], None] = warn_in_log) -> Iterator[None]:
    """Hold an output folder, and remove what killed runs left in it. While another run holds it, wait.

    on_wait: called once before waiting, with the run that holds the folder. The folder is made where it is missing, and
    removed at the end if nothing came of it. Raises ArtifactError where it cannot be written.
    """
    try:
        is_new = not out.exists()
    except OSError as error:
        # A folder above may not be entered.
        raise unwritable(out, error) from error
    try:
        with ExitStack() as stack:
            try:
                stack.enter_context(locked_file(out / _LOCK, str(out), on_wait))
            except OSError as error:
                raise unwritable(out, error) from error
            clear_output(out)
            yield
    finally:
        if is_new:
            with suppress(OSError):
                out.rmdir()


def unwritable(out: Path, error: OSError) -> ArtifactError:
    """Return the error for an output folder that cannot be written, with the advice for its cause."""
    why = str(error.strerror or error)
    fix = "free some space there, or name another folder with -o" if is_full(error) else "-o FOLDER you may write to"
    return ArtifactError("cannot write to the output folder", where=str(out), why=why, fix=fix)


def is_full(error: OSError) -> bool:
    """Return whether a disk has no room for what is written: it is full, or a limit of the user or of files is met."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def clear_output(out: Path) -> None:
    """Remove what runs left that were killed; an older artifact that was about to be replaced gets its name back."""
    for path in out.glob(".*"):
        if not is_left_behind(path):
            continue
        name, _, rest = path.name.removeprefix(".").rpartition(".old.")
        if rest and name and not (out / name).exists():
            with suppress(OSError):
                path.rename(out / name)
                continue
        remove(path)
    for path in out.glob(f"*/.{MANIFEST}.*"):
        if is_left_behind(path):
            remove(path)
