"""What forms write: the operators that a form is for are there, and those that it is against are gone."""

from __future__ import annotations

from collections import Counter

import torch

from edgevit.folding import fold
from edgevit.folding.inference_form import Folded
from edgevit.tuning.application import apply_forms, named
from support.form_networks import EXAMPLES


def operators(folded: Folded) -> Counter[str]:
    """Count the calls of a network by operator."""
    targets = (str(node.target) for node in folded.net.graph.nodes if node.op == "call_function")
    return Counter(target.split(".")[1] for target in targets if target.startswith("aten."))


def before_and_after(name: str, number: int = 0) -> tuple[Counter[str], Counter[str], Folded]:
    """Return the operators of a form's example, those with the form, and the network with it."""
    build, shape = EXAMPLES[name][number]
    torch.manual_seed(0)
    folded = fold(build().eval(), (torch.zeros(shape),))
    formed, _ = apply_forms(folded, named(name), (torch.zeros(shape),))
    return operators(folded), operators(formed), formed


def test_chunks_stay_apart_through_operators_on_channels() -> None:
    before, after, formed = before_and_after("output_chunks_1mb")
    assert after == Counter({name: 2 * count for name, count in before.items()}) + Counter(cat=1)
    weights = [parameter for parameter in formed.parameters() if parameter.dim() == 4]
    assert all(weight.numel() * weight.element_size() <= 1 << 20 for weight in weights)


def test_chunks_that_the_next_layer_sums_are_never_joined() -> None:
    before, after, _ = before_and_after("output_chunks_1mb_summed")
    assert after == Counter({name: 2 * count for name, count in before.items()}) + Counter(add=1)


def test_bands_go_through_the_whole_chain() -> None:
    _, after, _ = before_and_after("pixel_bands_256kb")
    assert after["gelu"] > 1 and after["cat"] == 1
    assert after["conv2d"] == 2 * after["gelu"] == 2 * after["slice"]


def test_channels_go_last_once_for_a_whole_chain() -> None:
    _, after, _ = before_and_after("channels_last", 2)
    assert after == Counter(permute=2, linear=2, gelu=1)


def test_channels_first_needs_no_transposition() -> None:
    before, after, _ = before_and_after("channels_first")
    assert before["permute"] == 2 and after["permute"] == after["linear"] == 0


def test_attention_of_columns_transposes_keys_alone() -> None:
    before, after, _ = before_and_after("attention_columns")
    assert (before["transpose"], after["transpose"]) == (4, 1)


def test_keys_are_moved_once() -> None:
    before, after, _ = before_and_after("attention_keys_once")
    assert (before["transpose"], after["transpose"], after["permute"]) == (3, 2, 1)


def test_layers_of_attention_replace_the_split_and_back() -> None:
    _, after, _ = before_and_after("attention_layers_apart")
    assert after["linear"] == 3 and after["chunk"] == 0
    _, after, _ = before_and_after("attention_layers_joined")
    assert after["linear"] == 1 and after["split_with_sizes"] == 1


def test_separated_product_multiplies_less() -> None:
    _, _, formed = before_and_after("product_separated")
    assert sum(parameter.numel() for parameter in formed.parameters()) == 4 * 3 + 6 * 5


def test_scale_stands_where_the_form_puts_it() -> None:
    for place in ("query", "key", "product"):
        _, _, formed = before_and_after(f"attention_scaled_{place}", -1)
        [scale] = [node for node in formed.net.graph.nodes if str(node.target) == "aten.mul.Tensor"]
        [reader] = scale.users
        read = {"query": 0, "key": 1, "product": 0}[place]
        assert reader.args[read] is scale
        assert str(reader.target).startswith("aten.softmax" if place == "product" else "aten.matmul")
