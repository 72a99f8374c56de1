"""Accuracy: a data set of images through an exported artifact, as its engine computes it."""

from edgevit.evaluation.accuracy import Evaluation, Request, evaluate
from edgevit.evaluation.image_folder import ImageFolder, read_folder
from edgevit.evaluation.proportion import Rate

__all__ = ["Evaluation", "ImageFolder", "Rate", "Request", "evaluate", "read_folder"]
