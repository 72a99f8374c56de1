"""Trials of targets: a small network is exported, verified and timed, and the cells become proof."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevit.concurrency.scratch import scratch_folder
from edgevit.devices.registry import local_device
from edgevit.doctor.records import Cell, TargetCells
from edgevit.doctor.smoke_model import NAME, SIZE
from edgevit.errors import EdgevitError, TargetUnavailableError
from edgevit.exporting.child_process import export_separately
from edgevit.measurement.runner import Protocol, profile
from edgevit.recipes import load_recipe, missing
from edgevit.records.artifact import Artifact, ExportRequest, Parity

_FEW = Protocol(processes=1, min_runs=10, min_ns=0, percentile=None)
# The stage of the pipeline that judges a finished payload.
_VERIFY = "verify"


@dataclass(frozen=True)
class Trial:
    """The result of exporting the small network: an artifact, or the error and the stage it came from."""

    precision: str
    artifact: Artifact | None
    error: EdgevitError | None = None
    stage: str = ""

    @property
    def converted(self) -> bool:
        """Whether a payload was written, right or wrong."""
        return self.artifact is not None or self.stage == _VERIFY


def try_targets(
    rows: Sequence[TargetCells], on_progress: Callable[[str], None] = lambda label: None
) -> tuple[TargetCells, ...]:
    """Try each target and return its row. A cell whose ability fails becomes a no with the error.

    Cells that are no or elsewhere stay as they are. No file is kept, and no row enters the database.
    """
    with scratch_folder("doctor") as folder:
        return tuple(_try(row, Path(folder), on_progress) for row in rows)


def _try(row: TargetCells, folder: Path, on_progress: Callable[[str], None]) -> TargetCells:
    if row.convert.state != "yes" or missing(load_recipe(row.target).RECIPE):
        return row
    trial = _export(row.target, folder, on_progress)
    if trial.artifact is None:
        return _broken(row, trial, folder, on_progress)
    on_progress(f"{row.target}: profile")
    return _kept(row, trial, trial.artifact)


def _export(target: str, folder: Path, on_progress: Callable[[str], None]) -> Trial:
    precision = load_recipe(target).RECIPE.precisions[0]
    stages = [""]

    def on_stage(stage: str) -> None:
        stages.append(stage)
        on_progress(f"{target}: {stage}")

    try:
        artifact = export_separately(ExportRequest(target, folder, precision, NAME, input_size=SIZE), on_stage)
        return Trial(precision, artifact)
    except EdgevitError as error:
        return Trial(precision, None, error, stages[-1])


def _broken(row: TargetCells, trial: Trial, folder: Path, on_progress: Callable[[str], None]) -> TargetCells:
    """Return the row of a failed export. Only a conversion that came before the failure keeps its yes."""
    failed = _failure(row.target, trial)
    source = load_recipe(row.target).RECIPE.source
    converted = trial.converted or (bool(source) and _export(source, folder, on_progress).converted)
    return dataclasses.replace(
        row,
        convert=row.convert if converted else failed,
        build=_instead(row.build, failed),
        run=_instead(row.run, failed),
        profile=_instead(row.profile, failed),
    )


def _failure(target: str, trial: Trial) -> Cell:
    error = trial.error
    assert error is not None
    size = "x".join(map(str, SIZE))
    again = f"edgevit export {NAME} --input-size {size} --target {target} --precision {trial.precision} -v"
    fix = error.fix if isinstance(error, TargetUnavailableError) else f"see it all: {again}"
    return Cell("no", ": ".join(filter(None, (error.what, error.why))), fix=fix)


def _instead(cell: Cell, trial: Cell) -> Cell:
    """Return the trial's cell in place of a yes; another state keeps its own reason."""
    return trial if cell.state == "yes" else cell


def _kept(row: TargetCells, trial: Trial, artifact: Artifact) -> TargetCells:
    """Return the row of a finished artifact. Its `run` is proven only where the engine itself ran."""
    parity = artifact.parity
    assert parity is not None
    seconds = sum(stage.seconds for stage in artifact.stages)
    built = f"{artifact.size_bytes / 1000:.0f} kB, {parity.status}, max_rel {parity.max_rel:.1e}"
    run = _ran(row, parity)
    return dataclasses.replace(
        row,
        convert=dataclasses.replace(row.convert, detail=f"{trial.precision} exported in {seconds:.1f} s"),
        build=_instead(row.build, dataclasses.replace(row.build, detail=built)),
        run=run,
        profile=_instead(row.profile, run if run.state != "yes" else _timed(row, artifact)),
    )


def _ran(row: TargetCells, parity: Parity) -> Cell:
    proof = f"{parity.how}: max_rel {parity.max_rel:.1e}"
    if row.run.state != "yes":
        evaluated = f"evaluated by {proof}; {row.profile.detail}"
        return dataclasses.replace(row.run, detail=evaluated if parity.status == "evaluated" else row.profile.detail)
    if parity.status == "passed":
        return dataclasses.replace(row.run, detail=proof)
    if parity.status == "needs_processor":
        device = f"a device with {parity.needs}: edgevit profile ARTIFACT --device NAME"
        return Cell("elsewhere", parity.how, row.run.versions, device)
    fix = f"see it all: edgevit export MODEL --target {row.target} -v"
    return Cell("no", f"{parity.status}: {parity.how}", row.run.versions, fix)


def _timed(row: TargetCells, artifact: Artifact) -> Cell:
    fix = f"see it all: edgevit export MODEL --target {row.target}, then edgevit profile ARTIFACT --json"
    try:
        measured = profile(artifact, local_device(), threads=1, protocol=_FEW, built_here={artifact.sha256})
    except EdgevitError as error:
        return Cell("no", f"{error.what}: {error.why}", row.profile.versions, error.fix or fix)
    if measured.status != "ok" or measured.p50_ns is None:
        last = measured.error.strip().splitlines()[-1:] or [""]
        return Cell("no", f"{measured.status}: {last[0]}", row.profile.versions, fix)
    detail = f"p50 {measured.p50_ns / 1e6:.3g} ms of {measured.runs} runs, 1 thread"
    return dataclasses.replace(row.profile, detail=detail)
