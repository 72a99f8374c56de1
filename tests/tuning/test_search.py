"""The search for forms, on benches of made-up times: what it tries, what it takes, and that noise takes nothing."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.measurement.compare import LEAST_DIFFERENCE, verdict
from edgevit.records.tuning import SiteForm, TimeRatio, TriedVerdict
from edgevit.tuning.search import PLAIN, Combination, Failure, Outcome, Place, Search, Span


def judge(ratio: TimeRatio) -> TriedVerdict:
    return verdict(ratio.low, ratio.value, ratio.high, LEAST_DIFFERENCE)


def span(ns: float, spread: float = 0.002) -> Span:
    return Span(round(ns * (1 - spread)), round(ns), round(ns * (1 + spread)))


def place(site: str, *forms: str, nodes: Sequence[Sequence[str]] | None = None, macs: int = 1000) -> Place:
    sites = nodes if nodes is not None else [[f"{site}_0"]]
    return Place(site, f"operator {site}", tuple(frozenset(names) for names in sites), forms, macs)


@dataclasses.dataclass
class MadeUp:
    """A bench with given times of sites, whose networks take what their sites take, or what `networks` says."""

    times: Mapping[tuple[str, str], float | Failure]
    rest: float = 1_000_000
    interaction: Callable[[Combination], float] = lambda combination: 0.0
    noise: Callable[[], float] = lambda: 1.0
    spread: float = 0.002
    knows: Mapping[str, Mapping[str, Span]] = dataclasses.field(default_factory=dict)
    priors: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    budget: int = 1000
    asked: list[tuple[str, tuple[str, ...]]] = dataclasses.field(default_factory=list)
    networks: list[Combination] = dataclasses.field(default_factory=list)
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def known(self, at: Place) -> Mapping[str, Span]:
        return self.knows.get(at.site, {})

    def prior(self, at: Place) -> Mapping[str, float]:
        return self.priors.get(at.site, {})

    def is_over(self, share: float) -> bool:
        return len(self.asked) >= self.budget * share

    def time_place(self, at: Place, forms: Sequence[str]) -> Mapping[str, Span | Failure]:
        self.asked.append((at.site, tuple(forms)))
        return {form: self._time(self.times[at.site, form]) for form in (PLAIN, *forms)}

    def time_networks(self, combinations: Sequence[Combination]) -> Mapping[Combination, Span | Failure]:
        self.networks += combinations
        return {combination: self._time(self._network(combination)) for combination in ((), *combinations)}

    def _network(self, combination: Combination) -> float:
        total = self.rest + self.interaction(combination)
        chosen = {one.site: one.form for one in combination}
        for site in {site for site, _ in self.times}:
            time = self.times[site, chosen.get(site, PLAIN)]
            assert not isinstance(time, Failure)
            total += time * self.counts.get(site, 1)
        return total

    def _time(self, time: float | Failure) -> Span | Failure:
        return time if isinstance(time, Failure) else span(time * self.noise(), self.spread)


def search(bench: MadeUp, *places: Place, default: Combination = ()) -> Outcome:
    return Search(places, bench, judge, default).run()


TIMES: dict[tuple[str, str], float | Failure] = {
    ("a", PLAIN): 900_000, ("a", "rows"): 300_000, ("a", "blocks"): 400_000,
    ("b", PLAIN): 500_000, ("b", "rows"): 800_000,
}  # fmt: skip


def test_the_fastest_form_of_each_place_is_taken() -> None:
    outcome = search(MadeUp(TIMES), place("a", "rows", "blocks"), place("b", "rows"))
    assert outcome.forms == (SiteForm("a", "rows"),) and outcome.complete
    assert outcome.gain is not None and outcome.gain.value == pytest.approx(1800 / 2400, rel=0.01)
    verdicts = {(one.site, one.form): one.verdict for one in outcome.tried}
    assert verdicts == {("a", "rows"): "FASTER", ("a", "blocks"): "FASTER", ("b", "rows"): "SLOWER"}


def test_a_tie_is_not_taken() -> None:
    bench = MadeUp({("a", PLAIN): 900_000, ("a", "rows"): 898_000})
    outcome = search(bench, place("a", "rows"))
    assert outcome.forms == () and outcome.gain is None and outcome.tried[0].verdict == "SAME"
    assert not bench.networks


def test_a_form_that_makes_the_whole_network_slower_is_not_taken() -> None:
    """It may cost more around its site than it saves there."""
    bench = MadeUp(TIMES, interaction=lambda combination: 700_000.0 if combination else 0.0)
    assert search(bench, place("a", "rows", "blocks")).forms == ()


def test_a_tie_of_the_whole_network_is_not_taken() -> None:
    bench = MadeUp(TIMES, interaction=lambda combination: 599_000.0 if combination else 0.0)
    assert search(bench, place("a", "rows")).forms == () and bench.networks


def test_sites_that_interact_are_tried_apart_too() -> None:
    times = {**TIMES, ("b", "rows"): 200_000, ("b", "other"): 150_000}
    bench = MadeUp(times, interaction=lambda combination: 900_000.0 * (len(combination) > 1))
    outcome = search(bench, place("a", "rows"), place("b", "other"))
    assert outcome.forms == (SiteForm("a", "rows"),)
    assert (SiteForm("a", "rows"), SiteForm("b", "other")) in bench.networks


def test_of_places_that_share_nodes_one_form_is_taken() -> None:
    times = {("a", PLAIN): 900_000, ("a", "rows"): 300_000, ("ab", PLAIN): 1_000_000, ("ab", "chunks"): 800_000}
    bench = MadeUp(times)
    outcome = search(bench, place("a", "rows", nodes=[["n"]]), place("ab", "chunks", nodes=[["n", "m"]]))
    assert outcome.forms == (SiteForm("a", "rows"),)


def test_forms_of_the_recipe_have_to_be_beaten() -> None:
    default = (SiteForm("a", "blocks"),)
    bench = MadeUp(TIMES)
    outcome = search(bench, place("a", "rows", "blocks"), default=default)
    assert outcome.forms == (SiteForm("a", "rows"),) and outcome.over_default is not None
    equal = MadeUp({**TIMES, ("a", "rows"): 399_000})
    assert search(equal, place("a", "rows", "blocks"), default=default).forms == default


def test_what_the_proof_or_a_converter_refuses_is_told_and_not_taken() -> None:
    times = {**TIMES, ("a", "rows"): Failure("refused", "another function"), ("a", "blocks"): 950_000}
    outcome = search(MadeUp(times), place("a", "rows", "blocks"))
    assert [(one.form, one.verdict, one.reason) for one in outcome.tried] == [
        ("rows", "refused", "another function"),
        ("blocks", "SLOWER", ""),
    ]
    assert outcome.forms == ()


def test_a_place_that_does_not_run_as_it_is_gives_no_ratio() -> None:
    times: dict[tuple[str, str], float | Failure] = {
        ("a", PLAIN): Failure("failed", "no such operator"), ("a", "rows"): 300_000,
    }  # fmt: skip
    [tried] = search(MadeUp(times), place("a", "rows")).tried
    assert (tried.verdict, tried.reason, tried.ratio) == ("failed", "no such operator", None)


def test_known_times_are_not_measured_again() -> None:
    knows = {"a": {PLAIN: span(900_000), "rows": span(300_000), "blocks": span(400_000)}}
    bench = MadeUp(TIMES, knows=knows)
    outcome = search(bench, place("a", "rows", "blocks"))
    assert not bench.asked and outcome.forms == (SiteForm("a", "rows"),)
    assert all(one.is_known for one in outcome.tried)


def test_a_form_that_was_hopeless_on_such_a_device_is_not_tried() -> None:
    bench = MadeUp(TIMES, priors={"a": {"blocks": 2.0, "rows": 1.2}})
    outcome = search(bench, place("a", "rows", "blocks"))
    assert bench.asked == [("a", ("rows",))]
    hopeless = next(one for one in outcome.tried if one.form == "blocks")
    assert hopeless.verdict == "SLOWER" and hopeless.is_known and hopeless.ratio is not None


def test_the_budget_ends_a_search_and_what_it_found_counts() -> None:
    bench = MadeUp(TIMES, budget=1)
    outcome = search(bench, place("a", "rows", "blocks", macs=2000), place("b", "rows"))
    assert not outcome.complete and outcome.forms == (SiteForm("a", "rows"),)
    assert [site for site, _ in bench.asked] == ["a"]


def test_single_operators_come_first_then_the_costliest() -> None:
    bench = MadeUp({(site, form): 1000 for site in "abc" for form in (PLAIN, "f")})
    places = [place("a", "f", macs=1), place("b", "f", macs=9, nodes=[["x", "y"]]), place("c", "f", macs=5)]
    search(bench, *places)
    assert [site for site, _ in bench.asked] == ["c", "a", "b"]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_noise_alone_takes_no_form(seed: int) -> None:
    """All forms cost the same; each time is off by up to 5%, within the range that its processes show."""
    draw = random.Random(seed)
    times: dict[tuple[str, str], float | Failure] = {("a", form): 900_000 for form in (PLAIN, "rows", "blocks")}
    bench = MadeUp(times, noise=lambda: draw.uniform(0.95, 1.05), spread=0.1)
    assert search(bench, place("a", "rows", "blocks")).forms == ()


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.tuples(st.sampled_from("abcd"), st.sampled_from(["f", "g"])), st.integers(1_000, 10**6)))
def test_equal_times_give_equal_results(made: dict[tuple[str, str], int]) -> None:
    sites = sorted({site for site, _ in made})
    times: dict[tuple[str, str], float | Failure] = {**made, **{(site, PLAIN): 400_000 for site in sites}}
    places = [place(site, *(form for other, form in sorted(made) if other == site)) for site in sites]
    first, second = (search(MadeUp(times), *order) for order in (places, places[::-1]))
    assert (first.forms, first.gain) == (second.forms, second.gain)
    if first.gain is not None:
        assert first.gain.value < 1
