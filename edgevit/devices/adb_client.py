"""Client of the system's `adb`: one phone, its shell and its files, and an explanation of each failure.

The phone needs Android 7 or later, because older shells report no exit codes. Two kinds of user input reach the phone's
shell: the folder there, which has plain characters only, and words that `quoted` has quoted.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shlex
import subprocess
import tempfile
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from edgevit.errors import DeviceError, UsageError
from edgevit.records.measurement import Device

_LOG = logging.getLogger(__name__)

FOLDER = "/data/local/tmp/edgevit"  # Android lets a shell store and start programs here
_OPTIONS = ("serial", "folder")
_FOLDER = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
_SERIAL = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:@%\[\]-]*")  # of a cable, an emulator, an address with a port
ANSWER_S = 60.0  # limit of a short command on a phone that wakes up, with adb's server to be started first
GRACE_S = 30.0  # beyond a program's own limit, for its end to be reported
SLOWEST_LINK = 1_000_000  # bytes per second: USB 2 and a bad wireless network are faster
_MAX_OUTPUT_BYTES = 1 << 25  # of a program: the lines of a hundred thousand runs are a third of that
_BLOCK_BYTES = 1 << 16
_TAIL = 600  # characters kept of the output of adb or the phone
_NO_ROOM = "No space left on device"


@dataclass(frozen=True)
class Phone:
    """A phone and the programs that run there: the checked options of a device's file."""

    name: str
    serial: str = ""  # empty: the only one there is
    folder: str = FOLDER
    programs: Mapping[str, Path] = field(default_factory=dict)  # name -> file on this machine

    @classmethod
    def of(cls, device: Device, programs: Collection[str]) -> Phone:
        """Read a device's options, with `programs` as names of further options. Raises UsageError for a bad one."""
        options = device.options
        if unknown := sorted(set(options) - {*_OPTIONS, *programs}):
            valid = ", ".join((*_OPTIONS, *sorted(programs)))
            raise _bad(device, f"adb has no option {', '.join(map(repr, unknown))}", f"it has {valid}")
        serial, folder = options.get("serial", ""), options.get("folder") or FOLDER
        if serial and not _SERIAL.fullmatch(serial):
            raise _bad(device, f"{serial!r} is no serial number", "it is one that `adb devices` lists")
        if not _FOLDER.fullmatch(folder):
            why = f"a whole path of letters, digits, `.`, `_` and `-`, such as {FOLDER}"
            raise _bad(device, f"{folder!r} cannot be the folder on the phone", why)
        paths = {name: Path(options[name]).expanduser() for name in sorted(set(options) & set(programs))}
        for name, path in paths.items():
            if not path.is_absolute() or not path.is_file():
                why = "the whole path of the program on this machine, built for the phone"
                raise _bad(device, f"{name} is {options[name]!r}, which is no file", why)
        return cls(device.name, serial, folder, paths)

    @property
    def label(self) -> str:
        """`pixel, serial 1A2B`."""
        return f"{self.name}, serial {self.serial}" if self.serial else self.name


def _bad(device: Device, problem: str, why: str) -> UsageError:
    fix = f"edgevit devices remove {device.name}, then add it again"
    return UsageError(problem, where=f"device {device.name}", why=why, fix=fix)


def quoted(words: Sequence[str]) -> str:
    """Quote words so that the phone's shell takes each of them literally."""
    return shlex.join(words)


class Link:
    """A connection to a phone that answers. Its methods raise DeviceError where the phone is lost."""

    def __init__(self, phone: Phone) -> None:
        self.phone = phone
        self._serial = _choose(phone)

    @property
    def label(self) -> str:
        """`pixel, serial 1A2B`, also where the device's file names no serial number."""
        return f"{self.phone.name}, serial {self._serial}"

    def shell(self, script: str, timeout_s: float = ANSWER_S) -> str:
        """Run a script in the phone's shell and return its output, standard error included.

        Raises DeviceError with that output where the script's last command failed.
        """
        code, text = self.run(script, timeout_s)
        if code != 0:
            raise self._refused(text)
        return text

    def run(self, script: str, timeout_s: float) -> tuple[int, str]:
        """Run a script, and return its exit code and its output, `_MAX_OUTPUT_BYTES` at most.

        The script's standard input ends when this process ends, for any reason. So the script notices that the host is
        gone. Raises DeviceError where the phone is lost, does not answer in time, or prints without end.
        """
        mark = f"edgevit-{secrets.token_hex(8)}"
        command = ["adb", "-s", self._serial, "shell", "-T", f"exec 2>&1\n(\n{script}\n)\necho {mark} $?"]
        late = threading.Event()
        with tempfile.TemporaryFile() as errors:
            process = _start(command, self.phone, errors)
            timer = threading.Timer(timeout_s, _give_up, (process, late))
            timer.daemon = True
            timer.start()
            try:
                printed = _drain(process)
            finally:
                timer.cancel()
                process.kill()
                process.wait()
                _close(process)
            errors.seek(0)
            stderr = errors.read().decode("utf-8", errors="replace")
        if len(printed) >= _MAX_OUTPUT_BYTES:
            raise self._endless(printed)
        return self._ended(printed.decode("utf-8", errors="replace"), mark, stderr, late=late.is_set())

    def _endless(self, printed: bytes) -> DeviceError:
        end = _plain(printed[-_TAIL:].decode(errors="replace"))
        why = f"more than {_MAX_OUTPUT_BYTES >> 20} MiB, which end with: {end}"
        fix = "run the program by hand, and read its output"
        return DeviceError("a program on the phone prints without end", where=self.label, why=why, fix=fix)

    def _ended(self, text: str, mark: str, stderr: str, *, late: bool) -> tuple[int, str]:
        output, end_mark, after = text.rpartition(mark)
        if end_mark and (code := after.strip()).isdigit():
            return int(code), output
        if late:
            fix = f"try it by hand: {quoted(['adb', '-s', self._serial, 'shell', 'echo', 'hello'])}"
            raise DeviceError("the phone does not answer", where=self.label, why="no answer in time", fix=fix)
        raise explain(self.label, self._serial, stderr or text)

    def push(self, local: Path, remote: str) -> None:
        """Send a file. Raises DeviceError where the phone has no room for it, refuses it or is lost."""
        limit_s = ANSWER_S + local.stat().st_size / SLOWEST_LINK
        push = _adb(["-s", self._serial, "push", str(local.resolve()), remote], self.phone, limit_s)
        if push.returncode == 0:
            return
        output = push.stdout + push.stderr
        if any(words in output for words in (_NO_ROOM, "Permission denied", "Read-only file system")):
            raise self._refused(output)
        raise explain(self.label, self._serial, output)

    def forget(self, remote: str) -> None:
        """Remove a file on the phone. A missing file and a lost phone are no errors."""
        with suppress(DeviceError):
            self.shell(f"rm -f {remote}")

    def damaged(self, local: Path) -> DeviceError:
        """Return the error for a file that arrived damaged."""
        return DeviceError("what arrived is not what was sent", where=self.label, why=str(local), fix=_AGAIN)

    def _refused(self, output: str) -> DeviceError:
        folder = f"{self.label}: {self.phone.folder}"
        if _NO_ROOM in output:
            fix = quoted(["adb", "-s", self._serial, "shell", "rm", "-rf", self.phone.folder])
            return DeviceError("the phone's disk is full", where=folder, fix=f"make room there, or: {fix}")
        fix = "name another folder with the device's option `folder`"
        return DeviceError("the phone cannot run a program", where=folder, why=_plain(output), fix=fix)


def _choose(phone: Phone) -> str:
    """Return the serial number of the selected phone, after checking that it is attached and ready."""
    listed = attached(phone)
    serial = phone.serial
    if not serial:
        if not listed:
            raise DeviceError("adb sees no phone", where=phone.name, fix=_PLUG_IN)
        if len(listed) > 1:
            fix = f"edgevit devices remove {phone.name}, then add it again with --serial"
            raise DeviceError("adb sees several phones", where=phone.name, why=", ".join(sorted(listed)), fix=fix)
        [serial] = listed
    if serial not in listed:
        why = f"it sees {', '.join(sorted(listed))}" if listed else "it sees none"
        fix = f"adb connect {serial}" if ":" in serial else _PLUG_IN
        raise DeviceError("adb does not see the phone", where=phone.label, why=why, fix=fix)
    if listed[serial] != "device":
        raise explain(f"{phone.name}, serial {serial}", serial, listed[serial])
    return serial


def attached(phone: Phone) -> dict[str, str]:
    """Return the state of each phone that adb sees, by serial number."""
    listing = _adb(["devices"], phone, ANSWER_S)
    if listing.returncode != 0:
        raise explain(phone.label, phone.serial, listing.stderr or listing.stdout)
    lines = (line.split("\t", 1) for line in listing.stdout.splitlines())
    return {line[0]: line[1].strip() for line in lines if len(line) == 2}


def _adb(arguments: Sequence[str], phone: Phone, timeout_s: float) -> subprocess.CompletedProcess[str]:
    _LOG.debug("process started: %s", shlex.join(["adb", *arguments]))
    try:
        return subprocess.run(
            ["adb", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            env=_environment(),
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise _no_adb(phone) from error
    except subprocess.TimeoutExpired as error:
        fix = "adb kill-server, then the same command again"
        raise DeviceError("the phone does not answer", where=phone.label, why="no answer in time", fix=fix) from error


def _start(command: Sequence[str], phone: Phone, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    _LOG.debug("process started: %s", shlex.join(command))
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=_environment()
        )
    except FileNotFoundError as error:
        raise _no_adb(phone) from error


def _no_adb(phone: Phone) -> DeviceError:
    fix = "install it: apt install adb, or Android's platform tools"
    return DeviceError("there is no adb on this machine", where=phone.label, fix=fix)


def _environment() -> dict[str, str]:
    """Return the caller's environment without the variables that select a phone or add output."""
    return {name: value for name, value in os.environ.items() if name not in ("ANDROID_SERIAL", "ADB_TRACE")}


def _give_up(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _drain(process: subprocess.Popen[bytes]) -> bytes:
    """Return the output of a process, or its beginning where it exceeds the limit."""
    assert process.stdout
    printed = bytearray()
    stdout: Any = process.stdout
    while len(printed) < _MAX_OUTPUT_BYTES and (block := stdout.read1(_BLOCK_BYTES)):
        printed += block
    return bytes(printed)


def _close(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with suppress(OSError):
                pipe.close()


_PLUG_IN = "plug it in, switch USB debugging on in its developer options, and see: adb devices"
_AGAIN = "see to its cable or network; then the same command goes on where this one stopped"
_FAILURES: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern), problem, fix)
    for pattern, problem, fix in (
        (
            r"unauthorized|authorizing",
            "the phone does not let us in",
            "unlock it and allow USB debugging from this computer; if it does not ask: adb kill-server, adb devices",
        ),
        (
            r"no permissions|insufficient permissions",
            "this computer may not use the phone's USB port",
            "apt install android-sdk-platform-tools-common, and add yourself to the group plugdev",
        ),
        (
            r"\boffline\b",
            "the phone is offline",
            "adb -s {serial} reconnect; if that does not help, plug it in again",
        ),
        (
            r"device '.*' not found|no devices/emulators found|\bno device\b",
            "the connection to the phone broke",
            _AGAIN,
        ),
        (
            r"\b(recovery|sideload|bootloader|rescue)\b",
            "the phone has not started Android",
            "adb -s {serial} reboot",
        ),
        (
            r"cannot connect to daemon|failed to start daemon|server version",
            "adb's own server does not start",
            "adb kill-server, then: adb devices",
        ),
        (
            r"target doesn't support PTY",
            "the phone's Android is too old",
            "use a phone with Android 7 or later, whose shell reports exit codes",
        ),
    )
)


def explain(label: str, serial: str, output: str) -> DeviceError:
    """Return the error that explains adb's failure, from its output or the phone's listed state."""
    for pattern, problem, fix in _FAILURES:
        if pattern.search(output):
            return DeviceError(problem, where=label, why=_plain(output), fix=fix.format(serial=shlex.quote(serial)))
    why = _plain(output) or "adb ended without a message"
    return DeviceError("the connection to the phone broke", where=label, why=why, fix=_AGAIN)


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text).strip()[-_TAIL:]
