"""A real sshd on loopback, with keys, port and configuration of its own, started and stopped by a test."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from edgevit.records.measurement import Device
from support.speed import seconds
from support.system import find_program, require_programs

PROGRAMS = ("ssh", "ssh-keygen", "sshd")
SSHD = find_program("sshd")
USER = "root" if os.geteuid() == 0 else os.environ.get("USER", "")
CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
# The quickest of the key exchanges that every ssh knows.
KexAlgorithms curve25519-sha256
{more}
# bash, started by sshd in no other shell, reads the .bashrc of whoever runs the tests, which may take half a second.
# sshd obeys its first SetEnv alone.
SetEnv SHLVL=1
"""


class Sshd:
    """`with Sshd(folder) as sshd`: sshd.device() is this machine behind ssh."""

    def __init__(self, folder: Path, *more: str) -> None:
        require_programs(*PROGRAMS)
        self.folder, self.port = folder, free_port()
        for name in ("host_key", "user_key", "other_key"):
            if not (folder / name).exists():
                make_key(folder / name)
        (folder / "config").write_text(CONFIG.format(port=self.port, folder=folder, more="\n".join(more)))
        self.known_hosts = folder / "known_hosts"
        self.known_hosts.write_text(self.entry("host_key"))
        if USER == "root":
            # sshd insists on this folder.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.log = folder / "sshd.log"

    def entry(self, key: str) -> str:
        """Return a line of known_hosts that expects this key of this sshd."""
        return f"[127.0.0.1]:{self.port} {(self.folder / f'{key}.pub').read_text()}"

    def __enter__(self) -> Sshd:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen([str(SSHD), "-D", "-e", "-f", self.folder / "config"], stderr=log)
        end = time.monotonic() + seconds(20)
        while not listens(self.port):
            assert self.process.poll() is None and time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self.break_connections()
        self.process.terminate()
        self.process.wait(timeout=seconds(10))

    def connections(self) -> list[int]:
        """Return the processes that serve connections: the listener's children and theirs, but no session's."""
        serving = {self.process.pid}
        while (
            grown := {pid for pid, (parent, name) in processes().items() if parent in serving and "sshd" in name}
            - serving
        ):
            serving |= grown
        return sorted(serving - {self.process.pid})

    def break_connections(self) -> int:
        """Kill the processes that serve connections, as a lost network would, and return their number."""
        pids = self.connections()
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        return len(pids)

    def device(self, name: str = "loopback", **options: str) -> Device:
        """Return this machine, reached over ssh. Its class and id are not filled in."""
        settings = {
            "host": f"{USER}@127.0.0.1",
            "port": str(self.port),
            "identity": str(self.folder / "user_key"),
            "known_hosts": str(self.known_hosts),
            "python": sys.executable,
            "cache": str(self.folder / "cache"),
        }
        return Device(name, "", "", "ssh", options={**settings, **options})


def make_key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", path], check=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def processes() -> dict[int, tuple[int, str]]:
    """Return each process id with its parent and its name."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            before, _, after = path.read_text().rpartition(")")
        except OSError:
            continue
        parents[int(path.parent.name)] = (int(after.split()[1]), before.partition("(")[2])
    return parents
