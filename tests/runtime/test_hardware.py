"""What a device says of itself, read from made-up systems; what they do not tell stays open."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from edgevit_runtime import hardware
from edgevit_runtime.emulation import emulated
from edgevit_runtime.record import DeviceInventory

X86 = "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC\n"
ARM = "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n"


class System:
    """The files of a temporary system: calling it writes one, and `link` makes a link."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, name: str, text: str = "") -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def link(self, name: str, target: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).symlink_to(target)


@pytest.fixture
def system(tmp_path: Path) -> System:
    return System(tmp_path)


def test_unit_prefers_what_the_hardware_says(tmp_path: Path, system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uuid.getnode", lambda: 0x0223456789AB)
    assert hardware.unit(tmp_path) == "0223456789ab"
    monkeypatch.setattr("uuid.getnode", lambda: 0x0223456789AB | 1 << 40)
    assert hardware.unit(tmp_path) == "", "a random number is not an identity"
    for name, text in (("etc/machine-id", "installation\n"), ("proc/device-tree/serial-number", "serial\0")):
        system(name, text)
        assert hardware.unit(tmp_path) == text.strip("\0\n")


def test_two_boards_from_one_disk_are_told_apart(tmp_path: Path, system: System) -> None:
    """Cloned cards have one machine-id; what is on the board differs, and what is on USB or virtual does not count."""
    system("etc/machine-id", "cloned\n")
    assert (hardware.unit(tmp_path), hardware.is_clonable(tmp_path)) == ("cloned", True)
    for name, place, kind, address in (
        ("wlan0", "devices/usb1/wlan0", "0", "aa:00"), ("veth0", "devices/virtual/veth0", "3", "aa:01"),
        ("eth0", "devices/platform/fd580000.ethernet", "0", "aa:02"),
    ):  # fmt: skip
        (tmp_path / "sys" / place).mkdir(parents=True)
        system(f"sys/class/net/{name}/address", address + "\n")
        system(f"sys/class/net/{name}/addr_assign_type", kind + "\n")
        system.link(f"sys/class/net/{name}/device", f"../../../{place}")
    assert (hardware.unit(tmp_path), hardware.is_clonable(tmp_path)) == ("cloned aa:02", False)
    system("proc/cpuinfo", X86 + "flags\t: fpu hypervisor\n")
    assert (hardware.unit(tmp_path), hardware.is_clonable(tmp_path)) == ("cloned", True), "its card is the host's"
    system("sys/devices/soc0/serial_number", "0x1234\n")
    assert (hardware.unit(tmp_path), hardware.is_clonable(tmp_path)) == ("0x1234", False)


@pytest.mark.parametrize(
    ("machine", "cpuinfo", "exe", "expected"),
    [
        ("x86_64", X86, "/usr/bin/python3.11", ""),
        ("aarch64", ARM, "/usr/bin/python3.11", ""),
        ("aarch64", "", "/usr/bin/python3.11", ""),
        ("aarch64", ARM, "/usr/bin/qemu-aarch64-static", "qemu-aarch64"),
        ("aarch64", X86, "/usr/libexec/qemu-binfmt/aarch64", "unknown"),
        ("x86_64", ARM, "/usr/bin/python3.11", "unknown"),
        ("x86_64", X86.replace("AMD EPYC", "QEMU TCG CPU version 2.5+"), "/usr/bin/python3.11", "qemu"),
    ],
)
def test_emulation_is_seen(tmp_path: Path, system: System, machine: str, cpuinfo: str, exe: str, expected: str) -> None:
    system("proc/cpuinfo", cpuinfo)
    system.link("proc/thread-self/exe", exe)
    assert emulated(tmp_path, machine) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="not Linux")
def test_this_machine_is_real() -> None:
    assert emulated() == ""


@pytest.mark.skipif(platform.system() != "Linux", reason="not Linux")
def test_what_a_board_tells(tmp_path: Path, system: System) -> None:
    system("etc/os-release", 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n')
    system("proc/device-tree/model", "Raspberry Pi 5 Model B Rev 1.0\0")
    for core in range(4):
        system(
            f"sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list", f"{core // 2 * 2}-{core // 2 * 2 + 1}\n"
        )
    system("dev/hailo0")
    system("proc/driver/nvidia/gpus/0000:01:00.0/information", "Model: \t\t NVIDIA T4\nIRQ: 1\n")
    system.link("sys/class/drm/renderD128/device/driver", "../../bus/v3d")
    assert hardware.detect(["pytest", "no-such-engine"], tmp_path) == DeviceInventory(
        os="Debian GNU/Linux 12 (bookworm)",
        board="Raspberry Pi 5 Model B Rev 1.0",
        physical_cores=2,
        accelerators=("NVIDIA T4", "Hailo", "GPU, driver v3d"),
        engines={"pytest": pytest.__version__},
    )
    system.link("proc/thread-self/exe", "/usr/bin/qemu-aarch64-static")
    inventory = hardware.detect([], tmp_path)
    assert (inventory.board, inventory.accelerators) == (None, ()), "that is the machine around it"
    assert inventory.os == "Debian GNU/Linux 12 (bookworm)"


@pytest.mark.skipif(platform.system() != "Linux", reason="not Linux")
def test_what_nobody_tells_is_open(tmp_path: Path) -> None:
    assert hardware.detect([], Path(tmp_path)) == DeviceInventory(None, None, None, (), {})
