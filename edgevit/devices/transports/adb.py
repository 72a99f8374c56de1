"""Transport to an Android phone without Python: adb sends the vendor's native program and runs it as the worker.

So a phone measures, and gives neither results nor operators' times. docs/measure.md describes the rows of such a
program; edgevit/devices/vendor_tools/ contains its arguments.
"""

from __future__ import annotations

import dataclasses
import logging
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

_LOG = logging.getLogger(__name__)

_DIGITS = 16  # of a program's digest in a version: two programs share them by a chance of one in 10^19
# Least runs of a process, also in a shorter protocol: summaries of two such processes bound a p90, fewer runs do not.
LEAST_RUNS = 100
_PROBE_RUNS = 3  # of a program that only counts runs, to learn how many fit into a second
_UNUSED_DAYS = 30  # a file on the phone that no job used for so long is removed
_CANNOT_START = (126, 127)  # a shell's: no program, or none for this processor
_SHELL_SIGNAL = 128
_TAIL_CHARACTERS = 2000


class AdbTransport:
    """Runs the native program of an artifact's target."""

    def run(self, device: Device, files: Mapping[str, Path], job: Job, *, timeout_s: float) -> Reply:
        """Run the native program as Transport.run does. Only the artifact is used; cached files are not sent again."""
        natives = {recipe.target: recipe.native for recipe in list_recipes() if recipe.native}
        phone = Phone.of(device, set(natives.values()))
        native = natives.get(job.target, "")
        if job.task != "detect" and (why := _why_unsupported(phone, native, job)):
            return Reply("unsupported", why)
        link = Link(phone)
        report = android.PhoneReport.of(link.shell(android.EVERYTHING))
        start = Reply("ok", host=android.host(report), unit=android.unit(report), emulated=android.emulated(report))
        if job.task == "detect":
            engines = {name: _version(path) for name, path in phone.programs.items()}
            return dataclasses.replace(start, detected=android.detected(report, engines))
        require_same_unit(device, start)
        return _time(link, native, files[job.folder], job, start, timeout_s)


def _why_unsupported(phone: Phone, native: str, job: Job) -> str:
    """Return why a phone cannot run a job; empty if it can."""
    if job.task != "time":
        return f"a phone behind adb runs a vendor's program, which gives no {_NOT_GIVEN[job.task]}"
    if job.rate_hz is not None:
        return "a vendor's program runs without pause: at a camera's rate nothing can be measured over adb"
    if job.max_memory_bytes is not None:
        return "over adb a program's memory cannot be limited; leave --max-memory-gb out"
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
            raise ArtifactError("the artifact is not the one that the job names", where=str(folder))
        start = dataclasses.replace(start, inputs=artifact.inputs, outputs=artifact.outputs)
        _check_batch(artifact, job)
    except (ArtifactError, ValueError) as error:
        return dataclasses.replace(start, status="failed", error=str(error))
    model = module.model(artifact)
    remote = {path: _store(link, path) for path in (program, model)}
    return _Bench(link, native, module, artifact, job, remote[program], remote[model], timeout_s).measure(start)


def _version(program: Path) -> str:
    """Return a program's digest as its version. Programs print none, and rows of two builds must not share one."""
    return DIGEST + file_sha256(program)[:_DIGITS]


def _check_batch(artifact: Artifact, job: Job) -> None:
    batches = {spec.shape[:1] for spec in artifact.inputs}
    if batches != {(job.batch,)}:
        raise ValueError(f"a vendor's program runs an artifact at its own batch, {sorted(batches)}, not at {job.batch}")


def _store(link: Link, path: Path) -> str:
    """Store a file's content on the phone unless it is there, check it, and return its path there."""
    digest, folder = file_sha256(path), f"{link.phone.folder}/files"
    final, temporary = f"{folder}/{digest}", f"{folder}/.{digest}.{secrets.token_hex(4)}"
    old = f"find {folder} -type f -mtime +{_UNUSED_DAYS} -exec rm -f {{}} \\;"
    stored = link.shell(f"mkdir -p {folder} || exit 1\ntouch -c {final}; {old}\nsha256sum {final}; true")
    if digest in stored.split():
        return final
    try:
        link.push(path, temporary)
        sent = link.shell(f"chmod 700 {temporary} && sha256sum {temporary} && sync")
        if digest not in sent.split():
            raise link.damaged(path)
        link.shell(f"mv -f {temporary} {final}")
    finally:
        # The file has its final name by now, or is incomplete (also after Ctrl-C).
        link.forget(temporary)
    return final


@dataclass(frozen=True)
class _Bench:
    """One program and one artifact, both stored on a phone."""

    link: Link
    name: str
    module: NativeModule
    artifact: Artifact
    job: Job
    program: str
    model: str
    timeout_s: float

    def measure(self, start: Reply) -> Reply:
        """Measure the runs of one process, between two snapshots."""
        seconds = math.ceil(self.job.min_ns / 1e9)
        runs = max(self.job.min_runs, LEAST_RUNS)
        options = BenchmarkOptions(self.job.threads, self.job.batch, runs, seconds, self.job.warmup_min_runs)
        try:
            if self.module.COUNTS_RUNS:
                options = self._fill_a_second(options)
            before = android.snapshot(android.PhoneReport.of(self.link.shell(android.SNAPSHOT)))
            printed, text = self._run(options)
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

    def _fill_a_second(self, options: BenchmarkOptions) -> BenchmarkOptions:
        """Return options with as many runs as fit into the job's duration, estimated from a few probe runs."""
        probe, _ = self._run(dataclasses.replace(options, runs=_PROBE_RUNS, warmup_runs=1))
        run_ns, job = probe.summary.mean_ns, self.job
        return dataclasses.replace(
            options,
            runs=max(options.runs, math.ceil(job.min_ns / run_ns)),
            warmup_runs=max(job.warmup_min_runs, math.ceil(job.warmup_min_ns / run_ns)),
        )

    def _run(self, options: BenchmarkOptions) -> tuple[ProgramOutput, str]:
        try:
            words = [self.program, *self.module.arguments(self.artifact, options, self.model)]
        except ValueError as error:
            raise _EndedError("unsupported", f"{self.name}: {error}") from error
        folder = f"{self.link.phone.folder}/runs/{secrets.token_hex(8)}"
        timeout_mark = f"over-{secrets.token_hex(8)}"
        script = _script(words, folder, timeout_mark, thread_variables(options.threads), self.timeout_s)
        code, text = self.link.run(script, self.timeout_s + GRACE_S)
        self._require_success(code, text, timeout_mark)
        try:
            return self.module.parse(text, options), text
        except ValueError as error:
            why = f"what {self.name} printed cannot be read: {error}\n{_tail(text)}"
            raise _EndedError("failed", why) from error

    def _require_success(self, code: int, text: str, timeout_mark: str) -> None:
        """Raise _EndedError with the status and reason unless the program ended well."""
        if timeout_mark in text:
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
    """A program ended without times; the error carries the status and the reason."""

    def __init__(self, status: Status, error: str) -> None:
        self.status: Status = status
        super().__init__(error)


def _script(words: list[str], folder: str, timeout_mark: str, variables: Mapping[str, str], timeout_s: float) -> str:
    """Return a script that runs a program in its own process group and folder, and removes both.

    A second shell waits for the end of the standard input or of the time limit, and then kills the group. `read -t` is
    that of mksh, Android's shell. The standard input ends when the host, its adb or the cable is gone. The second
    shell's output then has no reader, and the resulting signal must not end it.
    """
    return "\n".join(
        (
            f"mkdir -p {folder} && cd {folder} || exit 1",
            "exec 3<&0",
            *(f"export {name}={value}" for name, value in variables.items()),
            f"setsid {quoted(words)} </dev/null 3<&- &",
            "p=$!",
            f"( trap '' PIPE; read -t {timeout_s:g} -r x <&3; echo {timeout_mark}; "
            f"kill -9 -$p; cd /; rm -rf {folder} ) 2>&- &",
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
