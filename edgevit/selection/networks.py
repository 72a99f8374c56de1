"""Networks of the rows of an answer: which rows are of one candidate, though other files or edgevits wrote them."""

from __future__ import annotations

from collections.abc import Iterable

from edgevit.records.measurement import Measurement


class NetworkIds:
    """The ids of rows' networks. All rows of one file have one id, also where an older row keeps no network."""

    def __init__(self, rows: Iterable[Measurement]) -> None:
        of_file: dict[tuple[str, str], set[str]] = {}
        for row in rows:
            if row.artifact_sha256:
                of_file.setdefault((row.model, row.artifact_sha256), set()).add(row.network_id)
        self._of_file = {(model, sha256): min(ids - {"", sha256} or ids) for (model, sha256), ids in of_file.items()}

    def of(self, row: Measurement) -> str:
        """Return the id of a row's network."""
        return self._of_file.get((row.model, row.artifact_sha256), row.network_id)
