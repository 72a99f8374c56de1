"""Devices: what this machine is called, and what a file says of another."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from edgevit.devices import registry
from edgevit.devices.registry import (
    device_class,
    device_id,
    list_devices,
    load_device,
    local_device,
    reached_as,
    require_same_unit,
    unit_id,
)
from edgevit.devices.transports import list_transports
from edgevit.errors import DeviceError, UnknownNameError
from edgevit.records.measurement import Device
from edgevit_runtime.environment import host
from edgevit_runtime.record import CoreCluster, Host, Reply, Silicon

AVX2 = ("sse4_1", "avx", "f16c", "fma", "avx2")
ZEN4 = (
    *AVX2, "gfni", "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512vbmi",
    "avx512_bf16",
)  # fmt: skip
ZEN3 = Host("x86_64", "Linux", "6.1", "3.11.7", "AMD EPYC", 2, 8 << 30, Silicon("AuthenticAMD", 25, 1, 1, AVX2, (), ""))
EPYC_OF_ZEN4 = Silicon("AuthenticAMD", 25, 17, 1, ZEN4, (), "")
A72 = Silicon("0x41", None, None, None, ("asimd",), (CoreCluster(4, "0x41:0xd08", 1_500_000, ()),), "")
BOARD = """
device_id = "3f"
device_class = "aarch64-linux-raspberry-pi-5-4c"
transport = "ssh"
compute_units = ["cpu"]
options = {host = "pi.local"}
"""


@pytest.fixture(autouse=True)
def own_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_data_path", lambda name: tmp_path / "data" / name)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    paths: dict[str, Path] = {}
    monkeypatch.setattr(registry, "_files", lambda: paths)

    def write(name: str, text: str) -> None:
        paths[name] = tmp_path / f"{name}.toml"
        paths[name].write_text(text)

    return write


def test_local_device_is_the_same_each_time(tmp_path: Path) -> None:
    first = local_device()
    assert first == local_device() == load_device("local")
    assert first.transport in list_transports()
    assert len(first.device_id) == 64
    (salt,) = (tmp_path / "data/edgevit").iterdir()
    assert salt.stat().st_mode & 0o777 == 0o600
    salt.unlink()
    assert local_device().device_id != first.device_id, "the id says nothing without the salt"


def test_another_processor_is_another_device() -> None:
    hosts = (ZEN3, dataclasses.replace(ZEN3, silicon=EPYC_OF_ZEN4), dataclasses.replace(ZEN3, cores=4))
    ids = {device_id(unit, host, "", salt) for unit in ("u", "v") for host in hosts for salt in (b"s", b"t")}
    assert len(ids) == 12
    slower = dataclasses.replace(EPYC_OF_ZEN4, quota_cores=0.5, hypervisor="KVM", clusters=())
    clocked = dataclasses.replace(slower, clusters=(CoreCluster(2, "", 3_700_000, (("L2", 1 << 20),)),))
    first, second = (device_id("u", dataclasses.replace(ZEN3, silicon=one), "", b"s") for one in (slower, clocked))
    assert first != second, "the number of its cores"
    more = dataclasses.replace(clocked, clusters=(CoreCluster(2, "", None, ()),), quota_cores=None, hypervisor="")
    assert device_id("u", dataclasses.replace(ZEN3, silicon=more), "", b"s") == second, "what a driver tells later"


def test_salt_is_made_once(tmp_path: Path) -> None:
    ready, salts = threading.Barrier(8), []

    def make() -> None:
        ready.wait()
        salts.append(registry._salt(tmp_path / "new"))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(salts) == 8
    assert len(set(salts)) == 1
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["device-salt"]


def test_salt_that_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DeviceError, match="XDG_DATA_HOME"):
        registry._salt(tmp_path / "file/folder")


@pytest.mark.parametrize(
    ("machine", "model", "silicon", "expected"),
    [
        ("x86_64", "AMD EPYC", ZEN3.silicon, "x86_64-zen3-avx2-2c"),
        ("x86_64", "AMD EPYC", EPYC_OF_ZEN4, "x86_64-zen4-avx512bf16-2c"),
        ("x86_64", "AMD EPYC", None, "x86_64-amd-epyc-2c-unknown-silicon"),
        ("x86_64", "AMD Ryzen 7 PRO 5850U with Radeon Graphics", ZEN3.silicon,
         "x86_64-amd-ryzen-7-pro-5850u-zen3-avx2-2c"),
        ("aarch64", "Raspberry Pi 4 Model B Rev 1.4", A72, "aarch64-raspberry-pi-4-model-b-rev-1-4-cortex-a72-neon-2c"),
        ("riscv64", "", None, "riscv64-2c-unknown-silicon"),
    ],
)  # fmt: skip
def test_device_class(machine: str, model: str, silicon: Silicon | None, expected: str) -> None:
    board = dataclasses.replace(
        host(), machine=machine, system="Linux", cpu_model=model, cores=2, silicon=silicon
    )  # fmt: skip
    assert device_class(board) == expected
    assert device_class(dataclasses.replace(board, system="Android")) != expected


def test_device_of_the_database(files: Callable[[str, str], None]) -> None:
    files("pi5", BOARD)
    device = load_device("pi5")
    assert (device.name, device.transport, device.options) == ("pi5", "ssh", {"host": "pi.local"})
    assert [device.name for device in list_devices()] == ["local", "pi5"]


def test_a_users_own_device_is_the_one_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platformdirs.user_config_path", lambda name: tmp_path / "config" / name)
    assert [device.name for device in list_devices()] == ["local"]
    folder = tmp_path / "config/edgevit/devices"
    folder.mkdir(parents=True)
    (folder / "mine.toml").write_text(BOARD)
    (folder / ".half.toml").write_text("half a file")
    assert [device.name for device in list_devices()] == ["local", "mine"]
    assert load_device("mine").options == {"host": "pi.local"}


def test_emulation_is_a_class_of_its_own() -> None:
    board = dataclasses.replace(host(), machine="aarch64", system="Linux", cpu_model="AMD EPYC", cores=2)
    assert device_class(board, "qemu-aarch64") == "aarch64-emulated-by-qemu-aarch64-2c"


def test_another_unit_behind_a_name_is_noticed() -> None:
    device = Device("pi5", unit_id("serial 1", host()), device_class(host()), "ssh", description="a Pi")
    reply = Reply("ok", host=host(), unit="serial 1")
    require_same_unit(device, reply)
    require_same_unit(device, Reply("crashed"))
    older = dataclasses.replace(host(), silicon=ZEN3.silicon)
    others = ({"unit": "serial 2"}, {"emulated": "qemu"}, {"host": older})
    for other in (dataclasses.replace(reply, **changed) for changed in others):
        with pytest.raises(DeviceError, match="pi5 is not the device it was"):
            require_same_unit(device, other)


@pytest.mark.parametrize("text", ["device_id = ", 'device_id = "3f"', BOARD + "speed = 3"])
def test_bad_file_says_which(files: Callable[[str, str], None], text: str) -> None:
    files("pi5", text)
    with pytest.raises(DeviceError, match=r"pi5\.toml"):
        load_device("pi5")
    assert load_device("local")


def test_unknown_device(files: Callable[[str, str], None]) -> None:
    files("pi5", BOARD)
    with pytest.raises(UnknownNameError, match="did you mean local"):
        load_device("locla")


def test_every_shipped_device_can_be_read() -> None:
    assert {device.transport for device in list_devices()} <= set(list_transports())


def test_a_device_is_reached_by_its_class_only_where_no_other_unit_has_it(files: Callable[[str, str], None]) -> None:
    files("pi", BOARD)
    assert [reached_as(name) for name in ("pi", "3f", "aarch64-linux-raspberry-pi-5-4c", "pixel")] == ["pi"] * 3 + [""]
    files("pi2", BOARD.replace("3f", "4a"))
    assert [reached_as(name) for name in ("pi2", "3f", "aarch64-linux-raspberry-pi-5-4c")] == ["pi2", "pi", ""]
