"""An Android phone behind adb, which has no Python: the vendor's native program is sent and run in the worker's place.

So it measures, and neither gives results nor tells operators. What is said of a row that such a program measured is in
docs/measure.md, what the program is told in edgevit/harness.
"""

from __future__ import annotations

import dataclasses
import math
import secrets
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgevit.artifacts.folder import open_artifact
from edgevit.devices import android
from edgevit.devices.adb_client import GRACE_S, Link, Phone, quoted
from edgevit.devices.registry import require_same_unit
from edgevit.devices.transports import thread_variables
from edgevit.devices.vendor_tools import BenchmarkOptions, NativeModule, ProgramOutput, load_native
from edgevit.errors import ArtifactError
from edgevit.recipes import list_recipes
from edgevit.records.artifact import Artifact
from edgevit.records.measurement import DIGEST, Device
from edgevit_runtime.digest import file_sha256
from edgevit_runtime.record import Job, Reply, Status, Timing
from edgevit_runtime.timing import settled

_DIGITS = 16  # of a program's digest in a version: two programs share them by a chance of one in 10^19
LEAST_RUNS = 100  # of a process, however few are asked for: of two such the summaries bound a p90, of fewer runs none
_PROBE_RUNS = 3  # of a program that only counts runs, to learn how many a second has
_UNUSED_DAYS = 30  # a file that no job asked for in so long gives its place on the phone back
_CANNOT_START = (126, 127)  # a shell's: no program, or none for this processor
_SHELL_SIGNAL = 128
_TAIL_CHARACTERS = 2000


class AdbTransport:
    """Runs the native program of an artifact's target."""

    def run(self, device: Device, files: Mapping[str, Path], job: Job, *, timeout_s: float) -> Reply:
        """See Transport.run. Of the files only the artifact's is looked at; what the phone holds is not sent again."""
        natives = {recipe.target: recipe.native for recipe in list_recipes() if recipe.native}
        phone = Phone.of(device, set(natives.values()))
        native = natives.get(job.target, "")
        if job.task != "detect" and (why := _obstacle(phone, native, job)):
            return Reply("unsupported", why)
        link = Link(phone)
        told = android.PhoneReport.of(link.shell(android.EVERYTHING))
        start = Reply("ok", host=android.host(told), unit=android.unit(told), emulated=android.emulated(told))
        if job.task == "detect":
            engines = {name: _version(path) for name, path in phone.programs.items()}
            return dataclasses.replace(start, detected=android.detected(told, engines))
        require_same_unit(device, start)
        return _time(link, native, files[job.folder], job, start, timeout_s)


def _obstacle(phone: Phone, native: str, job: Job) -> str:
    """Why a job cannot be done on a phone, whichever that is; empty if it can."""
    if job.task != "time":
        return f"a phone behind adb runs a vendor's program, which gives no {_NOT_GIVEN[job.task]}"
    if job.rate_hz is not None:
        return "a vendor's program runs without pause: at a camera's rate nothing can be measured over adb"
    if job.max_memory_bytes is not None:
        return "over adb nobody can hold a program to a limit of memory; leave --max-memory-gb out"
    if not native:
        return f"no program is known that runs artifacts of {job.target} on a phone without Python"
    if native not in phone.programs:
        add = f"edgevit devices add {phone.name} --transport adb --option {native}=/path/to/{native}"
        return f"{phone.name} has no {native}: edgevit devices remove {phone.name}, then {add}"
    return ""


_NOT_GIVEN = {"infer": "results", "layers": "times of operators"}


def _time(link: Link, native: str, folder: Path, job: Job, start: Reply, timeout_s: float) -> Reply:
    module, program = load_native(native), link.phone.programs[native]
    version, verified = _version(program), module.AS_VERIFIED
    start = dataclasses.replace(start, engine=native, engine_version=version, as_verified=verified)
    try:
        artifact = open_artifact(folder)
        if artifact.sha256 != job.sha256:
            raise ArtifactError("the artifact is not the one that was asked for", where=str(folder))
        start = dataclasses.replace(start, inputs=artifact.inputs, outputs=artifact.outputs)
        _check_batch(artifact, job)
    except (ArtifactError, ValueError) as error:
        return dataclasses.replace(start, status="failed", error=str(error))
    there = {path: _store(link, path) for path in (program, module.model(artifact))}
    bench = _Bench(link, native, module, artifact, job, there[program], there[module.model(artifact)], timeout_s)
    return bench.measure(start)


def _version(program: Path) -> str:
    """A program's digest: none of them tells a version, and rows of two builds must not pass for one engine's."""
    return DIGEST + file_sha256(program)[:_DIGITS]


def _check_batch(artifact: Artifact, job: Job) -> None:
    batches = {spec.shape[:1] for spec in artifact.inputs}
    if batches != {(job.batch,)}:
        raise ValueError(f"a vendor's program runs an artifact at its own batch, {sorted(batches)}, not at {job.batch}")


def _store(link: Link, path: Path) -> str:
    """The path on the phone of a file's content, which is there once this returns, to the byte."""
    digest, folder = file_sha256(path), f"{link.phone.folder}/files"
    final, temporary = f"{folder}/{digest}", f"{folder}/.{digest}.{secrets.token_hex(4)}"
    old = f"find {folder} -type f -mtime +{_UNUSED_DAYS} -exec rm -f {{}} \\;"
    held = link.shell(f"mkdir -p {folder} || exit 1\ntouch -c {final}; {old}\nsha256sum {final}; true")
    if digest in held.split():
        return final
    try:
        link.push(path, temporary)
        sent = link.shell(f"chmod 700 {temporary} && sha256sum {temporary} && sync")
        if digest not in sent.split():
            raise link.damaged(path)
        link.shell(f"mv -f {temporary} {final}")
    finally:  # it has its final name by now, or is half a file; Ctrl-C too
        link.forget(temporary)
    return final


@dataclass(frozen=True)
class _Bench:
    """One program and one artifact on a phone, both there."""

    link: Link
    name: str
    module: NativeModule
    artifact: Artifact
    job: Job
    program: str
    model: str
    timeout_s: float

    def measure(self, start: Reply) -> Reply:
        """Snapshot, runs, snapshot."""
        seconds = math.ceil(self.job.min_ns / 1e9)
        runs = max(self.job.min_runs, LEAST_RUNS)
        asked = BenchmarkOptions(self.job.threads, self.job.batch, runs, seconds, self.job.warmup_min_runs)
        try:
            if self.module.COUNTS_RUNS:
                asked = self._as_long(asked)
            before = android.snapshot(android.PhoneReport.of(self.link.shell(android.SNAPSHOT)))
            printed, text = self._run(asked)
            after = android.snapshot(android.PhoneReport.of(self.link.shell(android.SNAPSHOT)))
        except _EndedError as error:
            return dataclasses.replace(start, status=error.status, error=str(error).strip())
        timing = Timing(
            load_ns=printed.load_ns,
            first_ns=printed.first_ns,
            warmup_ns=printed.warmup_ns,
            samples_ns=printed.samples_ns,
            warm=settled(list(printed.warmup_ns)) if printed.warmup_ns else None,
            peak_rss_bytes=None,
            before=before,
            after=after,
            summary=None if printed.samples_ns else printed.summary,
        )
        return dataclasses.replace(start, provider=self.module.provider(text), timing=timing)

    def _as_long(self, asked: BenchmarkOptions) -> BenchmarkOptions:
        """As many runs as a second has, by a few that are made before."""
        probe, _ = self._run(dataclasses.replace(asked, runs=_PROBE_RUNS, warmup_runs=1))
        run_ns, job = probe.summary.mean_ns, self.job
        return dataclasses.replace(
            asked,
            runs=max(asked.runs, math.ceil(job.min_ns / run_ns)),
            warmup_runs=max(job.warmup_min_runs, math.ceil(job.warmup_min_ns / run_ns)),
        )

    def _run(self, asked: BenchmarkOptions) -> tuple[ProgramOutput, str]:
        try:
            words = [self.program, *self.module.arguments(self.artifact, asked, self.model)]
        except ValueError as error:
            raise _EndedError("unsupported", f"{self.name}: {error}") from error
        folder = f"{self.link.phone.folder}/runs/{secrets.token_hex(8)}"
        over = f"over-{secrets.token_hex(8)}"
        script = _script(words, folder, over, thread_variables(asked.threads), self.timeout_s)
        code, text = self.link.run(script, self.timeout_s + GRACE_S)
        self._require_end(code, text, over)
        try:
            return self.module.parse(text, asked), text
        except ValueError as error:
            why = f"what {self.name} printed cannot be read: {error}\n{_tail(text)}"
            raise _EndedError("failed", why) from error

    def _require_end(self, code: int, text: str, over: str) -> None:
        """Raise _EndedError with what a program's end means, unless it ended well."""
        if over in text:
            raise _EndedError("timeout", f"no end after {self.timeout_s:g} s")
        number = code - _SHELL_SIGNAL
        if number in set(signal.Signals):
            raise _EndedError("crashed", f"{self.name} was killed by {signal.Signals(number).name}\n{_tail(text)}")
        if code in _CANNOT_START:
            why = f"the phone cannot start {self.name}: is it built for its processor?\n{_tail(text)}"
            raise _EndedError("unsupported", why)
        if code:
            raise _EndedError("failed", f"{self.name} ended with exit code {code}\n{_tail(text)}")


class _EndedError(Exception):
    """A program that gave no times: with which status, and why."""

    def __init__(self, status: Status, error: str) -> None:
        self.status: Status = status
        super().__init__(error)


def _script(words: list[str], folder: str, over: str, variables: Mapping[str, str], timeout_s: float) -> str:
    """Run a program in a process group and a folder of its own, and leave nothing of either behind.

    Beside it waits a shell for the end of our standard input, or of the time: then it kills the group. `read -t` is
    that of mksh, Android's shell. The standard input ends when the host, its adb or the cable is gone; nobody reads
    then what that shell prints, which must not end it.
    """
    return "\n".join(
        (
            f"mkdir -p {folder} && cd {folder} || exit 1",
            "exec 3<&0",
            *(f"export {name}={value}" for name, value in variables.items()),
            f"setsid {quoted(words)} </dev/null 3<&- &",
            "p=$!",
            f"( trap '' PIPE; read -t {timeout_s:g} -r x <&3; echo {over}; kill -9 -$p; cd /; rm -rf {folder} ) 2>&- &",
            "w=$!",
            "wait $p; c=$?",
            "kill -9 $w -$p 2>/dev/null",
            f"cd /; rm -rf {folder}",
            "( exit $c )",
        )
    )


def _tail(text: str) -> str:
    plain = "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text)
    return plain.strip()[-_TAIL_CHARACTERS:]


TRANSPORT = AdbTransport()
