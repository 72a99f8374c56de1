"""Rows that nobody measured: what would run, and what was tried already."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from edgevit.records.measurement import Measurement
from edgevit.records.model import ModelCard
from edgevit.selection.columns import Names, Place, is_comparable

_UNTIMED = {item.name: None for item in dataclasses.fields(Measurement) if item.name.endswith("_ns")}
_NOTHING = {"samples_ns": (), "snapshots": (), "told": (), "flags": (), "untold": (), "measurement_key": ""}
_UNKNOWN = {"started": "", "grade": "", "engine_version": "", "source": "", "licence": "", "nonce": ""}


def stand_in(
    like: Measurement,
    name: str,
    card: ModelCard | None,
    made: Measurement | None = None,
    seen: Measurement | None = None,
) -> Measurement:
    """A row without times, at the place of another row, of what sources.Names calls `name`.

    made: a row of the artifact that would run; seen: any row of the model. Without both it is the model of the card.
    """
    seen = made or seen
    inputs = seen.inputs if seen else tuple(spec.at_batch(1) for spec in card.inputs) if card else ()
    where = (like.target, like.precision, like.threads, like.compute_unit, like.engine)
    return dataclasses.replace(
        like,
        **{**_UNTIMED, **_NOTHING, **_UNKNOWN},  # type: ignore[arg-type]
        measurement_id=" ".join(("predicted", name, *map(str, where))),
        provenance="predicted",
        model=seen.model if seen else name,
        family=card.family if card else seen.family if seen else "",
        artifact_sha256=made.artifact_sha256 if made else "",
        artifact_bytes=made.artifact_bytes if made else 0,
        parity_status=made.parity_status if made else "",
        graph_digest=seen.graph_digest if seen else "",
        inputs=inputs,
        processes=0,
        runs=0,
        discarded=0,
        peak_rss_bytes=None,
        energy_j=None,
    )


class Tried:
    """What was measured or tried on the units of a device. Of a run that failed at once nobody knows the engine."""

    def __init__(self, rows: Iterable[Measurement], names: Names) -> None:
        self._ran: set[tuple[str, Place]] = set()
        self._failed: set[tuple[str, str, str, int]] = set()
        for row in rows:
            if is_comparable(row):
                self._ran.add((names.of(row), Place.of(row)._replace(device_id="")))
            elif row.batch == 1 and row.status not in ("ok", "throttled"):
                self._failed.add((names.of(row), row.target, row.precision, row.threads))

    def has(self, name: str, place: Place) -> bool:
        """Whether a model ran or failed at a place, on any of the units."""
        failed = (name, place.target, place.precision, place.threads) in self._failed
        return failed or (name, place._replace(device_id="")) in self._ran
