"""Measurements that enter the database as soon as each is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from edgevit.devices.device_lock import locked_device
from edgevit.errors import RowRefusedError
from edgevit.measurement.runner import Progress, Protocol, profile_all
from edgevit.records.artifact import Artifact
from edgevit.records.identity import identify_graph
from edgevit.records.measurement import Device, Epoch, Measurement
from edgevit.records.model import Graph
from edgevit.store import LatencyDB
from edgevit.sweeps.plan import built_here


class RecordLabels(NamedTuple):
    """What the database keeps beside new rows: whether one sweep measured them, and the tag of each; empty: none."""

    sweep: bool = False
    tag: str = ""


NO_LABELS = RecordLabels()


class Recorded(NamedTuple):
    """Rows that were added, and the epochs of the device that they began; and why other rows were refused."""

    rows: list[Measurement]
    epochs: Sequence[Epoch]
    refused: Sequence[RowRefusedError] = ()

    def require_all(self) -> None:
        """Raise the first RowRefusedError, if any; the rows that were added stay."""
        for error in self.refused:
            raise error


def measure_and_record(
    artifacts: Sequence[Artifact],
    device: Device,
    threads: int,
    protocol: Protocol,
    db: str | None,
    *,
    trust: bool = False,
    labels: RecordLabels = NO_LABELS,
    on_progress: Callable[[Progress], None] | None = None,
) -> Recorded:
    """Measure artifacts and add each row at once, with its labels.

    The device is held meanwhile; the log tells whose end is waited for.

    A row that the database refuses costs the others nothing. Raise what `profile_all` raises; the rows that came before
    stay in the database.
    """
    rows, refused = list[Measurement](), list[RowRefusedError]()
    allowed = built_here(artifacts, db, trust=trust)
    with locked_device(device), LatencyDB.open(db) as database:
        requests = [f"{artifact.model} {artifact.target} {artifact.precision}" for artifact in artifacts]
        database.require_writable()
        sweep_id = database.begin_sweep(device, threads, requests).sweep_id if labels.sweep else None
        for row in profile_all(
            artifacts, device, threads=threads, protocol=protocol, on_progress=on_progress, built_here=allowed
        ):
            try:
                database.add(row, sweep_id=sweep_id, tag=labels.tag)
                rows.append(row)
            except RowRefusedError as error:
                refused.append(error)
        for graph in dict.fromkeys(filter(None, map(graph_of, artifacts))):
            database.add_graph(graph)
        return Recorded(rows, database.opened_epochs, refused)


def graph_of(artifact: Artifact) -> Graph | None:
    """Return the operators of an artifact's network; None where its manifest does not have them."""
    return identify_graph(artifact.graph_digest, artifact.costs) if artifact.graph_digest and artifact.costs else None


def describe_epoch(epoch: Epoch) -> str:
    """Return the warning that a device behaves otherwise than before."""
    return (
        f"new epoch {epoch.number} of {epoch.device} since {epoch.started}: {epoch.reason} "
        f"(row {epoch.measurement_id[:12]}); more than {epoch.limit:.0%} is no noise. Is it the same device?"
    )
