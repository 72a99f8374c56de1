"""Properties and state of a phone, read from the output of its tools."""

from __future__ import annotations

import dataclasses

from edgevit.devices import android
from support.adbd import BATTERY, THERMAL

PRINTED = f"""\
aarch64
5.15.1-android
[ro.serialno]: []
[ro.boot.serialno]: [B00T]
[ro.board.platform]: [kona]
/proc/cpuinfo:processor\t: 0
/proc/cpuinfo:Hardware\t: Qualcomm Technologies, Inc SM8250
/proc/meminfo:MemTotal:        7700000 kB
/sys/devices/system/cpu/present:0-7
/sys/devices/system/cpu/cpu0/cache/index0/level:1
/sys/devices/system/cpu/cpu0/cache/index0/size:64K
/sys/devices/system/cpu/cpu0/cache/index0/type:Data
/proc/loadavg:1.25 0.50 0.25 1/900 1234
/proc/self/status:Cpus_allowed_list:\t0-3,6
/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor:schedutil
/sys/devices/system/cpu/cpu7/cpufreq/scaling_cur_freq:2841600
/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq:300000
/sys/class/thermal/thermal_zone0/type:battery
/sys/class/thermal/thermal_zone0/temp:90000
/sys/class/thermal/thermal_zone1/type:cpu-1-0-usr
/sys/class/thermal/thermal_zone1/temp:45600
/sys/class/thermal/thermal_zone2/type:cpu-1-1-usr
/sys/class/thermal/thermal_zone2/temp:-40000
/proc/stat:cpu  10 20 30 40 50 60 70 80 5 5
{BATTERY}{THERMAL}"""


def test_what_a_phone_tells_is_read() -> None:
    report = android.PhoneReport.of(PRINTED.replace("\n", "\r\n"))
    host, now = android.host(report), android.snapshot(report)
    assert (host.machine, host.kernel, host.cores, host.memory_bytes) == ("aarch64", "5.15.1-android", 8, 7_884_800_000)
    assert host.cpu_model == "Qualcomm Technologies, Inc SM8250" and android.unit(report) == "B00T"
    assert host.silicon is not None and host.silicon.clusters[0].caches == (("L1d", 65536),)
    assert (now.affinity, now.governor, now.frequency_khz, now.load_1min) == (
        (0, 1, 2, 3, 6),
        "schedutil",
        2841600,
        1.25,
    )
    assert (now.temperature_mc, now.power_source, now.throttled) == (45600, "mains", False)
    assert (now.steal_ticks, now.total_ticks, now.nominal_khz) == (80, 360, None)


def test_what_a_phone_does_not_tell_is_none() -> None:
    now = android.snapshot(android.PhoneReport.of("sh: dumpsys: not found\n"))
    assert dataclasses.astuple(now)[1:] == ((), *[None] * 12)
    hot = android.snapshot(android.PhoneReport.of(THERMAL.replace("Status: 0\nCached", "Status: 2\nCached")))
    assert (hot.throttled, hot.temperature_mc) == (True, 41500)
    assert android.snapshot(android.PhoneReport.of(BATTERY.replace("true", "false"))).power_source == "battery"
