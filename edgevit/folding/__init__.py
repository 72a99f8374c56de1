"""Folding: a trained network into its inference form, with proof."""

from edgevit.folding.agreement import max_rel
from edgevit.folding.answers import require_answers
from edgevit.folding.digest import fold_and_digest, graph_digest, network_digest
from edgevit.folding.graph import origin
from edgevit.folding.inference_form import Folded, FoldReport, Unfolded, check_foldable, example_inputs, fold
from edgevit.folding.kernel import Kernel
from edgevit.folding.proof import Proof, prove

__all__ = [
    "FoldReport",
    "Folded",
    "Kernel",
    "Proof",
    "Unfolded",
    "check_foldable",
    "example_inputs",
    "fold",
    "fold_and_digest",
    "graph_digest",
    "max_rel",
    "network_digest",
    "origin",
    "prove",
    "require_answers",
]
