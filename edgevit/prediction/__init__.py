"""predict: how long a model takes on a device that never ran it, and how sure that is."""

from __future__ import annotations

from edgevit.prediction.anchors import choose_anchors
from edgevit.prediction.features import structural_features
from edgevit.prediction.predictor import Predictor
from edgevit.prediction.record import LEAST_ANCHORS, Level, Prediction
from edgevit.prediction.table import Row
from edgevit.records.model import OperatorCost

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
