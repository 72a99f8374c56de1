"""Exact rewrites: each is a function that examines one node and returns whether it changed the network there.

Contract of a rewrite: the network computes the same function afterwards, in exact arithmetic. It costs no more
multiply-accumulates than before. One that adds weights asks `Net.grow` first: all together add 1% at most. It cannot
be applied for ever: it removes an operator or moves a constant downstream.
To add a rewrite, write the function in the file of its subject and list it here. The order is the preference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch.fx import Node

from edgevit.folding.graph import Net
from edgevit.folding.rewrites.affine import affine_into_next, affine_into_previous, affine_into_repeated
from edgevit.folding.rewrites.attention import scale_into_query
from edgevit.folding.rewrites.averages import affine_after_average, linear_after_average
from edgevit.folding.rewrites.bias import bias_downstream
from edgevit.folding.rewrites.branches import merge_parallel
from edgevit.folding.rewrites.complex import complex_region
from edgevit.folding.rewrites.concat import compose_through_concat, difference_into_weights
from edgevit.folding.rewrites.constants import constant_expression
from edgevit.folding.rewrites.differences import max_of_differences, min_over_rolls
from edgevit.folding.rewrites.few_query_attention import project_late
from edgevit.folding.rewrites.identity import drop_identity
from edgevit.folding.rewrites.linear import compose
from edgevit.folding.rewrites.norms import norm_affine_into_next
from edgevit.folding.rewrites.permutations import one_gather
from edgevit.folding.rewrites.pooling import max_pool_before_relu, maxima_of_few, mean_into_depthwise, plain_max_pool
from edgevit.folding.rewrites.reshape_reordering import reshape_downstream
from edgevit.folding.rewrites.softshrink import plain_softshrink
from edgevit.folding.rewrites.through_moves import affine_through_moves


@dataclass(frozen=True)
class Rewrite:
    """A rewrite, and its label in reports."""

    label: str
    apply: Callable[[Net, Node], bool]


REWRITES = (
    Rewrite("identities dropped", drop_identity),
    Rewrite("constant expressions computed", constant_expression),
    Rewrite("Fourier transforms and complex numbers in real ones", complex_region),
    Rewrite("arithmetic ahead of reshapes", reshape_downstream),
    Rewrite("norms and scales into the layer before", affine_into_previous),
    Rewrite("norms and scales into a layer called several times", affine_into_repeated),
    Rewrite("norms and scales into the layer after", affine_into_next),
    Rewrite("norms and scales through moves into the layers before", affine_through_moves),
    Rewrite("scales and shifts of token and group norms into the layer after", norm_affine_into_next),
    Rewrite("norms and scales after their average", affine_after_average),
    Rewrite("scales of attention into the queries' layer", scale_into_query),
    Rewrite("keys and values of pooled queries never projected", project_late),
    Rewrite("linear layers in sequence merged", compose),
    Rewrite("linear layers through a concatenation merged", compose_through_concat),
    Rewrite("parallel branches summed", merge_parallel),
    Rewrite("adaptive max-pools made plain", plain_max_pool),
    Rewrite("ReLUs after their max-pool", max_pool_before_relu),
    Rewrite("soft shrinkage as a difference", plain_softshrink),
    Rewrite("maxima of few as maxima of two", maxima_of_few),
    Rewrite("maxima of differences into one difference", max_of_differences),
    Rewrite("minima over rolls by doubling", min_over_rolls),
    Rewrite("differences into weights", difference_into_weights),
    Rewrite("depthwise layers and means into weighted sums", mean_into_depthwise),
    Rewrite("pointwise layers after their average", linear_after_average),
    Rewrite("chains of moves into one gather", one_gather),
    Rewrite("biases moved downstream", bias_downstream),
)
