"""Cross-check of our latency against the vendor's own program, on the same artifact, process by process in turns.

Both start a fresh process in each of PROTOCOL_PROCESSES rounds, in random order within a round. So drift and load of
the machine fall on both alike. The check compares the medians of the processes.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from edgevit.concurrency.scratch import scratch_folder
from edgevit.devices.transports.local import run_group, worker_environment
from edgevit.devices.vendor_tools import BenchmarkOptions, VendorSummary, load_harness
from edgevit.errors import UsageError
from edgevit.measurement.compare import Verdict, verdict
from edgevit.measurement.runner import Protocol, profile
from edgevit.measurement.summary import PROTOCOL_MIN_NS, PROTOCOL_MIN_RUNS, PROTOCOL_PROCESSES
from edgevit.recipes import load_recipe
from edgevit.records.artifact import Artifact
from edgevit.records.measurement import Device
from edgevit_runtime.record import Job

AGREEMENT = 0.03  # share of the medians: two programs on one engine, each of which repeats itself within 2%
_TAIL_CHARACTERS = 500  # kept of the output of a program that failed
_OUTPUT = "output.txt"
OutputT = TypeVar("OutputT")


@dataclass(frozen=True)
class CrossCheck:
    """The medians of both programs in ns, round by round, and the verdict on ours against theirs.

    ratio: median of our medians over the median of theirs; ratio_low and ratio_high bound it. verdict: SAME within
    AGREEMENT, else FASTER or SLOWER, which describes our program. It is `None` where nothing was compared; `note` then
    gives the reason.
    """

    model: str
    target: str
    precision: str
    threads: int
    harness: str
    ours_ns: tuple[int, ...] = ()
    theirs_ns: tuple[int, ...] = ()
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    verdict: Verdict | None = None
    note: str = ""


def cross_check(
    artifact: Artifact,
    device: Device,
    *,
    threads: int,
    batch: int = 1,
    rounds: int = PROTOCOL_PROCESSES,
    seed: int = 0,
    built_here: Container[str] = (),
) -> CrossCheck:
    """Run our worker and the vendor's program in turns, and compare their medians.

    Raises UsageError for a device other than this machine, and the errors of `profile`.
    """
    if device.transport != "local":
        raise UsageError("vendors' programs are run on this machine alone", where=device.name, fix="--device local")
    recipe = load_recipe(artifact.target).RECIPE
    name = recipe.harness or recipe.native
    nothing = CrossCheck(artifact.model, artifact.target, artifact.precision, threads, name)
    if not name:
        return replace(nothing, note=f"no vendor's program is known that runs artifacts of {artifact.target}")
    module = load_harness(name)
    if (command := module.command()) is None:
        fix = f": pip install {module.DISTRIBUTION}" if module.DISTRIBUTION else ""
        return replace(nothing, note=f"{name} is not on this machine{fix}")

    def ours() -> int:
        row = profile(artifact, device, threads=threads, protocol=protocol, built_here=built_here)
        if row.p50_ns is None:
            raise ValueError(f"our worker: {row.status}: {row.error}")
        return row.p50_ns

    protocol = Protocol(processes=1, percentile=None, batch=batch)
    try:
        # Our worker comes first, because it checks the artifact's digest.
        options = _benchmark_options(ours(), threads, batch)
        # The program runs in a folder of its own, so it needs absolute paths.
        resolved = replace(artifact, folder=artifact.folder.resolve())
        arguments = [*command, *module.arguments(resolved, options, str(module.model(resolved)))]
        medians = _rounds(
            ours,
            lambda: _median(run_harness(arguments, lambda text: module.parse(text, options).summary, threads)),
            rounds,
            random.Random(seed),
        )
    except ValueError as error:
        return replace(nothing, note=str(error))
    return _compared(replace(nothing, ours_ns=medians[0], theirs_ns=medians[1], note=module.DIFFERS))


def _median(summary: VendorSummary) -> int:
    if summary.median_ns is None:
        raise ValueError(f"it prints a mean ({summary.mean_ns / 1e6:.3g} ms) and no median, which ours is")
    return summary.median_ns


def _benchmark_options(run_ns: int, threads: int, batch: int) -> BenchmarkOptions:
    """Return the protocol's demands on a process, for programs that count runs and for those that go by the clock."""
    runs = max(PROTOCOL_MIN_RUNS, math.ceil(PROTOCOL_MIN_NS / run_ns))
    warmup_runs = max(Job.warmup_min_runs, math.ceil(Job.warmup_min_ns / run_ns))
    return BenchmarkOptions(threads, batch, runs, math.ceil(PROTOCOL_MIN_NS / 1e9), warmup_runs)


def _rounds(
    ours: Callable[[], int], theirs: Callable[[], int], rounds: int, order: random.Random
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    medians: dict[Callable[[], int], list[int]] = {ours: [], theirs: []}
    for _ in range(rounds):
        for run in order.sample((ours, theirs), 2):
            medians[run].append(run())
    return tuple(medians[ours]), tuple(medians[theirs])


def run_harness(command: list[str], parse: Callable[[str], OutputT], threads: int) -> OutputT:
    """Run one process of the program in a worker's environment, and end it with its children.

    Raises ValueError with the end of its output where it failed or printed no times.
    """
    timeout_s = Protocol().timeout_s
    with scratch_folder() as name:
        folder, path = Path(name), Path(name) / _OUTPUT
        with path.open("wb") as output:
            code = run_group(command, folder, worker_environment(folder, threads), timeout_s, output, output)
        text = path.read_text(encoding="utf-8", errors="replace")
    if code != 0:
        end = f"no end after {timeout_s:g} s" if code is None else f"exit code {code}"
        raise ValueError(f"the vendor's program: {end}: {text.strip()[-_TAIL_CHARACTERS:]}")
    return parse(text)


def _compared(check: CrossCheck) -> CrossCheck:
    ours, theirs = check.ours_ns, check.theirs_ns
    ratio = statistics.median(ours) / statistics.median(theirs)
    low, high = min(ours) / max(theirs), max(ours) / min(theirs)
    decided = verdict(low, ratio, high, AGREEMENT)
    return replace(check, ratio=ratio, ratio_low=low, ratio_high=high, verdict=decided)
