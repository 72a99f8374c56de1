"""Importers of what others have published. One module per source; its name is what `--from` is told."""

from __future__ import annotations

import importlib
import pkgutil
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Protocol

from edgevit.errors import UnknownNameError, UsageError
from edgevit.screening import Claim, Screening


@dataclass(frozen=True)
class Publication:
    """What the reader of a file knows of it and the file may not say.

    `source`: URL and release; empty: the importer names its project and the file. `published`: ISO 8601, a date or a
    time with its offset; empty: not known, where the file does not say it.
    """

    path: Path
    source: str = ""
    published: str = ""

    def named(self, project: str) -> str:
        """The source of its rows: what was told, else the project and the name of the file."""
        return self.source or f"{project}, {self.path.name}"


class ImporterModule(Protocol):
    """What a module here has."""

    FORM: str  # the files that it reads, in a few words
    LICENCE: str  # SPDX, of the source's files
    FILE: str  # that comes with edgevit (latency_db) and is read where none is named; empty: none does

    def recognises(self, path: Path) -> bool:
        """Whether the file's head is of this form. Reads a little of it and no more; a file of another is False."""

    def read(self, publication: Publication) -> Iterator[Claim]:
        """Every line as a claim, one after the other. Raises StoreError where the file cannot be read at all."""


def list_importers() -> list[str]:
    """Names of all of them."""
    return sorted(item.name for item in pkgutil.iter_modules(__path__))


def load_importer(name: str) -> ImporterModule:
    """The importer of this name. Raises UnknownNameError."""
    if name not in (known := list_importers()):
        raise UnknownNameError("form of published rows", name, known, listing="edgevit db import --help")
    return typing.cast(ImporterModule, importlib.import_module(f"{__name__}.{name}"))


def forms() -> str:
    """Every form that can be read, one a line."""
    return "\n".join(f"{name}: {load_importer(name).FORM}" for name in list_importers())


@contextmanager
def named_file(name: str, path: Path | None) -> Iterator[Path]:
    """The file, or the one that comes with edgevit for this form where none was named.

    Raises UnknownNameError for no such form, UsageError where no file was named and none comes with edgevit.
    """
    own = load_importer(name).FILE
    if path is not None:
        yield path
    elif own:
        with resources.as_file(resources.files("edgevit.latency_db") / own) as shipped:
            yield shipped
    else:
        raise UsageError("no FILE was named", fix=f"edgevit db import FILE --from {name}")


def screening(name: str, publication: Publication) -> Screening:
    """What `LatencyDB.import_items` takes from its `items()`: the rows of a file, screened.

    Raises UnknownNameError for no such form, and UsageError with the list of forms for a file that is of another.
    """
    module = load_importer(name)
    if not publication.path.is_file():
        raise UsageError(f"there is no file {publication.path}")
    if not module.recognises(publication.path):
        fits = [other for other in list_importers() if load_importer(other).recognises(publication.path)]
        fix = f"--from {fits[0]}" if len(fits) == 1 else f"one of these\n{forms()}"
        raise UsageError(f"{publication.path} is not of the form {name} ({module.FORM})", fix=fix)
    return Screening(partial(module.read, publication))
