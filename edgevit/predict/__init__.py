"""predict: how long a model takes on a device that never ran it, and how sure that is."""

from __future__ import annotations

from edgevit.predict.anchors import choose_anchors
from edgevit.predict.features import structural_features
from edgevit.predict.predictor import LEAST_ANCHORS, Predictor
from edgevit.predict.record import Level, Prediction
from edgevit.predict.table import Row
from edgevit.types import OperatorCost

__all__ = [
    "LEAST_ANCHORS",
    "Level",
    "OperatorCost",
    "Prediction",
    "Predictor",
    "Row",
    "choose_anchors",
    "structural_features",
]
