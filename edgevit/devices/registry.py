"""Registry of devices by name: this machine, which is detected, and devices described by a file.

The files of a person's own devices are in the user's configuration folder, where `edgevit devices add` writes them.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import logging
import re
import secrets
import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path

import platformdirs

from edgevit.concurrency.created_once import read_or_create
from edgevit.devices.silicon_names import silicon_name
from edgevit.errors import DeviceError, UnknownNameError
from edgevit.records.measurement import UNKNOWN_SILICON, Device
from edgevit_runtime import emulation, environment, hardware
from edgevit_runtime.codec import RecordError, from_data, to_json
from edgevit_runtime.record import Host, Reply

_LOG = logging.getLogger(__name__)
LOCAL = "local"
_GIB = 2**30
_SALT_BYTES = 32
_NOISE_WORDS = re.compile(r"\((r|tm|c)\)|@.*|\b(cpu|processor|with radeon.*|\d+-core)\b", re.IGNORECASE)


def local_device() -> Device:
    """Return this machine as a device.

    Its id is a salted digest: it identifies the unit to its own user and reveals nothing to others. Raises DeviceError
    if the salt cannot be stored.
    """
    host, emulated = environment.host(), emulation.emulated()
    return Device(
        name=LOCAL,
        device_id=unit_id(hardware.unit(), host, emulated),
        device_class=device_class(host, emulated),
        transport="local",
        description=describe(host, emulated),
    )


def display_name(name: str, unit: str) -> str:
    """Return the name of a row's device on this machine. Rows keep their names on other machines, also `local`."""
    return f"{LOCAL} elsewhere" if name == LOCAL and unit != local_device().device_id else name


def describe(host: Host, emulated: str = "") -> str:
    """Describe a host in one line: `Cortex-A76, 4 cores, 8 GiB, Linux 6.6.1`."""
    processor = f"{host.machine} emulated by {emulated}" if emulated else host.cpu_model or host.machine
    memory = f", {host.memory_bytes / _GIB:.0f} GiB" if host.memory_bytes else ""
    return f"{processor}, {host.cores} cores{memory}, {host.system} {host.kernel}"


def device_class(host: Host, emulated: str = "") -> str:
    """Return the public name that all units like this one share: `x86_64-zen3-avx2-2c`.

    The processor's model name is in it where that names one product: a virtual machine's `AMD EPYC` does not.
    """
    if emulated:
        names = [f"emulated by {emulated}"]
    else:
        model = _NOISE_WORDS.sub(" ", host.cpu_model)
        is_product = re.search(r"\d", model) and not model.startswith("QEMU")
        names = [model if is_product or not host.silicon else "", silicon_name(host.silicon) if host.silicon else ""]
    system = "" if host.system == "Linux" else host.system
    end = "" if host.silicon or emulated else UNKNOWN_SILICON
    words = " ".join([host.machine, system, *names, f"{host.cores}c", end])
    return re.sub(r"[^a-z0-9_]+", "-", words.lower()).strip("-")


def device_id(unit: str, host: Host, emulated: str, salt: bytes) -> str:
    """Return the sha256 of a unit's own number and of what it computes with.

    A virtual machine keeps its number when it restarts on another processor, and is another device then. Names are not
    in the digest: a better name for the same silicon changes no id.
    """
    kind = [host.machine, host.system, host.cpu_model, host.cores, emulated]
    # Its clocks and caches are not: a driver that is loaded later tells them.
    if silicon := host.silicon:
        parts = [(cluster.cores, cluster.part) for cluster in silicon.clusters]
        kind += [silicon.vendor, silicon.family, silicon.model, silicon.instruction_sets, parts]
    return hashlib.sha256(salt + f"{unit}\0{to_json(kind)}".encode()).hexdigest()


def unit_id(unit: str, host: Host, emulated: str = "") -> str:
    """Return the device_id under this user's salt.

    The salt stays on this machine: a device sends its number and never gets the salt. Raises DeviceError if the salt
    cannot be stored.
    """
    return device_id(unit, host, emulated, _salt(platformdirs.user_data_path("edgevit")))


def require_same_unit(device: Device, reply: Reply) -> None:
    """Raise DeviceError unless the named unit answered. A reply without a host passes."""
    if not device.device_id or reply.host is None:
        return
    kind = device_class(reply.host, reply.emulated)
    if unit_id(reply.unit, reply.host, reply.emulated) != device.device_id:
        raise DeviceError(
            f"{device.name} is not the device it was",
            where=device.description,
            why=f"a {kind} answered, and is another unit" if kind == device.device_class else f"a {kind} answered",
            fix=f"edgevit devices remove {device.name}, then add it again; its earlier rows stay with the other unit",
        )


def list_devices() -> list[Device]:
    """Return this machine first, then the devices whose files can be read, by name."""
    devices, errors = read_devices()
    for error in errors:
        _LOG.warning("%s is left out: %s: %s", error.where, error.what, error.why)
    return devices


def read_devices() -> tuple[list[Device], list[DeviceError]]:
    """Return this machine and the devices with a file, by name, and why other files cannot be read."""
    devices, errors = [local_device()], list[DeviceError]()
    for _, file in sorted(_files().items()):
        try:
            devices.append(read_device(file))
        except DeviceError as error:
            errors.append(error)
    return devices, errors


def reached_as(device: str) -> str:
    """Return the name by which this machine reaches a device (its name, device_id or class); empty where it does not.

    Several units of a class have no name in common.
    """
    devices = list_devices()
    exact = [one.name for one in devices if device in (one.name, one.device_id)]
    of_class = [one.name for one in devices if one.device_class == device]
    return exact[0] if exact else of_class[0] if len(of_class) == 1 else ""


def load_device(name: str) -> Device:
    """Return the device of this name. Raises UnknownNameError, or DeviceError if its file is bad."""
    if name == LOCAL:
        return local_device()
    if name not in (files := _files()):
        raise UnknownNameError("device", name, [LOCAL, *files], listing="edgevit devices")
    return read_device(files[name])


def _files() -> dict[str, Traversable]:
    """Return the file of each device by name. A user's own device takes precedence over a shipped one."""
    shipped = importlib.resources.files("edgevit.latency_db") / "devices"
    folders: list[Traversable] = [folder for folder in (shipped, user_folder()) if folder.is_dir()]
    return {
        file.name.removesuffix(".toml"): file
        for folder in folders
        for file in folder.iterdir()
        if file.name.endswith(".toml") and not file.name.startswith(".")
    }


def user_folder() -> Path:
    """Return the folder with the files of this user's own devices."""
    return platformdirs.user_config_path("edgevit") / "devices"


def read_device(file: Traversable) -> Device:
    """Read a device's file, which contains the fields of Device except the name; the file's stem is the name.

    Raises DeviceError for a file that cannot be read, or that describes no device.
    """
    name = file.name.removesuffix(".toml")
    try:
        # An editor of Windows begins a file with a mark.
        data = tomllib.loads(file.read_text(encoding="utf-8-sig"))
        device = from_data(Device, {**data, "name": name})
        _require_possible(device)
    # ValueError: text that is not TOML or not UTF-8, a field that a device has not, integers of thousands of digits
    except (OSError, ValueError) as error:
        raise _unreadable(file, str(error)) from error
    except RecursionError:
        raise _unreadable(file, "its values are nested too deep") from None
    return device


def _unreadable(file: Traversable, why: str) -> DeviceError:
    name = file.name.removesuffix(".toml")
    fix = f"make it readable and correct it, or edgevit devices remove {name} and add it again"
    return DeviceError("a device's file cannot be read", where=str(file), why=why, fix=fix)


def _require_possible(device: Device) -> None:
    """Raise RecordError for a device that nothing can be measured on."""
    for field in ("device_id", "device_class", "transport"):
        if not getattr(device, field).strip():
            raise RecordError(f"its {field} is empty")
    if not device.compute_units or not all(unit.strip() for unit in device.compute_units):
        raise RecordError(f"its compute_units are {list(device.compute_units)}, and a row names the first")


def _salt(folder: Path) -> bytes:
    """Return the salt of this user's devices, created on first use. Concurrent processes agree on one salt."""
    path = folder / "device-salt"
    try:
        return read_or_create(path, lambda: secrets.token_bytes(_SALT_BYTES))
    except OSError as error:
        raise DeviceError(
            "this machine's identity cannot be kept",
            where=str(path),
            why=str(error.strerror),
            fix="make the folder writable, or set XDG_DATA_HOME to one that is",
        ) from error
