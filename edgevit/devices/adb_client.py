"""The system's `adb`: one phone behind it, its shell and its files, and its failures in words.

The phone needs Android 7 or later: before, its shell told no exit codes. Nothing that anybody typed passes the phone's
shell but the folder there, which has none but plain characters, and what `quoted` has put into quotes.
"""

from __future__ import annotations

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
from typing import IO

from edgevit.errors import DeviceError, UsageError
from edgevit.records.measurement import Device

FOLDER = "/data/local/tmp/edgevit"  # where Android lets a shell keep programs, and start them
_OPTIONS = ("serial", "folder")
_FOLDER = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)+")
_SERIAL = re.compile(r"[A-Za-z0-9\[][A-Za-z0-9._:@%\[\]-]*")  # of a cable, an emulator, an address with a port
ANSWER_S = 60.0  # for a command of moments, on a phone that wakes up, with adb's server to be started first
GRACE_S = 30.0  # beyond what a program may take there, for its end to be told
SLOWEST_LINK = 1_000_000  # bytes per second: USB 2 and a bad wireless network are faster
_MOST_BYTES = 1 << 25  # of what a program prints: a hundred thousand runs, told one by one, are a third of that
_BLOCK_BYTES = 1 << 16
_TAIL = 600  # characters of what adb or the phone said
_NO_ROOM = "No space left on device"


@dataclass(frozen=True)
class Phone:
    """Which phone, and what is run there: the checked options of a device's file."""

    name: str
    serial: str = ""  # empty: the only one there is
    folder: str = FOLDER
    programs: Mapping[str, Path] = field(default_factory=dict)  # name -> file on this machine

    @classmethod
    def of(cls, device: Device, programs: Collection[str]) -> Phone:
        """Read a device's options; `programs` are the names that it may have. Raises UsageError for a bad one."""
        options = device.options
        if unknown := sorted(set(options) - {*_OPTIONS, *programs}):
            known = ", ".join((*_OPTIONS, *sorted(programs)))
            raise _bad(device, f"adb has no option {', '.join(map(repr, unknown))}", f"it has {known}")
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


def _bad(device: Device, what: str, why: str) -> UsageError:
    fix = f"edgevit devices remove {device.name}, then add it again"
    return UsageError(what, where=f"device {device.name}", why=why, fix=fix)


def quoted(words: Sequence[str]) -> str:
    """Words as the phone's shell takes them, each as it stands."""
    return shlex.join(words)


class Link:
    """A phone that answers. Raises DeviceError from wherever it cannot be reached, or is lost."""

    def __init__(self, phone: Phone) -> None:
        self.phone = phone
        self._serial = _choose(phone)

    @property
    def label(self) -> str:
        """`pixel, serial 1A2B`, whether it was asked for by that or not."""
        return f"{self.phone.name}, serial {self._serial}"

    def shell(self, script: str, timeout_s: float = ANSWER_S) -> str:
        """What a script prints in the phone's shell, its errors among it, where its last command ended well.

        Raises DeviceError with what it printed where that did not.
        """
        code, text = self.run(script, timeout_s)
        if code != 0:
            raise self._refused(text)
        return text

    def run(self, script: str, timeout_s: float) -> tuple[int, str]:
        """A script's exit code, and what it printed, in `_MOST_BYTES` bytes at most.

        The script's standard input ends when this does, by whatever: so it learns that nobody is here any more.
        Raises DeviceError where the phone is lost, does not answer in time, or prints without end.
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
            said = errors.read().decode("utf-8", errors="replace")
        if len(printed) >= _MOST_BYTES:
            raise self._endless(printed)
        return self._ended(printed.decode("utf-8", errors="replace"), mark, said, late=late.is_set())

    def _endless(self, printed: bytes) -> DeviceError:
        why = f"more than {_MOST_BYTES >> 20} MiB, which end with: {_plain(printed[-_TAIL:].decode(errors='replace'))}"
        fix = "run the program by hand, and see what it says"
        return DeviceError("a program on the phone prints without end", where=self.label, why=why, fix=fix)

    def _ended(self, text: str, mark: str, said: str, *, late: bool) -> tuple[int, str]:
        before, found, after = text.rpartition(mark)
        if found and (code := after.strip()).isdigit():
            return int(code), before
        if late:
            fix = f"try it by hand: {quoted(['adb', '-s', self._serial, 'shell', 'echo', 'hello'])}"
            raise DeviceError("the phone does not answer", where=self.label, why="no answer in time", fix=fix)
        raise explain(self.label, self._serial, said or text)

    def push(self, local: Path, remote: str) -> None:
        """Send a file. Raises DeviceError where the phone has no room for it, refuses it or is lost."""
        limit_s = ANSWER_S + local.stat().st_size / SLOWEST_LINK
        done = _adb(["-s", self._serial, "push", str(local.resolve()), remote], self.phone, limit_s)
        if done.returncode == 0:
            return
        said = done.stdout + done.stderr
        if any(words in said for words in (_NO_ROOM, "Permission denied", "Read-only file system")):
            raise self._refused(said)
        raise explain(self.label, self._serial, said)

    def forget(self, remote: str) -> None:
        """Remove a file there, if it is there and the phone is."""
        with suppress(DeviceError):
            self.shell(f"rm -f {remote}")

    def damaged(self, local: Path) -> DeviceError:
        """The error for a file that did not arrive as it was sent."""
        return DeviceError("what arrived is not what was sent", where=self.label, why=str(local), fix=_AGAIN)

    def _refused(self, said: str) -> DeviceError:
        where = f"{self.label}: {self.phone.folder}"
        if _NO_ROOM in said:
            fix = quoted(["adb", "-s", self._serial, "shell", "rm", "-rf", self.phone.folder])
            return DeviceError("the phone's disk is full", where=where, fix=f"make room there, or: {fix}")
        fix = "name another folder with the device's option `folder`"
        return DeviceError("the phone cannot run a program", where=where, why=_plain(said), fix=fix)


def _choose(phone: Phone) -> str:
    """The serial number of the phone that is meant, once it is known that it answers."""
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
    """Serial number -> state, of all phones that adb sees."""
    done = _adb(["devices"], phone, ANSWER_S)
    if done.returncode != 0:
        raise explain(phone.label, phone.serial, done.stderr or done.stdout)
    lines = (line.split("\t", 1) for line in done.stdout.splitlines())
    return {line[0]: line[1].strip() for line in lines if len(line) == 2}


def _adb(arguments: Sequence[str], phone: Phone, timeout_s: float) -> subprocess.CompletedProcess[str]:
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
    """What adb reads of the caller's, but for the phone that it would talk to and what it would print besides."""
    return {name: value for name, value in os.environ.items() if name not in ("ANDROID_SERIAL", "ADB_TRACE")}


def _give_up(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    process.kill()


def _drain(process: subprocess.Popen[bytes]) -> bytes:
    """All that is printed, or the beginning of what has no end."""
    assert process.stdout
    printed = bytearray()
    while len(printed) < _MOST_BYTES and (block := process.stdout.read1(_BLOCK_BYTES)):  # type: ignore[attr-defined]
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
    (re.compile(words), what, fix)
    for words, what, fix in (
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
            "take a phone with Android 7 or later, whose shell tells how a program ended",
        ),
    )
)


def explain(where: str, serial: str, said: str) -> DeviceError:
    """What adb's failure means, by its words or by the state that it lists."""
    for words, what, fix in _FAILURES:
        if words.search(said):
            return DeviceError(what, where=where, why=_plain(said), fix=fix.format(serial=shlex.quote(serial)))
    why = _plain(said) or "adb ended without a word"
    return DeviceError("the connection to the phone broke", where=where, why=why, fix=_AGAIN)


def _plain(text: str) -> str:
    return "".join(letter if letter.isprintable() or letter == "\n" else " " for letter in text).strip()[-_TAIL:]
