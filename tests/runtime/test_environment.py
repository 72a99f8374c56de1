"""Environment and energy meters, read from temporary systems."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgevit_runtime import environment, power
from support.clocks import Clock
from support.speed import seconds

MS = 1_000_000


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_what_a_system_does_not_tell_is_none(tmp_path: Path) -> None:
    snapshot = environment.snapshot(tmp_path)
    readings = (
        snapshot.governor,
        snapshot.frequency_khz,
        snapshot.temperature_mc,
        snapshot.steal_ticks,
        snapshot.total_ticks,
    )
    assert readings == (None,) * 5
    assert snapshot.power_source is None


def test_sensor_that_is_off_is_not_a_temperature(tmp_path: Path) -> None:
    root = system(
        tmp_path, {"sys/class/thermal/thermal_zone0/temp": "-273000\n", "sys/class/thermal/cooling/temp": "9"}
    )
    assert environment.snapshot(root).temperature_mc is None


def test_snapshot_reads_a_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "affinity", lambda: (2, 3))
    cpu, supply = "sys/devices/system/cpu/cpu", "sys/class/power_supply"
    root = system(
        tmp_path,
        {
            f"{cpu}0/cpufreq/scaling_cur_freq": "9000000\n",  # not ours
            f"{cpu}2/cpufreq/scaling_cur_freq": "600000\n",
            f"{cpu}3/cpufreq/scaling_cur_freq": "1800000\n",
            f"{cpu}2/cpufreq/scaling_governor": "schedutil\n",
            f"{cpu}3/cpufreq/scaling_governor": "performance\n",
            "sys/class/thermal/thermal_zone1/temp": "48200\n",
            "sys/class/hwmon/hwmon0/name": "nvme\n",
            "sys/class/hwmon/hwmon0/temp1_input": "80000\n",
            "sys/class/hwmon/hwmon1/name": "k10temp\n",
            "sys/class/hwmon/hwmon1/temp1_input": "51000\n",
            "proc/stat": "cpu  100 1 20 300 5 0 2 42 7 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n",
            f"{supply}/BAT0/type": "Battery\n",
            f"{supply}/BAT0/status": "Discharging\n",
        },
    )
    snapshot = environment.snapshot(root)
    assert snapshot.affinity == (2, 3)
    assert snapshot.governor == "performance,schedutil"
    assert snapshot.frequency_khz == 1_800_000
    assert snapshot.temperature_mc == 51_000
    assert (snapshot.steal_ticks, snapshot.total_ticks) == (42, 470)
    assert snapshot.power_source == "battery"
    system(root, {f"{supply}/AC/type": "Mains\n", f"{supply}/AC/online": "1\n"})
    assert environment.snapshot(root).power_source == "mains"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            {"proc/cpuinfo": "processor\t: 0\nmodel name\t: AMD EPYC\n\nprocessor\t: 1\nmodel name\t: Other\n"},
            "AMD EPYC",
        ),
        ({"proc/cpuinfo": "CPU part\t: 0xd08\n", "proc/device-tree/model": "Raspberry Pi 4\0"}, "Raspberry Pi 4"),
        ({"proc/cpuinfo": "CPU implementer\t: 0x41\nCPU part\t: 0xd0b\n"}, "0x41 0xd0b"),
    ],
)
def test_cpu_model(tmp_path: Path, files: dict[str, str], expected: str) -> None:
    assert environment.host(system(tmp_path, files)).cpu_model == expected


def test_a_system_that_tells_of_throttling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "affinity", lambda: (0, 1))
    assert (environment.snapshot(tmp_path).throttled, environment.snapshot(tmp_path).throttle_events) == (None, None)
    cpu = "sys/devices/system/cpu/cpu"
    files = {f"{cpu}0/thermal_throttle/core_throttle_count": "3\n", f"{cpu}0/thermal_throttle/x": "9",
             f"{cpu}0/thermal_throttle/package_throttle_count": "2\n"}  # fmt: skip
    assert environment.snapshot(system(tmp_path / "intel", files)).throttle_events == 5
    for text, expected in (("0\n", False), ("50000\n", False), ("50005\n", True), ("0x4\n", True), ("?\n", None)):
        root = system(tmp_path / "pi", {environment._PI_FILE: text})
        assert environment.snapshot(root).throttled is expected, text


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"cpufreq/cpuinfo_max_freq": "1800000\n"}, 1_800_000),
        ({"cpufreq/cpuinfo_max_freq": "4500000\n", "acpi_cppc/nominal_freq": "2800\n"}, 2_800_000),
        (
            {
                "cpufreq/cpuinfo_max_freq": "4500000\n",
                "cpufreq/base_frequency": "2100000\n",
                "acpi_cppc/nominal_freq": "2800\n",
            },
            2_100_000,
        ),
    ],
)
def test_nominal_clock_is_no_boost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int | None
) -> None:
    monkeypatch.setattr(environment, "affinity", lambda: (1,))
    root = system(tmp_path, {f"sys/devices/system/cpu/cpu1/{name}": text for name, text in files.items()})
    assert environment.snapshot(root).nominal_khz == expected


# --- energy

RAPL = "sys/class/powercap/intel-rapl"


def test_no_meter_is_no_energy(tmp_path: Path) -> None:
    assert power.meter(tmp_path) is None
    psys = {f"{RAPL}:1/name": "psys", f"{RAPL}:1/energy_uj": "5"}
    cores = {f"{RAPL}:0:0/name": "core", f"{RAPL}:0:0/energy_uj": "5"}
    locked = {f"{RAPL}:0/name": "package-0"}  # energy_uj cannot be read
    assert power.meter(system(tmp_path, psys | cores | locked)) is None


def test_energy_of_all_packages_across_the_end_of_a_counter(tmp_path: Path) -> None:
    root = system(tmp_path, {
        f"{RAPL}:0/name": "package-0\n", f"{RAPL}:0/energy_uj": "1000000\n", f"{RAPL}:0/max_energy_range_uj": "9000000",
        f"{RAPL}:1/name": "package-1\n", f"{RAPL}:1/energy_uj": "8500000\n", f"{RAPL}:1/max_energy_range_uj": "9000000",
        f"{RAPL}:0:0/name": "core\n", f"{RAPL}:0:0/energy_uj": "1\n",
    })  # fmt: skip
    meter: Any = power.meter(root)
    meter.start()
    system(tmp_path, {f"{RAPL}:0/energy_uj": "1500000\n", f"{RAPL}:1/energy_uj": "250000\n"})
    assert meter.stop() == pytest.approx(0.5 + 0.75)
    (root / f"{RAPL}:0/energy_uj").unlink()
    assert meter.stop() is None, "half a machine is not a machine"


def test_power_of_a_jetson_is_added_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chip = "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
    root = system(tmp_path, {
        f"{chip}/in1_label": "VDD_IN\n", f"{chip}/in1_input": "5000\n", f"{chip}/curr1_input": "2000\n",
        f"{chip}/in2_label": "VDD_CPU_GPU_CV\n", f"{chip}/in2_input": "5000\n", f"{chip}/curr2_input": "900\n",
    })  # fmt: skip
    moments = Clock(())
    monkeypatch.setattr(power, "time", moments)
    meter: Any = power.meter(root)
    meter.start()
    moments.now = 50 * MS
    meter.tick()  # too early to ask again
    moments.now = 1_000 * MS
    system(tmp_path, {f"{chip}/curr1_input": "4000\n"})
    meter.tick()
    moments.now = 2_000 * MS
    assert meter.stop() == pytest.approx((10 + 20) / 2 * 1 + 20 * 1)


def test_peak_memory_is_this_process_own() -> None:
    big = bytearray(b"x" * 200_000_000)
    code = "from edgevit_runtime.environment import peak_rss_bytes as p; print(p())"
    child = int(
        subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=seconds(30)).stdout
    )
    peak = environment.peak_rss_bytes()
    assert peak is not None and len(big) < peak
    assert 1_000_000 < child < 100_000_000, "ru_maxrss would report the parent's peak"
