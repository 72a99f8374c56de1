"""Vendors' programs: what they are told, what is read of what they print, and whether they agree with our worker."""

from __future__ import annotations

import dataclasses
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from edgevit.devices.vendor_tools import (
    BenchmarkOptions,
    ProgramOutput,
    VendorSummary,
    benchmark_app,
    benchmark_model,
    benchncnn,
    executor_runner,
    list_harnesses,
    litert_benchmark,
    load_harness,
    load_native,
    trtexec,
)
from edgevit.errors import UnknownNameError, UsageError
from edgevit.exporting.pipeline import export_subject
from edgevit.measurement import crosscheck
from edgevit.measurement.crosscheck import cross_check, run_harness
from edgevit.measurement.runner import Protocol
from edgevit.models.source import load_subject
from edgevit.recipes import list_recipes
from edgevit.records.artifact import ExportRequest
from edgevit.records.measurement import Device, Measurement
from edgevit_runtime.record import TensorSpec
from support import toys
from support.measured import failed, measured
from support.speed import seconds
from support.subjects import tiny_file

ASKED = BenchmarkOptions(threads=2, batch=4, runs=150, seconds=1, warmup_runs=20)
RECORDED = Path(__file__).parents[1] / "golden/harness"
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
    ("module", "text", "summary"),
    [
        (benchmark_app, "benchmark_app.txt", VendorSummary(17_380_000, 16_760_000, 22_580_000, 17_500_000, 171)),
        (benchmark_app, "benchmark_app-us.txt", VendorSummary(16_980, 15_920, 5_444_110, 30_860, 27_683)),
        (litert_benchmark, "litert_benchmark.txt", VendorSummary(16_250_000, 15_950_000, 17_140_000, 16_280_000, 100)),
        (trtexec, TRTEXEC, VendorSummary(2_437_500, 2_250_000, 9_125_000, 2_562_500, 1234)),
    ],
)
def test_what_it_printed_is_read(module: Any, text: str, summary: VendorSummary) -> None:
    printed = (RECORDED / text).read_text() if text.endswith(".txt") else text
    assert module.parse(printed, ASKED) == ProgramOutput(summary)
    for lines in ([], printed.splitlines()[:4]):
        with pytest.raises(ValueError, match="nothing that was printed"):
            module.parse("\n".join(lines), ASKED)


def test_a_time_too_short_to_be_printed_is_none() -> None:
    with pytest.raises(ValueError, match="too short"):
        litert_benchmark.parse((RECORDED / "litert_benchmark.txt").read_text().replace("15.95 ms", "0.00 ms"), ASKED)


# Native programs. Written after their sources, not recorded, but where RECORDED says so.


def benchmark_model_text(warm_up: str, runs: str) -> str:
    ends = "Inference timings in us: Init: 5579, First inference: 1357602, Warmup (avg): 1.3576e+06, Inference (avg): 1"
    return f"INFO: Loaded model x\nINFO: count={warm_up}\n\nINFO: count={runs}\n\nINFO: {ends}\n"


PERCENTILES = "p5=1238753 median=1239807 p95=1247415"
SIX_DIGITS = (
    "2 first=1240268 curr=1240267 min=1240267 max=1240268 avg=1.24027e+06 std=0"  # the mean is above the largest
)


@pytest.mark.parametrize(
    ("runs", "summary"),
    [
        (
            f"50 first=1249964 curr=1240143 min=1238588 max=1252566 avg=1.24027e+06 std=2565 {PERCENTILES}",
            VendorSummary(1_239_807_000, 1_238_588_000, 1_252_566_000, 1_240_270_000, 50, 1_247_415_000),
        ),
        ("50 first=9 curr=8 min=7 max=9 avg=8.25 std=1", VendorSummary(None, 7000, 9000, 8250, 50)),
        ("3 curr=12(all same) p5=12 median=12 p95=12", VendorSummary(12_000, 12_000, 12_000, 12_000, 3, 12_000)),
        (SIX_DIGITS, VendorSummary(None, 1_240_267_000, 1_240_268_000, 1_240_268_000, 2)),
    ],
    ids=["median", "an older release", "all the same", "a mean of six digits"],
)
def test_benchmark_model_is_read(runs: str, summary: VendorSummary) -> None:
    text = benchmark_model_text("1 curr=1357602 p5=1357602 median=1357602 p95=1357602", runs)
    assert benchmark_model.parse(text, ASKED) == ProgramOutput(summary, 5_579_000, 1_357_602_000)
    assert benchmark_model.provider(text) == "LiteRT's own kernels"
    assert benchmark_model.provider(f"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n{text}") == "XNNPACK"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "count=many",
        "count=1 curr=5\nInference timings in us: Init: 1, First inference: 1,",
        benchmark_model_text("1 curr=5", "0"),
        benchmark_model_text("1 curr=5", "2 first=0 curr=1 min=0 max=1 avg=0.5 std=0"),
        benchmark_model_text("1 curr=5", "2 first=1 curr=1 min=1 max=1 avg=1 std=0").split("Inference")[0],
    ],
)
def test_what_is_not_benchmark_models_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        benchmark_model.parse(text, ASKED)


def executor_runner_text(*times_ms: str, total: int | None = None) -> str:
    lines = (f"I 00:00:00.1 executorch:executor_runner.cpp:700] Iteration {i} of {total or len(times_ms)}: {value} ms"
             for i, value in enumerate(times_ms, 1))  # fmt: skip
    return "\n".join(["I 00:00:00.0 executorch:executor_runner.cpp:530] Model loaded in 12.500000 ms.", *lines])


def test_executor_runner_is_read() -> None:
    options = dataclasses.replace(ASKED, runs=3, warmup_runs=2)
    text = executor_runner_text("9.000000", "5.000000", "4.000000", "3.000001", "3.000003", "3.000002")
    samples = (3_000_001, 3_000_003, 3_000_002)
    summary = VendorSummary(3_000_002, 3_000_001, 3_000_003, 3_000_002, 3)
    assert executor_runner.parse(text, options) == ProgramOutput(
        summary, 12_500_000, 9_000_000, (5_000_000, 4_000_000), samples
    )
    gap = text.replace("Iteration 4 of 6: 3.000001 ms", "")
    one_sum = "Model executed successfully 6 time(s) in 27.000006 ms."
    for wrong in ("", gap, one_sum, text.replace("3.000001", "0.000000"), executor_runner_text(*["1.0"] * 5)):
        with pytest.raises(ValueError):
            executor_runner.parse(wrong, options)


BENCHNCNN = """\
loop_count = 150
num_threads = 2
powersave = 0
gpu_device = -1
cooling_down = 0
          a/model.ncnn.param  min =   10.23  max =   12.50  avg =   10.75
"""


def test_benchncnn_is_read() -> None:
    recorded = (RECORDED / "benchncnn.txt").read_text()
    assert benchncnn.parse(recorded, ASKED) == ProgramOutput(
        VendorSummary(None, 37_570_000, 92_150_000, 51_970_000, 100)
    )
    assert benchncnn.parse(BENCHNCNN, ASKED) == ProgramOutput(
        VendorSummary(None, 10_230_000, 12_500_000, 10_750_000, 150)
    )
    own_list = BENCHNCNN + "          squeezenet  min =   10.23  max =   12.50  avg =   10.75\n"
    too_fast = BENCHNCNN.replace("10.23", " 0.00")
    for wrong in ("", own_list, too_fast, BENCHNCNN.splitlines()[-1], "input 1 tensors while model has 2 inputs\n"):
        with pytest.raises(ValueError):
            benchncnn.parse(wrong, ASKED)


def test_native_programs_are_told_what_the_worker_does(tmp_path: Path) -> None:
    image = (TensorSpec("image", (1, 3, 8, 6)),)
    artifact = dataclasses.replace(toys.fake_artifact(tmp_path / "a"), inputs=image, payload="p")
    options = dataclasses.replace(ASKED, batch=1)
    words = benchmark_model.arguments(artifact, options, "/x/model")
    assert {"--graph=/x/model", "--num_threads=2", "--num_runs=150", "--min_secs=1", "--warmup_runs=20"} <= set(words)
    assert {"--use_xnnpack=true", "--warmup_min_secs=0.5"} <= set(words)
    words = executor_runner.arguments(artifact, options, "/x/model")
    assert words == ["--model_path=/x/model", "--num_executions=171", "--cpu_threads=2", "--print_output=none"]
    words = benchncnn.arguments(artifact, options, "/x/model")
    assert words == ["150", "2", "0", "-1", "0", "param=/x/model", "shape=[6,8,3]"]
    raw = dataclasses.replace(artifact, inputs=(TensorSpec("image", (1, 8, 6, 3), "uint8"), TensorSpec("n", (1, 5))))
    assert benchncnn.arguments(raw, options, "x")[-1] == "shape=[6,8,3],[5]"
    open_batch = dataclasses.replace(artifact, inputs=(TensorSpec("image", (-1, 3)),))
    with pytest.raises(ValueError, match="one sample"):
        benchncnn.arguments(open_batch, ASKED, "x")
    files = [load_native(name).model(artifact) for name in ("benchmark_model", "executor_runner", "benchncnn")]
    assert files == [artifact.folder / "p"] * 2 + [artifact.folder / "p/model.ncnn.param"]


def test_native_programs_are_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    natives = [recipe.native for recipe in list_recipes() if recipe.native]
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in natives:
        assert load_native(name).command() is None
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
        assert load_native(name).command() == [str(tmp_path / name)]


def test_each_is_of_one_target() -> None:
    names = [name for recipe in list_recipes() for name in (recipe.harness, recipe.native) if name]
    assert sorted(names) == list_harnesses()
    with pytest.raises(UnknownNameError, match="did you mean benchmark_app"):
        load_harness("benchmarkapp")


# What they are told


def test_benchmark_app_is_told_what_the_worker_does(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/x.xml").write_text("")
    facts: dict[str, Any] = {
        "folder": tmp_path,
        "payload": "m",
        "precision": "fp16",
        "inputs": (TensorSpec("image", (-1, 3, 8, 8)),),
    }
    artifact = dataclasses.replace(toys.fake_artifact(tmp_path / "a"), **facts, dynamic_batch=True)
    words = benchmark_app.arguments(artifact, ASKED, str(benchmark_app.model(artifact)))
    flags = dict(zip(words[0:-1:2], words[1:-1:2], strict=True))
    assert flags["-m"] == str(tmp_path / "m/x.xml")
    assert (flags["-nthreads"], flags["-infer_precision"], flags["-ip"]) == ("2", "f32", "f32")
    assert (flags["-niter"], flags["-t"], flags["-data_shape"]) == ("150", "1", "image[4,3,8,8]")
    fixed = dataclasses.replace(artifact, precision="bf16", dynamic_batch=False)
    words = benchmark_app.arguments(fixed, ASKED, "x")
    assert "bf16" in words and "-data_shape" not in words
    mixed = dataclasses.replace(artifact, inputs=(TensorSpec("x", (1, 4)), TensorSpec("y", (1, 2), "uint8")))
    with pytest.raises(ValueError, match="gives all inputs one type"):
        benchmark_app.arguments(mixed, ASKED, "x")


def test_trtexec_is_told_what_the_worker_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m/x.engine").write_text("")
    facts: dict[str, Any] = {"folder": tmp_path, "payload": "m", "inputs": (TensorSpec("image", (-1, 3, 8, 8)),)}
    artifact = dataclasses.replace(toys.fake_artifact(tmp_path / "a"), **facts, dynamic_batch=True)
    words = trtexec.arguments(artifact, ASKED, str(trtexec.model(artifact)))
    assert {f"--loadEngine={tmp_path / 'm/x.engine'}", "--shapes=image:4x3x8x8", "--iterations=150"} <= set(words)
    assert not any(
        "shapes" in word for word in trtexec.arguments(dataclasses.replace(artifact, dynamic_batch=False), ASKED, "x")
    )
    monkeypatch.setenv("PATH", str(tmp_path))
    assert trtexec.command() is None
    (tmp_path / "trtexec").write_text("#!/bin/sh\n")
    (tmp_path / "trtexec").chmod(0o755)
    assert trtexec.command() == [str(tmp_path / "trtexec")]


# In turns


def program(monkeypatch: pytest.MonkeyPatch, code: str, differs: str = "") -> None:
    """Replace all vendors' programs by one with these lines of Python."""
    module = SimpleNamespace(
        DISTRIBUTION="fake", DIFFERS=differs, command=lambda: [sys.executable, "-c", code], parse=litert_benchmark.parse
    )
    module.model = lambda artifact: artifact.folder / artifact.payload
    module.arguments = lambda artifact, options, model: [str(options.runs), str(options.warmup_runs), Path(model).name]
    take_its_place(monkeypatch, module)


def take_its_place(monkeypatch: pytest.MonkeyPatch, module: object) -> None:
    recipe = SimpleNamespace(RECIPE=SimpleNamespace(harness="", native="theirs"))
    monkeypatch.setattr(crosscheck, "load_recipe", lambda target: recipe)
    monkeypatch.setattr(crosscheck, "load_harness", {"theirs": module}.__getitem__)


def print_ms(*medians: str) -> str:
    names = zip(("median", "min", "max", "avg"), medians * 4, strict=False)
    return "".join(f"print('Inference ({name}): {value} ms')\n" for name, value in names)


@pytest.fixture
def ours(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Protocol]]:
    """Make our worker measure these medians, one after the other, and return the protocols of its runs."""
    protocols: list[Protocol] = []

    def of(*medians_ms: float) -> list[Protocol]:
        rows = iter([measured([[round(value * 1e6)] * 3]) for value in medians_ms])

        def fake_profile(*_: object, protocol: Protocol, **__: object) -> Measurement:
            protocols.append(protocol)
            return next(rows)

        monkeypatch.setattr(crosscheck, "profile", fake_profile)
        return protocols

    return of


def test_both_run_in_turns(
    ours: Callable[..., list[Protocol]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    protocols = ours(5, 10, 10.1, 10.2)
    program(
        monkeypatch, f"import sys; open({str(tmp_path / 'args')!r}, 'a').write(str(sys.argv[1:]))\n" + print_ms("10")
    )
    check = cross_check(toys.onnx_artifact(tmp_path / "a"), toys.LOCAL, threads=1, rounds=3)
    assert (check.ours_ns, check.theirs_ns) == ((10_000_000, 10_100_000, 10_200_000), (10_000_000,) * 3)
    assert (check.ratio, check.ratio_low, check.ratio_high) == (1.01, 1.0, 1.02)
    assert (check.verdict, check.harness, check.note) == ("SAME", "theirs", "")
    assert {(protocol.processes, protocol.percentile) for protocol in protocols} == {(1, None)}
    assert (tmp_path / "args").read_text() == "['200', '100', 'model.onnx']" * 3, "a second of runs, half to warm up"


@pytest.mark.parametrize(("theirs", "verdict"), [("9.6", "SLOWER"), ("10.4", "FASTER"), ("10.2", "SAME")])
def test_beyond_the_agreement(
    ours: Callable[..., list[Protocol]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, theirs: str, verdict: str
) -> None:
    ours(10, 10, 10)
    program(monkeypatch, print_ms(theirs), "it differs")
    check = cross_check(toys.onnx_artifact(tmp_path / "a"), toys.LOCAL, threads=1, rounds=2)
    assert (check.verdict, check.note) == (verdict, "it differs")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("raise SystemExit('no such option')", "the vendor's program: exit code 1: no such option"),
        ("print('nothing')", "nothing that was printed matches"),
    ],
)
def test_a_program_that_fails_is_told(
    ours: Callable[..., list[Protocol]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, words: str
) -> None:
    ours(10, 10, 10)
    program(monkeypatch, code)
    check = cross_check(toys.onnx_artifact(tmp_path / "a"), toys.LOCAL, threads=1)
    assert check.verdict is None and words in check.note


def test_where_there_is_nothing_to_compare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
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


def test_a_mean_is_not_held_against_a_median(
    ours: Callable[..., list[Protocol]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours(10, 10)
    monkeypatch.setattr(litert_benchmark, "parse", benchncnn.parse)
    program(monkeypatch, f"print({BENCHNCNN!r})")
    check = cross_check(toys.onnx_artifact(tmp_path / "a"), toys.LOCAL, threads=1, rounds=1)
    assert check.verdict is None and check.note == "it prints a mean (10.8 ms) and no median, which ours is"


def test_a_program_sees_what_a_worker_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")
    output = run_harness([sys.executable, "-c", "import os; print(dict(os.environ))"], lambda text: text, 3)
    assert "'OMP_NUM_THREADS': '3'" in output and "OMP_WAIT_POLICY" not in output


def test_a_program_that_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    limit_s = seconds(0.5)
    monkeypatch.setattr(crosscheck, "Protocol", lambda: SimpleNamespace(timeout_s=limit_s))
    begin = time.monotonic()
    with pytest.raises(ValueError, match=rf"no end after {re.escape(f'{limit_s:g}')} s: begun"):
        run_harness([sys.executable, "-c", "import time; print('begun', flush=True); time.sleep(60)"], str, 1)
    assert time.monotonic() - begin < seconds(10)


# For real


@pytest.mark.parametrize(
    ("target", "open_batch"),
    [
        pytest.param("openvino", False, marks=pytest.mark.openvino),
        pytest.param("openvino", True, marks=pytest.mark.openvino),
        pytest.param("litert", False, marks=pytest.mark.litert),
    ],
)
def test_the_program_itself(target: str, open_batch: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That they agree about real networks is seen on a quiet machine; here it is that they can be compared at all.

    So our worker measures for a few milliseconds, and the vendor's program for a second, the least that it can be told.
    """
    monkeypatch.setattr(crosscheck, "PROTOCOL_MIN_NS", 1)
    monkeypatch.setattr(crosscheck, "Protocol", partial(Protocol, min_ns=0))
    order = ExportRequest(target, tmp_path / "out", "fp32", dynamic_batch=open_batch)
    artifact = export_subject(load_subject(f"{tiny_file(tmp_path)}:tiny", input_size=(96, 96)), order)
    check = cross_check(artifact, toys.LOCAL, threads=1, batch=2 if open_batch else 1, rounds=1)
    assert check.verdict is not None, check.note
    assert check.ratio is not None and 1 / 10 < check.ratio < 10
