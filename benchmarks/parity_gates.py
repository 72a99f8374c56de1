"""How far right conversions are from the folded form, and how far wrong ones: the gates lie between.

python benchmarks/target_matrix.py > targets.json
python benchmarks/parity_gates.py targets.json [MODEL...]

Right: the artifacts of targets.json. Wrong: the folded form with one mistake that converters make, in torch; without a
MODEL of the smallest variant of each family. The rule that makes gates of them is in docs/verify.md. Random weights.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from common import report
from target_matrix import smallest
from torch import nn
from torch.fx import Node

from edgevit.folding import Folded, fold, graph, kernel
from edgevit.models.source import Subject, load_subject
from edgevit.verification import FOLD_GATE, GATES, References, make_samples
from edgevit.verification.compare import compare
from edgevit.verification.parity import FOLDED_FORM
from edgevit_runtime.codec import to_data
from edgevit_runtime.silence_converters import quiet

aten = torch.ops.aten
LAYERS = (aten.conv2d.default, aten.linear.default, aten.convolution.default)
AT_MOST = 16  # places in one model where one kind of mistake is made, one at a time
HEADROOM_DB = 10  # between a gate and the worst right artifact: other weights, other variants, other processors
Numbers = dict[str, float | None]


# ---- right conversions ----------------------------------------------------------------------------------------------


def right(file: Path) -> list[dict[str, Any]]:
    """Each finished artifact against the folded form; the last stage computed where nothing here runs the artifact."""
    exports = json.loads(file.read_text())["exports"]
    names = ("model", "target", "precision")
    return [dict(zip(names, case.split(), strict=True)) | results for case, results in exports.items()]


# ---- wrong conversions ----------------------------------------------------------------------------------------------


def wrong(model: str) -> dict[str, Numbers]:
    """Each kind of mistake -> how near the mildest of its kind is to the folded form."""
    subject = load_subject(model)
    folded = fold(subject.module, tuple(subject.example().values()))
    samples = make_samples(subject.inputs, subject.preprocessing)
    references = References.of(samples, subject.module, folded)
    assert references.folded is not None
    results: dict[str, list[Numbers]] = {}
    for kind, broken in mistakes(subject, folded):
        answers = References.of(samples, broken, None).trained
        check = compare(kind, FOLDED_FORM, references.folded, answers, FOLD_GATE)
        if not check.passed:  # else it is no mistake: the bias of keys, say, which softmax takes out again
            results.setdefault(kind, []).append({"max_rel": check.max_rel, "snr_db": check.snr_db})
    mild = {kind: max(each, key=lambda entry: entry["snr_db"] or float("inf")) for kind, each in results.items()}
    print(model, mild, file=sys.stderr)
    return mild


def mistakes(subject: Subject, folded: Folded) -> Iterator[tuple[str, nn.Module]]:
    """The folded form, with one thing wrong in it."""
    yield "every epsilon 1e-3", other_epsilon(subject)
    nodes = list(folded.net.graph.nodes)
    sums = [i for i, node in enumerate(nodes) if node.target == aten.add.Tensor and both_computed(node)]
    layers = [i for i, node in enumerate(nodes) if node.target in LAYERS]
    with_bias = [i for i in layers if len(nodes[i].args) > 2 and nodes[i].args[2] is not None]
    for i in spread(sums):
        for branch in (0, 1):
            yield "a branch dropped", edited(folded, i, partial(bypass, branch=branch))
    for i in spread(layers):
        yield "a scale of 2 lost", edited(folded, i, halve)
    for i in spread(with_bias):
        yield "a bias lost", edited(folded, i, without_bias)
    for name, target in (("gelu", aten.gelu.default), ("relu", aten.relu.default)):
        if any(node.target == target for node in nodes):
            yield f"every {name} approximated", approximated(folded, target)


def both_computed(node: Node) -> bool:
    return all(isinstance(entry, Node) and entry.op != "get_attr" for entry in node.args[:2])


def spread(indices: Sequence[int]) -> list[int]:
    """So many of them, evenly, the first and the last among them."""
    if len(indices) <= AT_MOST:
        return list(indices)
    return [indices[round(i * (len(indices) - 1) / (AT_MOST - 1))] for i in range(AT_MOST)]


def edited(folded: Folded, index: int, edit: Callable[[Node], object]) -> nn.Module:
    with quiet():
        network = copy.deepcopy(folded)
    edit(list(network.net.graph.nodes)[index])
    network.net.recompile()
    return network


def bypass(node: Node, branch: int) -> None:
    node.replace_all_uses_with(node.args[branch])  # type: ignore[arg-type]


def without_bias(node: Node) -> None:
    node.update_arg(2, None)


def halve(node: Node) -> None:
    with node.graph.inserting_after(node):
        half = node.graph.call_function(aten.mul.Tensor, (node, 0.5))
    node.replace_all_uses_with(half, delete_user_cb=lambda user: user is not half)


def approximated(folded: Folded, target: Any) -> nn.Module:
    """GELU by tanh instead of erf; a ReLU that leaks a hundredth."""
    with quiet():
        network = copy.deepcopy(folded)
    for node in network.net.graph.nodes:
        if node.target == target == aten.gelu.default:
            node.kwargs = {"approximate": "tanh"}
        elif node.target == target:
            node.target = aten.leaky_relu.default
    network.net.recompile()
    return network


def other_epsilon(subject: Subject) -> nn.Module:
    """BatchNorms folded with another epsilon, and the norms that stay with it."""
    affine = kernel.norm_affine

    def other(norm: Any) -> Any:
        return affine(dataclasses.replace(norm, eps=1e-3))

    with mock.patch.object(graph, "norm_affine", other):
        # The check of a fold would find the mistake.
        network = fold(subject.module, tuple(subject.example().values()), check=False)
    for node in network.net.graph.nodes:
        if node.target in (aten.layer_norm.default, aten.group_norm.default) and len(node.args) > 4:
            node.update_arg(4, 1e-3)
    network.net.recompile()
    return network


# ---- what lies between ----------------------------------------------------------------------------------------------


def margins(rows: Sequence[dict[str, Any]], mild: dict[str, dict[str, Numbers]]) -> dict[str, Any]:
    """Each gate, the worst right artifact of its precision, what the rule makes of it, and the mistakes it catches."""
    kinds = sorted({kind for each in mild.values() for kind in each})
    mildest = {
        kind: {
            "max_rel": min(each[kind]["max_rel"] or 0.0 for each in mild.values() if kind in each),
            "snr_db": max(each[kind]["snr_db"] or float("inf") for each in mild.values() if kind in each),
        }
        for kind in kinds
    }
    results: dict[str, Any] = {"mildest_wrong": mildest}
    for precision, gate in GATES.items():
        good = [row for row in rows if row["precision"] == precision and "error" not in row]
        if good:
            snrs = [row["snr_db"] for row in good if row["snr_db"] is not None]
            worst = {"max_rel": max(row["max_rel"] for row in good), "snr_db": min(snrs, default=None)}
            caught = [kind for kind in kinds if not gate.passes(mildest[kind]["max_rel"], mildest[kind]["snr_db"])]
            results[precision] = {
                "gate": to_data(gate),
                "worst_right": worst,
                "by_the_rule": {
                    "max_rel_at_least": 10 * worst["max_rel"],
                    "min_snr_db": None if worst["snr_db"] is None else math.floor(worst["snr_db"] - HEADROOM_DB),
                },
                "catches_the_mildest_of": caught,
            }
    return results


def main(file: str, *models: str) -> None:
    logging.disable(logging.WARNING)
    mild = {model: wrong(model) for model in models or smallest()}
    report("parity_gates", {"margins": margins(right(Path(file)), mild), "wrong": mild})


if __name__ == "__main__":
    main(*sys.argv[1:])
