"""Command line as people use it: output, exit codes, files left behind, and imports."""

from __future__ import annotations

import json
import os
import pickle
import select
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from edgevit.cli import main
from edgevit.devices.device_lock import lock_path, locked_device
from edgevit.devices.registry import local_device
from edgevit.models import create_model
from edgevit.records.measurement import NoiseFloor
from edgevit.store import LatencyDB
from support.command_line import STRANGER, edgevit, refused
from support.killing import start
from support.speed import seconds

VERBS = ("models", "targets", "devices", "doctor", "fold", "export", "verify", "profile", "evaluate", "sweep", "choose",
         "db")  # fmt: skip


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a stranger's model exported and measured. The tests below start from it."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "net.py").write_text(STRANGER)
    outcome = edgevit("export", "net.py:tiny", "-t", "ort", "--input-size", "32", "-o", "out", "--json", folder=folder)
    assert outcome.returncode == 0, outcome.stderr
    (folder / "export.json").write_text(outcome.stdout)
    outcome = edgevit("profile", "out/net-tiny-32-onnx-fp32", "--quick", "--db", "x.db", "--json", folder=folder)
    assert outcome.returncode == 0, outcome.stderr
    (folder / "profile.json").write_text(outcome.stdout)
    return folder


def test_help_names_every_verb() -> None:
    outcome = edgevit("--help")
    assert outcome.returncode == 0
    for verb in VERBS:
        assert f"\n  {verb} " in outcome.stdout


def test_a_typo_suggests_and_stops(tmp_path: Path) -> None:
    assert "Did you mean 'fold'?" in refused(2, "folt")
    assert "vanillanet_5" in refused(2, "fold", "vanillanet_55")
    assert "did you mean onnx" in refused(2, "export", "mobilevig_ti", "-t", "onx", folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_models_lists_counted_cards() -> None:
    models = json.loads(edgevit("models", "vanillanet_5", "--json").stdout)["models"]
    assert [model["name"] for model in models] == ["vanillanet_5"]
    assert (models[0]["params"], models[0]["provenance"], models[0]["top1_percent"]) == (22_328_800, "published", 72.49)
    assert "mobilevig_ti" in edgevit("models").stdout


@pytest.mark.parametrize("verb", ["models", "targets", "devices", "doctor"])
def test_listings_are_json_with_a_schema(verb: str) -> None:
    outcome = edgevit(verb, "--json")
    assert outcome.returncode == 0, outcome.stderr
    assert json.loads(outcome.stdout)["schema_version"] == 1


def test_fold_prints_counts_and_proof(here: Path) -> None:
    fold = ("fold", "net.py:tiny", "--input-size", "32")
    report = json.loads(edgevit(*fold, "--json", folder=here).stdout)
    assert (
        report["passed"] and report["proof"]["float64_max_rel"] <= 1e-10 and report["proof"]["float32_max_rel"] <= 1e-5
    )
    assert report["before"]["layers"] == report["after"]["layers"] + 1, "the norm is gone"
    assert "the folded form is the trained model" in edgevit(*fold, folder=here).stdout


RESTLESS = """
from torch import nn

class Restless(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.norm(self.conv(x)).sigmoid()
        for _ in range(45):
            y = 3.9 * y * (1 - y)
        return y.mean((2, 3))

def net():
    return Restless().eval()
"""


def test_fold_says_where_nothing_is_proven_either_way(tmp_path: Path) -> None:
    (tmp_path / "restless.py").write_text(RESTLESS)
    fold = ("fold", "restless.py:net", "--input-size", 8)
    outcome = edgevit(*fold, folder=tmp_path)
    assert outcome.returncode == 4, outcome.stderr
    assert "not proven: in float64" in outcome.stdout and "PROOF FAILED" not in outcome.stdout
    report = json.loads(edgevit(*fold, "--json", folder=tmp_path).stdout)
    assert report["status"] == "not_proven" and not report["passed"]
    assert report["proof"]["float64_max_rel"] < report["proof"]["float64_rounding"]


def test_export_leaves_one_verified_artifact(here: Path) -> None:
    [artifact] = json.loads((here / "export.json").read_text())["artifacts"]
    assert artifact["parity"]["status"] == "passed" and artifact["folded"]
    assert {check["stage"] for check in artifact["parity"]["checks"]} == {"fold", "simplify", "artifact"}
    assert sorted(path.name for path in (here / "out").iterdir()) == ["net-tiny-32-onnx-fp32"]
    files = sorted(path.name for path in (here / "out" / "net-tiny-32-onnx-fp32").iterdir())
    assert files == ["manifest.json", "net-tiny.onnx"]


def test_verify_again_and_after_damage(here: Path, tmp_path: Path) -> None:
    outcome = edgevit("verify", "out/net-tiny-32-onnx-fp32", "--model", "net.py:tiny", folder=here)
    assert outcome.returncode == 0 and "passed: onnxruntime" in outcome.stdout
    damaged = tmp_path / "damaged"
    shutil.copytree(here / "out" / "net-tiny-32-onnx-fp32", damaged)
    content = bytearray((damaged / "net-tiny.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / "net-tiny.onnx").write_bytes(content)
    for verb in ("verify", "profile"):
        assert "damaged" in refused(1, verb, damaged, folder=here)
    for folder in (tmp_path, tmp_path / "absent"):
        told = refused(1, "verify", folder)
        assert "not an artifact" in told and "name a folder that `edgevit export` wrote" in told


def test_profile_keeps_a_row(here: Path) -> None:
    [row] = json.loads((here / "profile.json").read_text())["measurements"]
    assert (row["status"], row["provenance"], row["threads"], row["processes"]) == ("ok", "measured", 1, 2)
    assert row["p90_upper_ns"] >= row["p90_ns"] > 0
    show = ("db", "show", "--device", "local", "--db", "x.db", "--json")
    shown = json.loads(edgevit(*show, folder=here).stdout)["measurements"]
    assert [entry["measurement_id"] for entry in shown] == [row["measurement_id"]]
    devices = json.loads(edgevit("db", "stats", "--db", "x.db", "--json", folder=here).stdout)["devices"]
    # Shipped rows come from another machine that was called local too.
    mine = local_device().device_id
    assert [device["measurements"] for device in devices if device["device_id"] == mine] == [1]


def test_rows_travel(here: Path, tmp_path: Path) -> None:
    assert edgevit("db", "export", tmp_path / "rows.jsonl", "--db", "x.db", folder=here).returncode == 0
    rows = len((tmp_path / "rows.jsonl").read_text().splitlines())
    # Every database has the shipped rows already. It lacks the row and the operators of this network.
    shipped = rows - 2
    take = ("db", "import", "rows.jsonl", "--db", "y.db")
    assert f"2 added, {shipped} known" in edgevit(*take, folder=tmp_path).stdout
    assert f"0 added, {rows} known" in edgevit(*take, folder=tmp_path).stdout
    (tmp_path / "bad.jsonl").write_text('{"p50_ns": NaN}\n')
    outcome = edgevit("db", "import", "bad.jsonl", "--db", "y.db", folder=tmp_path)
    assert outcome.returncode == 1 and "refused: bad.jsonl, line 1" in outcome.stdout


def test_choose_picks_misses_and_refuses(here: Path) -> None:
    fits = edgevit("choose", "--device", "local", "--max-latency", "10s", "--db", "x.db", folder=here)
    assert fits.returncode == 7, fits.stderr
    assert fits.stdout.startswith("nothing on local is chosen: no accuracy is known of what fits")
    assert "\nnet.py:tiny with its own weights, onnx fp32, 1 thread(s), on local\n" in fits.stdout
    misses = edgevit("choose", "--max-latency", "1ns", "--db", "x.db", "--json", folder=here)
    assert misses.returncode == 3
    [miss] = json.loads(misses.stdout)["nearest_misses"]
    assert miss["kind"] == "budget" and miss["excess"] > 0 and "above 1e-06 ms" in miss["reason"]
    refused(2, "choose", "--max-latency", "ten", "--db", "x.db", folder=here)
    refused(2, "choose", "--max-latency", "5ms", "--percentile", "100", "--db", "x.db", folder=here)
    LatencyDB.open(str(here / "empty.db")).close()
    assert "edgevit sweep" in refused(2, "choose", "--max-latency", "5ms", "--db", "empty.db", folder=here)


def test_choose_answers_from_shipped_rows(tmp_path: Path) -> None:
    device = "x86_64-zen5-avx512bf16-2c"
    LatencyDB.open(str(tmp_path / "fresh.db")).close()
    command = ("choose", "--device", device, "--max-latency", "25ms", "--db", "fresh.db")
    outcome = edgevit(*command, "--json", folder=tmp_path)
    picked = json.loads(outcome.stdout)["picked"]
    assert (outcome.returncode, picked["model"], picked["latency_provenance"]) == (0, "hiera_tiny", "measured")
    assert picked["latency_upper_ms"] <= 25
    with LatencyDB.open(str(tmp_path / "fresh.db")) as db:
        [unit] = {row.device_id for row in db.measurements(device=device)}
        db.add_noise(NoiseFloor(unit, device, "mixed", 1, 0.9, (100, 100, 190), "2026-11-21T10:00:00+00:00"))
    outcome = edgevit(*command, folder=tmp_path)
    assert "nearer to the limit than 90.0%" in outcome.stdout, "what is known of the device's noise counts"


def test_rows_that_ship_and_did_not_repeat_themselves_have_a_file_of_their_own() -> None:
    folder = Path(__file__).parents[2] / "latency_db" / "measurements"
    files = list(folder.glob("*.jsonl"))
    assert len(files) >= 2
    for file in files:
        name, grades = file.stem, {json.loads(line)["grade"] for line in file.read_text().splitlines()}
        assert grades == {"D"} if name.endswith("-unsteady") else grades <= {"A", "B", "C"}, name


def test_a_measured_network_has_its_operators_in_the_database(here: Path) -> None:
    artifact = json.loads((here / "out/net-tiny-32-onnx-fp32/manifest.json").read_text())["artifact"]
    with LatencyDB.open(str(here / "x.db")) as db:
        [graph] = db.graphs()
    assert graph.graph_digest == artifact["graph_digest"]
    assert sum(operator.count * operator.macs for operator in graph.operators) == artifact["macs"]


def test_choose_hands_over_the_very_artifact(here: Path) -> None:
    choose = ("choose", "--db", "x.db", "--objective", "fastest", "--artifacts", "out/net-tiny-32-onnx-fp32")
    outcome = edgevit(*choose, "--export", "given", "--json", folder=here)
    assert outcome.returncode == 7, outcome.stderr
    [exported] = json.loads(outcome.stdout)["exported"]
    assert exported["says"] == "a copy of the artifact that the numbers are of" and exported["parity"] == "passed"
    assert exported["sha256"] == json.loads((here / "profile.json").read_text())["measurements"][0]["artifact_sha256"]
    assert edgevit("verify", exported["folder"], "--model", "net.py:tiny", folder=here).returncode == 0
    assert "--export" in refused(1, *choose, "--export", "given", folder=here), "what is there is not written over"


def test_choose_exports_what_is_not_held(here: Path) -> None:
    choose = ("choose", "--db", "x.db", "--objective", "smallest", "--models", "net.py:tiny")
    outcome = edgevit(*choose, "--export", "made", folder=here)
    assert outcome.returncode == 7, outcome.stderr
    assert "exported: made/net-tiny-32-onnx-fp32 (parity passed" in outcome.stdout


def test_choose_measures_what_the_budget_needs(here: Path, tmp_path: Path) -> None:
    shutil.copy(here / "x.db", tmp_path / "y.db")
    choose = ("choose", "--db", tmp_path / "y.db", "--max-latency", "10s", "--percentile", "99", "--quick", "--json")
    before = edgevit(*choose, folder=here)
    answer = json.loads(before.stdout)
    assert (before.returncode, answer["outcome"]) == (6, "unmeasured")
    [suggestion] = answer["measure_next"]
    assert suggestion["model"] == "net.py:tiny" and "--input-size 32x32" in suggestion["command"]
    after = edgevit(*choose, "--measure", "--artifacts", "out/net-tiny-32-onnx-fp32", folder=here)
    answer = json.loads(after.stdout)
    assert (after.returncode, len(answer["measured"])) == (7, 1), after.stderr
    assert answer["picked"]["measurement_id"] == answer["measured"][0]["measurement_id"]


def test_devices_calibrate(here: Path, tmp_path: Path) -> None:
    calibrate = (
        "devices",
        "calibrate",
        "local",
        "--models",
        "out/net-tiny-32-onnx-fp32",
        "--quick",
        "--db",
        tmp_path / "c.db",
    )
    plan = json.loads(edgevit(*calibrate, "--budget", "10min", "--dry-run", "--json", folder=here).stdout)
    assert [step["model"] for step in plan["anchors"]] == ["net.py:tiny"]
    outcome = edgevit(*calibrate, "--budget", "10min", "--json", folder=here)
    result = json.loads(outcome.stdout)
    assert (result["calibrated"]["anchors"], result["failures"]) == (["net.py:tiny"], []), outcome.stderr
    with LatencyDB.open(str(tmp_path / "c.db"), shipped=False) as db:
        assert [row.model for row in db.measurements(device=local_device().device_id)] == ["net.py:tiny"]
    again = edgevit(*calibrate, "--budget", "10min", folder=here)
    assert "measured nothing" in again.stdout, "it has a row"
    assert "another kind" in refused(2, *calibrate, "--budget", "1min", "--precision", "fp16", folder=here)


def test_sweep_does_only_what_is_missing(here: Path) -> None:
    sweep = ("sweep", "--models", "net.py:tiny", "--targets", "onnx", "--input-size", "32", "--quick", "--db", "s.db")
    first = json.loads(edgevit(*sweep, "--json", folder=here).stdout)
    again = json.loads(edgevit(*sweep, "--json", folder=here).stdout)
    assert (len(first["measurements"]), first["held"]) == (1, 0)
    assert (len(again["measurements"]), again["held"]) == (0, 1)


def test_a_dry_run_says_what_is_missing_and_does_nothing(here: Path) -> None:
    sweep = ("sweep", "--models", "net.py:tiny", "--targets", "onnx", "--input-size", "32", "--quick", "--db", "d.db")
    plan = json.loads(edgevit(*sweep, "-o", "out", "--threads", "1,2", "--dry-run", "--json", folder=here).stdout)
    assert [step["does"] for step in plan["steps"]] == ["measure", "measure"], "the artifact is there"
    assert plan["seconds"] == pytest.approx(sum(step["seconds"] for step in plan["steps"])) and plan["seconds"] > 1
    outcome = edgevit(*sweep, "-o", "nowhere", "--dry-run", folder=here)
    assert outcome.returncode == 0, outcome.stderr
    assert "export" in outcome.stdout and "guessed" in outcome.stdout
    assert not (here / "nowhere").exists()
    stats = json.loads(edgevit("db", "stats", "--db", "d.db", "--json", folder=here).stdout)
    assert not [device for device in stats["devices"] if device["device_id"] == local_device().device_id]


def test_rates_and_limits_are_asked_for(here: Path) -> None:
    profile = ("profile", "out/net-tiny-32-onnx-fp32", "--quick", "--db", "r.db", "--json")
    outcome = edgevit(*profile, "--rate", "200", "--percentile", "90", folder=here)
    assert outcome.returncode == 0, outcome.stderr
    [row] = json.loads(outcome.stdout)["measurements"]
    assert (row["rate_hz"], row["runs"]) == (200.0, 64)
    assert row["missed"] is not None and row["p90_upper_ns"] and row["import_ns"] < row["load_ns"]
    assert row["energy_j"] is None or row["energy_j"] > 0
    shown = edgevit("db", "show", "--device", "local", "--db", "r.db", folder=here).stdout
    assert "at Hz" in shown and "missed" in shown
    assert "90 or 99" in refused(2, *profile[:-1], "--percentile", "95", folder=here)
    # Long enough for the watchdog to look.
    outcome = edgevit(*profile, "--max-memory-gb", "0.02", "--rate", "50", "--percentile", "90", folder=here)
    [row] = json.loads(outcome.stdout)["measurements"]
    assert (outcome.returncode, row["status"]) == (1, "crashed")
    assert row["error"].startswith("used more than 0.02 GB of memory")


def test_a_row_is_compared_with_another(here: Path) -> None:
    [row] = json.loads((here / "profile.json").read_text())["measurements"]
    names = ("net.py:tiny", row["measurement_id"][:10])
    assert "A and B are one row" in refused(2, "db", "compare", *names, "--db", "x.db", folder=here)
    shutil.copy(here / "x.db", here / "two.db")
    profile = ("profile", "out/net-tiny-32-onnx-fp32", "--quick", "--db", "two.db", "--tag", "now", "--json")
    [again] = json.loads(edgevit(*profile, folder=here).stdout)["measurements"]
    compare = ("db", "compare", names[1], "now", "--db", "two.db")
    comparison = json.loads(edgevit(*compare, "--json", folder=here).stdout)
    [pair] = comparison["pairs"]
    assert pair["verdict"] and pair["b"]["measurement_id"] == again["measurement_id"]
    outcome = edgevit("db", "compare", "--baseline", "now", "--fail-if", "slower", "--db", "two.db", folder=here)
    assert outcome.returncode == 6, "nothing was measured since"
    assert "net.py:tiny@onnx@fp32" in refused(2, "db", "compare", "tyni@onnx", names[1], "--db", "x.db", folder=here)
    assert "no measurement" in refused(2, "db", "compare", *names, "--rate", "30", "--db", "x.db", folder=here)


NO_HARNESS = "no vendor's program is known that runs artifacts of onnx"


def test_a_number_is_explained(here: Path) -> None:
    profile = ("profile", "out/net-tiny-32-onnx-fp32", "--quick", "--roofline", "--layers", "--harness", "--db", "l.db")
    report = json.loads(edgevit(*profile, "--json", folder=here).stdout)
    assert report["peak"]["gflops"] > 0 and report["peak"]["gb_per_s"] > 0
    [bound], [table] = report["roofline"], report["layers"]
    assert bound["share"] > 0 and bound["bound_by"] in ("compute", "memory")
    assert table["layers"] and sum(table["by_operator"].values()) == pytest.approx(1.0)
    assert [check["note"] for check in report["harness"]] == [NO_HARNESS]
    with LatencyDB.open(str(here / "l.db")) as db:
        kept = {(time.kind, time.operator, time.p50_ns) for time in db.operator_times("onnx")}
    assert kept == {("layer", layer["operator"], layer["ns"]) for layer in table["layers"] if layer["ns"]}
    shown = edgevit(*profile, folder=here).stdout
    assert shown.endswith(f"onnx: {NO_HARNESS}\n")
    assert "GFLOP/s in float32" in shown and "of its limit" in shown and "by operator: " in shown


@pytest.mark.slow
def test_the_noise_of_a_device_is_kept_and_used(here: Path) -> None:
    noise = json.loads(edgevit("devices", "noise", "--db", "x.db", "--json", folder=here).stdout)["noise"]
    assert len(noise["p50s_ns"]) == 5 and noise["share"] >= 0
    profile = ("profile", "out/net-tiny-32-onnx-fp32", "--quick", "--db", "x.db", "--tag")
    assert [edgevit(*profile, tag, folder=here).returncode for tag in ("one", "other")] == [0, 0]
    outcome = edgevit("db", "compare", "one", "other", "--db", "x.db", "--json", folder=here)
    [pair] = json.loads(outcome.stdout)["pairs"]
    assert pair["comparison"]["floor"] == max(0.01, noise["share"])


# Bad input: a clear message, the right exit code, nothing left behind


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "good.pth"
    torch.save({"state_dict": create_model("mobilevig_ti").state_dict()}, path)
    return path


class Exploit:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch exploited",)


def test_bad_checkpoints(tmp_path: Path, checkpoint: Path) -> None:
    content = checkpoint.read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: len(content) // 2])
    (tmp_path / "code.pth").write_bytes(pickle.dumps({"state_dict": Exploit()}))
    torch.save({"state_dict": Exploit()}, tmp_path / "code2.pth")
    before = sorted(path.name for path in tmp_path.iterdir())
    for name in ("cut.pth", "code.pth", "code2.pth", "absent.pth"):
        refused(1, "export", "mobilevig_ti", "-t", "onnx", "--weights", name, folder=tmp_path)
    assert "missing" in refused(1, "fold", "mobilevig_s", "--weights", checkpoint, folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == before, "no artifact, and the code was not run"


def test_a_good_checkpoint_goes_through(checkpoint: Path, tmp_path: Path) -> None:
    report = json.loads(edgevit("fold", "mobilevig_ti", "--weights", checkpoint, "--json", folder=tmp_path).stdout)
    assert report["source"]["weights"] == "file" and len(report["source"]["weights_sha256"]) == 64 and report["passed"]


def test_models_that_cannot_be_used(here: Path) -> None:
    assert "--input-size" in refused(2, "fold", "net.py:tiny", folder=here)
    for verb in (["fold"], ["export", "-t", "onnx"], ["export", "-t", "onnx", "--unfolded"]):
        assert "training mode" in refused(1, *verb, "net.py:training", "--input-size", "32", folder=here)
    assert "returned int" in refused(1, "fold", "net.py:nothing", "--input-size", "32", folder=here)
    assert "tiny" in refused(2, "fold", "net.py:tyni", "--input-size", "32", folder=here)
    assert "no such file" in refused(1, "fold", "absent.py:tiny", folder=here)
    refused(2, "fold", "net.py:tiny", "--input-size", "big", folder=here)


def test_an_unwritable_folder(here: Path) -> None:
    stopped = refused(1, "export", "net.py:tiny", "--input-size", "32", "-t", "onnx", "-o", "net.py/out", folder=here)
    assert "-o FOLDER" in stopped


def test_errors_are_json_where_json_was_asked_for(here: Path) -> None:
    outcome = edgevit("choose", "--max-latency", "ten", "--json", folder=here)
    assert json.loads(outcome.stderr)["error"]["type"] == "UsageError"
    assert outcome.stdout == ""


def test_verbose_shows_where_an_error_came_from(here: Path) -> None:
    export = ("export", "net.py:nothing", "--input-size", "32", "-t", "onnx")
    assert "Traceback" in edgevit(*export, "-v", folder=here).stderr
    refused(1, *export, folder=here)


@pytest.mark.parametrize("arguments", [["--help"], ["choose", "--max-latency", "10s", "--db", "x.db"], ["models"]])
def test_quick_answers_import_no_torch(here: Path, arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "edgevit.cli", *arguments]
    outcome = subprocess.run(command, capture_output=True, text=True, cwd=here, timeout=seconds(60), check=False)
    imported = {
        line.rsplit("|", 1)[-1].strip() for line in outcome.stderr.splitlines() if line.startswith("import time:")
    }
    assert "edgevit.cli" in imported and outcome.returncode == (7 if "choose" in arguments else 0)
    assert not imported & {"torch", "onnx", "onnxruntime", "alembic"}


def test_a_profile_waits_for_the_run_that_measures_on_its_device(here: Path) -> None:
    """It says which one that is. A lock of this process stands for that run."""
    profile = ("profile", "out/net-tiny-32-onnx-fp32", "--quick", "--db", "w.db", "--json")
    with locked_device(local_device()):
        process = start(profile, here, here, warm=True)
        assert process.stderr is not None
        assert select.select([process.stderr], [], [], seconds(60))[0], "it waits in silence"
        line = process.stderr.readline()
    printed, text = process.communicate(timeout=seconds(60))
    assert line.startswith(f"the device local is in use by process {os.getpid()} on ")
    assert process.returncode == 0 and json.loads(printed)["measurements"][0]["status"] == "ok", text


def test_a_profile_holds_its_device_until_its_last_analysis(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[bool] = []

    def analysis(*_: Any, **options: Any) -> list[Any]:
        held.append(lock_path(local_device()).exists())
        return []

    for name in ("measure", "understand", "held_against_vendors"):
        monkeypatch.setattr(f"edgevit.cli.profile.{name}", analysis)
    with pytest.raises(SystemExit) as ended:
        main(["profile", str(here / "out" / "net-tiny-32-onnx-fp32"), "--roofline", "--harness"])
    assert ended.value.code == 0
    assert held == [True, True, True] and not lock_path(local_device()).exists()
