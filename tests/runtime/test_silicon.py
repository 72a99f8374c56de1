"""What a kernel tells of its processor, read from made-up systems: identity, instruction sets, clusters, quota."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevit_runtime import cgroup, silicon
from edgevit_runtime.record import CoreCluster
from edgevit_runtime.system_files import RootFiles, cores

ZEN3 = """processor\t: {}
vendor_id\t: AuthenticAMD
cpu family\t: 25
model\t\t: 1
model name\t: AMD EPYC
stepping\t: 1
flags\t\t: fpu sse4_1 avx f16c fma avx2 rdseed {}
"""
ARM = """processor\t: {}
BogoMIPS\t: 108.00
Features\t: fp asimd asimdhp asimddp {}
CPU implementer\t: 0x41
CPU part\t: {}

"""
OLD_ARM = """processor\t: 0
processor\t: 1
Features\t: half neon vfpv4
CPU implementer\t: 0x41
CPU part\t: 0xc07
Hardware\t: BCM2835
"""
CPU = "sys/devices/system/cpu"


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_a_virtual_machine_tells_its_generation_by_numbers(tmp_path: Path) -> None:
    cpuinfo = ZEN3.format(0, "hypervisor") + "\n" + ZEN3.format(1, "hypervisor")
    cache = f"{CPU}/cpu0/cache/index0"
    files = {"proc/cpuinfo": cpuinfo, f"{cache}/level": "2\n", f"{cache}/type": "Unified\n", f"{cache}/size": "512K\n"}
    found = silicon.read(write(tmp_path, files))
    assert found is not None
    assert (found.vendor, found.family, found.model, found.stepping) == ("AuthenticAMD", 25, 1, 1)
    assert found.instruction_sets == ("sse4_1", "avx", "f16c", "fma", "avx2")
    assert found.clusters == (CoreCluster(2, "", None, (("L2", 512 << 10),)),)
    assert (found.hypervisor, found.quota_cores) == ("unknown", None)
    write(tmp_path, {"sys/class/dmi/id/sys_vendor": "Amazon EC2\n"})
    named = silicon.read(tmp_path)
    assert named is not None and named.hypervisor == "Amazon EC2"


def test_a_set_counts_only_where_every_core_has_it(tmp_path: Path) -> None:
    found = silicon.read(write(tmp_path, {"proc/cpuinfo": ZEN3.format(0, "avx512f") + ZEN3.format(1, "")}))
    assert found is not None and "avx512f" not in found.instruction_sets and "avx2" in found.instruction_sets


def test_clusters_of_a_phone_are_told_apart(tmp_path: Path) -> None:
    parts = ["0xd05"] * 4 + ["0xd41"] * 3 + ["0xd44"]
    cpuinfo = "".join(ARM.format(core, "i8mm" * (core > 3), part) for core, part in enumerate(parts))
    clocks = {f"{CPU}/cpu{core}/cpufreq/cpuinfo_max_freq": f"{1_800_000 + 600_000 * (core > 3)}\n" for core in range(8)}
    found = silicon.of_files(RootFiles(write(tmp_path, {"proc/cpuinfo": cpuinfo, **clocks})))
    assert found is not None
    assert [(one.cores, one.part, one.max_khz) for one in found.clusters] == [
        (4, "0x41:0xd05", 1_800_000), (3, "0x41:0xd41", 2_400_000), (1, "0x41:0xd44", 2_400_000),
    ]  # fmt: skip
    assert found.instruction_sets == ("asimd", "asimdhp", "asimddp"), "i8mm is not on the small cores"
    assert found.vendor == "0x41" and found.family is None


def test_an_old_kernel_tells_what_its_cores_share_once(tmp_path: Path) -> None:
    found = silicon.of_files(RootFiles(write(tmp_path, {"proc/cpuinfo": OLD_ARM})))
    assert found is not None
    assert found.instruction_sets == ("neon", "vfpv4")
    assert [(one.cores, one.part) for one in found.clusters] == [(2, "0x41:0xc07")]


def test_two_kinds_of_core_of_one_x86_processor(tmp_path: Path) -> None:
    cpuinfo = "\n".join(ZEN3.format(core, "") for core in range(4))
    found = silicon.read(write(tmp_path, {"proc/cpuinfo": cpuinfo, "sys/devices/cpu_atom/cpus": "2-3\n"}))
    assert found is not None
    assert [(one.cores, one.part) for one in found.clusters] == [(2, ""), (2, "small")]


def test_riscv_has_one_word_of_letters(tmp_path: Path) -> None:
    block = "processor\t: 0\nisa\t\t: rv64imafdcv_zicbom_zba_zvfh\nuarch\t\t: spacemit,x60\n"
    found = silicon.of_files(RootFiles(write(tmp_path, {"proc/cpuinfo": block})))
    assert found is not None and (found.instruction_sets, found.vendor) == (("v", "zvfh", "zba"), "spacemit,x60")


def test_nothing_is_read_of_the_machine_around_an_emulated_one(tmp_path: Path) -> None:
    write(tmp_path, {"proc/cpuinfo": ZEN3.format(0, "").replace("AMD EPYC", "QEMU TCG CPU version 2.5+")})
    assert silicon.read(tmp_path) is None
    assert silicon.read(tmp_path / "without") is None


def test_a_mac_tells_its_sets_under_other_names() -> None:
    values = {
        "machdep.cpu.brand_string": "Apple M2", "hw.optional.AdvSIMD": "1", "hw.optional.arm.FEAT_DotProd": "1",
        "hw.optional.arm.FEAT_I8MM": "1", "hw.optional.arm.FEAT_SME": "0", "hw.nperflevels": "2",
        "hw.perflevel0.logicalcpu": "4", "hw.perflevel0.l2cachesize": "16777216", "hw.perflevel1.logicalcpu": "4",
    }  # fmt: skip
    found = silicon._of_apple(values)
    assert found is not None
    assert (found.vendor, found.instruction_sets) == ("Apple", ("asimd", "asimddp", "i8mm"))
    assert [(one.cores, one.caches) for one in found.clusters] == [(4, (("L2", 16 << 20),)), (4, ())]
    assert silicon._of_apple({}) is None


V1 = "sys/fs/cgroup/cpu,cpuacct"
OUTER = {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "150000 100000\n"}
INNER = {
    "sys/fs/cgroup/a/b/cpu.max": "50000 100000\n",
    "sys/fs/cgroup/a/b/cpu.stat": "nr_periods 3\nthrottled_usec 7\n",
}
OLD = {
    "proc/self/cgroup": "4:cpu,cpuacct:/docker/x\n1:name=systemd:/\n", f"{V1}/cpu.cfs_quota_us": "200000\n",
    f"{V1}/cpu.cfs_period_us": "100000\n", f"{V1}/cpu.stat": "throttled_time 9000\n",
}  # fmt: skip
UNLIMITED = {"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/cpu.max": "max 100000\n"}


@pytest.mark.parametrize(
    ("files", "quota", "held_us"),
    [
        ({}, None, None),
        (OUTER, 1.5, None),
        (OUTER | INNER, 0.5, 7),
        (UNLIMITED, None, None),
        (OLD, 2.0, 9),
        (OLD | {f"{V1}/cpu.cfs_quota_us": "-1\n"}, None, 9),
    ],
)
def test_the_strictest_quota_counts(
    tmp_path: Path, files: dict[str, str], quota: float | None, held_us: int | None
) -> None:
    write(tmp_path, files)
    assert (cgroup.quota_cores(tmp_path), cgroup.throttled_us(tmp_path)) == (quota, held_us)


def test_lists_of_cores() -> None:
    assert cores("0-2,5\n") == (0, 1, 2, 5)
    assert [cores(text) for text in ("", "x", "1-", "-1", "1,,2")] == [()] * 5
