"""Devices by name: this machine, found by looking at it, and those that have a file.

A person's own devices have theirs in the user's configuration folder, where `edgevit devices add` writes them.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import os
import re
import secrets
import tomllib
from contextlib import suppress
from importlib.resources.abc import Traversable
from pathlib import Path

import platformdirs

from edgevit.errors import DeviceError, UnknownNameError
from edgevit.records.measurement import Device
from edgevit_runtime import environment, hardware
from edgevit_runtime.record import Host, RecordError, Reply, from_data

LOCAL = "local"
_GIB = 2**30
_SALT_BYTES = 32
_NOISE_WORDS = re.compile(r"\((r|tm|c)\)|@.*|\b(cpu|processor|with radeon.*|\d+-core)\b", re.IGNORECASE)


def local_device() -> Device:
    """This machine. Its id is a salted digest: it names this unit to whoever measured on it, and tells others nothing.

    Raises DeviceError if the salt cannot be kept.
    """
    host, emulated = environment.host(), hardware.emulated()
    return Device(
        name=LOCAL,
        device_id=unit_id(hardware.unit(), device_class(host, emulated)),
        device_class=device_class(host, emulated),
        transport="local",
        description=describe(host, emulated),
    )


def known_as(name: str, unit: str) -> str:
    """What a row's device is called here: `local` is this very unit, and rows travel with the names they were given."""
    return f"{LOCAL} elsewhere" if name == LOCAL and unit != local_device().device_id else name


def describe(host: Host, emulated: str = "") -> str:
    """A host in one line: `Cortex-A76, 4 cores, 8 GiB, Linux 6.6.1`."""
    processor = f"{host.machine} emulated by {emulated}" if emulated else host.cpu_model or host.machine
    memory = f", {host.memory_bytes / _GIB:.0f} GiB" if host.memory_bytes else ""
    return f"{processor}, {host.cores} cores{memory}, {host.system} {host.kernel}"


def device_class(host: Host, emulated: str = "") -> str:
    """What all units like this one share, and public: `x86_64-linux-amd-epyc-2c`."""
    model = f"emulated by {emulated}" if emulated else _NOISE_WORDS.sub(" ", host.cpu_model) or "unknown"
    return re.sub(r"[^a-z0-9_]+", "-", f"{host.machine} {host.system} {model} {host.cores}c".lower()).strip("-")


def device_id(unit: str, kind: str, salt: bytes) -> str:
    """sha256 of a unit's own number and its class. The class is in it: a virtual machine that comes back on another
    processor keeps its number and is another device.
    """
    return hashlib.sha256(salt + f"{unit}\0{kind}".encode()).hexdigest()


def unit_id(unit: str, kind: str) -> str:
    """The device_id by this user's salt, which stays here: a device sends its number, and gets no salt to hash it with.

    Raises DeviceError if the salt cannot be kept.
    """
    return device_id(unit, kind, _salt(platformdirs.user_data_path("edgevit")))


def require_same_unit(device: Device, reply: Reply) -> None:
    """Raise DeviceError where another unit answered than the one that has the name. A reply without a host passes."""
    if not device.device_id or reply.host is None:
        return
    kind = device_class(reply.host, reply.emulated)
    if unit_id(reply.unit, kind) != device.device_id:
        raise DeviceError(
            f"{device.name} is not the device it was",
            where=device.description,
            why=f"a {kind} answered, and is another unit" if kind == device.device_class else f"a {kind} answered",
            fix=f"edgevit devices remove {device.name}, then add it again; its earlier rows stay with the other unit",
        )


def list_devices() -> list[Device]:
    """This machine first, then those that have a file, by name. Raises DeviceError for a bad file."""
    return [local_device(), *(_read(file) for _, file in sorted(_files().items()))]


def load_device(name: str) -> Device:
    """The device of this name. Raises UnknownNameError, or DeviceError if its file is bad."""
    if name == LOCAL:
        return local_device()
    if name not in (files := _files()):
        raise UnknownNameError("device", name, [LOCAL, *files], listing="edgevit devices")
    return _read(files[name])


def _files() -> dict[str, Traversable]:
    """Name -> file; a user's own device is the one meant by its name."""
    shipped = importlib.resources.files("edgevit.latency_db") / "devices"
    folders: list[Traversable] = [folder for folder in (shipped, user_folder()) if folder.is_dir()]
    return {
        item.name.removesuffix(".toml"): item
        for folder in folders
        for item in folder.iterdir()
        if item.name.endswith(".toml") and not item.name.startswith(".")
    }


def user_folder() -> Path:
    """Where this user's own devices have their files."""
    return platformdirs.user_config_path("edgevit") / "devices"


def _read(file: Traversable) -> Device:
    """A device's file holds the fields of Device but for the name, which is the file's own."""
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
        return from_data(Device, {**data, "name": file.name.removesuffix(".toml")})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecordError) as error:
        raise DeviceError("a device's file cannot be read", where=str(file), why=str(error)) from error


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
