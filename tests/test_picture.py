"""The picture of a choice: what is in it, that it is the same each time, and what stands in its way."""

from __future__ import annotations

import dataclasses
import json
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import pytest
from conftest import new_file
from measured import card, failed, measured, published
from PIL import Image

from edgevit.choose import Wanted, choose_among
from edgevit.cli import main
from edgevit.errors import StoreError, TargetUnavailableError, UsageError
from edgevit.report import plot
from edgevit.report.candidates import origin
from edgevit.report.picture import front, points
from edgevit.store import LatencyDB
from edgevit.types import Budget, Choice

MS = 1_000_000
CARDS = {name: card(name, top1) for name, top1 in (("a", 70.0), ("b", 75.0), ("c", 80.0), ("slow", 72.0), ("d", None))}
CARDS["rebuilt"] = card("rebuilt", 78.0, provenance="reconstructed")


def row(model: str, ms: float, **changes):
    return dataclasses.replace(
        measured(),
        model=model,
        p90_ns=round(ms * MS),
        p90_upper_ns=round(1.1 * ms * MS),
        measurement_id=model,
        **changes,
    )


def choice(**budget) -> Choice:
    rows = [row("a", 5), row("b", 10), row("c", 30), row("d", 1), row("slow", 12), row("rebuilt", 20)]
    rows += [
        dataclasses.replace(published(model="b", p50_ns=1 * MS, p90_ns=14 * MS), measurement_id="theirs"),
        failed(model="c", target="other"),
    ]
    return choose_among(rows, "pi5", Budget(**budget), cards=CARDS, wanted=Wanted(published=True, reconstructed=True))


def texts(path: Path) -> str:
    """Everything that is written in an SVG."""
    return "\n".join("".join(item.itertext()) for item in ET.parse(path).iter("{http://www.w3.org/2000/svg}text"))


def test_points_stand_at_what_is_held_against_the_budget():
    found = {(point.item.model, origin(point.item)): point for point in points(choice(max_latency_ms=12))}
    assert set(found) == {("a", "measured"), ("b", "measured"), ("b", "published"), ("c", "measured"),
                          ("slow", "measured"), ("rebuilt", "reconstructed")}  # fmt: skip
    assert (found["b", "measured"].x, found["b", "measured"].low, found["b", "measured"].fits) == (11.0, 10.0, True)
    assert (found["b", "published"].x, found["b", "published"].low, found["b", "published"].fits) == (14.0, 14.0, False)
    assert not found["c", "measured"].fits


def test_the_front_is_what_the_chooser_picks_for_every_budget():
    every = points(choice())
    line = front(every)
    picked = [choice(max_latency_ms=point.x).picked for point in sorted(every, key=lambda point: point.x)]
    assert [point.item.model for point in line] == list(dict.fromkeys(item.model for item in picked))
    assert [point.item.model for point in line] == ["a", "b", "rebuilt", "c"]


def test_an_svg_says_it_all_in_text(tmp_path):
    plot(choice(max_latency_ms=12, min_top1_percent=60), tmp_path / "choice.svg")
    said = texts(tmp_path / "choice.svg")
    measured = ("measured, fits", "measured, does not fit", "published, does not fit", "reconstructed, does not fit")
    limits = ("budget: p90 at most 12 ms", "at least 60%", "picked", "front: beaten by none")
    for part in ("pi5: b, onnx fp32, 4 threads", "imagenet-1k val", "latency, ms", *measured, *limits):
        assert part in said, part
    assert {"a", "b", "rebuilt", "c"} <= set(said.splitlines()) and "slow" not in said.splitlines()


@pytest.mark.parametrize("name", ["choice.png", "choice.svg"])
def test_the_same_choice_is_the_same_file_whatever_the_users_settings(tmp_path, name):
    plot(choice(max_latency_ms=12), tmp_path / name)
    with matplotlib.rc_context({"axes.facecolor": "red", "svg.hashsalt": None}):
        plot(choice(max_latency_ms=12), tmp_path / f"again_{name}")
        assert matplotlib.rcParams["axes.facecolor"] == "red"
    assert (tmp_path / name).read_bytes() == (tmp_path / f"again_{name}").read_bytes()
    plot(choice(max_latency_ms=13), tmp_path / f"other_{name}")
    assert (tmp_path / name).read_bytes() != (tmp_path / f"other_{name}").read_bytes()


def test_a_png_is_a_picture(tmp_path):
    plot(choice(max_latency_ms=12), tmp_path / "CHOICE.PNG")
    with Image.open(tmp_path / "CHOICE.PNG") as image:
        assert image.size == (1350, 810) and len(image.convert("RGB").getcolors(10**6) or ()) > 50


def test_names_are_no_formulae_and_no_markup(tmp_path):
    name = r"$\frac{1 </text><script>x</script>"
    rows = [row(name, 5)]
    plot(choose_among(rows, name, Budget(), cards={name: card(name, 70.0)}), tmp_path / "x.svg")
    assert texts(tmp_path / "x.svg").count(name) == 3  # device, pick, and the point
    assert not list(ET.parse(tmp_path / "x.svg").iter("{http://www.w3.org/2000/svg}script"))


def test_of_nothing_to_draw_it_says_so(tmp_path):
    nothing = choose_among([row("d", 5)], "pi5", Budget(1.0), cards=CARDS)
    assert points(nothing) == []
    plot(nothing, tmp_path / "x.svg")
    assert "nothing to draw: no candidate has both" in texts(tmp_path / "x.svg")
    assert "pi5: nothing fits" in texts(tmp_path / "x.svg")


def test_what_stands_in_its_way_is_told(tmp_path, monkeypatch):
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
def test_the_command_draws_what_it_answers(tmp_path, capsys, limit, code):
    with LatencyDB.open(new_file(tmp_path / "rows.db"), shipped=False) as database:
        database.add(measured(model="mobilevig_ti", family="mobilevig"))
    command = ["choose", "--db", str(tmp_path / "rows.db"), "--device", "pi5", "--max-latency", limit, "--json"]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--plot", str(tmp_path / "choice.svg")])
    assert (ended.value.code or 0) == code
    picked = json.loads(capsys.readouterr().out)["picked"]
    answer = "mobilevig_ti, onnx fp32, 4 threads" if picked else "nothing fits"
    assert f"pi5: {answer}" in texts(tmp_path / "choice.svg")
