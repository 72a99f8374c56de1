"""New databases of commands: copies of one with empty tables, and of one with the rows that ship with edgevit.

Its migrations and the checks of those rows take longer than most commands. `LatencyDB.open` then finds a database that
is up to date, and reads it as it reads any other. The zygote of commands uses this (zygote.py). Tests that open
databases themselves migrate and import each time, and so do commands whose environment has the variable OWN.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from edgevit.store import LatencyDB
from edgevit.store.connect import database_url

# For programs that are killed, or that open one new database at the same time.
OWN = "EDGEVIT_TESTS_OWN_DATABASES"


def share(folder: Path) -> None:
    """Let every new SQLite database of this process and of its forks be a copy of one in this folder."""
    LatencyDB.open = staticmethod(functools.partial(open_copy, folder, LatencyDB.open))  # type: ignore[method-assign]


def open_copy(
    folder: Path,
    opened: Callable[..., LatencyDB],
    url: str | None = None,
    *,
    shipped: bool = True,
    create_file: bool = True,
) -> LatencyDB:
    """Open a database. A file that is not there yet is a copy of the same kind of database, which is made once."""
    if OWN in os.environ:
        return opened(url, shipped=shipped, create_file=create_file)
    address = database_url(url)
    path = Path(address.database or "") if address.get_backend_name() == "sqlite" else None
    if path is not None and path.name and path.parent.is_dir() and not path.exists() and (create_file or not url):
        template = folder / ("shipped.db" if shipped else "empty.db")
        if not template.exists():
            folder.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                opened(f"{scratch}/new.db", shipped=shipped).close()
                os.replace(f"{scratch}/new.db", template)  # noqa: PTH105
        copy_new(template, path, folder)
    return opened(url, shipped=shipped, create_file=create_file)


def copy_new(template: Path, path: Path, folder: Path) -> None:
    """Copy a file to a name that has none yet, at once. If that fails, `opened` makes it or tells why it cannot."""
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory(dir=folder) as scratch:
        shutil.copyfile(template, f"{scratch}/copy.db")
        os.link(f"{scratch}/copy.db", path)
