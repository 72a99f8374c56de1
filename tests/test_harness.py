"""Vendors' programs: what they are told, what is read of what they print, and whether they agree with our worker."""

from __future__ import annotations

import dataclasses
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import toys
from measured import failed, measured
from subjects import tiny_file

from edgevit import crosscheck
from edgevit.crosscheck import cross_check, run_harness
from edgevit.errors import UnknownNameError, UsageError
from edgevit.harness import Asked, Told, benchmark_app, list_harnesses, litert_benchmark, load_harness, trtexec
from edgevit.pipeline import Order, export_subject
from edgevit.recipes import list_recipes
from edgevit.subject import load_subject
from edgevit.types import Device
from edgevit_runtime.record import TensorSpec

ASKED = Asked(threads=2, batch=4, runs=150, seconds=1, warmup_runs=20)
RECORDED = Path(__file__).parent / "golden/harness"
# In the form of its release 10, as https://github.com/NVIDIA/TensorRT/issues/4177 shows it; the numbers are ours.
TRTEXEC = """\
[01/02/2026-10:11:12] [I] Warmup completed 40 queries over 500 ms
[01/02/2026-10:11:12] [I] Timing trace has 1234 queries over 3.001 s
[01/02/2026-10:11:15] [I] === Performance summary ===
[01/02/2026-10:11:15] [I] Throughput: 411.2 qps
[01/02/2026-10:11:15] [I] Latency: min = 2.5 ms, max = 9.5 ms, mean = 2.9 ms, median = 2.8 ms, percentile(90%) = 3.1 ms
[01/02/2026-10:11:15] [I] Enqueue Time: min = 0.5 ms, max = 1.5 ms, mean = 0.9 ms, median = 0.8 ms, percentile(90%) = 1 ms
[01/02/2026-10:11:15] [I] H2D Latency: min = 0 ms, max = 0 ms, mean = 0 ms, median = 0 ms, percentile(90%) = 0 ms
[01/02/2026-10:11:15] [I] GPU Compute Time: min = 2.25 ms, max = 9.125 ms, mean = 2.5625 ms, median = 2.4375 ms, percentile(90%) = 3 ms
[01/02/2026-10:11:15] [I] D2H Latency: min = 0 ms, max = 0 ms, mean = 0 ms, median = 0 ms, percentile(90%) = 0 ms
[01/02/2026-10:11:15] [I] Total GPU Compute Time: 3.16 s
"""  # noqa: E501


# What they print


@pytest.mark.parametrize(
    ("module", "text", "told"),
    [
        (benchmark_app, "benchmark_app.txt", Told(17_380_000, 16_760_000, 22_580_000, 17_500_000, 171)),
        (benchmark_app, "benchmark_app-us.txt", Told(16_980, 15_920, 5_444_110, 30_860, 27_683)),
        (litert_benchmark, "litert_benchmark.txt", Told(16_250_000, 15_950_000, 17_140_000, 16_280_000, 100)),
        (trtexec, TRTEXEC, Told(2_437_500, 2_250_000, 9_125_000, 2_562_500, 1234)),
    ],
)
def test_what_it_printed_is_read(module, text, told):
    printed = (RECORDED / text).read_text() if text.endswith(".txt") else text
    assert module.parse(printed) == told
    for lines in ([], printed.splitlines()[:4]):
        with pytest.raises(ValueError, match="nothing that was printed"):
            module.parse("\n".join(lines))


def test_a_time_too_short_to_be_printed_is_none():
    with pytest.raises(ValueError, match="too short"):
        litert_benchmark.parse((RECORDED / "litert_benchmark.txt").read_text().replace("15.95 ms", "0.00 ms"))


def test_each_is_of_one_target():
    assert sorted(recipe.harness for recipe in list_recipes() if recipe.harness) == list_harnesses()
    with pytest.raises(UnknownNameError, match="did you mean benchmark_app"):
        load_harness("benchmarkapp")


# What they are told


def test_benchmark_app_is_told_what_the_worker_does(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/x.xml").write_text("")
    facts = {"folder": tmp_path, "payload": "m", "precision": "fp16", "inputs": (TensorSpec("image", (-1, 3, 8, 8)),)}
    artifact = dataclasses.replace(toys.fake_artifact(tmp_path / "a"), **facts, dynamic_batch=True)
    words = benchmark_app.arguments(artifact, ASKED)
    told = dict(zip(words[0:-1:2], words[1:-1:2], strict=True))
    assert told["-m"] == str(tmp_path / "m/x.xml")
    assert (told["-nthreads"], told["-infer_precision"], told["-ip"]) == ("2", "f32", "f32")
    assert (told["-niter"], told["-t"], told["-data_shape"]) == ("150", "1", "image[4,3,8,8]")
    fixed = dataclasses.replace(artifact, precision="bf16", dynamic_batch=False)
    assert "bf16" in benchmark_app.arguments(fixed, ASKED) and "-data_shape" not in benchmark_app.arguments(
        fixed, ASKED
    )
    mixed = dataclasses.replace(artifact, inputs=(TensorSpec("x", (1, 4)), TensorSpec("y", (1, 2), "uint8")))
    with pytest.raises(ValueError, match="gives all inputs one type"):
        benchmark_app.arguments(mixed, ASKED)


def test_trtexec_is_told_what_the_worker_does(tmp_path, monkeypatch):
    (tmp_path / "m").mkdir()
    (tmp_path / "m/x.engine").write_text("")
    facts = {"folder": tmp_path, "payload": "m", "inputs": (TensorSpec("image", (-1, 3, 8, 8)),)}
    artifact = dataclasses.replace(toys.fake_artifact(tmp_path / "a"), **facts, dynamic_batch=True)
    words = trtexec.arguments(artifact, ASKED)
    assert {f"--loadEngine={tmp_path / 'm/x.engine'}", "--shapes=image:4x3x8x8", "--iterations=150"} <= set(words)
    assert not any(
        "shapes" in word for word in trtexec.arguments(dataclasses.replace(artifact, dynamic_batch=False), ASKED)
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    assert trtexec.command() is None
    (tmp_path / "trtexec").write_text("#!/bin/sh\n")
    (tmp_path / "trtexec").chmod(0o755)
    assert trtexec.command() == [str(tmp_path / "trtexec")]


# In turns


def program(monkeypatch, code: str, differs: str = "") -> None:
    """A vendor's program that is these lines of Python, and takes the place of all others."""
    module = SimpleNamespace(
        DISTRIBUTION="fake", DIFFERS=differs, command=lambda: [sys.executable, "-c", code], parse=litert_benchmark.parse
    )
    module.arguments = lambda artifact, asked: [str(asked.runs), str(asked.warmup_runs)]
    take_its_place(monkeypatch, module)


def take_its_place(monkeypatch, module: object) -> None:
    recipe = SimpleNamespace(RECIPE=SimpleNamespace(harness="theirs"))
    monkeypatch.setattr(crosscheck, "load_recipe", lambda target: recipe)
    monkeypatch.setattr(crosscheck, "load_harness", {"theirs": module}.__getitem__)


def print_ms(*medians: str) -> str:
    names = zip(("median", "min", "max", "avg"), medians * 4, strict=False)
    return "".join(f"print('Inference ({name}): {value} ms')\n" for name, value in names)


@pytest.fixture
def ours(monkeypatch):
    """Our worker says these medians, one after the other; what it was asked is kept."""
    asked = []

    def of(*medians_ms):
        rows = iter([measured([[round(value * 1e6)] * 3]) for value in medians_ms])
        monkeypatch.setattr(crosscheck, "profile", lambda *_, **how: (asked.append(how["settings"]), next(rows))[1])
        return asked

    return of


def test_both_run_in_turns(ours, monkeypatch, tmp_path):
    asked = ours(5, 10, 10.1, 10.2)
    program(
        monkeypatch, f"import sys; open({str(tmp_path / 'args')!r}, 'a').write(str(sys.argv[1:]))\n" + print_ms("10")
    )
    found = cross_check(toys.onnx_artifact(tmp_path / "a"), toys.LOCAL, threads=1, rounds=3)
    assert (found.ours_ns, found.theirs_ns) == ((10_000_000, 10_100_000, 10_200_000), (10_000_000,) * 3)
    assert (found.ratio, found.ratio_low, found.ratio_high) == (1.01, 1.0, 1.02)
    assert (found.verdict, found.harness, found.note) == ("SAME", "theirs", "")
    assert {(how.processes, how.percentile) for how in asked} == {(1, None)}
    assert (tmp_path / "args").read_text() == "['200', '100']" * 3, "a second of runs, half of one to warm up"


@pytest.mark.parametrize(("theirs", "verdict"), [("9.6", "SLOWER"), ("10.4", "FASTER"), ("10.2", "SAME")])
def test_beyond_the_agreement(ours, monkeypatch, tmp_path, theirs, verdict):
    ours(10, 10, 10)
    program(monkeypatch, print_ms(theirs), "it differs")
    found = cross_check(toys.onnx_artifact(tmp_path / "a"), toys.LOCAL, threads=1, rounds=2)
    assert (found.verdict, found.note) == (verdict, "it differs")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit('no such option')", "the vendor's program: exit code 1: no such option"),
        ("print('nothing')", "nothing that was printed matches"),
    ],
)
def test_a_program_that_fails_is_told(ours, monkeypatch, tmp_path, code, words):
    ours(10, 10, 10)
    program(monkeypatch, code)
    found = cross_check(toys.onnx_artifact(tmp_path / "a"), toys.LOCAL, threads=1)
    assert found.verdict is None and words in found.note


def test_where_there_is_nothing_to_compare(monkeypatch, tmp_path):
    artifact = toys.onnx_artifact(tmp_path / "a")
    assert "no vendor's program is known" in cross_check(artifact, toys.LOCAL, threads=1).note
    with pytest.raises(UsageError, match="on this machine alone"):
        cross_check(artifact, Device("pi", "", "", "ssh"), threads=1)
    program(monkeypatch, print_ms("1"))
    monkeypatch.setattr(crosscheck, "profile", lambda *_, **__: failed())
    assert cross_check(artifact, toys.LOCAL, threads=1).note == "our worker: crashed: SIGSEGV"
    gone = SimpleNamespace(DISTRIBUTION="fake", command=lambda: None)
    take_its_place(monkeypatch, gone)
    assert cross_check(artifact, toys.LOCAL, threads=1).note == "theirs is not on this machine: pip install fake"


def test_a_program_sees_what_a_worker_sees(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    seen = run_harness([sys.executable, "-c", "import os; print(dict(os.environ))"], lambda text: text, 3)
    assert "'OMP_NUM_THREADS': '3'" in seen and "OMP_WAIT_POLICY" not in seen


def test_a_program_that_hangs_is_ended(monkeypatch):
    monkeypatch.setattr(crosscheck, "Settings", lambda: SimpleNamespace(timeout_s=0.5))
    begin = time.monotonic()
    with pytest.raises(ValueError, match=r"no end after 0\.5 s: begun"):
        run_harness([sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"], str, 1)
    assert time.monotonic() - begin < 10


# For real


@pytest.mark.parametrize(
    ("target", "open_batch"),
    [
        pytest.param("openvino", False, marks=pytest.mark.openvino),
        pytest.param("openvino", True, marks=pytest.mark.openvino),
        pytest.param("litert", False, marks=pytest.mark.litert),
    ],
)
def test_the_program_itself(target, open_batch, tmp_path):
    """That they agree about real networks is seen on a quiet machine; here it is that they can be compared at all."""
    order = Order(target, tmp_path / "out", "fp32", dynamic_batch=open_batch)
    artifact = export_subject(load_subject(f"{tiny_file(tmp_path)}:tiny", input_size=(96, 96)), order)
    found = cross_check(artifact, toys.LOCAL, threads=1, batch=2 if open_batch else 1, rounds=1)
    assert found.verdict is not None, found.note
    assert 1 / 10 < found.ratio < 10
