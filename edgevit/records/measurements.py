"""Several measurements as one record, with a table of them."""

from __future__ import annotations

from typing import Any

from edgevit.records import choice_views
from edgevit.records.measurement import Measurement

_BULKY = ("samples_ns", "snapshots", "told")
_SHOWN = 3


class Measurements(tuple[Measurement, ...]):
    """Rows in the order in which they became known."""

    __slots__ = ()

    def to_frame(self) -> Any:
        """Return a pandas.DataFrame with a line for each row, raw samples left out.

        Raises UsageError with the command that installs pandas where it is missing.
        """
        lines = ({name: value for name, value in vars(row).items() if name not in _BULKY} for row in self)
        return choice_views.frame_of(lines)

    def __repr__(self) -> str:
        shown = [f"{row.model} {row.target} {row.precision} {_result(row)}" for row in self[:_SHOWN]]
        more = [f"{len(self) - _SHOWN} more"] if len(self) > _SHOWN else []
        return f"Measurements({len(self)}: {', '.join(shown + more)})" if shown else "Measurements(0)"


def _result(row: Measurement) -> str:
    """Return a row's latency, or its status where it has none."""
    return f"{row.p50_ns / 1e6:.3g} ms" if row.status == "ok" and row.p50_ns else row.status
