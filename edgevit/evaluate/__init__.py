"""Accuracy: a data set of images through an exported artifact, as its engine computes it."""

from edgevit.evaluate.evaluation import Evaluation, Request, evaluate
from edgevit.evaluate.folder import ImageFolder, read_folder
from edgevit.evaluate.rate import Rate

__all__ = ["Evaluation", "ImageFolder", "Rate", "Request", "evaluate", "read_folder"]
