"""Devices by name: this machine, found by looking at it, and those that have a file in the latency database."""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import re
import secrets
import tomllib
import uuid
from contextlib import suppress
from importlib.resources.abc import Traversable
from pathlib import Path

import platformdirs

from edgevit.errors import DeviceError, UnknownNameError
from edgevit.types import Device
from edgevit_runtime import environment
from edgevit_runtime.record import Host, RecordError, from_data

LOCAL = "local"
_GIB = 2**30
_SALT_BYTES = 32
# What names one unit, best first: a board's serial number, then the installation.
_UNIT_FILES = ("proc/device-tree/serial-number", "etc/machine-id", "var/lib/dbus/machine-id")
_RANDOM_NODE = 1 << 40  # uuid.getnode() sets this bit when it found no network card and made a number up
_NOISE_WORDS = re.compile(r"\((r|tm|c)\)|@.*|\b(cpu|processor|with radeon.*|\d+-core)\b", re.IGNORECASE)


def local_device() -> Device:
    """This machine. Its id is a salted digest: it names this unit to whoever measured on it, and tells others nothing.

    Raises DeviceError if the salt cannot be kept.
    """
    host = environment.host()
    kind = device_class(host)
    memory = f", {host.memory_bytes / _GIB:.0f} GiB" if host.memory_bytes else ""
    return Device(
        name=LOCAL,
        device_id=device_id(_unit(), kind, _salt(platformdirs.user_data_path("edgevit"))),
        device_class=kind,
        transport="local",
        description=f"{host.cpu_model or host.machine}, {host.cores} cores{memory}, {host.system} {host.kernel}",
    )


def device_class(host: Host) -> str:
    """What all units like this one share, and public: `x86_64-linux-amd-epyc-2c`."""
    model = _NOISE_WORDS.sub(" ", host.cpu_model) or "unknown"
    return re.sub(r"[^a-z0-9_]+", "-", f"{host.machine} {host.system} {model} {host.cores}c".lower()).strip("-")


def device_id(unit: str, kind: str, salt: bytes) -> str:
    """sha256 of a unit's own number and its class. The class is in it: a virtual machine that comes back on another
    processor keeps its number and is another device.
    """
    return hashlib.sha256(salt + f"{unit}\0{kind}".encode()).hexdigest()


def list_devices() -> list[Device]:
    """This machine first, then the devices of the latency database by name. Raises DeviceError for a bad file."""
    return [local_device(), *(_read(file) for _, file in sorted(_files().items()))]


def load_device(name: str) -> Device:
    """The device of this name. Raises UnknownNameError, or DeviceError if its file is bad."""
    if name == LOCAL:
        return local_device()
    if name not in (files := _files()):
        raise UnknownNameError("device", name, [LOCAL, *files], listing="edgevit devices")
    return _read(files[name])


def _files() -> dict[str, Traversable]:
    folder = importlib.resources.files("edgevit.latency_db") / "devices"
    if not folder.is_dir():
        return {}
    return {item.name.removesuffix(".toml"): item for item in folder.iterdir() if item.name.endswith(".toml")}


def _read(file: Traversable) -> Device:
    """A device's file holds the fields of Device but for the name, which is the file's own."""
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
        return from_data(Device, {**data, "name": file.name.removesuffix(".toml")})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecordError) as error:
        raise DeviceError("a device's file cannot be read", where=str(file), why=str(error)) from error


def _unit(root: Path = Path("/")) -> str:
    """This unit's own number; empty where it has none, and the salt alone then names the installation."""
    for name in _UNIT_FILES:
        with suppress(OSError):
            if text := (root / name).read_text(encoding="utf-8", errors="replace").strip("\0\n "):
                return text
    node = uuid.getnode()
    return "" if node & _RANDOM_NODE else f"{node:012x}"


def _salt(folder: Path) -> bytes:
    """The salt of this user's devices, made on first use. Two processes that make it at once agree on one."""
    path = folder / "device-salt"
    try:
        if not path.exists():
            _create(path, secrets.token_bytes(_SALT_BYTES))
        return path.read_bytes()
    except OSError as error:
        raise DeviceError(
            "this machine's identity cannot be kept",
            where=str(path),
            why=str(error.strerror),
            fix="make the folder writable, or set XDG_DATA_HOME to one that is",
        ) from error


def _create(path: Path, content: bytes) -> None:
    """Write a file that appears whole, or not at all if another process was first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            path.hardlink_to(temporary)  # unlike a rename, this refuses to replace
    finally:
        temporary.unlink()
