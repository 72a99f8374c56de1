"""Enrolment of a person's own devices: detect over the transport, store as a file, show, remove."""

from __future__ import annotations

import json
import os
import re
import secrets
import tomllib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from edgevit.concurrency.scratch import scratch_folder
from edgevit.devices.registry import LOCAL, describe, device_class, list_devices, load_device, unit_id, user_folder
from edgevit.devices.silicon_names import microarchitecture
from edgevit.devices.transports import WORKER, load_transport
from edgevit.devices.worker_archive import pack_recipe
from edgevit.errors import DeviceError, UnknownNameError, UsageError
from edgevit.recipes import list_recipes
from edgevit.records.measurement import Device
from edgevit_runtime.codec import to_data
from edgevit_runtime.record import CoreCluster, DeviceInventory, Host, Job, Reply, Silicon

_TIMEOUT_S = 120.0  # to start Python once; a board of one slow core takes seconds
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")  # also the name of a file
_KHZ = 1_000_000  # of a GHz
_CLONABLE = " (by its installation alone: a copy of its disk passes for it)"
_SIZES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "bytes"))


@dataclass(frozen=True)
class DetectedDevice:
    """A device with the host, hardware and software that its transport detected."""

    device: Device
    host: Host
    detected: DeviceInventory
    emulated: str
    clonable_unit: bool = False  # a copy of its disk would pass for it
    also_named: tuple[str, ...] = ()  # other devices here that have this device_id

    def facts(self) -> list[tuple[str, str]]:
        """Return (property, value) of each detected property, in the order of a listing."""
        host, inventory = self.host, self.detected
        cores = str(host.cores) + (f" ({inventory.physical_cores} physical)" if inventory.physical_cores else "")
        properties = {
            "class": self.device.device_class,
            "unit": self.device.device_id[:12] + (_CLONABLE if self.clonable_unit else ""),
            "board": inventory.board,
            "processor": f"{host.machine}, emulated by {self.emulated}" if self.emulated else host.cpu_model,
            "cores": cores,
            **_silicon_facts(host.silicon),
            "memory": _bytes(host.memory_bytes) if host.memory_bytes else None,
            "system": ", ".join(filter(None, (inventory.os, f"{host.system} {host.kernel}", host.machine))),
            "accelerators": ", ".join(inventory.accelerators),
            "python": host.python,
            "engines": ", ".join(f"{name} {version}" for name, version in inventory.engines.items()) or "none",
        }
        return [(name, value) for name, value in properties.items() if value]


def _silicon_facts(silicon: Silicon | None) -> dict[str, str]:
    """Return what is known of a processor, in the words of a listing."""
    if silicon is None:
        return {}
    numbers = {"family": silicon.family, "model": silicon.model, "stepping": silicon.stepping}
    told = [f"{name} {number}" for name, number in numbers.items() if number is not None]
    quota = "" if silicon.quota_cores is None else f"{silicon.quota_cores:g} cores by a control group"
    return {
        "silicon": ", ".join(filter(None, [microarchitecture(silicon) or "not in the table", silicon.vendor, *told])),
        "instruction sets": " ".join(silicon.instruction_sets),
        "clusters": "; ".join(map(_cluster, silicon.clusters)),
        "hypervisor": silicon.hypervisor,
        "quota": quota,
    }


def _cluster(cluster: CoreCluster) -> str:
    clock = [f"{cluster.max_khz / _KHZ:.3g} GHz at most"] if cluster.max_khz else []
    sizes = [f"{name} {_bytes(size)}" for name, size in cluster.caches]
    return ", ".join([f"{cluster.cores} cores{f' of {cluster.part}' if cluster.part else ''}", *clock, *sizes])


def detect(device: Device) -> DetectedDevice:
    """Detect a device's hardware and engines, and fill in its id and class. Raises DeviceError without an answer."""
    names = dict.fromkeys(name for recipe in list_recipes() for name in (recipe.engine, *recipe.engine_choices))
    job = Job("detect", "", "", "", "", 1, engines=tuple(names))
    with scratch_folder() as folder:
        files = {WORKER: pack_recipe(None, Path(folder) / WORKER)}
        reply = load_transport(device.transport).run(device, files, job, timeout_s=_TIMEOUT_S)
    return _detected_device(device, reply)


def _detected_device(device: Device, reply: Reply) -> DetectedDevice:
    if reply.host is None or reply.detected is None:
        why = f"{reply.status}: {reply.error}"
        raise DeviceError("the device was not detected", where=device.name, why=why)
    kind = device_class(reply.host, reply.emulated)
    identified = Device(
        name=device.name,
        device_id=unit_id(reply.unit, reply.host, reply.emulated),
        device_class=kind,
        transport=device.transport,
        compute_units=device.compute_units,
        description=describe(reply.host, reply.emulated),
        options=device.options,
    )
    return DetectedDevice(identified, reply.host, reply.detected, reply.emulated, reply.clonable_unit)


def add(name: str, transport: str, options: Mapping[str, str]) -> DetectedDevice:
    """Detect a new device and store it under this name. Nothing is stored if it cannot be reached.

    Raises UsageError for an invalid or existing name, UnknownNameError for an unknown transport, DeviceError.
    """
    load_transport(transport)
    if not _NAME.fullmatch(name) or name == LOCAL:
        why = "a name has letters, digits, `.`, `_` and `-`, begins with a letter or digit, and is not `local`"
        raise UsageError(f"{name!r} cannot be the name of a device", why=why)
    path = user_folder() / f"{name}.toml"
    if path.exists():
        raise UsageError(f"there is a device {name}", where=str(path), fix=f"edgevit devices remove {name}")
    enrolled = detect(Device(name, "", "", transport, options=dict(options)))
    others = [device.name for device in list_devices() if device.device_id == enrolled.device.device_id]
    _write(path, to_toml(enrolled.device))
    return replace(enrolled, also_named=tuple(others))


def show(name: str) -> DetectedDevice:
    """Detect a device again by its name. Raises UnknownNameError, DeviceError."""
    return detect(load_device(name))


def remove(name: str) -> Path:
    """Remove a device of the user; its rows stay. Raises UnknownNameError, DeviceError."""
    path = user_folder() / f"{name}.toml"
    enrolled = [file.stem for file in user_folder().glob("[!.]*.toml")]
    if name not in enrolled:
        raise UnknownNameError("device of yours", name, enrolled or ["none yet"], listing="edgevit devices")
    try:
        path.unlink()
    except OSError as error:
        raise DeviceError("the device's file cannot be removed", where=str(path), why=str(error.strerror)) from error
    return path


def to_toml(device: Device) -> str:
    """Return the content of a device's file: its fields except the name, which is the file's stem."""
    data = {name: value for name, value in to_data(device).items() if name != "name"}
    options = data.pop("options")
    lines = [f"{name} = {_value(value)}" for name, value in data.items()]
    lines += ["", "[options]", *(f"{name} = {_value(value)}" for name, value in options.items())]
    text = "\n".join(lines) + "\n"
    assert tomllib.loads(text) == {**data, "options": options}
    return text


def _value(value: str | Iterable[str]) -> str:
    # JSON's strings are TOML's, except that TOML requires DEL to be escaped.
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return f"[{', '.join(map(_value, value))}]"


def _write(path: Path, text: str) -> None:
    """Write under another name, sync and rename, so that a reader never sees part of a file."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        why = str(error.strerror)
        raise DeviceError("the device's file cannot be written", where=str(path), why=why) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _bytes(size: int) -> str:
    unit, name = next((unit, name) for unit, name in _SIZES if size >= unit)
    return f"{size / unit:.3g} {name}"
