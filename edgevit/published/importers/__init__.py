"""Importers of published tables: one module per source, whose name is the value of `--from`.

An importer turns lines into claims with the tools of `edgevit.published.importers.reading`. It does not judge them:
`edgevit.published.screening` checks the claims of all sources alike.
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
    """A file, with facts that the user knows and the file may lack.

    `source` is URL and release; empty: the importer names its project and the file. `published` is the date of
    publication, ISO 8601 in UTC; empty: unknown, unless the file has it.
    """

    path: Path
    source: str = ""
    published: str = ""

    def named(self, project: str) -> str:
        """Return the source of its rows: the user's, else the project and the name of the file."""
        return self.source or f"{project}, {self.path.name}"


class ImporterModule(Protocol):
    """Interface of an importer module.

    FORM describes its files in a few words. LICENCE is the SPDX name of the source's licence; empty: it names none.
    FILE is a file of latency_db that ships with edgevit and is the default; empty: there is no default.
    """

    FORM: str
    LICENCE: str
    FILE: str

    def recognises(self, path: Path) -> bool:
        """Return whether the head of the file has this form. Reads only a little of it."""

    def read(self, publication: Publication) -> Iterator[Claim]:
        """Yield every line as a claim. Raises StoreError where the file cannot be read at all."""


def list_importers() -> list[str]:
    """Return the names of all importers."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg)


def load_importer(name: str) -> ImporterModule:
    """Return the importer of this name. Raises UnknownNameError."""
    if name not in (names := list_importers()):
        raise UnknownNameError("form of published rows", name, names, listing="edgevit db import --help")
    return typing.cast(ImporterModule, importlib.import_module(f"{__name__}.{name}"))


def require_form(path: Path, name: str = "") -> None:
    """Raise UsageError for a file of another form, with the form that fits, or the list of all.

    Without a name, the file has to be one that `edgevit db export` wrote. A form that fits is named and never assumed.
    Raises UnknownNameError for an unknown form.
    """
    importer = load_importer(name) if name else None
    if not path.is_file():
        raise UsageError(f"there is no file {path}", fix="name an existing file")
    if importer is not None and importer.recognises(path):
        return
    fits = [other for other in list_importers() if load_importer(other).recognises(path)]
    forms = "; ".join(f"{other}: {load_importer(other).FORM}" for other in list_importers())
    problem = f"is not of the form {name} ({importer.FORM})" if importer else "was not written by `edgevit db export`"
    fix = f"--from {fits[0]}" if len(fits) == 1 else f"--from, one of these: {forms}"
    raise UsageError(f"{path} {problem}", fix=fix)


def is_published(path: Path) -> bool:
    """Return whether a file is for an importer, and not one that `edgevit db export` wrote."""
    importers = map(load_importer, list_importers())
    return path.suffix.lower() in (".csv", ".yaml", ".yml") or any(one.recognises(path) for one in importers)


@contextmanager
def files_of(name: str, paths: Sequence[Path]) -> Iterator[Sequence[Path]]:
    """Give the files, or without any the file that ships with edgevit for this form.

    Raises UnknownNameError for an unknown form, and UsageError where no file was named and none ships with edgevit.
    """
    default = load_importer(name).FILE
    if paths:
        yield paths
    elif default:
        with resources.as_file(resources.files("edgevit.latency_db") / default) as shipped:
            yield [shipped]
    else:
        raise UsageError("no FILE was named", fix=f"edgevit db import FILE --from {name}")


def screened(name: str, publications: Sequence[Publication]) -> Screening:
    """Screen the rows of files of one form together; `LatencyDB.import_records` takes the `records()` of the result.

    Raises UnknownNameError for an unknown form, and UsageError for a file of another form and for a wrong date.
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
