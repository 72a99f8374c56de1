"""Model references: the forms of MODEL that a person may type, told apart without loading anything."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_ORIGIN_DIGITS = 8
_FORMS = (
    ("timm", re.compile(r"^timm:(?P<name>.+)$")),
    ("hf", re.compile(r"^hf:(?P<name>.+)$")),
    ("file", re.compile(r"^(?P<name>.+\.py):(?P<function>\w+)$")),
    ("module", re.compile(r"^(?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<function>\w+)$")),
)


@dataclass(frozen=True)
class ModelReference:
    """What MODEL names: a model of the zoo, a function of a user's own code, or a network of timm or transformers.

    name: the zoo's or timm's name, the path of FILE.py, `package.module`, or the folder of `hf:FOLDER`.
    function: of FILE.py:FUNCTION and package.module:FUNCTION.
    """

    kind: Literal["zoo", "file", "module", "timm", "hf"]
    name: str
    function: str = ""

    @classmethod
    def parse(cls, text: str) -> ModelReference:
        """Return what a text refers to; a text of no other form is a name of the zoo."""
        for kind, form in _FORMS:
            if match := form.match(text):
                return cls(kind, **match.groupdict())  # type: ignore[arg-type]
        return cls("zoo", text)

    @property
    def is_own(self) -> bool:
        """Whether the model has no card in the zoo."""
        return self.kind != "zoo"

    @property
    def runs_code(self) -> bool:
        """Whether loading it runs a person's own code, or builds what the files of a folder choose."""
        return self.kind in ("file", "module", "hf") or (self.kind == "timm" and Path(self.name).is_dir())

    @property
    def place(self) -> str:
        """Absolute place of a user's file or folder, with the function."""
        file = Path(*self.name.split(".")) if self.kind == "module" else Path(self.name)
        return f"{file.resolve()}:{self.function}"

    def is_also(self, other: ModelReference) -> bool:
        """Return whether two references may be of one model in two places: the folders before its name may differ."""
        if self.kind in ("file", "hf", "timm"):
            last, others_last = (Path(one.name).name for one in (self, other))
        else:
            last, others_last = self.name, other.name
        return (self.kind, last, self.function) == (other.kind, others_last, other.function)

    @property
    def origin(self) -> str:
        """Digest of the place of a user's file or folder; empty for a name that means the same everywhere."""
        if self.kind == "zoo" or (self.kind == "timm" and not Path(self.name).is_dir()):
            return ""
        return place_digest(self.place)

    def brings(self, weights_file: str) -> bool:
        """Return whether the name alone gives the weights of this file: a folder of transformers, a network of timm."""
        return self.kind in ("timm", "hf") and Path(self.name).name == weights_file


def place_digest(place: str | Path) -> str:
    """Return a short digest of an absolute place, which tells apart files of one name."""
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:_ORIGIN_DIGITS]
