"""`edgevit.predict(...)`: latencies of models that a device has not measured."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from edgevit.cards import load_cards
from edgevit.devices.registry import LOCAL, load_device
from edgevit.errors import UnknownNameError, UsageError
from edgevit.prediction import Prediction
from edgevit.recipes import load_recipe
from edgevit.records import choice_views
from edgevit.records.measurement import Device
from edgevit.selection import not_measured
from edgevit.selection.limits import check_confidence
from edgevit.store import LatencyDB
from edgevit.sweeps.calibrate import Column, Knowledge

if TYPE_CHECKING:
    from collections.abc import Iterable


class Predictions(tuple[Prediction, ...]):
    """Predicted latencies, by model name."""

    __slots__ = ()

    def to_frame(self) -> Any:
        """Return a pandas.DataFrame with a line for each model. Raise UsageError where pandas is missing."""
        return choice_views.frame_of(vars(prediction) for prediction in self)

    def __repr__(self) -> str:
        predicted = sum(prediction.latency_ns is not None for prediction in self)
        return f"Predictions({predicted} of {len(self)} models)"


def predict(
    models: str | Sequence[str],
    target: str,
    *,
    device: str = LOCAL,
    precision: str = "fp32",
    threads: int = 1,
    percentile: int = 90,
    confidence: float = 0.9,
    db: str | None = None,
) -> Predictions:
    """Predict latencies of models on a device from its own rows, other devices' rows and the models' operators.

    Models that the device has measured in this configuration are left out:

        >>> import edgevit
        >>> predictions = edgevit.predict("mobilevig_*", "onnx", threads=1)
        >>> predictions.to_frame()[["model", "latency_ns", "at_most_ns"]]

    Parameters
    ----------
    models
        Names or shell patterns of the zoo, one or several.
    device
        Name from `edgevit devices`, or the name, device_id or device_class of one device with rows.
    target, precision, threads
        The configuration: a target, one of its precisions and a number of threads.
    percentile
        Latency percentile, 50, 90 or 99.
    confidence
        Confidence of the interval and of the upper bound `at_most_ns`.
    db
        Latency database: a file or a URL; default: EDGEVIT_DB, else the user's own.

    A prediction that rows do not support has level "refused" and names what is missing in `refusal`. Raises
    UnknownNameError for a model, device or target that does not exist, UsageError for a percentile that rows do not
    keep or a confidence that is no share, StoreError.
    """
    check_confidence(confidence)
    names = frozenset(name for pattern in _several(models) for name in _matching(pattern))
    recipe = load_recipe(target).RECIPE
    with LatencyDB.open(db, create_file=False) as database:
        column = Column(_device(device, database), recipe.target, precision, threads, percentile)
        knowledge = Knowledge(database.trusting("trusted"), column, {})
        return Predictions(_in_order(knowledge.predictions(names - knowledge.measured, confidence)))


def _device(name: str, database: LatencyDB) -> Device:
    """Return a person's own device, or the one unit with rows that has this name, id or class.

    Raise UsageError where several units have it, because they need not be equally fast.
    """
    with suppress(UnknownNameError):
        return load_device(name)
    units = [unit for unit in database.devices() if name in (unit.name, unit.device_id, unit.device_class)]
    if not units:
        raise not_measured(database, name)
    if len({unit.device_id for unit in units}) > 1:
        names = ", ".join(sorted(unit.device_id for unit in units))
        raise UsageError(f"{name} is several devices", why=names, fix="device=DEVICE_ID of one of them")
    return Device(units[0].name, units[0].device_id, units[0].device_class, transport="")


def _in_order(predictions: Iterable[Prediction]) -> list[Prediction]:
    """Return predictions by model name."""
    return sorted(predictions, key=lambda prediction: prediction.model)


def _matching(pattern: str) -> list[str]:
    """Return the zoo's names that match a shell pattern. Raise UnknownNameError where none does."""
    cards = load_cards()
    names = [name for name in cards if fnmatchcase(name, pattern)]
    if not names:
        raise UnknownNameError("model", pattern, cards, listing="edgevit models")
    return names


def _several(names: str | Sequence[str]) -> list[str]:
    """Return one or several names as a list."""
    return [names] if isinstance(names, str) else list(names)
