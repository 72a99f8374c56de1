"""A stand-in for a phone's adbd on loopback, because no phone was at hand.

Real are the client (Debian's `adb`) and its server, the protocol between it and a phone (CNXN, AUTH, OPEN, OKAY, WRTE,
CLSE; the services `shell,v2` and `sync:`), file transfer, Android's shell (mksh) and tools (toybox), and the processes
that they start. adbd ends a shell with SIGHUP when its stream closes, and closes its pipes; so does this. Not real are
the phone, its processor, its kernel's and SELinux' rules, and what getprop and dumpsys say: those two are scripts.
/data/local/tmp is a private folder here: the name is replaced in commands and paths.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from edgevit.records.measurement import Device
from support.speed import seconds
from support.sshd import free_port
from support.system import find_program, require_programs

PROGRAMS = ("adb", "mksh", "toybox")
ADB, MKSH, TOYBOX = map(find_program, PROGRAMS)
TOOLS = ("cat", "chmod", "find", "grep", "mkdir", "mv", "rm", "setsid", "sha256sum", "sleep", "sync", "touch", "uname")
TMP = "/data/local/tmp"
_HEADER = struct.Struct("<6I")
_VERSION, _MOST = 0x01000001, 1 << 18
_BANNER = b"device::ro.product.name=stand_in;ro.product.model=Stand_in;ro.product.device=stand_in;features=shell_v2"
_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
PROPERTIES = {
    "ro.serialno": "8A1X00001",
    "ro.product.manufacturer": "Nobody",
    "ro.product.model": "Stand-in 1",
    "ro.soc.manufacturer": "Nobody",
    "ro.soc.model": "Chip 9",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.hardware.egl": "adreno",
}
BATTERY = "Current Battery Service state:\n  AC powered: false\n  USB powered: true\n  level: 80\n"
THERMAL = """\
IsStatusOverride: false
Thermal Status: 0
Cached temperatures:
\tTemperature{mValue=99.0, mType=0, mName=CPU0, mStatus=0}
Current temperatures from HAL:
\tTemperature{mValue=41.5, mType=0, mName=CPU0, mStatus=0}
\tTemperature{mValue=60.0, mType=1, mName=GPU0, mStatus=0}
Current cooling devices from HAL:
"""


class Adbd:
    """A phone's daemon, used as `with Adbd(folder) as adbd`. An adb server connects to adbd.serial."""

    def __init__(self, folder: Path, *, authorized: bool = True, **properties: str) -> None:
        require_programs(*PROGRAMS)
        self.folder, self.tmp, self.authorized = folder, folder / "tmp", authorized
        # Paths that were sent.
        self.pushed: list[str] = []
        self._connections: list[socket.socket] = []
        self.tmp.mkdir(parents=True)
        self._tools(PROPERTIES | properties)
        self._listener = socket.create_server(("127.0.0.1", free_port()))
        self.serial = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def _tools(self, properties: Mapping[str, str]) -> None:
        self.bin = self.folder / "bin"
        self.bin.mkdir()
        for name in TOOLS:
            (self.bin / name).symlink_to(str(TOYBOX))
        (self.bin / "sh").symlink_to(str(MKSH))
        self.set_output("getprop", "".join(f"[{name}]: [{value}]\n" for name, value in properties.items() if value))
        self.set_dumpsys(BATTERY, THERMAL)

    def set_output(self, program: str, text: str) -> None:
        """Set what a program of the phone prints."""
        (self.bin / f"{program}.txt").write_text(text)
        self._script(program, f"cat {self.bin}/{program}.txt")

    def set_dumpsys(self, battery: str, thermal: str) -> None:
        for name, text in (("battery", battery), ("thermalservice", thermal)):
            (self.bin / f"{name}.txt").write_text(text)
        self._script("dumpsys", f"cat {self.bin}/$1.txt")

    def _script(self, name: str, text: str) -> None:
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(f"#!{MKSH}\n{text}\n")
        (self.bin / name).chmod(0o755)

    def __enter__(self) -> Adbd:
        threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.break_connections()

    def break_connections(self) -> None:
        """Break the connections, as a pulled cable would."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                # Else each answer waits 40 ms for the acknowledgement of the one before.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._connections.append(connection)
                threading.Thread(target=_Connection(self, connection).serve, daemon=True).start()

    def device(self, name: str = "phone", **options: str) -> Device:
        """Return this phone as a device whose id and class are not filled in."""
        return Device(name, "", "", "adb", options={"serial": self.serial, **options})

    def here(self, text: str) -> str:
        """Return a command or path of the phone as it is on this machine."""
        return text.replace(TMP, str(self.tmp))


class _Connection:
    """One adb server that has connected."""

    def __init__(self, adbd: Adbd, connection: socket.socket) -> None:
        self.adbd, self._socket = adbd, connection
        self._lock, self._streams = threading.Lock(), dict[int, _Stream]()

    def send(self, command: bytes, first: int, second: int, data: bytes = b"") -> None:
        number = int.from_bytes(command, "little")
        header = _HEADER.pack(number, first, second, len(data), sum(data) & 0xFFFFFFFF, number ^ 0xFFFFFFFF)
        with self._lock, contextlib.suppress(OSError):
            self._socket.sendall(header + data)

    def serve(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                number, first, second, size, _, _ = _HEADER.unpack(self._exactly(_HEADER.size))
                self._take(number.to_bytes(4, "little"), first, second, self._exactly(size))
        for stream in list(self._streams.values()):
            stream.closed()
        self._socket.close()

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            block = self._socket.recv(size - len(data))
            if not block:
                raise EOFError
            data += block
        return data

    def _take(self, command: bytes, first: int, second: int, data: bytes) -> None:
        if command in (b"CNXN", b"AUTH"):
            if self.adbd.authorized:
                self.send(b"CNXN", _VERSION, _MOST, _BANNER)
            elif command == b"CNXN" or first == 2:
                # AUTH with first == 2 is a signature, here by an unknown key. With first == 3, it is the key itself.
                self.send(b"AUTH", 1, 0, bytes(20))
        elif command == b"OPEN":
            stream = _Stream(self, len(self._streams) + 1, first)
            self._streams[stream.number] = stream
            self.send(b"OKAY", stream.number, first)
            stream.start(data.rstrip(b"\0").decode())
        elif (addressed := self._streams.get(second)) is not None:
            addressed.take(command, data)


class _Stream:
    """One service that was opened. What is written waits for the other side's OKAY, block by block."""

    def __init__(self, connection: _Connection, number: int, other: int) -> None:
        self._connection, self.number, self._other = connection, number, other
        self._ready, self._over = threading.Semaphore(0), threading.Event()
        self._in, self._out = os.pipe()

    def start(self, service: str) -> None:
        name, _, command = service.partition(":")
        services: dict[str, Callable[[], None]] = {"shell": lambda: _shell(self, command), "sync": lambda: _sync(self)}
        run = services.get(name.split(",")[0], self.close)
        threading.Thread(target=run, daemon=True).start()

    @property
    def adbd(self) -> Adbd:
        return self._connection.adbd

    @property
    def over(self) -> bool:
        """Whether the other side is gone."""
        return self._over.is_set()

    def take(self, command: bytes, data: bytes) -> None:
        if command == b"OKAY":
            self._ready.release()
        elif command == b"WRTE":
            with contextlib.suppress(OSError):
                os.write(self._out, data)
            self._connection.send(b"OKAY", self.number, self._other)
        elif command == b"CLSE":
            self.closed()

    def closed(self) -> None:
        """Note that the other side is gone."""
        if not self._over.is_set():
            self._over.set()
            os.close(self._out)
            self._ready.release()

    def read(self, size: int) -> bytes:
        """Read exactly so many bytes. Raise EOFError when the other side is gone."""
        data = b""
        while len(data) < size:
            block = os.read(self._in, size - len(data))
            if not block:
                raise EOFError
            data += block
        return data

    def write(self, data: bytes) -> None:
        for at in range(0, len(data), _MOST):
            if self._over.is_set():
                return
            self._connection.send(b"WRTE", self.number, self._other, data[at : at + _MOST])
            self._ready.acquire()

    def close(self) -> None:
        if not self._over.is_set():
            self._connection.send(b"CLSE", self.number, self._other)


def _shell(stream: _Stream, command: str) -> None:
    """Serve `shell,v2,raw`, whose packets are one byte of kind, four of length, and that many bytes."""
    environment = {"PATH": str(stream.adbd.bin), "HOME": "/", "TMPDIR": TMP}
    process = subprocess.Popen(
        [str(MKSH), "-c", stream.adbd.here(command)],
        cwd=stream.adbd.tmp,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdin and process.stdout and process.stderr
    lock = threading.Lock()

    def forward(kind: int, source: IO[bytes]) -> None:
        while not stream.over:
            if not select.select([source], [], [], 0.05)[0]:
                continue
            if not (block := os.read(source.fileno(), 1 << 14)):
                break
            with lock:
                stream.write(struct.pack("<BI", kind, len(block)) + block)
        source.close()

    outputs = ((_STDOUT, process.stdout), (_STDERR, process.stderr))
    threads = [threading.Thread(target=forward, args=output, daemon=True) for output in outputs]
    threads.append(threading.Thread(target=_feed, args=(stream, process, tuple(threads)), daemon=True))
    for thread in threads:
        thread.start()
    for thread in threads[:2]:
        thread.join()
    code = process.wait()
    stream.write(struct.pack("<BIB", _EXIT, 1, code if code >= 0 else 128 - code))
    stream.close()


def _feed(stream: _Stream, process: subprocess.Popen[bytes], outputs: Sequence[threading.Thread]) -> None:
    """Feed the standard input until the other side ends it. When that is gone, send SIGHUP and close the pipes."""
    assert process.stdin and process.stdout and process.stderr
    with contextlib.suppress(OSError):
        try:
            while True:
                kind, size = struct.unpack("<BI", stream.read(5))
                data = stream.read(size)
                if kind == _STDIN:
                    os.write(process.stdin.fileno(), data)
                elif kind == _CLOSE_STDIN:
                    process.stdin.close()
        except (EOFError, ValueError):
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGHUP)
            for output in outputs:
                output.join()
            process.stdin.close()


def _sync(stream: _Stream) -> None:
    """Serve `sync:`, as far as a push of one file needs it."""
    with contextlib.suppress(EOFError):
        while True:
            request, size = struct.unpack("<4sI", stream.read(8))
            path = stream.read(size).decode() if request != b"QUIT" else ""
            if request == b"QUIT":
                break
            if request == b"STAT":
                stream.write(b"STAT" + struct.pack("<3I", *_stat(Path(stream.adbd.here(path)))))
            elif request == b"SEND":
                _receive(stream, path)
    stream.close()


def _stat(path: Path) -> tuple[int, int, int]:
    try:
        status = path.lstat()
    except OSError:
        return 0, 0, 0
    return status.st_mode, status.st_size & 0xFFFFFFFF, int(status.st_mtime)


def _receive(stream: _Stream, request: str) -> None:
    name, _, _ = request.rpartition(",")
    stream.adbd.pushed.append(name)
    failed = ""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(Path(stream.adbd.here(name)).open("wb", buffering=0))
        except OSError as error:
            failed = f"couldn't create file: {error.strerror}"
        for block in _blocks(stream):
            try:
                if not failed and file.write(block) != len(block):
                    failed = "write failed: No space left on device"
            except OSError as error:
                failed = f"write failed: {error.strerror}"
    if failed:
        stream.write(b"FAIL" + struct.pack("<I", len(failed)) + failed.encode())
    else:
        stream.write(b"OKAY" + struct.pack("<I", 0))


def _blocks(stream: _Stream) -> Iterator[bytes]:
    while True:
        kind, size = struct.unpack("<4sI", stream.read(8))
        # The number of DONE is the time of the file.
        if kind == b"DONE":
            return
        yield stream.read(size)


class Server:
    """An adb server of a test's own, on a port and with keys of its own; `with Server(folder) as server`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.variables = {
            "ANDROID_ADB_SERVER_PORT": str(free_port()),
            "HOME": str(folder),
            "ADB_VENDOR_KEYS": "",
            # The server looks for no emulator.
            "ADB_LOCAL_TRANSPORT_MAX_PORT": "5553",
        }

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.adb("kill-server")

    def adb(self, *arguments: str) -> str:
        """Run an adb command and return its output."""
        outcome = subprocess.run(
            [str(ADB), *arguments],
            env=os.environ | self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds(60),
            check=False,
        )
        return outcome.stdout + outcome.stderr
