"""Names of silicon: generations by the kept table, and a digest wherever a machine has other instruction sets."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.devices import silicon_names
from edgevit.devices.silicon_names import microarchitecture, silicon_name
from edgevit_runtime.record import CoreCluster, Silicon
from edgevit_runtime.silicon import ARM_SETS, X86_SETS

BASE = ("sse4_1", "avx", "f16c", "fma", "avx2")
AVX512 = ("avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl")
ZEN5 = (*BASE, *AVX512, "avx512_vnni", "avx512vbmi", "gfni", "avx512_bf16", "avx_vnni")


def x86(vendor: str, family: int, model: int, stepping: int, sets: tuple[str, ...]) -> Silicon:
    return Silicon(vendor, family, model, stepping, sets, (CoreCluster(2, "", None, ()),), "")


def arm(sets: tuple[str, ...], *clusters: tuple[int, str]) -> Silicon:
    return Silicon("0x41", None, None, None, sets, tuple(CoreCluster(n, part, None, ()) for n, part in clusters), "")


@pytest.mark.parametrize(
    ("silicon", "expected"),
    [
        (x86("AuthenticAMD", 25, 1, 1, BASE), "zen3-avx2"),
        (x86("AuthenticAMD", 25, 0x61, 2, (*ZEN5[:-1],)), "zen4-avx512bf16"),
        (x86("AuthenticAMD", 26, 2, 1, ZEN5), "zen5-avx512bf16"),
        (x86("AuthenticAMD", 23, 0x71, 0, BASE), "zen2-avx2"),
        (x86("GenuineIntel", 6, 0x55, 4, (*BASE, *AVX512)), "skylake-avx512-avx512"),
        (x86("GenuineIntel", 6, 0x55, 7, (*BASE, *AVX512, "avx512_vnni")), "cascadelake-avx512vnni"),
        (x86("GenuineIntel", 6, 0x97, 2, (*BASE, "avx_vnni", "gfni")), "alderlake-avxvnni"),
        (arm(("asimd", "asimdhp", "asimddp"), (4, "0x41:0xd0b")), "cortex-a76-dotprod"),
        (arm(("asimd",), (4, "0x41:0xd08")), "cortex-a72-neon"),
        (
            arm(("asimd", "asimdhp", "asimddp"), (4, "0x41:0xd05"), (3, "0x41:0xd41"), (1, "0x41:0xd44")),
            "4x-cortex-a55-3x-cortex-a78-1x-cortex-x1-dotprod",
        ),
        (
            Silicon("Apple", None, None, None, ("asimd", "asimdhp", "asimddp", "asimdfhm"),
                    (CoreCluster(4, "Apple M1", None, ()),), ""),
            "apple-m1-fhm",
        ),
    ],
)  # fmt: skip
def test_silicon_has_the_name_of_its_generation(silicon: Silicon, expected: str) -> None:
    assert silicon_name(silicon) == expected


def test_what_hides_a_set_is_told_apart() -> None:
    whole = x86("AuthenticAMD", 26, 2, 1, ZEN5)
    masked = dataclasses.replace(whole, instruction_sets=BASE)
    name = silicon_name(masked)
    assert name.startswith("zen5-avx2-") and len(name) == len("zen5-avx2-") + 4
    other = dataclasses.replace(masked, instruction_sets=(*BASE, "gfni"))
    assert silicon_name(other) not in (name, silicon_name(whole))


def test_what_the_table_does_not_know_has_its_numbers() -> None:
    assert silicon_name(x86("AuthenticAMD", 99, 3, 1, BASE)).startswith("authenticamd-99-3-avx2-")
    assert silicon_name(arm(("asimd",), (4, "0x41:0xfff"))).startswith("0x41-0xfff-neon-")
    assert silicon_name(Silicon("", None, None, None, (), (), "")).startswith("unknown-")
    assert microarchitecture(x86("GenuineIntel", 6, 0x55, 99, BASE)) == ""


@given(st.data())
def test_two_machines_of_one_name_have_the_same_sets(data: st.DataObject) -> None:
    """Answers of one class are given for another machine of it: engines must run the same kernels on both."""
    if data.draw(st.booleans()):
        family, model = data.draw(st.sampled_from([(25, 1), (26, 2), (25, 0x61), (99, 1)]))
        vendor = "AuthenticAMD"
        subsets = st.lists(st.sampled_from(X86_SETS), unique=True)
        one, two = (x86(vendor, family, model, 1, tuple(data.draw(subsets))) for _ in range(2))
    else:
        subsets = st.lists(st.sampled_from([s for s in ARM_SETS if s not in silicon_names._NEON]), unique=True)
        one, two = (arm(tuple(data.draw(subsets)), (4, "0x41:0xd0b")) for _ in range(2))
    same_sets = set(one.instruction_sets) == set(two.instruction_sets)
    assert (silicon_name(one) == silicon_name(two)) is same_sets


def test_every_generation_of_the_table_has_its_sets() -> None:
    named = {
        *silicon_names._INTEL,
        *(name for *_, name in silicon_names._AMD),
        *(n for _, n in silicon_names._INTEL_55),
    }
    assert named == set(silicon_names._X86_SETS)
    assert set().union(*silicon_names._X86_SETS.values()) <= set(X86_SETS)
