"""Accuracy: a data set of images through an exported artifact, as its engine computes it."""

from edgevit.evaluation.accuracy import Evaluation, EvaluationRequest, evaluate
from edgevit.evaluation.image_folder import ImageFolder, read_folder
from edgevit.evaluation.proportion import Proportion

__all__ = ["Evaluation", "EvaluationRequest", "ImageFolder", "Proportion", "evaluate", "read_folder"]
