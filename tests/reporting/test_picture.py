"""The picture of a choice: what is in it, that it is the same each time, and what stands in its way."""

from __future__ import annotations

import dataclasses
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import new_file
from edgevit.cli import main
from edgevit.errors import StoreError, TargetUnavailableError, UsageError
from edgevit.records.choice import Basis, Budget, Choice, JointChoice
from edgevit.records.measurement import Measurement
from edgevit.reporting import plot
from edgevit.reporting.axes import draw_panel
from edgevit.reporting.candidates import origin
from edgevit.reporting.points import panels, points
from edgevit.selection import CandidateFilter, Cell, Evidence, PredictedCell, choose_among, choose_jointly
from edgevit.store import LatencyDB
from support.measured import card, failed, measured, published

MS = 1_000_000
CARDS = {name: card(name, top1) for name, top1 in (("a", 70.0), ("b", 75.0), ("c", 80.0), ("slow", 72.0), ("d", None))}
CARDS["rebuilt"] = card("rebuilt", 78.0, provenance="reconstructed")


def row(model: str, ms: float, **changes: Any) -> Measurement:
    return dataclasses.replace(
        measured(),
        model=model,
        p90_ns=round(ms * MS),
        p90_upper_ns=round(1.1 * ms * MS),
        measurement_id=model,
        **changes,
    )


def choice(**budget: Any) -> Choice:
    rows = [row("a", 5), row("b", 10), row("c", 30), row("d", 1), row("slow", 12), row("rebuilt", 20)]
    rows += [
        dataclasses.replace(published(model="b", p50_ns=1 * MS, p90_ns=14 * MS), measurement_id="theirs"),
        failed(model="c", target="other"),
    ]
    return choose_among(
        rows, "pi5", Budget(**budget), cards=CARDS, candidate_filter=CandidateFilter(published=True, reconstructed=True)
    )


def texts(path: Path) -> str:
    """Return everything that is written in an SVG."""
    return "\n".join("".join(text.itertext()) for text in ET.parse(path).iter("{http://www.w3.org/2000/svg}text"))


def test_points_stand_at_what_is_held_against_the_budget() -> None:
    drawn = {(point.candidate.model, origin(point.candidate)): point for point in points(choice(max_latency_ms=12))}
    assert set(drawn) == {("a", "measured"), ("b", "measured"), ("b", "published"), ("c", "measured"),
                          ("slow", "measured"), ("rebuilt", "reconstructed")}  # fmt: skip
    assert (drawn["b", "measured"].x, drawn["b", "measured"].low, drawn["b", "measured"].standing) == (
        11.0, 10.0, "fits")  # fmt: skip
    assert (drawn["b", "published"].x, drawn["b", "published"].low, drawn["b", "published"].standing) == (
        14.0, 14.0, "does not fit")  # fmt: skip
    assert drawn["c", "measured"].standing == "does not fit"


def guess(model: str, low: float, ms: float, at_most: float, high: float) -> PredictedCell:
    """Return a prediction, in milliseconds."""
    basis = Basis("transfer", 0.9, 5, "pi4", low, high)
    like = row(model, 1)
    cell = Cell(f"predicted {model}", model, like.target, like.precision, like.threads, like.engine, "pi5", "pi-0001",
                inputs=like.inputs, parity_status="passed")  # fmt: skip
    return PredictedCell(cell, (round(ms * MS), round(at_most * MS)), basis)


def predicted_choice() -> Choice:
    evidence = Evidence(predicted=(guess("c", 6, 9, 11, 13), guess("slow", 20, 30, 40, 50)))
    return choose_among([row("a", 5)], "pi5", Budget(12), cards=CARDS, evidence=evidence)


def test_a_prediction_stands_at_its_bound_inside_its_interval(tmp_path: Path) -> None:
    by_model = {point.candidate.model: point for point in points(predicted_choice())}
    assert (by_model["c"].low, by_model["c"].x, by_model["c"].high, by_model["c"].standing) == (6, 11, 13, "fits")
    assert (by_model["slow"].low, by_model["slow"].x, by_model["slow"].high) == (20, 40, 50)
    plot(predicted_choice(), tmp_path / "x.svg")
    text = texts(tmp_path / "x.svg")
    for part in ("pi5: c, onnx fp32", "predicted, fits", "predicted, does not fit", "measured, fits", "picked"):
        assert part in text, part


def joint_choice(*names: str, **budget: Any) -> JointChoice:
    """Return the answer of devices, each half as fast as the last; `b` ran on the first alone, `d` has no accuracy."""
    choices = []
    for number, name in enumerate(names):
        rows = [row(model, 2**number * ms) for model, ms in (("a", 5), ("c", 30), ("d", 1), ("slow", 9))]
        rows += [row("b", 6)] if number == 0 else []
        choices.append(choose_among(rows, name, Budget(**budget), cards=CARDS))
    return choose_jointly(choices)


def test_of_several_devices_the_joint_pick_is_ringed_in_each_and_what_fits_here_alone_is_told() -> None:
    """`b` is the most accurate on the first device, and on no other."""
    both = joint_choice("pi5", "pi4", max_latency_ms=21)
    [pi5, pi4] = panels(both)
    assert pi5.choice.picked and pi5.choice.picked.model == "b" and (pi5.picked, pi4.picked) == both.picked
    assert [panel.picked.model for panel in (pi5, pi4) if panel.picked] == ["slow", "slow"]
    standing = [{point.candidate.model: point.standing for point in panel.points} for panel in (pi5, pi4)]
    assert standing[0] == {"a": "fits on all", "b": "fits here only", "slow": "fits on all", "c": "does not fit"}
    assert standing[1] == {"a": "fits on all", "slow": "fits on all", "c": "does not fit"}


def test_the_picture_of_several_devices_says_it_all_in_text(tmp_path: Path) -> None:
    plot(joint_choice("pi5", "pi4", "pi3", max_latency_ms=42), tmp_path / "x.svg")
    text = texts(tmp_path / "x.svg").splitlines()
    assert "pi5 and pi4 and pi3: slow, onnx fp32" in text
    for part in ("pi5, 4 threads, 9.9 ms (measured)", "pi4, 4 threads, 19.8 ms (measured)", "measured, fits here only"):
        assert part in text, part
    assert sum("latency, ms" in line for line in text) == 3 and text.count("picked") == 1
    assert text.count("slow") == 3, "a name beside the pick on each"


def test_several_devices_of_which_nothing_fits_on_all_say_so(tmp_path: Path) -> None:
    plot(joint_choice("pi5", "pi4", max_latency_ms=2), tmp_path / "x.svg")
    text = texts(tmp_path / "x.svg").splitlines()
    assert "pi5 and pi4: nothing fits on all" in text and "picked" not in text


def test_the_front_is_what_the_chooser_picks_for_every_budget() -> None:
    [panel] = panels(choice())
    limits = sorted(point.x for point in panel.points)
    picked = [choice(max_latency_ms=limit).picked for limit in limits]
    models = [point.candidate.model for point in panel.front]
    assert models == list(dict.fromkeys(pick.model for pick in picked if pick)) == ["a", "b", "rebuilt", "c"]


def test_the_front_drawn_is_that_of_the_choice_and_ends_at_the_budget() -> None:
    """A limit on size rejects `c`, which nothing beats, and the budget rejects `rebuilt`: neither is on the front."""
    rows = [row("a", 5), row("b", 10), row("c", 8, artifact_bytes=9 * MS), row("rebuilt", 20)]
    with_rebuilt = CandidateFilter(reconstructed=True)
    answer = choose_among(rows, "pi5", Budget(12, max_size_mb=5), cards=CARDS, candidate_filter=with_rebuilt)
    [panel] = panels(answer)
    assert [point.candidate for point in panel.front] == list(answer.front)
    assert {point.candidate.model for point in panel.points} == {"a", "b", "c", "rebuilt"}
    # Imported here, because only one worker runs this.
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    draw_panel(axes, panel, 10)
    [line] = [line for line in axes.get_lines() if line.get_label() == "front of what fits"]
    corners: Any = line.get_xydata()
    assert [tuple(corner) for corner in corners.tolist()] == [(5.5, 70.0), (11.0, 75.0), (12.0, 75.0)]


def test_of_equal_candidates_all_are_on_the_front() -> None:
    twins = [row("a", 5), row("a", 5, target="ncnn")]
    twins = [dataclasses.replace(twin, measurement_id=twin.target) for twin in twins]
    [panel] = panels(choose_among(twins, "pi5", Budget(), cards=CARDS))
    assert [point.candidate.target for point in panel.front] == ["ncnn", "onnx"]


def test_an_svg_says_it_all_in_text(tmp_path: Path) -> None:
    plot(choice(max_latency_ms=12, min_top1_percent=60), tmp_path / "choice.svg")
    text = texts(tmp_path / "choice.svg")
    measured = ("measured, fits", "measured, does not fit", "published, does not fit", "reconstructed, does not fit")
    limits = ("budget: p90 at most 12 ms", "at least 60%", "picked", "front of what fits")
    for part in ("pi5: b, onnx fp32, 4 threads", "imagenet-1k val", "latency, ms", *measured, *limits):
        assert part in text, part
    names = {"a", "b", "c", "d", "rebuilt", "slow"}
    assert names & set(text.splitlines()) == {"a", "b"}, "the pick, and the corners of the front"


@pytest.mark.parametrize("name", ["choice.png", "choice.svg"])
def test_the_same_choice_is_the_same_file_whatever_the_users_settings(tmp_path: Path, name: str) -> None:
    plot(choice(max_latency_ms=12), tmp_path / name)
    import matplotlib

    with matplotlib.rc_context({"axes.facecolor": "red", "svg.hashsalt": None}):
        plot(choice(max_latency_ms=12), tmp_path / f"again_{name}")
        assert matplotlib.rcParams["axes.facecolor"] == "red"
    assert (tmp_path / name).read_bytes() == (tmp_path / f"again_{name}").read_bytes()
    plot(choice(max_latency_ms=13), tmp_path / f"other_{name}")
    assert (tmp_path / name).read_bytes() != (tmp_path / f"other_{name}").read_bytes()


def test_a_png_is_a_picture(tmp_path: Path) -> None:
    plot(choice(max_latency_ms=12), tmp_path / "CHOICE.PNG")
    with Image.open(tmp_path / "CHOICE.PNG") as image:
        assert image.size == (1350, 810) and len(image.convert("RGB").getcolors(10**6) or ()) > 50


def test_names_are_no_formulae_and_no_markup(tmp_path: Path) -> None:
    name = r"$\frac{1 </text><script>x</script>"
    rows = [row(name, 5)]
    plot(choose_among(rows, name, Budget(), cards={name: card(name, 70.0)}), tmp_path / "x.svg")
    assert texts(tmp_path / "x.svg").count(name) == 3  # device, pick, and the point
    assert not list(ET.parse(tmp_path / "x.svg").iter("{http://www.w3.org/2000/svg}script"))


def test_of_nothing_to_draw_it_says_so(tmp_path: Path) -> None:
    nothing = choose_among([row("d", 5)], "pi5", Budget(1.0), cards=CARDS)
    assert points(nothing) == []
    plot(nothing, tmp_path / "x.svg")
    assert "nothing to draw: no candidate has both" in texts(tmp_path / "x.svg")
    assert "pi5: nothing fits" in texts(tmp_path / "x.svg")


def test_what_stands_in_its_way_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"choice\.gif is no picture"):
        plot(choice(), tmp_path / "choice.gif")
    with pytest.raises(StoreError, match="the picture cannot be written"):
        plot(choice(), tmp_path / "nowhere" / "choice.png")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(TargetUnavailableError, match="matplotlib") as caught:
        plot(choice(), tmp_path / "choice.png")
    assert caught.value.fix == "pip install 'edgevit[report]'"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("limit", "code"), [("10ms", 0), ("1ms", 3)])
def test_the_command_draws_what_it_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], limit: str, code: int
) -> None:
    with LatencyDB.open(new_file(tmp_path / "rows.db"), shipped=False) as database:
        database.add(measured(model="mobilevig_ti", family="mobilevig"))
    command = ["choose", "--db", str(tmp_path / "rows.db"), "--device", "pi5", "--max-latency", limit, "--json"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--plot", str(tmp_path / "choice.svg")])
    assert (ended.value.code or 0) == code
    picked = json.loads(capsys.readouterr().out)["picked"]
    answer = "mobilevig_ti, onnx fp32, 4 threads" if picked else "nothing fits"
    assert f"pi5: {answer}" in texts(tmp_path / "choice.svg")


def test_the_command_draws_several_devices(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LatencyDB.open(new_file(tmp_path / "rows.db"), shipped=False) as database:
        for name in ("pi5", "pi4"):
            database.add(measured(model="mobilevig_ti", device=name, device_id=f"{name}-1", nonce=name))
    command = ["choose", "--db", str(tmp_path / "rows.db"), "--device", "pi5,pi4", "--max-latency", "10ms", "--json"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--plot", str(tmp_path / "choice.svg")])
    assert (ended.value.code or 0) == 0 and len(json.loads(capsys.readouterr().out)["picked"]) == 2
    assert "pi5 and pi4: mobilevig_ti, onnx fp32" in texts(tmp_path / "choice.svg")
