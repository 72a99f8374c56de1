"""Evaluation: the accuracy of an exported artifact on a data set of images, computed by its own engine."""

from edgevit.evaluation.accuracy import Evaluation, EvaluationRequest, evaluate
from edgevit.evaluation.image_folder import ImageFolder, read_folder
from edgevit.records.proportion import Proportion

__all__ = ["Evaluation", "EvaluationRequest", "ImageFolder", "Proportion", "evaluate", "read_folder"]
