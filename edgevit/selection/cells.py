"""Cells: models in configurations of a device that no row measures, and the attempts that were made already."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from edgevit.records.measurement import TASK, Measurement
from edgevit.records.model import ModelCard
from edgevit.records.network import Network, network_id
from edgevit.selection.columns import Configuration, ModelAliases, is_comparable
from edgevit_runtime.record import TensorSpec


@dataclass(frozen=True)
class Cell:
    """A model in a configuration of a device without a row: the run that a prediction is made for.

    cell_id: names the cell in one answer. flags: that of the model's task, if a source names one. published_only: each
    row of the model was published by others. The artifact is the known one of this model, target and precision; its
    fields are empty where it was never built.
    """

    cell_id: str
    model: str
    target: str
    precision: str
    threads: int
    engine: str
    device: str
    device_id: str
    inputs: tuple[TensorSpec, ...] = ()
    graph_digest: str = ""
    artifact_sha256: str = ""
    artifact_bytes: int = 0
    parity_status: str = ""
    flags: tuple[str, ...] = ()
    published_only: bool = False
    network: Network | None = None

    @property
    def network_id(self) -> str:
        """What tells apart the networks of one model (records.network)."""
        return network_id(self.model, self.network, self.artifact_sha256)

    @property
    def batch(self) -> int:
        """Always 1: a budget is for one input."""
        return 1


Run = Measurement | Cell


def cell_at(
    anchor: Measurement,
    alias: str,
    card: ModelCard | None,
    built_row: Measurement | None = None,
    model_row: Measurement | None = None,
    *,
    published_only: bool = False,
) -> Cell:
    """Return the cell of a model (by its alias) in the configuration of a row.

    built_row: a row of the artifact that would run; model_row: any row of the model. Without both it is the model of
    the card.
    """
    model_row = built_row or model_row
    inputs = model_row.inputs if model_row else tuple(spec.at_batch(1) for spec in card.inputs) if card else ()
    configuration = (anchor.target, anchor.precision, anchor.threads, anchor.compute_unit, anchor.engine)
    return Cell(
        cell_id=" ".join(("predicted", alias, *map(str, configuration))),
        model=model_row.model if model_row else alias,
        target=anchor.target,
        precision=anchor.precision,
        threads=anchor.threads,
        engine=anchor.engine,
        device=anchor.device,
        device_id=anchor.device_id,
        inputs=inputs,
        graph_digest=model_row.graph_digest if model_row else "",
        artifact_sha256=built_row.artifact_sha256 if built_row else "",
        artifact_bytes=built_row.artifact_bytes if built_row else 0,
        parity_status=built_row.parity_status if built_row else "",
        flags=tuple(flag for flag in model_row.flags if flag.startswith(TASK)) if model_row else (),
        published_only=published_only,
        network=model_row.network if model_row else None,
    )


class AttemptedCells:
    """Cells of a device that were measured, or that failed. A run that failed at once does not report its engine."""

    def __init__(self, rows: Iterable[Measurement], aliases: ModelAliases) -> None:
        self._measured: set[tuple[str, Configuration]] = set()
        self._failed: set[tuple[str, str, str, int]] = set()
        for row in rows:
            if is_comparable(row):
                self._measured.add((aliases.of(row), Configuration.of(row)._replace(device_id="")))
            elif row.batch == 1 and row.status not in ("ok", "throttled"):
                self._failed.add((aliases.of(row), row.target, row.precision, row.threads))

    def has(self, alias: str, configuration: Configuration) -> bool:
        """Return whether a model ran or failed in a configuration, on any of the units."""
        failed = (alias, configuration.target, configuration.precision, configuration.threads) in self._failed
        return failed or (alias, configuration._replace(device_id="")) in self._measured
