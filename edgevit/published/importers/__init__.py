"""Importers of what others have published. One module per source; its name is what `--from` is told.

An importer reads lines and says what they claim, with the tools of `edgevit.published.importers.reading`. What is to
be believed of it is not its business: `edgevit.published.screening` asks that of the claims of all sources alike.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import Protocol

from edgevit.errors import UnknownNameError, UsageError
from edgevit.published.importers.reading.units import utc
from edgevit.published.screening import Claim, ClaimError, Screening


@dataclass(frozen=True)
class Publication:
    """What the reader of a file knows of it and the file may not say.

    `source`: URL and release; empty: the importer names its project and the file. `published`: when, ISO 8601 in UTC;
    empty: not known, where the file does not say it.
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
    LICENCE: str  # SPDX, of the source's files; empty: it names none
    FILE: str  # that comes with edgevit (latency_db) and is read where none is named; empty: none does

    def recognises(self, path: Path) -> bool:
        """Whether the file's head is of this form. Reads a little of it and no more; a file of another is False."""

    def read(self, publication: Publication) -> Iterator[Claim]:
        """Every line as a claim, one after the other. Raises StoreError where the file cannot be read at all."""


def list_importers() -> list[str]:
    """Names of all of them."""
    return sorted(item.name for item in pkgutil.iter_modules(__path__) if not item.ispkg)


def load_importer(name: str) -> ImporterModule:
    """The importer of this name. Raises UnknownNameError."""
    if name not in (known := list_importers()):
        raise UnknownNameError("form of published rows", name, known, listing="edgevit db import --help")
    return typing.cast(ImporterModule, importlib.import_module(f"{__name__}.{name}"))


def require_form(path: Path, name: str = "") -> None:
    """Raise UsageError for a file that is not of the form, with the one it is of, or the list of all; no name: of any.

    Nothing is guessed: a form that fits is only told. Raises UnknownNameError for no such form.
    """
    asked = load_importer(name) if name else None
    if not path.is_file():
        raise UsageError(f"there is no file {path}", fix="name one that is there")
    if asked is not None and asked.recognises(path):
        return
    fits = [other for other in list_importers() if load_importer(other).recognises(path)]
    every = "\n".join(f"{other}: {load_importer(other).FORM}" for other in list_importers())
    what = f"is not of the form {name} ({asked.FORM})" if asked else "is nothing that `edgevit db export` wrote"
    raise UsageError(f"{path} {what}", fix=f"--from {fits[0]}" if len(fits) == 1 else f"--from, one of these\n{every}")


def is_published(path: Path) -> bool:
    """Whether a file is one for an importer, and none that `edgevit db export` wrote."""
    readers = map(load_importer, list_importers())
    return path.suffix.lower() in (".csv", ".yaml", ".yml") or any(item.recognises(path) for item in readers)


@contextmanager
def files_of(name: str, paths: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """The files, or the one that comes with edgevit for this form where none was named.

    Raises UnknownNameError for no such form, UsageError where no file was named and none comes with edgevit.
    """
    own = load_importer(name).FILE
    if paths:
        yield paths
    elif own:
        with resources.as_file(resources.files("edgevit.latency_db") / own) as shipped:
            yield [shipped]
    else:
        raise UsageError("no FILE was named", fix=f"edgevit db import FILE --from {name}")


def screened(name: str, publications: Sequence[Publication]) -> Screening:
    """What `LatencyDB.import_items` takes from its `items()`: the rows of files of one form, screened together.

    Raises UnknownNameError for no such form, UsageError for a file of another and for a date that is none.
    """
    module = load_importer(name)
    for publication in publications:
        require_form(publication.path, name)
    dated = [_in_utc(publication) for publication in publications]
    return Screening(lambda: chain.from_iterable(map(module.read, dated)))


def _in_utc(publication: Publication) -> Publication:
    if not publication.published:
        return publication
    try:
        return dataclasses.replace(publication, published=utc(publication.published, "--published"))
    except ClaimError as error:
        raise UsageError(str(error), fix="write 2026-01-31, or a time with its offset from UTC") from error
