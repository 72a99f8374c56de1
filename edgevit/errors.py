"""Every error edgevit raises on purpose, with the exit code the command line gives it.

    EdgevitError                    1  something failed
    |-- UsageError                  2  the request makes no sense: a typo, a budget of "ten"
    |   `-- UnknownNameError        2  no such model, target, device...; suggests near ones
    |-- ModelError                  1  a module cannot be built or run
    |   |-- CheckpointError         1  a checkpoint is damaged, unsafe or of another model
    |   |-- FoldError               1  a module cannot be folded exactly, and why
    |   `-- QuantizationError       1  a network cannot be quantized as asked
    |-- ExportError                 1  a converter refused a model, or the model is not folded
    |-- ArtifactError               1  an artifact is damaged, incomplete or cannot be written
    |-- DeviceError                 1  a device cannot be reached or is not what it was
    |-- StoreError                  1  the latency database cannot be opened, read or written
    |   `-- RowRefusedError         1  a row cannot be true; others are not concerned
    |-- ParityError                 4  an artifact does not compute what the model computes
    `-- TargetUnavailableError      5  the target cannot be built or run on this machine

`edgevit choose` also ends with 3 where nothing fits, with 5 where no candidate in question runs, with 6 where a
candidate may fit that was not measured, and with 7 where the accuracy of nothing that fits is known. These are answers,
and no errors.

A message says what went wrong, where, why, and the command that mends it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import ClassVar

OWN_MODEL = "FILE.py:FUNCTION of your own"  # what a model may be beside a name of the zoo


class EdgevitError(Exception):
    """Base of all errors raised on purpose. `fix` is the command or action that mends it."""

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        self.what, self.where, self.why, self.fix = what, where, why, fix
        super().__init__("\n".join(self.lines()))

    def lines(self) -> list[str]:
        """Return the message in the order a reader wants it, empty parts left out."""
        parts = (("", self.what), ("where: ", self.where), ("why: ", self.why), ("fix: ", self.fix))
        return [label + text for label, text in parts if text]


class UsageError(EdgevitError):
    """The request makes no sense as it stands."""

    exit_code = 2


class UnknownNameError(UsageError):
    """No such name; near ones are suggested, never taken in its place."""

    def __init__(self, kind: str, name: str, known_names: Iterable[str], *, listing: str, or_else: str = "") -> None:
        """Suggest known names near to this one. `or_else` is what else a name may be."""
        names = sorted(known_names)
        suggestions = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        *first, last = [*(suggestions or names[:12]), *filter(None, [or_else])] or ["none"]
        listed = f"{', '.join(first)} or {last}" if first and (suggestions or or_else) else ", ".join([*first, last])
        why = f"did you mean {listed}?" if suggestions else f"known: {listed}"
        super().__init__(f"no {kind} is called {name!r}", why=why, fix=listing)


class ModelError(EdgevitError):
    """A module cannot be built, or does not run on the inputs it was given."""


class CheckpointError(ModelError):
    """A checkpoint is damaged, unsafe to read, or belongs to another model."""


class FoldError(ModelError):
    """A module cannot be folded exactly."""


class QuantizationError(ModelError):
    """A network cannot be quantized as asked."""


class TuningError(ModelError):
    """A form cannot be used on a network, or no tuning of it is known."""


class ExportError(EdgevitError):
    """A converter refused a model, or the model is not folded and its training form was not requested."""


class ArtifactError(EdgevitError):
    """An artifact is damaged or incomplete, or its folder cannot be written."""


class DeviceError(EdgevitError):
    """A device cannot be reached."""


class StoreError(EdgevitError):
    """The latency database cannot be opened, read or written."""


class RowRefusedError(StoreError):
    """A row cannot be true, so that the database refuses it."""


class ParityError(EdgevitError):
    """An artifact does not compute what the model computes."""

    exit_code = 4


class TargetUnavailableError(EdgevitError):
    """A target cannot be built or run on this machine."""

    exit_code = 5
