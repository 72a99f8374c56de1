"""FMViT: the published costs, the parts that the abstract names, and a fold that leaves none of their branches."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Node

from edgevit.count import count
from edgevit.folding import Folded, fold, max_rel
from edgevit.models import create_model, list_models, model_card, randomize
from edgevit.models.fmvit import _SHAPES, CFB, GMLP, GROUPS, RLMHSA, FMViT, FrequencyMixing, LocalMixer, MultiGroupConv
from edgevit.records.model import ModelCard
from edgevit_runtime.codec import from_json
from support.narrowing import narrow, node_at, present
from support.nets import assert_same, calls, image, operators

CARDS = Path(__file__).parents[2] / "latency_db" / "models.jsonl"
# Parameters in millions, GMACs, top-1 percent, as published [MODELS.md].
TABLE = {
    "fmvit_t": (2.0, 0.3, 72.9),
    "fmvit_s": (6.4, 0.8, 78.5),
    "fmvit_m": (12.8, 2.0, 80.3),
    "fmvit_b": (24.3, 4.2, 82.4),
    "fmvit_l": (35.3, 7.1, 83.3),
}
aten = torch.ops.aten


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def randomized(model: nn.Module) -> nn.Module:
    model.eval()
    randomize(model)
    return model


def tiny() -> nn.Module:
    """Build every part, none twice without need."""
    torch.manual_seed(0)
    return randomized(FMViT((32, 32, 48, 64), (2, 1, 1, 1), classes=10).double())


# ---- what is published -------------------------------------------------------------------------------------------


def test_the_zoo_has_the_published_variants() -> None:
    assert list_models("fmvit_*") == list(TABLE)


@pytest.mark.parametrize("name", TABLE)
def test_folded_costs_are_the_published_ones_within_three_percent(name: str) -> None:
    """As shipped; tests/models/test_zoo.py holds what is shipped against what counting gives."""
    params, macs, top1_percent = TABLE[name]
    cards = {card.name: card for card in (from_json(ModelCard, line) for line in CARDS.read_text().splitlines())}
    card = cards[name]
    assert card.folded_params == pytest.approx(params * 1e6, rel=0.03)
    assert card.folded_macs == pytest.approx(macs * 1e9, rel=0.03)
    with torch.device("meta"):
        before = count(create_model(name), torch.empty(1, 3, 224, 224))
    assert (before.params, before.macs, card.top1_percent) == (card.params, card.macs, top1_percent)


@pytest.mark.parametrize("name", TABLE)
def test_cards_say_that_the_design_is_not_the_authors(name: str) -> None:
    card = model_card(name)
    assert card.provenance == "reconstructed" and "no official code" in card.source and "2311.05707" in card.source
    assert "third-party" in card.top1_source and "not of this one" in card.top1_source


def test_the_page_says_what_the_cards_say() -> None:
    page = (CARDS.parents[1] / "docs" / "fmvit.md").read_text()
    cards = {card.name: card for card in (from_json(ModelCard, line) for line in CARDS.read_text().splitlines())}
    for name, (params, macs, top1_percent) in TABLE.items():
        folded = (present(cards[name].folded_params) / 1e6, present(cards[name].folded_macs) / 1e9)
        shape = (", ".join(map(str, numbers)) for numbers in _SHAPES[name])
        cells = (name, params, f"{folded[0]:.3f}", macs, f"{folded[1]:.3f}", *shape)
        assert "| " + " | ".join(map(str, cells)) + " |" in page
        assert str(top1_percent) in page


# ---- the parts ---------------------------------------------------------------------------------------------------


def layers(part: MultiGroupConv) -> list[nn.Sequential]:
    """Return the branches of a multi-group convolution."""
    return [narrow(branch, nn.Sequential) for branch in part.branches]


def first_convolution(part: MultiGroupConv) -> nn.Conv2d:
    return narrow(layers(part)[0][0], nn.Conv2d)


def stages(name: str) -> list[list[nn.Module]]:
    with torch.device("meta"):
        model = narrow(create_model(name), FMViT)
    return [list(narrow(stage, nn.Sequential)) for stage in model.stages]


@pytest.mark.parametrize("name", TABLE)
def test_each_stage_has_fusion_blocks_and_mixes_frequencies_last(name: str) -> None:
    stage_list = stages(name)
    assert len(stage_list) == 4
    for i, stage in enumerate(stage_list):
        embed, blocks = (stage[:3], stage[3:]) if i else ([], stage)
        assert [type(part) for part in embed] == ([nn.AvgPool2d, nn.Conv2d, nn.BatchNorm2d] if i else [])
        assert [type(block) for block in blocks] == [CFB] * (len(blocks) - 1) + [FrequencyMixing]
        mixing = narrow(blocks[-1], FrequencyMixing)
        assert first_convolution(mixing.low.query).in_channels >= first_convolution(mixing.high.conv).in_channels


@pytest.mark.parametrize("name", TABLE)
def test_keys_are_of_49_pixels_in_every_stage(name: str) -> None:
    pools = [getattr(narrow(stage[-1], FrequencyMixing).low.pool, "kernel_size", 1) for stage in stages(name)]
    assert [56 // 2**i // pool for i, pool in enumerate(pools)] == [7] * 4


@pytest.mark.parametrize(("outputs", "kernel", "groups"), [(16, 1, 1), (32, 1, 1), (16, 3, 1), (16, 3, 2)])
def test_a_multi_group_convolution_is_one_convolution_of_the_widest_groups(
    outputs: int, kernel: int, groups: int
) -> None:
    x = image(2, 16, 7, 6)
    model = MultiGroupConv(16, outputs, kernel, groups).double()
    randomized(model)
    grouped = [branch[0].groups for branch in layers(model) if isinstance(branch[0], nn.Conv2d)]
    assert grouped == [groups * times for times in GROUPS] + [groups] * (kernel > 1)
    assert isinstance(layers(model)[-1][0], nn.BatchNorm2d) == (outputs == 16)
    folded = fold(model, (x,))
    assert_same(model, folded, (x,))
    assert operators(folded) == {"conv2d": 1}
    assert calls(folded)[0].args[6] == groups


@pytest.mark.parametrize(
    ("part", "convolutions"),
    [
        (CFB(32, 0.0), 4),
        (LocalMixer(32, 0.0), 2),
        (GMLP(32, 2, 0.0), 2),
        (RLMHSA(32, 2, 0.0), 4),
        (RLMHSA(32, 1, 0.0), 4),
        (FrequencyMixing(32, 2, 0.0), 10),
    ],
    ids=["CFB", "LocalMixer", "gMLP", "RLMHSA", "RLMHSA unpooled", "FrequencyMixing"],
)
def test_every_part_folds_to_plain_convolutions(part: nn.Module, convolutions: int) -> None:
    x = image(2, 32, 8, 8)
    model = randomized(copy.deepcopy(part).double())
    folded = fold(model, (x,))
    assert_same(model, folded, (x,))
    assert operators(folded)["conv2d"] == convolutions and operators(folded)["batch_norm"] == 0


def test_attention_sees_every_pooled_pixel_of_its_head() -> None:
    """Against the definition, written out for one head."""
    x = image(1, 16, 4, 4)
    part = randomized(RLMHSA(16, 2, 0.0).double())
    outputs: dict[str, Tensor] = {}
    for name in ("query", "key", "value"):
        getattr(part, name).register_forward_hook(
            lambda m, args, out, name=name: outputs.update({name: out.flatten(2)[0]})
        )
    part.project = nn.Identity()
    out = part(x)
    weights = torch.softmax(
        outputs["query"].T @ outputs["key"] / 4, dim=1
    )  # (16 pixels, 4 pooled pixels), sqrt(16) = 4
    assert outputs["key"].shape == (16, 4)
    assert max_rel(out, x + (weights @ outputs["value"].T).T.reshape(1, 16, 4, 4)) < 1e-12


def test_softmax_is_not_one_hot_in_what_the_proofs_run_on() -> None:
    """Else a fold that ruined queries would pass: the largest weight would win all the same. The gate is at 1e-10."""
    model, x = randomized(create_model("fmvit_t").double()), image(1, 3, 224, 224, seed=6)
    other = copy.deepcopy(model)
    for part in other.modules():
        if isinstance(part, RLMHSA):
            narrow(layers(part.query)[0][1], nn.BatchNorm2d).weight.data.mul_(1.01)
    with torch.no_grad():
        assert max_rel(model(x), other(x)) > 1e-8


# ---- the fold ----------------------------------------------------------------------------------------------------


def assert_nothing_left(folded: Folded) -> None:
    """Assert no norm, no scale, and in no sum two terms that are linear in one map."""
    assert folded.report.unfolded == () and folded.report.batch_is_open
    assert not {"batch_norm", "mul", "div", "dropout"} & set(operators(folded))
    for node in calls(folded):
        if node.target is aten.add.Tensor:
            sources = [source(term) for term in terms(node)]
            assert len(set(sources)) == len(sources), folded.net.graph
        if node.target is aten.conv2d.default:
            before = node_at(node, 0)
            linear = before.target is aten.conv2d.default and len(before.users) == 1
            assert not linear, "two convolutions in sequence"


def terms(node: Node) -> list[Node]:
    summands = [node_at(node, index) for index in range(len(node.args))]
    return [leaf for term in summands for leaf in (terms(term) if term.target is aten.add.Tensor else [term])]


def source(term: Node) -> Node:
    """Return the map that a term is linear in; a residual stream that a convolution leaves is its own."""
    return node_at(term, 0) if term.target is aten.conv2d.default and len(term.users) == 1 else term


def assert_ranks(folded: Folded) -> None:
    for node in folded.net.graph.nodes:
        if isinstance(value := node.meta.get("val"), Tensor):
            assert value.dim() <= 4, node


def test_a_tiny_one_folds_completely_in_float64() -> None:
    model, x = tiny(), image(2, 3, 64, 64)
    folded = fold(model, (x,))
    assert_same(model, folded, (image(3, 3, 64, 64, seed=5),))
    assert_nothing_left(folded)
    assert_ranks(folded)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name != "fmvit_t")) for name in TABLE])
def test_nothing_is_left(name: str) -> None:
    with torch.device("meta"):
        folded = fold(create_model(name))
    assert_nothing_left(folded)
    assert_ranks(folded)
