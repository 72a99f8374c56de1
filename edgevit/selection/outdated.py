"""Outdated networks: candidates whose checkpoint or code was overwritten on this machine since they were measured."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Protocol

from edgevit.records.choice import Candidate, Note, Reason
from edgevit.records.network import Network
from edgevit.selection.candidates import Exclusion
from edgevit.selection.caveats import Statement
from edgevit.selection.wording import note


class FileChange(Protocol):
    """A file that holds something else than it did."""

    @property
    def path(self) -> str:
        """Its absolute path."""

    @property
    def kind(self) -> str:
        """`checkpoint`, or `code`, whose change may be a remark."""


class NetworkFiles(Protocol):
    """What is known of the files of networks on this machine."""

    def change_of(self, network: Network) -> FileChange | None:
        """Return a file that holds something else now."""

    def is_current(self, network: Network) -> bool:
        """Return whether all files are here, and give the network still."""


class _NoFiles:
    def change_of(self, network: Network) -> None:
        """Return nothing."""

    def is_current(self, network: Network) -> bool:
        """Return that nothing is known."""
        return False


NO_FILES: NetworkFiles = _NoFiles()
Judged = tuple[Candidate, Exclusion | None]


def exclude_outdated(judged: Sequence[Judged], files: NetworkFiles) -> list[Judged]:
    """Return the candidates with their exclusions; those are excluded, too, whose files give another network now.

    Another checkpoint under the same path is another network. Changed code may be a remark: it is another network only
    where the files as they are now gave one of the same statement.
    """
    networks = [candidate for candidate, _ in judged if candidate.network is not None]
    current = {Statement.of(one) for one in networks if one.network is not None and files.is_current(one.network)}
    return [(one, excluded or _exclusion(one, files, current)) for one, excluded in judged]


def _exclusion(one: Candidate, files: NetworkFiles, current: Collection[Statement]) -> Exclusion | None:
    change = None if one.network is None else files.change_of(one.network)
    if change is None:
        return None
    if change.kind != "checkpoint" and Statement.of(one) not in current:
        return None
    return Exclusion((Reason("file_changed", _shown(change.path)),), None, "superseded")


def notes_on_files(picked: Candidate | None, files: NetworkFiles) -> Iterable[Note]:
    """Yield a note where a file of the pick's network was changed since."""
    change = None if picked is None or picked.network is None else files.change_of(picked.network)
    if change is not None:
        yield note("pick_file_changed", _shown(change.path))


def _shown(path: str) -> str:
    """Return a path as a person would type it here."""
    return str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path
