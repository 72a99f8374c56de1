"""Labels: the names of a model's classes in the order of its output, in a text file with one a line."""

from __future__ import annotations

from pathlib import Path

from edgevit.errors import UsageError
from edgevit.plain_files import read_plain


def read_labels(file: Path) -> tuple[str, ...]:
    """Return the lines of a file that are not blank. Raises UsageError where it cannot be read, or has none."""
    try:
        lines = read_plain(file).decode("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = str(error.strerror) if isinstance(error, OSError) else "it is no text in UTF-8"
        raise UsageError("the labels cannot be read", where=str(file), why=why) from error
    labels = tuple(line.strip() for line in lines if line.strip())
    if not labels:
        raise UsageError("the file has no labels", where=str(file), fix="one name of a class a line")
    return labels
