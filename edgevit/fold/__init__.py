"""Folding: a trained network into its inference form, with proof."""

from edgevit.fold.digest import graph_digest
from edgevit.fold.fold import Folded, FoldReport, Left, check_foldable, example_inputs, fold
from edgevit.fold.kernel import Kernel
from edgevit.fold.proof import Proof, max_rel, prove

__all__ = [
    "FoldReport",
    "Folded",
    "Kernel",
    "Left",
    "Proof",
    "check_foldable",
    "example_inputs",
    "fold",
    "graph_digest",
    "max_rel",
    "prove",
]
