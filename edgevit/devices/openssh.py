"""Client of the system's `ssh`: one connection that starts Python on a device, and an explanation of each failure."""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from edgevit.errors import DeviceError, UsageError
from edgevit.records.measurement import Device

_LOG = logging.getLogger(__name__)

OPTIONS = ("host", "port", "identity", "known_hosts", "python", "cache")
MIN_PYTHON = (3, 10)  # JetPack 6 and Ubuntu 22.04 have it; the recipes and their engines need no older one
_CONNECT_S = 15  # to a device in the same room; a board that wakes up takes seconds
_START_S = 60.0  # until Python answers: key exchange and start-up, also on a board of one slow core
_LINES_BEFORE = 1 << 16  # bytes that a login script may print before Python answers
_LENGTH_BYTES = 8
_MARK = re.compile(rb"edgevit-agent (\d+) (\d+)\n")
# The only program that passes a shell on the device. It is valid in Python 2 up to its mark, so that a wrong Python can
# be reported.
_BOOTSTRAP = (
    'import sys; sys.stdout.write("edgevit-agent %d %d\\n" % sys.version_info[:2]); sys.stdout.flush(); '
    'source = sys.stdin.buffer; exec(source.read(int.from_bytes(source.read(8), "big")))'
)
# A name or address as ssh takes it, without the characters that a shell in a user's ProxyCommand might interpret.
_HOST = re.compile(r"([A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9_:][A-Za-z0-9._:-]*(%[A-Za-z0-9._-]+)?")
_UNSAFE_IN_PATH = re.compile(r'["\\%$\x00-\x1f\x7f]')  # characters of a file's name that ssh expands or refuses
_SETTINGS = {
    "BatchMode": "yes",  # no questions to the user
    "StrictHostKeyChecking": "yes",
    "UpdateHostKeys": "no",
    "ConnectTimeout": str(_CONNECT_S),
    "ServerAliveInterval": "15",  # a silently broken connection is noticed after three of these
    "ControlMaster": "no",  # a shared connection would outlive the job
    "ControlPath": "none",
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "ClearAllForwardings": "yes",
    "PermitLocalCommand": "no",
    "RemoteCommand": "none",
    "RequestTTY": "no",
}


@dataclass(frozen=True)
class SshTarget:
    """The address of a device and the ssh options for it: the checked options of a device's file."""

    name: str
    host: str
    port: int | None = None
    identity: str = ""
    known_hosts: str = ""
    python: str = "python3"

    @classmethod
    def of(cls, device: Device) -> SshTarget:
        """Read a device's options. Raises UsageError for an unknown, missing or invalid one."""
        options = device.options
        if unknown := sorted(set(options) - set(OPTIONS)):
            raise _bad(device, f"ssh has no option {', '.join(unknown)}", f"it has {', '.join(OPTIONS)}")
        host, port = options.get("host", ""), options.get("port", "")
        if not _HOST.fullmatch(host):
            raise _bad(device, f"{host!r} is no name of a host", "a name, an address, or either after USER@")
        if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
            raise _bad(device, f"{port!r} is no port", "a number from 1 to 65535")
        for name in ("identity", "known_hosts"):
            if _UNSAFE_IN_PATH.search(options.get(name, "")):
                why = 'ssh cannot be given a file whose name has ", \\, %, $ or a control character in it'
                raise _bad(device, f"{name} is {options[name]!r}", why)
        python = options.get("python") or "python3"
        if "\0" in python or "\n" in python:
            raise _bad(device, f"python is {python!r}", "a path has no line end in it")
        paths = {name: _expanded(options.get(name, "")) for name in ("identity", "known_hosts")}
        return cls(device.name, host, int(port) if port else None, **paths, python=python)

    @property
    def label(self) -> str:
        """`pi5, pi@192.168.1.7 port 2222`."""
        return f"{self.name}, {self.host}" + (f" port {self.port}" if self.port else "")

    def ssh(self) -> list[str]:
        """Return the options and the host as a person would type them, for messages."""
        port = ["-p", str(self.port)] if self.port else []
        identity = ["-i", self.identity] if self.identity else []
        return [*port, *identity, self.host]

    def command(self) -> list[str]:
        """Return the command that starts the agent on the device."""
        settings = dict(_SETTINGS)
        if self.known_hosts:  # this file, and no other
            settings |= {"UserKnownHostsFile": f'"{self.known_hosts}"', "GlobalKnownHostsFile": "/dev/null"}
        if self.identity:
            settings["IdentitiesOnly"] = "yes"
        options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        *address_options, host = self.ssh()
        start = f"exec {shlex.quote(self.python)} -I -c {shlex.quote(_BOOTSTRAP)}"
        return ["ssh", "-T", *options, *address_options, "--", host, start]


def _expanded(path: str) -> str:
    return str(Path(path).expanduser().absolute()) if path else ""


def _bad(device: Device, problem: str, why: str) -> UsageError:
    return UsageError(
        problem, where=f"device {device.name}", why=why, fix=f"edgevit devices remove {device.name}, then add it again"
    )


class Connection:
    """A Python process on a device, started through ssh. Its methods raise DeviceError where the connection breaks.

    Leaving the context ends ssh and closes the agent's input; the agent then kills the processes that it started.
    """

    def __init__(self, target: SshTarget) -> None:
        self._target, self._started, self._late = target, False, threading.Event()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed on leaving
        _LOG.debug("process started: %s", shlex.join(target.command()))
        try:
            self._process = subprocess.Popen(
                target.command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=os.environ | {"LC_ALL": "C"},  # its messages are read below
                start_new_session=True,  # a ProxyCommand goes with it
            )
        except FileNotFoundError as error:
            self._stderr.close()
            fix = "install it: apt install openssh-client"
            raise DeviceError("there is no ssh on this machine", where=target.label, fix=fix) from error
        assert self._process.stdin and self._process.stdout
        self._to: IO[bytes] = self._process.stdin
        self._from: IO[bytes] = self._process.stdout
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._timer:
            self._timer.cancel()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        with suppress(OSError):
            self._to.close()
        self._from.close()
        self._stderr.close()

    def start(self, source: bytes) -> None:
        """Wait until Python answers, check its version, and send it the agent."""
        self.allow(_START_S)
        before = b""
        while not (mark := _MARK.search(before)):
            line = self._from.readline(_LINES_BEFORE)
            before += line
            if not line or len(before) > _LINES_BEFORE:
                raise self._failure()
        version = int(mark[1]), int(mark[2])
        if version < MIN_PYTHON:
            oldest = ".".join(map(str, MIN_PYTHON))
            raise DeviceError(
                "the device's Python is too old",
                where=self._target.label,
                why=f"{self._target.python} is {mark[1].decode()}.{mark[2].decode()}, {oldest} is the oldest",
                fix="install a newer one there, and name it: edgevit devices add ... --python /path/to/python3",
            )
        self._started = True
        self.send(source)

    def allow(self, seconds: float) -> None:
        """Limit the time from now on. After that ssh is ended, and the device counts as lost."""
        if self._timer:
            self._timer.cancel()
        self._timer = threading.Timer(seconds, self._give_up)
        self._timer.daemon = True
        self._timer.start()

    def _give_up(self) -> None:
        self._late.set()
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def send(self, data: bytes) -> None:
        """Send one frame."""
        self.send_raw(len(data).to_bytes(_LENGTH_BYTES, "big") + data)

    def send_raw(self, data: bytes) -> None:
        """Send bytes without a frame. A failed write is ignored: the answer, or its absence, tells the reason."""
        with suppress(BrokenPipeError):
            self._to.write(data)
            self._to.flush()

    def receive(self) -> bytes:
        """Receive one frame."""
        return self._exactly(int.from_bytes(self._exactly(_LENGTH_BYTES), "big"))

    def _exactly(self, size: int) -> bytes:
        data = self._from.read(size)
        if len(data) != size:
            raise self._failure()
        return data

    def _failure(self) -> DeviceError:
        # The output of ssh has ended, so ssh has ended or is about to.
        code = self._process.wait()
        self._stderr.seek(0)
        stderr = self._stderr.read().decode("utf-8", errors="replace")
        return explain(self._target, code, stderr, started=self._started, late=self._late.is_set())


_SSH_FAILED = 255  # ssh's own exit code; any other is the device's
_NOT_FOUND = (126, 127)  # a shell's: no such program, or not one that runs
_TAIL = 600  # characters kept of the standard error of ssh or the device


def explain(target: SshTarget, code: int, stderr: str, *, started: bool, late: bool = False) -> DeviceError:
    """Return the error that explains a connection's end, from ssh's exit code and its standard error."""
    tail = "".join(c if c.isprintable() or c == "\n" else " " for c in stderr).strip()[-_TAIL:]
    by_hand = shlex.join(["ssh", *target.ssh()])
    if late:
        why = f"no answer in time\n{tail}".strip()
        return DeviceError("the device does not answer", where=target.label, why=why, fix=f"try it by hand: {by_hand}")
    if started:
        fix = "once the device is back, the same command goes on where this one stopped"
        why = tail or f"ssh ended with exit code {code}"
        return DeviceError("the connection to the device broke", where=target.label, why=why, fix=fix)
    for pattern, problem, fix in _FAILURES:
        if code == _SSH_FAILED and pattern.search(stderr):
            return DeviceError(problem, where=target.label, why=tail, fix=fix.format(**_commands(target)))
    if code in _NOT_FOUND:
        problem = f"the device has no Python called {target.python}"
        fix = "install it there (apt install python3), or name it: edgevit devices add ... --python /path/to/python3"
        return DeviceError(problem, where=target.label, why=tail, fix=fix)
    why = tail or f"ssh ended with exit code {code}"
    return DeviceError("Python did not start on the device", where=target.label, why=why, fix=f"try it: {by_hand}")


def _commands(target: SshTarget) -> dict[str, str]:
    host = target.host.rpartition("@")[2]
    entry = f"[{host}]:{target.port}" if target.port else host
    file = ["-f", target.known_hosts] if target.known_hosts else []
    known_hosts = ["-o", f"UserKnownHostsFile={target.known_hosts}"] if target.known_hosts else []
    return {
        "ssh": shlex.join(["ssh", *known_hosts, *target.ssh()]),
        "forget": shlex.join(["ssh-keygen", "-R", entry, *file]),
        "copy": shlex.join(["ssh-copy-id", *target.ssh()]),
    }


_FAILURES: tuple[tuple[re.Pattern[str], str, str], ...] = tuple(
    (re.compile(pattern), problem, fix)
    for pattern, problem, fix in (
        (
            r"REMOTE HOST IDENTIFICATION HAS CHANGED",
            "the host key is not the one that is known: this may be another machine",
            "if the device was set up anew and its fingerprint is right: {forget}, then {ssh}",
        ),
        (
            r"Host key verification failed|No \S+ host key is known",
            "the host key is not known",
            "connect once by hand and compare the fingerprint with the device's: {ssh}",
        ),
        (r"Could not resolve hostname", "no host has this name", "check the name; an address works, too"),
        (r"Connection refused", "nothing listens there", "switch sshd on on the device, or give its --port"),
        (
            r"[Tt]imed out|No route to host|Network is unreachable|Host is down",
            "the device cannot be reached",
            "check that it is switched on and in this network",
        ),
        (r"Connection (closed|reset)|Broken pipe", "the device hung up at once", "try it by hand: {ssh}"),
        (
            r"Permission denied|Too many authentication failures",
            "the device does not let us in",
            "put your public key there: {copy}; or name the right one with --identity",
        ),
    )
)
