"""Records about forms: exactly equal ways to compute parts of a network, and what each of them brought."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

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
