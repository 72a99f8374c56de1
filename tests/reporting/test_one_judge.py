"""The page shows the picks and fronts of `edgevit choose`, on random databases and under random filters."""

from __future__ import annotations

import random
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from conftest import new_file
from edgevit.cli import main
from edgevit.records.choice import Budget, Choice
from edgevit.records.measurement import Measurement
from edgevit.records.model import ModelCard
from edgevit.records.network import Network
from edgevit.reporting import Report, ReportOptions, collect, write
from edgevit.reporting.page_records import PERCENTILES
from edgevit.selection import CandidateFilter, PredictionOptions, ask, predicted_cells, query
from edgevit.selection.constraints import latency_for_budget
from edgevit.selection.ranking import front_of
from edgevit.store import LatencyDB
from support import browser
from support.measured import card, floor, measured, published, rated
from support.report_page import MS, drawn_fronts, paragraphs, radio, row_indices, set_controls, timed

pytestmark = pytest.mark.skipif(bool(browser.missing()), reason=browser.missing() or "a browser is there")
DEVICES = ("board", "phone")
TARGETS, THREADS = ("litert", "ncnn", "onnx"), (1, 4)
SETTINGS, BUDGETS = 9, 3
BEFORE = "2026-11-01T10:00:00+00:00"  # the device changed after that
BEST = "net_7"  # the most accurate model; all of its cells but a slow one are predicted


class Setting(NamedTuple):
    """The filters of the page, pressed at random; target and threads: the only one that is left, None: all."""

    percentile: int
    at: str
    predicted: bool
    published: bool
    reconstructed: bool
    target: str | None
    threads: int | None

    @classmethod
    def drawn(cls, dice: random.Random) -> Setting:
        """Draw one; most leave all targets and thread counts."""
        return cls(
            dice.choice(PERCENTILES),
            dice.choice(("bound", "value")),
            dice.random() < 0.6,
            dice.random() < 0.6,
            dice.random() < 0.5,
            dice.choice((*[None] * 4, *TARGETS)),
            dice.choice((*[None] * 4, *THREADS)),
        )

    @property
    def is_narrow(self) -> bool:
        """Return whether a target or a thread count is singled out."""
        return self.target is not None or self.threads is not None

    def candidate_filter(self, report: Report) -> CandidateFilter:
        """Return the same as options of the chooser."""
        return CandidateFilter(
            targets=None if self.target is None else (self.target,),
            threads=self.threads,
            published=report.published and self.published,
            reconstructed=self.reconstructed,
        )


# Published rows decide here, without predictions and among them.
WHOLE = tuple(
    Setting(90, at, predicted, True, True, None, None) for at, predicted in (("bound", False), ("value", True))
)


class World(NamedTuple):
    """A random database, and how its report was asked for."""

    database: LatencyDB
    cards: dict[str, ModelCard]
    options: ReportOptions
    report: Report

    def entries(self, device: str) -> list[Any]:
        """Return a device's rows that may be chosen."""
        return [e for e in self.report.entries if self.report.devices[e.device].label == device and e.usable]

    def asked(self, device: str, setting: Setting, limit: float | None) -> Choice:
        """Return the chooser's answer, asked of the database."""
        return ask(
            self.database,
            f"{device}-1",
            Budget(limit, setting.percentile),
            cards=self.cards,
            candidate_filter=setting.candidate_filter(self.report),
            prediction=PredictionOptions(self.options.predict and setting.predicted, self.options.confidence),
            dataset=self.options.dataset,
        )

    def is_another_question(self, device: str, setting: Setting) -> bool:
        """Return whether predictions take part, and depend on the filters."""
        origins = {entry.latency_provenance for entry in self.entries(device)}
        without_published = "published" in origins and not setting.published
        return "predicted" in origins and setting.predicted and (setting.is_narrow or without_published)


def random_rows(dice: random.Random, cards: dict[str, ModelCard]) -> Iterator[Measurement]:
    """Yield rows of two devices, many of them as fast and as large as others; what is left out may be predicted."""
    for number, (device, model, target, threads) in enumerate(
        (d, m, t, n) for d in DEVICES for m in cards for t in TARGETS for n in THREADS
    ):
        is_left_out = dice.random() < 0.4 if model != BEST else (target, threads) != ("onnx", 4)
        facts = {"model": model, "family": "net", "target": target, "threads": threads, "device": device,
                 "device_id": f"{device}-1", "artifact_bytes": MS * dice.randint(1, 2), "nonce": str(number),
                 "artifact_sha256": f"{list(cards).index(model):032x}{TARGETS.index(target):032x}"}  # fmt: skip
        if dice.random() < 0.3 and model != BEST:
            # Of the time before the device changed, when it was faster than it is now; many of those have no successor.
            yield timed(dice.choice((2, 2.5)), 0.1, **facts | {"started": BEFORE, "nonce": f"{number} before"})
        if is_left_out:
            continue
        if dice.random() < 0.1:
            facts |= {"p99_upper_ns": None}
        if model == "net_0":
            # Checkpoints of one network are candidates of their own; the evaluated artifact is of none of them.
            for digit in dice.sample("345", dice.randint(1, 3)):
                network = Network("file", digit * 64, digit * 64, file="best.pt")
                own = {"network": network, "nonce": f"{number} {digit}", "artifact_sha256": digit * 64}
                yield timed(dice.choice((5, 6, 8)), 0.1, **facts | own)
        ms = 40 if model == BEST else dice.choice((5, 5, 5.05, 6, 8, 8.1, 12, 20))
        yield timed(ms, dice.choice((0.1, 0.1, 0.4)), **facts)
    for number, (device, target) in enumerate((d, t) for d in DEVICES for t in TARGETS):
        # Some are faster than all that was measured.
        ms = dice.choice((3, 3.5, 6))
        yield published(model=dice.choice(list(cards)), p50_ns=round(ms * MS), p90_ns=round((ms + 0.4) * MS),
                        device=device, device_id=f"{device}-1", target=target, nonce=f"theirs {number}")  # fmt: skip


def random_world(seed: int, folder: Path) -> World:
    """Return a database of this seed with its page; odd seeds go by accuracies with errors."""
    dice = random.Random(seed)
    cards = {
        f"net_{number}": card(f"net_{number}", dice.choice((70.0, 70.0, 70.3, 72.0, 75.0, None)),
                              provenance="reconstructed" if number in (2, 5) else "published")
        for number in range(7)
    }  # fmt: skip
    cards[BEST] = card(BEST, 80.0)
    options = ReportOptions(dataset="mine" if seed % 2 else None, published=seed % 3 > 0, predict=seed % 4 < 3)
    database = LatencyDB.open(new_file(folder / f"{seed}.db"), shipped=False)
    for row in random_rows(dice, cards):
        database.add(row)
    of_mine = {"provenance": "measured", "dataset": "mine", "examples": 100, "source": "folder", "untold": ()}
    database.add_accuracies([
        rated(dice.choice((70.0, 70.2, 70.5, 72.0, 74.0)), error=dice.choice((0.2, 0.5, 2.0)),
              model=f"net_{model}", artifact_sha256=f"{model:032x}{target:032x}", target=TARGETS[target],
              precision="fp32", started="2026-11-05T00:00:00+00:00", **of_mine)
        for model in range(len(cards)) for target in range(len(TARGETS)) if dice.random() < 0.7
    ])  # fmt: skip
    # Rows that others published have no artifact of their own, so that on `mine` only published accuracies rate them.
    database.add_accuracies(
        [rated(value, model=name, dataset="mine") for name, value in (("net_0", 72.0), ("net_4", 72.4), (BEST, 80.0))]
    )
    for device in DEVICES:
        share = dice.choice((0.001, 0.02, 0.1))
        database.add_noise(floor(share, device_id=f"{device}-1", device=device))
    report = collect(database, cards, options)
    write(report, folder / f"{seed}.html")
    return World(database, cards, options, report)


@pytest.fixture(scope="module")
def window() -> Iterator[browser.Browser]:
    with browser.launched() as chromium:
        yield chromium


@pytest.fixture(autouse=True)
def predicted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chooser predicts once for all budgets: no budget is among what it predicts from."""
    known: dict[Any, Any] = {}

    def shared(rows: Any, cards: Any, *options: Any) -> Any:
        # The last option is the evidence of other devices, which is the same for one device of one database.
        key = (id(cards), tuple(row.measurement_id for row in rows), repr(options[:-1]))
        if key not in known:
            known[key] = predicted_cells(rows, cards, *options)
        return known[key]

    monkeypatch.setattr(query, "predicted_cells", shared)


def set_filters(page: Any, setting: Setting) -> None:
    """Set the filters of the page to a setting, as far as the page has them."""
    boxes = {("latency", "predicted"): setting.predicted, ("latency", "published"): setting.published,
             ("accuracy", "reconstructed"): setting.reconstructed}  # fmt: skip
    boxes |= {("target", name): setting.target in (None, name) for name in TARGETS}
    boxes |= {("threads", str(count)): setting.threads in (None, count) for count in THREADS}
    controls: dict[str, str | bool] = {radio("percentile", setting.percentile): True, radio("at", setting.at): True}
    controls |= {f"#facet-{facet} input[value='{value}']": on for (facet, value), on in boxes.items()}
    set_controls(page, controls)


def check_fronts(page: Any, world: World, setting: Setting) -> int:
    """Hold the fronts drawn and listed against the chooser's; return how many devices had one."""
    entries, answered = world.report.entries, 0
    listed = [entries[index] for index in row_indices(page, "#front")]
    for number, device in enumerate(DEVICES):
        ids = [entry.measurement_id for entry in listed if entry.device == number]
        if world.is_another_question(device, setting):
            assert "edgevit choose" in paragraphs(page, "#front")[device] and not ids
            continue
        choice = world.asked(device, setting, None)
        front = choice.front
        if setting.at == "value":
            front = tuple(front_of(choice.fitting, lambda candidate: (candidate.top1_percent, candidate.latency_ms)))
        assert sorted(ids) == sorted(candidate.measurement_id for candidate in front), (device, setting)
        corners = [(latency_for_budget(c) if setting.at == "bound" else c.latency_ms, c.top1_percent) for c in front]
        assert drawn_fronts(page).get(device, []) == corners, (device, setting)
        answered += bool(front)
    return answered


def check_counts(world: World) -> None:
    """Hold the rows that do not count any more against the chooser's, and require some of an earlier epoch."""
    options = world.options
    everything = CandidateFilter(published=options.published, reconstructed=True, unrated=True)
    for part in world.report.devices:
        choice = ask(world.database, part.device_id, Budget(percentile=PERCENTILES[0]), cards=world.cards,
                     candidate_filter=everything, dataset=options.dataset,
                     prediction=PredictionOptions(options.predict, options.confidence))  # fmt: skip
        superseded = [rejection for rejection in choice.rejected if rejection.kind == "superseded"]
        assert part.superseded == len(superseded), part.label
        assert any(rejection.reasons[0].code == "earlier_epoch" for rejection in superseded), part.label


def check_picks(page: Any, world: World, setting: Setting, limit: float) -> int:
    """Hold the picks within a budget against the chooser's; return how many devices had one."""
    set_controls(page, {"input[name=budget]": repr(limit)})
    shown = paragraphs(page, "#picks")
    picks = {world.report.entries[index].device: index for index in row_indices(page, "#picks")}
    for number, device in enumerate(DEVICES):
        if world.is_another_question(device, setting):
            assert "edgevit choose" in shown[device] and number not in picks
            continue
        picked = world.asked(device, setting, limit).picked
        if picked is None:
            assert number not in picks and shown.get(device, "nothing shown fits") == "nothing shown fits"
        else:
            assert world.report.entries[picks[number]].measurement_id == picked.measurement_id, (device, setting, limit)
    return len(picks)


@pytest.mark.parametrize("seed", [1, 2, 3, 6])
def test_picks_and_fronts_are_the_choosers(tmp_path: Path, window: browser.Browser, seed: int) -> None:
    """Budgets are drawn between latencies, and from the very latencies that are held against them."""
    world = random_world(seed, tmp_path)
    page = window.open(tmp_path / f"{seed}.html")
    dice = random.Random(seed)
    fronts = picks = 0
    for setting in (*WHOLE, *(Setting.drawn(dice) for _ in range(SETTINGS - len(WHOLE)))):
        set_filters(page, setting)
        fronts += check_fronts(page, world, setting)
        times = [getattr(e, f"p{setting.percentile}").held_ms for e in world.report.entries if e.usable]
        exact = dice.choice([ms for ms in times if ms is not None])
        for limit in (exact, *(dice.uniform(4, 25) for _ in range(BUDGETS - 1))):
            picks += check_picks(page, world, setting, limit)
    assert fronts >= SETTINGS / 3 and picks >= SETTINGS
    check_counts(world)
    window.finish(page)
    world.database.close()


def evaluated(folder: Path, *rated_rows: tuple[Measurement, float, float | None]) -> Path:
    """Write a page of rows whose artifacts were evaluated on `mine`: each with its accuracy and its error."""
    with LatencyDB.open(new_file(folder / "rows.db"), shipped=False) as database:
        for row, top1, error in rated_rows:
            database.add(row)
            database.add_accuracy(
                rated(top1, error=error, model=row.model, artifact_sha256=row.artifact_sha256, provenance="measured",
                      dataset="mine", examples=100, source="folder", untold=(), target="onnx", precision="fp32",
                      started="2026-11-05T00:00:00+00:00")
            )  # fmt: skip
        options = ReportOptions(dataset="mine")
        write(collect(database, {}, options, choose_options=["--dataset", "mine"]), folder / "report.html")
    return folder / "report.html"


def test_within_the_error_the_faster_model_is_picked(tmp_path: Path, window: browser.Browser) -> None:
    slow = timed(18, 0.1, model="net_b", artifact_sha256="b" * 64)
    fast = timed(9, 0.1, model="net_a", artifact_sha256="a" * 64)
    page = window.open(evaluated(tmp_path, (fast, 75.0, 0.5), (slow, 75.2, 0.5)))
    page.fill("input[name=budget]", "25")
    assert paragraphs(page, "#picks")["pi5"].startswith("net_a, onnx fp32")
    window.finish(page)


def test_equal_rows_are_all_on_the_front(tmp_path: Path, window: browser.Browser) -> None:
    twins = [(measured(model=f"net_{sha}", artifact_sha256=sha * 64), 75.0, 0.5) for sha in "ab"]
    page = window.open(evaluated(tmp_path, *twins))
    assert page.locator("#front tbody tr").count() == 2 and len(drawn_fronts(page)["pi5"]) == 2
    window.finish(page)


def test_what_the_page_has_no_answer_to_it_says_how_to_ask(
    tmp_path: Path, window: browser.Browser, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three targets two are another question, which the command printed asks; of a search there is no option."""
    rows = [(timed(9, 0.1, model="net_a", target=t, artifact_sha256=s * 64), 75.0, 0.5)
            for t, s in zip(TARGETS, "abc", strict=True)]  # fmt: skip
    page = window.open(evaluated(tmp_path, *rows))
    page.fill("input[name=budget]", "25")
    page.uncheck("#facet-target input[value=onnx]")
    assert drawn_fronts(page) == {} and row_indices(page, "#picks") == []
    command = page.locator("#picks code").inner_text()
    assert shlex.split(command) == [
        *("edgevit", "choose", "--device", "pi-0001", "--max-latency", "25ms", "--percentile", "90"),
        *("--target", "litert,ncnn", "--dataset", "mine"),
    ]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main([*shlex.split(command)[1:], "--db", "rows.db"])
    assert not ended.value.code and "net_a" in capsys.readouterr().out
    page.click("#clear")
    page.fill("input[name=search]", "net_a")
    assert "no option for a search" in paragraphs(page, "#front")["pi5"] and drawn_fronts(page) == {}
    window.finish(page)
