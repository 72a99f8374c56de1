"""Sources of records: where they came from, who is trusted, and what was forgotten."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Self

from sqlalchemy import Engine

from edgevit.records.artifact import Artifact
from edgevit.records.origin import Origin, OriginPolicy, SourceSummary
from edgevit.store import forgetting, origins, queries, small_tables
from edgevit.store.connected import ConnectedDatabase


class SourcedDatabase(ConnectedDatabase):
    """A database whose records have origins, of which a policy lets some decide."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._policy: OriginPolicy = "any"

    def trusting(self, policy: OriginPolicy) -> Self:
        """Return the same database, open for reading, as if it held only records that decide by a policy.

        It has the connections of this one. Without a policy every record counts.
        """
        view = type(self)(self._engine)
        view._policy = policy
        return view

    def undecided(self) -> dict[str, str]:
        """Return the ids of the records that the policy leaves out, each with its newest source."""
        with self._transaction() as connection:
            return origins.undecided(connection, self._policy)

    def left_out(self, device: str | None = None) -> dict[str, int]:
        """Return the number of measurements of a device that the policy leaves out, by their source; None: of all."""
        with self._transaction() as connection:
            ignored = origins.undecided(connection, self._policy)
            columns = queries.rows_of_device(connection, device) if ignored else ()
            sources = [ignored[row["measurement_id"]] for row in columns if row["measurement_id"] in ignored]
        return dict(Counter(sources))

    def origins(self, ids: Iterable[str]) -> dict[str, tuple[Origin, ...]]:
        """Return the origins of records by their ids, oldest first; a record without any is not in the result."""
        with self._transaction() as connection:
            return origins.origins_of(connection, ids)

    def foreign_origins(self) -> dict[str, Origin]:
        """Return the newest origin of each record that this very installation did not measure, by the record's id."""
        with self._transaction() as connection:
            return origins.foreign(connection)

    def sources(self) -> list[SourceSummary]:
        """Return every origin of records, with their number."""
        with self._transaction() as connection:
            return origins.summaries(connection)

    def trust(self, source: str, *, is_trusted: bool = True) -> None:
        """Let the records of a source decide from now on, or no more. Raises UnknownNameError."""
        with self._transaction(write=True) as connection:
            origins.decide(connection, source, is_trusted=is_trusted)

    def forget(self, source: str) -> int:
        """Delete the records that came from a source alone, for good, and return their number.

        No import or merge brings them back. Raises UnknownNameError, UsageError for this installation.
        """
        with self._transaction(write=True) as connection:
            return forgetting.forget(connection, source)

    def remember(self, source: str) -> int:
        """Let the records of a forgotten source be read again; return their number. Raises UnknownNameError."""
        with self._transaction(write=True) as connection:
            return forgetting.remember(connection, source)

    def record_built(self, artifact: Artifact, digests: Iterable[str] = ()) -> None:
        """Record that this artifact was built here, so that its code may run. Recording it again changes nothing.

        digests: those of its code; default: that of its payload.

        Such records are never exported: imported rows give no code the permission to run.
        """
        code = sorted(digests) or [artifact.sha256]
        with self._transaction(write=True) as connection:
            for digest in code:
                small_tables.insert_built(connection, artifact, digest)
            origins.Writer("measured").record(connection, [origins.built_id(digest) for digest in code])

    def built(self) -> frozenset[str]:
        """Return the digests of the code that this installation, or one that is trusted, recorded as built by it.

        A shared database has the records of all its writers.
        """
        with self._transaction() as connection:
            return origins.built(connection)
