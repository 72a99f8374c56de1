"""The report in a browser, headless Chromium: what it draws is what the chooser says, and what is pressed is done."""

from __future__ import annotations

import dataclasses
import functools
import random
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageStat

from conftest import new_file
from edgevit.records.choice import Budget, Candidate, Choice
from edgevit.records.measurement import Measurement
from edgevit.reporting import Report, ReportOptions, collect, write
from edgevit.reporting.page_records import Entry
from edgevit.selection import (
    CandidateFilter,
    Evidence,
    PredictionOptions,
    ask,
    choose_among,
    noise_floors,
    predicted_cells,
    read_other_devices,
)
from edgevit.selection.wording import describe
from edgevit.store import LatencyDB
from edgevit.store.jsonl import write_lines
from support import browser
from support.measured import card, failed, floor, measured, published
from support.report_page import MS, drawn_fronts, points, press, radio, set_controls, timed, traces

PERCENTILES = (50, 90, 99)
CARDS = {f"net_{i}": card(f"net_{i}", 60.0 + 2 * i) for i in range(9)} | {
    "rebuilt": card("rebuilt", 79.0, provenance="reconstructed"), "unrated": card("unrated", None)}  # fmt: skip
DEVICES = ("pi5", "jetson")
PUBLISHED = CandidateFilter(published=True)  # what the page holds, and what it looks at first


def rows() -> Iterator[Measurement]:
    """Yield rows of two devices; spreads differ, so that each percentile has a front of its own."""
    dice = random.Random(1)
    for number, (device, model, target) in enumerate(
        (d, m, t) for d in DEVICES for m in CARDS for t in ("onnx", "ncnn")
    ):
        ms = (4 + 5 * list(CARDS).index(model)) * dice.uniform(0.6, 1.6)
        yield timed(ms, dice.uniform(0.01, 0.5), model=model, family="net", target=target,
                    precision="fp16" if number % 3 else "fp32", threads=1 + 3 * (number % 2), device=device,
                    device_id=f"{device}-1", artifact_sha256=f"{number:064x}", artifact_bytes=MS * (number + 1),
                    nonce=str(number), grade="ABCD"[number % 4])  # fmt: skip
    yield published(model="net_8", p50_ns=30 * MS, p90_ns=33 * MS, device="pi5", device_id="pi5-1", target="theirs")
    yield failed(model="net_7", target="executorch", device="pi5", device_id="pi5-1", nonce="crash")


pytestmark = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing() or "a browser is there")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def database(folder: Path) -> Iterator[LatencyDB]:
    with LatencyDB.open(new_file(folder / "rows.db"), shipped=False) as database:
        for row in rows():
            database.add(row)
        for device in DEVICES:
            database.add_noise(floor(0.001, device_id=f"{device}-1", device=device))
        yield database


@pytest.fixture(scope="module")
def report(database: LatencyDB) -> Report:
    return collect(database, CARDS, ReportOptions(published=True), command="edgevit report --published")


@pytest.fixture(scope="module")
def window() -> Iterator[browser.Browser]:
    with browser.launched() as chromium:
        yield chromium


@pytest.fixture(scope="module")
def opened(report: Report, folder: Path, window: browser.Browser) -> Any:
    write(report, folder / "report.html")
    return window.open(folder / "report.html")


@pytest.fixture
def page(opened: Any) -> Any:
    """Return the one page of most tests, as it was when it was opened."""
    if opened.viewport_size != browser.DESKTOP:
        opened.set_viewport_size(browser.DESKTOP)
    pressed = {radio(name, value): True for name, value in (("percentile", 90), ("at", "bound"), ("scale", "log"))}
    set_controls(opened, {**pressed, "input[name=budget]": "", "select[name=colour]": "device"})
    opened.evaluate("document.getElementById('clear').click()")
    return opened


@pytest.fixture(scope="module")
def crowd(report: Report, folder: Path, window: browser.Browser) -> Any:
    """Open a page with more than a thousand rows; return it with the rows."""
    entries = 15 * report.entries
    write(dataclasses.replace(report, entries=entries), folder / "crowd.html")
    return window.open(folder / "crowd.html"), entries


@pytest.fixture(autouse=True)
def in_silence(window: browser.Browser) -> Iterator[None]:
    """Check after each test that the page asked for its own file alone, and wrote nothing on the console."""
    yield
    assert [url for url in window.requests if not url.startswith("file://")] == []
    assert window.messages == []
    window.requests.clear()


def column(page: Any, key: str) -> list[str]:
    """Return a column of the table, as it is read."""
    number = page.evaluate(
        f"""[...document.querySelectorAll('#table th')].findIndex(th => th.dataset.key === '{key}')"""
    )
    return [text.strip() for text in page.locator(f"#table tbody td:nth-child({number + 1})").all_inner_texts()]


def named(page: Any, word: str) -> set[int]:
    """Return the rows of the table that have this word for their origin."""
    origins = column(page, "origin")
    return {index for index, origin in zip(table_rows(page), origins, strict=True) if origin == word}


def front_rows(page: Any) -> list[int]:
    """Return the indices of the rows on the fronts that are drawn."""
    by_position = {position: index for index, position in points(page).items()}
    return [by_position[corner] for line in drawn_fronts(page).values() for corner in line]


def table_rows(page: Any) -> list[int]:
    return list(page.evaluate("[...document.querySelectorAll('#table tbody tr')].map(row => Number(row.dataset.row))"))


# What is drawn


def looked_at(entry: Entry) -> bool:
    """Return whether a row passes the filters as they are at first."""
    return entry.usable and entry.top1_provenance != "reconstructed"


@functools.cache
def chooser_of(database: LatencyDB, device: str, percentile: int, *, predict: bool) -> Callable[..., Choice]:
    """Return the chooser with its evidence on a device, so that asking it again predicts nothing again."""
    rows, former = database.history(device)
    than = read_other_devices(database, device, CARDS)
    predicted = predicted_cells(rows, CARDS, PUBLISHED, percentile, 0.9, than) if predict else []
    evidence = Evidence(noise_floors(database, rows), former=former, predicted=predicted)

    def choice(limit: float | None = None, candidate_filter: CandidateFilter = PUBLISHED) -> Choice:
        return choose_among(
            rows, device, Budget(limit, percentile), cards=CARDS, candidate_filter=candidate_filter, evidence=evidence
        )

    return choice


def held(candidate: Candidate | None) -> float:
    assert candidate is not None
    return candidate.latency_upper_ms or candidate.latency_ms or 0


@functools.cache
def picks(
    database: LatencyDB,
    device: str,
    percentile: int,
    *,
    predict: bool = True,
    candidate_filter: CandidateFilter = PUBLISHED,
) -> list[tuple[float, float]]:
    """Return the bounds and accuracies that the chooser picks as the budget grows."""
    choose = chooser_of(database, device, percentile, predict=predict)
    limits = sorted(held(candidate) for candidate in choose(candidate_filter=candidate_filter).fitting)
    picked = [choose(limit, candidate_filter).picked for limit in limits if limit]
    return list(dict.fromkeys((held(pick), pick.top1_percent) for pick in picked if pick and pick.top1_percent))


@pytest.mark.parametrize("predict", [True, False])
@pytest.mark.parametrize("percentile", PERCENTILES)
def test_the_front_is_what_the_chooser_picks_for_every_budget(
    page: Any, database: LatencyDB, percentile: int, predict: bool
) -> None:
    press(page, "percentile", str(percentile))
    page.set_checked("#facet-latency input[value=predicted]", predict)
    expected = {device: picks(database, device, percentile, predict=predict) for device in DEVICES}
    assert drawn_fronts(page) == expected
    assert all(len(line) > 2 for line in expected.values())


def test_predictions_change_the_front_and_the_page_says_whether_they_are_in_it(page: Any, database: LatencyDB) -> None:
    measured = {device: picks(database, device, 90, predict=False) for device in DEVICES}
    predicted = sum(index in named(page, "predicted") for index in front_rows(page))
    assert predicted and drawn_fronts(page) != measured
    assert f"{predicted} of these {len(front_rows(page))} " in page.locator("#front-lead").inner_text()
    page.click("#front-lead button")
    assert not page.is_checked("#facet-latency input[value=predicted]")
    assert drawn_fronts(page) == measured and "Predictions are left out" in page.locator("#front-lead").inner_text()
    page.click("#front-lead button")
    assert drawn_fronts(page) != measured


def test_reconstructed_models_are_left_out_until_they_are_asked_for(page: Any, database: LatencyDB) -> None:
    with_rebuilt = CandidateFilter(published=True, reconstructed=True)
    with_them = {device: picks(database, device, 90, candidate_filter=with_rebuilt) for device in DEVICES}
    assert "rebuilt" not in column(page, "model") and drawn_fronts(page) != with_them
    note = page.locator("#chart-notes li", has_text="reconstructed from papers")
    page.uncheck("#facet-device input[value='0']")
    assert "4 rows" in note.inner_text()
    page.check("#facet-device input[value='0']")
    assert "8 rows" in note.inner_text()
    note.locator("button").click()
    assert drawn_fronts(page) == with_them and column(page, "model").count("rebuilt") == 8
    assert not note.is_visible() and set(column(page, "origin")) > {"reconstructed", "predicted, reconstructed"}


def test_each_percentile_has_its_own_front(database: LatencyDB) -> None:
    assert len({str(picks(database, "pi5", percentile)) for percentile in PERCENTILES}) == 3


@pytest.mark.parametrize("percentile", PERCENTILES)
def test_points_stand_at_the_bound_or_the_percentile_and_bars_span_what_is_known(
    page: Any, report: Report, percentile: int
) -> None:
    press(page, "percentile", str(percentile))
    latencies = {index: getattr(entry, f"p{percentile}") for index, entry in enumerate(report.entries)}
    shown = [p for p, entry in enumerate(report.entries) if looked_at(entry) and entry.top1_percent is not None]
    assert any(latencies[index].basis for index in shown)
    bounds = points(page)
    assert {index: x for index, (x, _) in bounds.items()} == {
        index: latencies[index].held_ms for index in shown if latencies[index].held_ms is not None}  # fmt: skip
    for trace in (trace for trace in traces(page) if trace["name"] == "rows"):
        for index, x, up, down in zip(trace["rows"], trace["x"], trace["up"], trace["down"], strict=True):
            basis, high = latencies[index].basis, latencies[index].high_ms
            low = basis.lower_ms if basis else latencies[index].low_ms
            assert (x + up, x - down) == pytest.approx((basis.upper_ms if basis else high or x, low))
    press(page, "at", "value")
    assert {index: x for index, (x, _) in points(page).items()} == {
        index: latencies[index].ms for index in shown if latencies[index].ms is not None}  # fmt: skip


def test_each_origin_has_a_filling_and_each_target_a_shape(crowd: Any) -> None:
    page, entries = crowd
    page.check("#facet-accuracy input[value=reconstructed]")
    symbols_of: dict[tuple[str, str], set[str]] = {}
    for trace in (trace for trace in traces(page) if trace["name"] == "rows"):
        for index, symbol in zip(trace["rows"], trace["symbols"], strict=True):
            symbols_of.setdefault((entries[index].target, entries[index].provenance), set()).add(symbol)
    assert all(len(symbols) == 1 for symbols in symbols_of.values())
    symbol_of = {key: symbols.pop() for key, symbols in symbols_of.items()}
    assert len(set(symbol_of.values())) == len(symbol_of)
    fillings = {provenance: re.sub(r"^[a-z]+(-up|-down)?", "", symbol) for (_, provenance), symbol in symbol_of.items()}
    assert fillings == {"measured": "", "reconstructed": "-dot", "predicted": "-open-dot", "published": "-open"}
    legend = page.locator("#legend").inner_text()
    assert all(origin in legend for origin in fillings)


def test_what_hovers_tells_where_the_numbers_come_from(page: Any, report: Report) -> None:
    [trace] = [t for t in traces(page) if t["name"] == "rows" and any("theirs" in text for text in t["hovertext"])]
    theirs = next(text for text in trace["hovertext"] if "theirs" in text)
    assert "p90 33 ms, no bound (published)" in theirs and "top-1 76% (published)" in theirs
    ours = next(text for text in trace["hovertext"] if "theirs" not in text and "(predicted)" not in text)
    for fact in (
        "at most",
        "(measured)",
        "grade ",
        "40 runs in 2 processes",
        "onnxruntime 1.31.1",
        "2026-11-21",
        "epoch 0",
    ):
        assert fact in ours


def test_a_prediction_tells_what_it_rests_on(page: Any, report: Report) -> None:
    index, entry = next((p, e) for p, e in enumerate(report.entries) if e.p90.basis and looked_at(e) and e.top1_percent)
    basis = entry.p90.basis
    assert basis is not None
    [text] = [text for t in traces(page) if t["name"] == "rows"
              for row, text in zip(t["rows"], t["hovertext"], strict=True) if row == index]  # fmt: skip
    for fact in ("(predicted)", "at most", f"90%: {basis.lower_ms:.3g} to {basis.upper_ms:.3g} ms", basis.level,
                 f"from {basis.anchors} rows of the device", f"nearest: {basis.nearest}"):  # fmt: skip
        assert fact in text
    assert "grade" not in text and "runs" not in text
    page.locator(f"#table tr[data-row='{index}'] .pick").click()
    detail = page.locator("#detail").inner_text()
    for fact in (f"90%: {basis.lower_ms:.3g} to {basis.upper_ms:.3g} ms", " on\n", "Would run as", "not exported yet",
                 f"{basis.level}, {basis.anchors} rows of the device, nearest {basis.nearest}",
                 f"edgevit sweep --models {entry.model} --targets {entry.target} --precision"):  # fmt: skip
        assert fact in detail
    assert "edgevit db show" not in detail and "Grade" not in detail
    page.click("#detail button")


def test_each_device_says_how_many_candidates_are_predicted_and_why_others_are_not(
    page: Any, database: LatencyDB
) -> None:
    for number, device in enumerate(sorted(DEVICES)):
        choice = chooser_of(database, device, 90, predict=True)(
            candidate_filter=CandidateFilter(published=True, reconstructed=True)
        )
        refused = [describe(rejection.reasons[0]) for rejection in choice.rejected if rejection.kind == "unmeasured"]
        predicted = sum(candidate.basis is not None for candidate in choice.fitting)
        part = page.locator("#device-parts details").nth(number).inner_text()
        assert f"{predicted} candidates" in part and predicted > 10
        for reason in refused:
            assert f"{refused.count(reason)}: {reason}" in part
        assert bool(refused) == (device == "pi5") == ("Cannot be predicted" in part)


@functools.cache
def pick_of(database: LatencyDB, device: str, limit: float, *, predict: bool) -> Candidate | None:
    """Return what the chooser picks, asked of the database."""
    prediction = PredictionOptions(predict)
    return ask(
        database, device, Budget(limit, 90), cards=CARDS, candidate_filter=PUBLISHED, prediction=prediction
    ).picked


@pytest.mark.parametrize("predict", [True, False])
@pytest.mark.parametrize("at", ["bound", "value"])
def test_a_budget_is_answered_as_the_chooser_answers(page: Any, database: LatencyDB, at: str, predict: bool) -> None:
    press(page, "at", at)
    page.set_checked("#facet-latency input[value=predicted]", predict)
    for limit in (12, 25, 40, 60):
        page.fill("input[name=budget]", str(limit))
        text = page.locator("#picks").inner_text()
        for device in DEVICES:
            picked = pick_of(database, device, limit, predict=predict)
            assert picked is not None
            assert f"{device}: {picked.model}, {picked.target} {picked.precision}" in text
            assert f"{held(picked):.3g} ms ({picked.latency_provenance}" in text
        assert ("without predictions" in text) != predict
    page.fill("input[name=budget]", "0.1")
    assert page.locator("#picks").inner_text().count("nothing shown fits") == 2


def test_of_equally_accurate_rows_that_the_device_cannot_tell_apart_the_smallest_answers(
    folder: Path, window: browser.Browser
) -> None:
    """As the chooser has it. The row of a model without an accuracy answers where nothing else fits."""
    alike = [timed(10 * factor, 0.1, model="net_1", target=target, artifact_bytes=size * MS, nonce=target)
            for target, factor, size in (("onnx", 1, 9), ("ncnn", 1.005, 5), ("litert", 1.05, 1))]  # fmt: skip
    with LatencyDB.open(new_file(folder / "alike.db"), shipped=False) as database:
        for row in (*alike, timed(2, 0.1, model="unrated")):
            database.add(row)
        write(collect(database, CARDS), folder / "alike.html")
        page = window.open(folder / "alike.html")
        lead = "nothing is chosen, as no accuracy is known of what fits; the fastest is "
        for limit, expected, words in ((20, ("net_1", "ncnn"), ""), (5, ("unrated", "onnx"), lead)):
            page.fill("input[name=budget]", str(limit))
            answer = ask(database, "pi5", Budget(limit), cards=CARDS)
            picked = answer.picked
            assert picked is not None and (picked.model, picked.target) == expected
            assert f"pi5: {words}{picked.model}, {picked.target} fp32" in page.locator("#picks").inner_text()
            assert answer.outcome == ("no_accuracy" if words else "chosen")
    assert "top-1 not known" in page.locator("#picks").inner_text()
    window.finish(page)


# What is pressed


def test_a_filter_narrows_chart_and_table_alike(page: Any, report: Report) -> None:
    page.uncheck("#facet-target input[value=ncnn]")
    page.uncheck("#facet-device input[value='0']")
    passing = {
        index
        for index, entry in enumerate(report.entries)
        if looked_at(entry) and entry.target != "ncnn" and report.devices[entry.device].label == "pi5"
    }
    total_looked_at = sum(map(looked_at, report.entries))
    assert set(table_rows(page)) == passing and 10 < len(passing) < total_looked_at / 2
    assert set(points(page)) == {index for index in passing if report.entries[index].top1_percent is not None}
    predicted = sum(report.entries[index].latency_provenance == "predicted" for index in passing)
    total = sum(entry.usable for entry in report.entries)
    count = page.locator("#rows-count").inner_text()
    assert count.startswith(f"{len(passing)} rows of {total}, {predicted} of them predicted")
    page.click("#clear")
    assert len(table_rows(page)) == total_looked_at


def test_search_finds_words_wherever_they_are(page: Any) -> None:
    page.fill("input[name=search]", "JETSON net_5 measured")
    assert column(page, "model") == ["net_5", "net_5"] and column(page, "device") == ["jetson", "jetson"]
    page.fill("input[name=search]", "nobody's")
    assert "No row passes the filters" in page.locator("#table").inner_text()
    assert points(page) == {}


@pytest.mark.parametrize(
    ("key", "first"), [("model", "ascending"), ("bound", "ascending"), ("top1", "ascending"), ("size", "ascending")]
)
def test_a_heading_sorts_up_and_down_with_the_unknown_last(page: Any, key: str, first: str) -> None:
    heading = f"#table th[data-key={key}]"
    if page.get_attribute(heading, "aria-sort") != first:
        page.click(f"{heading} button")
    assert page.get_attribute(heading, "aria-sort") == first
    up = column(page, key)
    page.click(f"{heading} button")
    assert page.get_attribute(heading, "aria-sort") == "descending"
    down = column(page, key)
    value = str if key == "model" else lambda text: float(re.sub(r"[\u2007\u2008]", "", text))
    for texts, back in ((up, False), (down, True)):
        values = [value(text) for text in texts if text]
        assert values == sorted(values, reverse=back) and texts[: len(values)] == [text for text in texts if text]
    assert len(set(up)) > 5
    page.click("#table th[data-key=top1] button")


def test_rows_that_cannot_be_chosen_are_there_when_asked_for_with_the_reason(page: Any) -> None:
    assert "executorch" not in column(page, "target")
    page.check("input[name=unusable]")
    page.fill("input[name=search]", "executorch")
    assert column(page, "reason") == ["cannot run here: crashed: SIGSEGV"]


def test_by_keyboard_a_row_opens_and_a_heading_sorts(page: Any, report: Report) -> None:
    page.fill("input[name=search]", "theirs")
    page.focus("#table .pick")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "detail"
    detail = page.locator("#detail").inner_text()
    for fact in ("net_8", "33 ms, no bound", "arXiv:2206.04040", "CC-BY-4.0", "edgevit db show"):
        assert fact in detail
    assert any(trace["name"] == "selected" for trace in traces(page))
    page.focus("#table th[data-key=size] button")
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.closest('th').ariaSort") == "ascending"
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.closest('th').ariaSort") == "descending"
    page.click("#detail button")
    assert page.locator("#detail").is_hidden()
    page.fill("input[name=search]", "")
    page.locator("#front .pick").first.click()
    assert page.locator("#detail").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#detail").is_hidden()
    page.click("#table th[data-key=top1] button")


def test_every_control_has_a_name(page: Any) -> None:
    unnamed = """[...document.querySelectorAll('input, select, button')].filter((e) => !e.closest('.modebar'))
      .filter((e) => !(e.ariaLabel || e.textContent.trim() || [...(e.labels ?? [])].some((l) => l.textContent.trim())))
      .map((e) => e.outerHTML)"""
    assert page.evaluate(unnamed) == []
    assert page.locator("html").get_attribute("lang") == "en"
    headings = page.evaluate("[...document.querySelectorAll('h1, h2')].map(e => e.tagName)")
    assert headings.count("H1") == 1 and headings[0] == "H1"


# How it looks


def rgb(text: str) -> tuple[float, ...]:
    return tuple(float(part) / 255 for part in re.findall(r"[\d.]+", text)[:3])


def luminance(text: str) -> float:
    """Compute the relative luminance of a colour (WCAG 2.2)."""
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in rgb(text)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def colour(page: Any, name: str) -> str:
    return str(
        page.evaluate(
            """name => { const box = document.createElement('i'); box.style.color = `var(${name})`;
      document.body.append(box); const colour = getComputedStyle(box).color; box.remove(); return colour; }""",
            name,
        )
    )


def test_contrast_is_measured_right() -> None:
    assert contrast("rgb(0, 0, 0)", "rgb(255, 255, 255)") == pytest.approx(21)
    assert contrast("rgb(119, 119, 119)", "rgb(255, 255, 255)") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_points_stand_out_in_both_themes(page: Any, theme: str) -> None:
    press(page, "theme", theme)
    for text in ("--ink", "--muted", "--accent", "--warn"):
        for ground in ("--card", "--page", "--hover", "--chosen"):
            assert contrast(colour(page, text), colour(page, ground)) >= 4.5, (text, ground)
    assert contrast(colour(page, "--accent-ink"), colour(page, "--accent")) >= 4.5
    for point in (*(f"--c{number}" for number in range(8)), "--other"):
        assert contrast(colour(page, point), colour(page, "--card")) >= 3, point
    press(page, "theme", "auto")


def test_the_theme_is_the_systems_until_one_is_chosen_and_the_chart_follows(page: Any) -> None:
    """Of the target colouring lines are ink, so that the theme shows in them."""
    page.select_option("select[name=colour]", "target")
    colours = {}
    for name, value in (("light", "auto"), ("dark", "dark"), ("light again", "light")):
        press(page, "theme", value)
        colours[name] = (page.evaluate("getComputedStyle(document.body).backgroundColor"), traces(page)[0]["colour"])
    assert luminance(colours["light"][0]) > 0.8 and luminance(colours["light"][1]) < 0.05
    assert luminance(colours["dark"][0]) < 0.05 and luminance(colours["dark"][1]) > 0.7
    assert colours["light again"] == colours["light"]
    press(page, "theme", "auto")
    page.emulate_media(color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == colours["dark"][0]
    page.wait_for_function("gd => gd.data[0].line.color.includes('232')", arg=page.query_selector("#chart"))
    page.emulate_media(color_scheme="light")


def test_on_paper_there_are_no_controls_and_dark_is_light(page: Any) -> None:
    press(page, "theme", "dark")
    page.emulate_media(media="print")
    assert page.locator("#filters").is_hidden() and page.locator("#view").is_hidden()
    assert luminance(page.evaluate("getComputedStyle(document.body).backgroundColor")) == 1
    assert luminance(colour(page, "--ink")) < 0.05
    page.emulate_media(media="screen")
    press(page, "theme", "auto")


def test_screens_wide_and_narrow_light_and_dark(folder: Path, opened: Any, window: browser.Browser) -> None:
    """Kept in test-artefacts/report; nothing is wider than the window, and dark is dark."""
    for dark in (False, True):
        theme = "dark" if dark else "light"
        press(opened, "theme", theme)
        for name, viewport in (("desktop", browser.DESKTOP), ("phone", browser.PHONE)):
            opened.set_viewport_size(viewport)
            opened.wait_for_function(
                "width => document.getElementById('chart').layout.width < width", arg=viewport["width"]
            )
            assert opened.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
            assert opened.evaluate("document.getElementById('filters').open") == (name == "desktop")
            with Image.open(browser.picture(opened, f"{name}-{theme}")) as shot:
                assert shot.width == viewport["width"] and shot.height > 2000
                bright = ImageStat.Stat(shot.convert("L")).mean[0]
            assert bright < 60 if dark else bright > 200
    opened.set_viewport_size(browser.DESKTOP)
    press(opened, "theme", "auto")


# Origins


@pytest.fixture(scope="module")
def mixed(folder: Path, window: browser.Browser) -> Iterator[Any]:
    """A page with an own row, and a faster one of a file that is trusted."""
    file = folder / "their rows.jsonl"
    own, theirs = (timed(ms, 0.1, model=f"net_{ms}", family="net", nonce=str(ms)) for ms in (9, 4))
    write_lines(file, [theirs])
    with LatencyDB.open(new_file(folder / "mixed.db"), shipped=False) as database:
        database.add(own)
        database.import_jsonl(file)
        database.trust(str(file))
        cards = {"net_9": card("net_9", 70.0), "net_4": card("net_4", 71.0)}
        options = ReportOptions(predict=False)
        write(collect(database.trusting("trusted"), cards, options), folder / "mixed.html")
    yield (page := window.open(folder / "mixed.html"))
    window.finish(page)


def test_each_point_has_its_origin_which_is_a_filter(mixed: Any, folder: Path) -> None:
    label = f"imported {folder / 'their rows.jsonl'}"
    assert sorted(column(mixed, "from")) == ["here", label]
    assert len(drawn_fronts(mixed)["pi5"]) == 1
    mixed.click("#table .pick >> text=net_4")
    assert label in mixed.locator("#detail").inner_text()
    mixed.uncheck(f"#facet-origin input[value='{label}']")
    assert column(mixed, "model")[0].startswith("net_9") and len(column(mixed, "model")) == 1
    assert drawn_fronts(mixed) == {}, "the pick of own rows alone is another question"
    assert f"leaving out “Rows from {label}”" in mixed.locator("#front").inner_text()
    mixed.click("#clear")


def test_a_page_of_own_rows_has_no_column_of_origins(page: Any) -> None:
    assert page.locator("#table th[data-key=from]").count() == page.locator("#facet-origin").count() == 0


# Odd reports


HOSTILE = "<img src=x onerror=alert(1)><a href='javascript:alert(2)'>%{x}</a></script><script>alert(3)</script>"


def test_names_are_text_wherever_they_are_shown(folder: Path, window: browser.Browser) -> None:
    with LatencyDB.open(new_file(folder / "hostile.db"), shipped=False) as database:
        for number in (1, 2):
            named: dict[str, Any] = dict.fromkeys(("model", "family", "engine_version"), HOSTILE)
            named |= {"device": f"{HOSTILE}{number}", "target": ("onnx", "ncnn")[number - 1]}
            database.add(measured(**named, device_id=str(number), flags=(HOSTILE,), nonce=str(number)))
        write(
            collect(database, {HOSTILE: card(HOSTILE, 70.0, source=HOSTILE)}, command=HOSTILE), folder / "hostile.html"
        )
    page = window.open(folder / "hostile.html")
    page.click("#table .pick")
    page.evaluate("Plotly.Fx.hover('chart', [{curveNumber: 2, pointNumber: 0}])")
    page.wait_for_selector("#chart .hovertext")
    text = page.locator("#chart .hovertext").first.text_content()
    assert "<img src=x onerror=alert(1)><a href='javascript:alert(2)'>" in text
    for index in ("#table", "#detail", "#legend", "#facet-device", "#models", "#devices", "#command", "#front"):
        assert HOSTILE in page.locator(index).text_content(), index
    assert page.evaluate("document.querySelectorAll('body img, [href^=javascript], [onerror]').length") == 0
    assert page.evaluate("document.querySelectorAll('script').length") == 4  # three of the file, and Plotly
    window.finish(page)


def test_a_report_of_crashes_shows_them_and_says_that_nothing_can_be_drawn(
    folder: Path, window: browser.Browser
) -> None:
    with LatencyDB.open(new_file(folder / "crashed.db"), shipped=False) as database:
        database.add(failed(model="net_1"))
        write(collect(database, CARDS), folder / "crashed.html")
    page = window.open(folder / "crashed.html", viewport=browser.PHONE)
    assert "none can be drawn" in page.locator("#chart-notes").inner_text()
    assert "There is no front" in page.locator("#front").inner_text()
    assert "cannot run here: crashed: SIGSEGV" in page.locator("#table").inner_text()
    window.finish(page)


def test_many_rows_are_drawn_at_once_and_listed_by_and_by(crowd: Any) -> None:
    page, entries = crowd
    assert len(entries) > 1000 and len(points(page)) > 900 and len(table_rows(page)) == 100
    page.click("#more")
    assert len(table_rows(page)) == 600
