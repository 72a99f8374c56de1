"""The search for the fastest form of each part of a network: what is tried, in which order, and what is taken.

It knows neither engines nor clocks: a bench measures for it. From the same times it decides the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from edgevit.records.tuning import SiteForm, TimeRatio, TriedForm, TriedVerdict

# A form that took this much longer on another device of the class, or in another version, is not tried again.
HOPELESS = 1.5
# Combinations of forms that the whole network is measured in, besides those that it had before.
MOST_COMBINATIONS = 4
# Share of the budget that single sites may take.
SITES_SHARE = 0.7


@dataclass(frozen=True)
class Place:
    """The sites of one signature in a network, and the forms that apply there.

    site: digest of the signature. operator: what it computes, in words. nodes: names of the nodes of each site. macs:
    multiply-accumulates of one site.
    """

    site: str
    operator: str
    nodes: tuple[frozenset[str], ...]
    forms: tuple[str, ...]
    macs: int

    @property
    def count(self) -> int:
        """The number of sites."""
        return len(self.nodes)


@dataclass(frozen=True)
class Span:
    """A time in nanoseconds, with the range over processes."""

    low_ns: int
    ns: int
    high_ns: int

    def over(self, other: Span) -> TimeRatio:
        """Return the ratio of two times, from the fastest over the slowest to the reverse."""
        return TimeRatio(self.ns / other.ns, self.low_ns / other.high_ns, self.high_ns / other.low_ns)


@dataclass(frozen=True)
class Failure:
    """Why a form has no time: the proof refused it, or its export or its run failed."""

    verdict: TriedVerdict
    reason: str


PLAIN = ""  # the name of a site as it is
Combination = tuple[SiteForm, ...]


class Bench(Protocol):
    """Measures for a search."""

    def known(self, place: Place) -> Mapping[str, Span]:
        """Return times of this place, by form, that were measured before in just this configuration."""

    def prior(self, place: Place) -> Mapping[str, float]:
        """Return ratios to the place as it is, by form, from other devices of the class or other versions."""

    def time_place(self, place: Place, forms: Sequence[str]) -> Mapping[str, Span | Failure]:
        """Measure a place as it is, and in these forms, all in turns."""

    def time_networks(self, combinations: Sequence[Combination]) -> Mapping[Combination, Span | Failure]:
        """Measure the whole network without forms, and in these combinations, all in turns."""

    def is_over(self, share: float) -> bool:
        """Return whether this share of the budget is used up."""


Judge = Callable[[TimeRatio], TriedVerdict]


@dataclass(frozen=True)
class Outcome:
    """What a search found: the forms that were taken, the gain of the whole network, and what was tried.

    gain: over the network without forms; over_default: over it with the recipe's own forms.
    """

    forms: Combination
    gain: TimeRatio | None
    over_default: TimeRatio | None
    tried: tuple[TriedForm, ...]
    complete: bool


def _order(place: Place) -> tuple[int, int, str]:
    """Return what places are tried by: single operators first, since a result of many says less, then the costliest."""
    return max(map(len, place.nodes)), -place.macs * place.count, place.site


@dataclass
class Search:
    """A search over the places of one network. default: the forms that its recipe takes anyway."""

    places: Sequence[Place]
    bench: Bench
    judge: Judge
    default: Combination = ()
    on_tried: Callable[[TriedForm], None] = lambda tried: None
    tried: list[TriedForm] = field(default_factory=list)
    _saved_ns: dict[SiteForm, float] = field(default_factory=dict)

    def run(self) -> Outcome:
        """Try each form at each place, then the best together in the whole network."""
        complete = True
        for place in sorted(self.places, key=_order):
            if self.bench.is_over(SITES_SHARE):
                complete = False
                break
            self._try(place)
        forms, gain, over_default = self._confirmed()
        return Outcome(forms, gain, over_default, tuple(self.tried), complete)

    def _try(self, place: Place) -> None:
        known, prior = dict(self.bench.known(place)), self.bench.prior(place)
        hopeless = {form: ratio for form, ratio in prior.items() if ratio > HOPELESS and form in place.forms}
        wanted = [form for form in place.forms if form not in known and form not in hopeless]
        times: dict[str, Span | Failure] = dict(known)
        if wanted or (PLAIN not in known and len(hopeless) < len(place.forms)):
            # Times of other hours are not compared with those of now.
            again = [form for form in place.forms if form not in hopeless]
            times = dict(self.bench.time_place(place, again))
            known = {}
        for form in place.forms:
            if form in hopeless and form not in times:
                ratio = hopeless[form]
                self._note(place, form, "SLOWER", TimeRatio(ratio, ratio, ratio), "on this class before", is_known=True)
            else:
                self._judged(place, form, times, is_known=bool(known))

    def _judged(self, place: Place, form: str, times: Mapping[str, Span | Failure], *, is_known: bool) -> None:
        plain, time = times.get(PLAIN), times.get(form)
        failure = next((one for one in (plain, time) if isinstance(one, Failure)), None)
        if not isinstance(plain, Span) or not isinstance(time, Span):
            verdict = failure.verdict if failure else "failed"
            self._note(place, form, verdict, None, failure.reason if failure else "it was not measured")
            return
        ratio = time.over(plain)
        self._saved_ns[SiteForm(place.site, form)] = (plain.ns - time.ns) * place.count
        self._note(place, form, self.judge(ratio), ratio, is_known=is_known)

    def _note(
        self,
        place: Place,
        form: str,
        verdict: TriedVerdict,
        ratio: TimeRatio | None,
        reason: str = "",
        *,
        is_known: bool = False,
    ) -> None:
        tried = TriedForm(place.site, place.operator, place.count, form, verdict, ratio, reason, is_known)
        self.tried.append(tried)
        self.on_tried(tried)

    def _confirmed(self) -> tuple[Combination, TimeRatio | None, TimeRatio | None]:
        """Return the combination that makes the whole network fastest, if one does, with its gains."""
        combinations = [*([self.default] if self.default else []), *self._combinations()]
        if not combinations:
            return (), None, None
        times = self.bench.time_networks(list(dict.fromkeys(combinations)))
        plain, default = times.get(()), times.get(self.default)
        if not isinstance(plain, Span):
            return (), None, None
        faster = [
            (span.ns, combination)
            for combination, span in times.items()
            if combination and isinstance(span, Span) and self.judge(span.over(plain)) == "FASTER"
        ]
        for _, combination in sorted(faster):
            span = times[combination]
            assert isinstance(span, Span)
            over_default = span.over(default) if self.default and isinstance(default, Span) else None
            # The recipe's own forms hold on every device: another choice has to be faster than they are.
            if combination != self.default and over_default is not None and self.judge(over_default) != "FASTER":
                continue
            return combination, span.over(plain), over_default
        return (), None, None

    def _combinations(self) -> list[Combination]:
        """Return what the whole network is tried in: the winners together, then less of them, the most gain first."""
        winners = self._winners()
        if not winners:
            return []
        every = tuple(sorted(winners))
        by_form = itertools.groupby(sorted(winners, key=lambda one: one.form), key=lambda one: one.form)
        alone = [tuple(sorted(group)) for _, group in by_form]
        without = [tuple(sorted(set(winners) - set(group))) for group in alone]
        ordered = sorted({*alone, *without} - {every, ()}, key=lambda one: (-self._saved(one), one))
        return [every, *ordered][:MOST_COMBINATIONS]

    def _saved(self, combination: Combination) -> float:
        return sum(self._saved_ns[one] for one in combination)

    def _winners(self) -> list[SiteForm]:
        """Return a form for each place where one is faster; of places that share nodes the one that saves most."""
        faster = [SiteForm(tried.site, tried.form) for tried in self.tried if tried.verdict == "FASTER"]
        measured = sorted((one for one in faster if one in self._saved_ns), key=lambda one: (-self._saved_ns[one], one))
        nodes = {place.site: frozenset(itertools.chain.from_iterable(place.nodes)) for place in self.places}
        taken, used = list[SiteForm](), set[str]()
        for one in measured:
            if not used & nodes[one.site]:
                taken.append(one)
                used |= nodes[one.site]
        return taken
