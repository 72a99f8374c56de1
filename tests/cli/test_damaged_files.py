"""Damaged files: a reader answers or raises an EdgevitError, whichever bytes it reads, and hangs nowhere."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import tempfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgevit.cli import main
from edgevit.devices.registry import list_devices, load_device, user_folder
from edgevit.errors import DeviceError, EdgevitError
from edgevit.published.importers import Publication, screened
from edgevit.store import LatencyDB
from edgevit.verification.inputs import read_rows
from edgevit_runtime.codec import RecordError, from_json
from edgevit_runtime.record import Host, TensorSpec
from support.fuzzed_files import HOSTILE, ROOT, Reader, mutated, readers
from support.measured import measured

INPUTS = 500
_HANG_S = 20
NAMES = (
    "rows", "rows in Parquet", "device", "manifest", "published: aihub, perf.csv", "published: aihub, perf.yaml",
    "published: mlperf, mlperf.csv", "published: timm, results-imagenet.csv", "published: papers, models.jsonl",
    "checkpoint", "safetensors", "index of shards", "image processor", "labels", "samples", "worker's reply",
    "memory of source files",
)  # fmt: skip


@pytest.fixture(scope="module")
def every_reader() -> Iterator[dict[str, Reader]]:
    with tempfile.TemporaryDirectory() as folder, readers(Path(folder)) as found:
        yield {reader.name: reader for reader in found}


@pytest.fixture
def within_seconds() -> Iterator[None]:
    """Fail a test that computes too long, by the time of its own processor: the machine may be busy."""

    def fail(number: int, frame: object) -> None:
        pytest.fail(f"it took more than {_HANG_S} s")

    before = signal.signal(signal.SIGPROF, fail)
    signal.setitimer(signal.ITIMER_PROF, _HANG_S)
    yield
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, before)


def test_every_reader_is_tried(every_reader: dict[str, Reader]) -> None:
    assert tuple(every_reader) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_valid_files_are_read(every_reader: dict[str, Reader], tmp_path: Path, name: str) -> None:
    reader = every_reader[name]
    if name == "index of shards":
        np.save(tmp_path / "x.npy", np.ones(1))
        (tmp_path / "shard.safetensors").write_bytes(every_reader["safetensors"].valid[0])
    for valid in reader.valid:
        (path := tmp_path / reader.file).write_bytes(valid)
        if (name, valid) != ("samples", reader.valid[-1]):  # an .npz is refused
            reader.read(path)


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_answered_or_refused(
    every_reader: dict[str, Reader], tmp_path: Path, within_seconds: None, name: str
) -> None:
    reader = every_reader[name]

    @settings(max_examples=INPUTS, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.integers(0, 2**32 - 1), max_size=9))
    def read(choices: list[int]) -> None:
        reader.try_once(tmp_path, choices)

    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    read()
    growth_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb) / 1024
    assert growth_mb < 300


def test_mutations_damage_and_repeat() -> None:
    assert mutated(b'{"a": 1}', [1, 3, 0]) == b'{"a": null}'
    assert mutated(b'{"a": 1}', [6, 3, 0]) == b'{"a' and mutated(b"x", [0]) == b"\0" * 4
    assert len({mutated(b'{"a": 1}', [1, 1, value]) for value in range(len(HOSTILE))}) == len(set(HOSTILE))


# What was found by trying


@pytest.mark.parametrize("text", ["[" * 5_000, "9" * 5000, '{"a":' * 5_000, "\ufeff[", "NaN"])
def test_json_that_no_record_holds_is_a_record_error(text: str) -> None:
    with pytest.raises(RecordError):
        from_json(Host, text)


@pytest.mark.parametrize("number", ["1e999", "1" + "0" * 400, "-1" + "0" * 400])
def test_a_number_that_no_float_holds_is_a_record_error(number: str) -> None:
    with pytest.raises(RecordError, match="finite"):
        from_json(float, number)


GOOD = 'device_id = "0123"\ndevice_class = "board"\ntransport = "ssh"\n'
BAD_DEVICES: dict[str, tuple[str | bytes, str]] = {
    "no compute units": (GOOD + "compute_units = []", "compute_units"),
    "a blank compute unit": (GOOD + 'compute_units = ["", "cpu"]', "compute_units"),
    "a wrong type": (GOOD + "compute_units = 4", "compute_units"),
    "no id": (GOOD.replace("0123", " "), "device_id is empty"),
    "no class": (GOOD.replace("board", ""), "device_class is empty"),
    "an unknown field": (GOOD + "color = 1", "unknown color"),
    "deep": (GOOD + "x = " + "[" * 5000, "nested too deep"),
    "a huge number": (GOOD + "x = " + "9" * 5000, "digits"),
    "no TOML": ("device", "a device's file cannot be read"),
    "no text": (b"\xff\xfe\x00", "a device's file cannot be read"),
}


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (folder := user_folder()).mkdir(parents=True)
    (folder / "good.toml").write_text("\ufeff" + GOOD, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", BAD_DEVICES)
def test_a_bad_device_file_hides_no_other(devices: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    content, words = BAD_DEVICES[name]
    (devices / "bad.toml").write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DeviceError, match=words):
        load_device("bad")
    assert [device.name for device in list_devices()] == ["local", "good"]
    for words_of_command in (["devices"], ["devices", "--json"]):
        with pytest.raises(SystemExit) as ended:
            main(words_of_command)
        out, error = capsys.readouterr()
        assert ended.value.code == 1 and "good" in out and "bad.toml" in out + error
    assert "edgevit devices remove bad" in json.loads(out)["unreadable"][0]["fix"]


def test_a_folder_in_place_of_a_device_file_hides_no_other(devices: Path) -> None:
    (devices / "bad.toml").mkdir()
    assert [device.name for device in list_devices()] == ["local", "good"]


@pytest.mark.parametrize("port", ["0", "-1", "65536"])
def test_a_port_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str], port: str) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["devices", "add", "pi", "--host", "pi@192.0.2.1", "--port", port])
    assert ended.value.code == 2 and "--port" in capsys.readouterr().err


def test_a_mark_at_the_start_of_a_table_is_not_part_of_its_first_column(tmp_path: Path) -> None:
    for form, file in (("mlperf", "tests/published/mlperf.csv"), ("papers", "latency_db/models.jsonl")):
        path = tmp_path / Path(file).name
        path.write_bytes(b"\xef\xbb\xbf" + b"".join((ROOT / file).read_bytes().splitlines(keepends=True)[:2]))
        assert [claim.record for claim in screened(form, [Publication(path)]).records()] != []
    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as db:
        db.add(measured())
        db.export_jsonl(tmp_path / "rows.jsonl")
        (tmp_path / "marked.jsonl").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "rows.jsonl").read_bytes())
        assert db.import_file(tmp_path / "marked.jsonl").duplicates == 1


def test_a_header_that_claims_more_numbers_than_the_file_has_takes_no_memory(tmp_path: Path) -> None:
    claimed = {"descr": "<f4", "fortran_order": False, "shape": (50_000_000, 3, 4, 4)}
    with (tmp_path / "x.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(file, claimed)
        file.write(bytes(400))
    tracemalloc.start()
    with pytest.raises(EdgevitError):
        read_rows(tmp_path / "x.npy", [TensorSpec("x", (1, 3, 4, 4))])
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_yaml_that_is_nested_deep_is_refused_at_once(tmp_path: Path, within_seconds: None) -> None:
    yaml = ROOT / "tests/published/made_net/perf.yaml"
    (path := tmp_path / "perf.yaml").write_text(yaml.read_text() + "deep: " + "[" * 100 + "]" * 100 + "\n")
    with pytest.raises(EdgevitError, match="nested deeper"):
        list(screened("aihub", [Publication(path)]).records())


FOLDER_FOR_A_FILE = [
    ["db", "import", "folder"], ["db", "import", "folder", "--from", "aihub"], ["db", "export", "folder"],
    ["db", "merge", "folder"], ["db", "stats", "--db", "folder"], ["report", "--out", "folder"],
    ["verify", "folder"], ["profile", "folder"],
    ["sweep", "--models", "vanillanet_5", "--targets", "onnx", "--log", "folder"],
]  # fmt: skip


@pytest.mark.parametrize("words", FOLDER_FOR_A_FILE, ids=" ".join)
def test_a_folder_in_place_of_a_file_is_a_clear_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    database: list[Any] = [] if "--db" in words or words[0] == "verify" else ["--db", "x.db"]
    LatencyDB.open("x.db", shipped=False).close()
    with pytest.raises(SystemExit) as ended:
        main([*words, *database])
    assert ended.value.code in (1, 2) and "folder" in capsys.readouterr().err


LIMIT_KB = 64


@pytest.mark.parametrize(
    "words", [["db", "export", "rows.jsonl"], ["report", "--out", "r.html"], ["db", "import", "rows"]]
)
def test_a_full_disk_is_a_clear_error_that_leaves_no_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    """No file may grow beyond a limit: the system then refuses to write, as it does on a full disk."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edgevit.store.jsonl.shipped_files", list)
    with LatencyDB.open("x.db", shipped=False) as db:
        for number in range(40):
            db.add(measured(((5_000_000 + number,) * 400,) * 2, nonce=str(number)))
        db.export_jsonl("rows")
    shutil.copy("rows", "rows.jsonl") if words[1] == "import" else None
    before = sorted(Path().iterdir())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_KB * 1024, hard))
    try:
        with pytest.raises(SystemExit) as ended:
            main([*words, "--db", "y.db" if words[1] == "import" else "x.db"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert ended.value.code == 1 and "error:" in capsys.readouterr().err
    assert [path for path in sorted(Path().iterdir()) if path not in before and path.name != "y.db"] == []
