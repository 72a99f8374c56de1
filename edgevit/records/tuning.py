"""Records about forms: exactly equal ways to compute parts of a network, and what each of them brought."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from edgevit.records.measurement import Measurement

# What `--form` says besides the name of a form: that of the recipe, none at all, that of a tuning.
DEFAULT, PORTABLE, TUNED = "default", "portable", "tuned"
_DIGITS = 8


@dataclass(frozen=True, order=True)
class SiteForm:
    """The form of all sites with one signature. site: digest of the signature; form: name of the form."""

    site: str
    form: str


@dataclass(frozen=True)
class AppliedForm:
    """A form as it was applied. operator: what stood there, in words; modules: paths of the sites' modules."""

    form: str
    site: str
    operator: str
    modules: tuple[str, ...]

    @property
    def label(self) -> str:
        """`3 x depthwise_rows in place of depthwise convolution 7x7 of (1, 512, 56, 56)`."""
        return f"{len(self.modules)} x {self.form} in place of {self.operator}"


def describe_forms(forms: Iterable[SiteForm]) -> str:
    """Return the forms in one word, which tells different choices apart: `depthwise_rows:3f0c2a91`; empty for none."""
    ordered = sorted(forms)
    if not ordered:
        return ""
    names = "+".join(sorted({one.form for one in ordered}))
    digest = hashlib.sha256("\n".join(f"{one.site} {one.form}" for one in ordered).encode("ascii")).hexdigest()
    return f"{names}:{digest[:_DIGITS]}"


OperatorTimeKind = Literal["alone", "layer"]
_CONFIGURATION = (
    "target", "precision", "engine", "engine_version", "provider", "device", "device_id", "device_class", "threads",
    "batch", "protocol_version",
)  # fmt: skip


def configuration_of(row: Measurement) -> dict[str, Any]:
    """Return the fields of a row that its operators' times and tunings have too."""
    return {name: getattr(row, name) for name in _CONFIGURATION}


@dataclass(frozen=True)
class OperatorTime:
    """The time of an operator, or of a few that a form replaces, on an engine of a device.

    kind: alone: a network of its own, measured by the protocol; layer: a part of a network, by the engine's own trace.
    site: digest of its signature (tuning.sites); of a layer that of the engine's name and its costs. operator: what it
    computes, in words. form: in which it was computed; empty: as it is. macs: its multiply-accumulates. moved_bytes: of
    its inputs, weights and outputs, each counted once; of a network alone as in float32. None: not told. p50_low_ns,
    p50_high_ns: over processes.
    operator_time_id: digest of the other fields.
    """

    operator_time_id: str
    kind: OperatorTimeKind
    site: str
    operator: str
    form: str
    target: str
    precision: str
    engine: str
    engine_version: str
    provider: str
    device: str
    device_id: str
    device_class: str
    threads: int
    batch: int
    macs: int | None
    moved_bytes: int | None
    p50_ns: int
    p50_low_ns: int
    p50_high_ns: int
    processes: int
    runs: int
    started: str  # ISO 8601, UTC
    protocol_version: int


TriedVerdict = Literal["FASTER", "SLOWER", "SAME", "AMBIGUOUS", "refused", "failed"]


@dataclass(frozen=True)
class TimeRatio:
    """A time over another one, with the range that the processes' medians give."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class TriedForm:
    """A form that was tried at the sites of one signature, alone, against the sites as they were.

    sites: their number. ratio: the form's time over the other's; None where it was not timed. reason: why it was not.
    is_known: both times were in the database before.
    """

    site: str
    operator: str
    sites: int
    form: str
    verdict: TriedVerdict
    ratio: TimeRatio | None = None
    reason: str = ""
    is_known: bool = False


@dataclass(frozen=True)
class Tuning:
    """The forms that a network is fastest with on an engine of a device, as a search by measuring found them.

    tuning_id: digest of the other fields. graph_digest: of the folded network. forms: those that were taken; none:
    nothing was faster. gain: time of the whole network with these forms over that without any, None where none was
    taken. over_default: the same over that with the recipe's own forms, None where those are none. tried: what was
    measured of single sites. complete: the search ended by itself and not with its budget.
    """

    tuning_id: str
    model: str
    family: str
    graph_digest: str
    target: str
    precision: str
    engine: str
    engine_version: str
    provider: str
    device: str
    device_id: str
    device_class: str
    threads: int
    batch: int
    forms: tuple[SiteForm, ...]
    gain: TimeRatio | None
    over_default: TimeRatio | None
    tried: tuple[TriedForm, ...]
    complete: bool
    started: str  # ISO 8601, UTC
    protocol_version: int

    @property
    def label(self) -> str:
        """`2 forms, 0.56 [0.55, 0.58] of the time without, on this device class`."""
        if self.gain is None:
            return f"no form is faster on {self.device_class or self.device}"
        ratio = f"{self.gain.value:.2f} [{self.gain.low:.2f}, {self.gain.high:.2f}]"
        names = ", ".join(sorted({one.form for one in self.forms}))
        return f"{names}: {ratio} of the time without, on {self.device_class or self.device}"


def form_name(form: str, tuning: Tuning | None) -> str:
    """Return a form with what a tuning chose: `tuned:depthwise_rows:3f0c2a91`; empty: the recipe's."""
    if form == TUNED and tuning is not None:
        return f"{TUNED}:{describe_forms(tuning.forms)}"
    return "" if form == DEFAULT else form


def form_in_rows(form: str, tuning: Tuning | None, applied: Iterable[AppliedForm]) -> str:
    """Return a form as rows keep it: its name, and of the recipe's own what it was, `default:depthwise_rows:3f0c2a91`.

    A recipe may take other forms in its next version, and then its rows are no repeats of earlier ones.
    """
    own = describe_forms(SiteForm(one.site, one.form) for one in applied) if form == DEFAULT else ""
    return f"{DEFAULT}:{own}" if own else form_name(form, tuning)
