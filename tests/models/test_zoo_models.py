"""The zoo: layouts and numbers of the published models, the slope, random values that make proofs mean something."""

from __future__ import annotations

import copy
import itertools
import json
import math
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import edgevit.cards
import edgevit.models
from edgevit.count import count
from edgevit.errors import CheckpointError, ModelError, StoreError, UnknownNameError
from edgevit.folding import fold
from edgevit.models import create_model, list_models, model_card, randomize
from edgevit.models.layers import DropPath
from edgevit.models.mobilevig import MaxRelativeConv, MobileViG
from edgevit.models.source import load_subject
from edgevit.models.vanillanet import Block, SlopeSchedule, VanillaNet
from edgevit.records.model import ModelCard
from edgevit_runtime.codec import from_json, to_json
from support.narrowing import narrow, present
from support.parity_fill import fill, load_golden, noise_image

# Parameters in millions and GMACs of the training form at 224x224, to the digits they are published with.
COSTS = {
    "vanillanet_5": ("22.329", "8.451"),
    "vanillanet_6": ("56.117", "10.105"),
    "vanillanet_7": ("56.670", "11.827"),
    "vanillanet_8": ("65.176", "13.491"),
    "vanillanet_9": ("73.681", "15.155"),
    "vanillanet_10": ("82.186", "16.819"),
    "vanillanet_11": ("90.692", "18.483"),
    "vanillanet_12": ("99.197", "20.147"),
    "vanillanet_13": ("107.702", "21.810"),
    "vanillanet_13_x1_5": ("236.942", "48.746"),
    "vanillanet_13_x1_5_ada_pool": ("236.942", "89.966"),
    "mobilevig_ti": ("5.271", "0.662"),
    "mobilevig_s": ("7.277", "0.984"),
    "mobilevig_m": ("14.076", "1.493"),
    "mobilevig_b": ("26.869", "2.793"),
}
GOLDENS = ("vanillanet_5", "mobilevig_ti")


def on_meta(name: str) -> nn.Module:
    with torch.device("meta"):
        return create_model(name)


def layout(model: nn.Module) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in model.state_dict().items() if key != "_extra_state"}


# --- published models --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", GOLDENS)
def test_layout_is_the_official_one(name: str) -> None:
    assert layout(on_meta(name)) == load_golden(name)["keys"]


@pytest.mark.parametrize("name", GOLDENS)
def test_logits_are_the_official_ones_to_the_last_published_digit(name: str) -> None:
    golden = load_golden(name)
    model = create_model(name).double()
    model.load_state_dict(fill(golden["keys"]))
    with torch.no_grad():
        logits = model(noise_image(golden["input_shape"]).double())[0]
    expected = torch.tensor(golden["logits"], dtype=torch.float64)
    rounding = 0.5 * 10.0 ** (expected.abs().log10().floor() - 8)  # half a unit in the ninth significant digit
    assert ((logits - expected).abs() <= 1.001 * rounding + 1e-12).all()


@pytest.mark.parametrize("name", COSTS)
def test_parameters_and_macs_are_the_published_ones(name: str) -> None:
    counted = count(on_meta(name), torch.empty(1, 3, 224, 224, device="meta"))
    assert (f"{counted.params / 1e6:.3f}", f"{counted.macs / 1e9:.3f}") == COSTS[name]


@pytest.mark.parametrize("name", [name for name in COSTS if name.startswith("vanillanet")])
def test_every_vanillanet_repeats_the_golden_pattern_of_keys(name: str) -> None:
    golden = load_golden("vanillanet_5")["keys"]
    depth = 13 if "13" in name else int(name.split("_")[1])  # stem and head are two of its layers
    block = [key.removeprefix("stages.0.") for key in golden if key.startswith("stages.0.")]
    expected = {key for key in golden if not key.startswith("stages.")}
    expected |= {f"stages.{i}.{key}" for i in range(depth - 2) for key in block}
    assert set(layout(on_meta(name))) == expected


@pytest.mark.parametrize(("name", "blocks"), [("mobilevig_s", (3, 3, 9, 3)), ("mobilevig_b", (5, 5, 15, 5))])
def test_every_mobilevig_repeats_the_golden_pattern_of_keys(name: str, blocks: tuple[int, ...]) -> None:
    golden = load_golden("mobilevig_ti")["keys"]
    residual, down, vig = (
        [key.removeprefix(prefix) for key in golden if key.startswith(prefix)]
        for prefix in ("local_backbone.0.", "local_backbone.2.", "backbone.0.")
    )
    kinds = [kind for number in blocks[:3] for kind in (*[residual] * number, down)]
    expected = {key for key in golden if "backbone" not in key}
    expected |= {f"local_backbone.{i}.{key}" for i, kind in enumerate(kinds) for key in kind}
    expected |= {f"backbone.{i}.{key}" for i in range(blocks[3]) for key in vig}
    assert set(layout(on_meta(name))) == expected


def test_the_adaptive_variant_pools_to_its_grids() -> None:
    model, sides = narrow(on_meta("vanillanet_13_x1_5_ada_pool"), VanillaNet), list[int]()
    for stage in model.stages:
        stage.register_forward_hook(lambda module, args, out: sides.append(out.shape[-1]))
    model(torch.empty(1, 3, 224, 224, device="meta"))
    assert sides == [75, 38, 19, 19, 19, 19, 19, 19, 19, 10, 10]


@pytest.mark.parametrize("name", GOLDENS)
def test_exports_with_a_dynamic_batch(name: str) -> None:
    model = create_model(name)
    randomize(model)
    batch = ({0: torch.export.Dim.AUTO},)
    program = torch.export.export(model, (torch.zeros(2, 3, 64, 64),), dynamic_shapes=batch)
    image = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(program.module()(image), model(image), rtol=0, atol=0)
    slopes = [node.args[1] for node in program.graph.nodes if node.target is torch.ops.aten.leaky_relu.default]
    assert slopes == ([1.0] * 5 if name == "vanillanet_5" else [])


# --- VanillaNet --------------------------------------------------------------------------------------------------


def small_vanillanet() -> VanillaNet:
    torch.manual_seed(0)
    model = VanillaNet((16, 16, 16), (2, 1), classes=10).eval()
    randomize(model)
    return model


def stages(model: VanillaNet) -> list[Block]:
    return [narrow(stage, Block) for stage in model.stages]


def obstacles(model: VanillaNet) -> list[str | None]:
    """Return the obstacle that each of the network's carriers of a slope names, in order."""
    carriers: list[Any] = [module for module in model.modules() if hasattr(module, "fold_obstacle")]
    return [carrier.fold_obstacle() for carrier in carriers]


def test_the_slope_reaches_every_block_and_the_function() -> None:
    model, image = small_vanillanet(), torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    at_one = model(image)
    model.slope = 0.5
    assert [stage.slope for stage in stages(model)] == [0.5, 0.5] and model.slope == 0.5
    assert (model(image) - at_one).abs().max() / at_one.abs().max() > 1e-2
    for stage in stages(model):
        stage.slope = 1.0
    assert (model(image) - at_one).abs().max() / at_one.abs().max() > 1e-2  # stem and head follow the root's


def test_a_slope_is_an_obstacle_to_folding_until_it_is_one() -> None:
    model = small_vanillanet()
    assert obstacles(model) == [None] * 3
    stages(model)[1].slope = 0.5
    reason = "slope is 0.5, not 1: the leaky ReLU between the two convolutions is not the identity"
    assert obstacles(model) == [None, None, reason]
    model.slope = 0.999
    assert all(obstacles(model))


def test_slopes_are_saved_and_read_back_exactly() -> None:
    model, other = small_vanillanet(), small_vanillanet()
    model.slope = 1.0 / 3.0
    stages(model)[1].slope = 0.1
    state = model.state_dict()
    assert state["_extra_state"].dtype == torch.float64
    other.load_state_dict(state)
    assert (other.slope, *(stage.slope for stage in other.stages)) == (1.0 / 3.0, 1.0 / 3.0, 0.1)
    assert copy.deepcopy(model).stages[1].slope == 0.1


def test_official_files_hold_no_slope_and_mean_one() -> None:
    model = small_vanillanet()
    official = {key: value for key, value in model.state_dict().items() if key != "_extra_state"}
    model.slope = 0.5
    model.load_state_dict(official, strict=True)
    assert model.slope == 1.0 and all(stage.slope == 1.0 for stage in model.stages)
    assert "_extra_state" not in official  # the caller's dictionary is not written to


@pytest.mark.parametrize("slope", [-0.1, 1.1, math.nan])
def test_impossible_slopes_are_refused(slope: float) -> None:
    with pytest.raises(ModelError, match="2 blocks needs 3 slopes from 0 to 1"):
        small_vanillanet().slope = slope
    with pytest.raises(ModelError, match="2 blocks needs 3 slopes from 0 to 1"):
        small_vanillanet().set_extra_state(torch.ones(4))


def test_the_schedule_ends_at_exactly_one() -> None:
    model, linear, cosine = small_vanillanet(), SlopeSchedule(100), SlopeSchedule(100, "cosine")
    assert [linear.at(epoch) for epoch in (0, 25, 100, 299)] == [0.0, 0.25, 1.0, 1.0]
    assert [cosine.at(epoch) for epoch in (0, 50, 100)] == pytest.approx([0.0, 0.5, 1.0], abs=1e-15)
    linear.apply(model, 40)
    assert model.slope == 0.4 == model.stages[1].slope


# --- MobileViG ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(7, 7), (4, 6), (3, 5), (2, 2), (1, 1)])
def test_the_graph_convolution_links_every_second_pixel_backwards(size: tuple[int, int]) -> None:
    """Against the definition, pixel by pixel: links are at -2, -4.. (wrapped) in the pixel's row and column."""
    conv, (height, width) = MaxRelativeConv(3), size
    conv.nn = nn.Sequential()  # the identity
    image = torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    expected = torch.empty_like(image)
    for row, column in itertools.product(range(height), range(width)):
        links = [((row - hop) % height, column) for hop in range(2, height, 2)]
        links += [(row, (column - hop) % width) for hop in range(2, width, 2)]
        differences = [image[..., row, column] - image[..., r, c] for r, c in [(row, column), *links]]
        expected[..., row, column] = torch.stack(differences).amax(dim=0)
    assert torch.equal(conv(image), torch.cat((image, expected), dim=1))


def test_evaluation_gives_the_mean_of_the_two_heads_and_training_both() -> None:
    torch.manual_seed(0)
    model = MobileViG((1, 1, 1), (4, 4, 4), 1, 8, 8, classes=10)
    randomize(model)
    model.eval()
    heads: list[Tensor] = []
    for head in (model.head, model.dist_head):
        head.register_forward_hook(lambda module, args, out: heads.append(out.flatten(1)))
    mean = model(torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    assert mean.shape == (2, 10) and torch.equal(mean, (heads[0] + heads[1]) / 2)
    assert not torch.equal(heads[0], heads[1])
    assert [logits.shape for logits in model.train()(torch.randn(2, 3, 64, 64))] == [(2, 10), (2, 10)]


def test_stochastic_depth_grows_with_depth_and_keeps_the_mean() -> None:
    rates = [module.rate for module in on_meta("mobilevig_ti").modules() if isinstance(module, DropPath)]
    assert rates[0] == 0.0 and rates[-1] == pytest.approx(0.1) and rates == sorted(rates) and len(rates) == 10 + 2 * 2
    torch.manual_seed(0)
    drop, ones = DropPath(0.25), torch.ones(4000, 2, 1, 1)
    dropped = drop(ones)
    assert torch.equal(dropped[:, 0], dropped[:, 1])  # a sample is kept or dropped as a whole
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.05)
    assert drop.eval()(ones) is ones


# --- names, seeds, cards -----------------------------------------------------------------------------------------


def test_the_zoo_is_what_the_family_files_say() -> None:
    assert set(COSTS) <= set(list_models())
    assert list_models("mobilevig_*") == ["mobilevig_ti", "mobilevig_s", "mobilevig_m", "mobilevig_b"]


@pytest.mark.parametrize("name", COSTS)
def test_cards_state_their_sources_and_count_nothing(name: str) -> None:
    card = model_card(name)
    assert card in sys.modules[f"edgevit.models.{card.family}"].CARDS and card.provenance == "published"
    assert all((card.source, card.licence, card.top1_percent, card.top1_source, card.latencies))
    assert all(latency.source and latency.latency_ms > 0 for latency in card.latencies)
    assert (card.params, card.macs, card.folded_params, card.folded_macs) == (None,) * 4
    assert [tuple(spec.shape) for spec in card.inputs] == [(-1, 3, 224, 224)]
    assert card.preprocessing.crop_pct == (0.9 if card.family == "mobilevig" else 0.875)
    assert from_json(ModelCard, to_json(card)) == card


def test_a_card_says_which_latency_is_whose() -> None:
    latencies = [
        (latency.engine, latency.precision, latency.latency_ms) for latency in model_card("vanillanet_9").latencies
    ]
    assert latencies == [("PyTorch", "not stated", 2.91), ("TensorRT", "fp32", 0.58), ("TensorRT", "fp16", 0.49)]
    assert "third party" in model_card("mobilevig_s").latencies[0].source
    assert "third party" not in model_card("mobilevig_ti").latencies[0].source


def test_a_typo_suggests_and_stops() -> None:
    with pytest.raises(UnknownNameError, match="did you mean vanillanet_5") as caught:
        create_model("vanilanet_5")
    assert caught.value.fix == "edgevit models"


def test_two_families_cannot_claim_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    families = edgevit.models._families()
    monkeypatch.setattr(edgevit.models, "_families", lambda: families + families[:1])
    with pytest.raises(ModelError, match="two cards are called"):
        edgevit.models._zoo.__wrapped__()


def test_a_seed_decides_the_weights_and_nothing_else() -> None:
    before = torch.random.get_rng_state()
    first, again, other = (create_model("mobilevig_ti", seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert not any(module.training for module in create_model("mobilevig_ti").modules())


# --- classes -----------------------------------------------------------------------------------------------------

FIRST_OF_FAMILIES = [family.CARDS[0].name for family in edgevit.models._families()]


@pytest.mark.parametrize("name", FIRST_OF_FAMILIES)
def test_every_family_has_as_many_outputs_as_classes(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, classes=7)
        image = torch.empty(2, *model_card(name).inputs[0].shape[1:])
    assert model(image).shape == (2, 7)
    trained = model.train()(image)
    assert {tuple(head.shape) for head in (trained if isinstance(trained, tuple) else [trained])} == {(2, 7)}


@pytest.mark.parametrize("name", FIRST_OF_FAMILIES)
def test_weights_of_another_number_of_classes_say_so_and_how_to_load_them(name: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.pt"
    with torch.device("meta"):  # nobody computes with them
        shapes = create_model(name, classes=3).state_dict()
    torch.save({key: torch.zeros(value.shape, dtype=value.dtype) for key, value in shapes.items()}, file)
    with torch.device("meta"), pytest.raises(CheckpointError, match="with 3 classes, not 1000") as caught:
        create_model(name, file)
    assert "(1000," in caught.value.why and "(3," in caught.value.why
    assert "create_model(NAME, WEIGHTS, classes=3)" in caught.value.fix


def test_weights_with_as_many_classes_are_loaded(tmp_path: Path) -> None:
    file, model = tmp_path / "mine.pt", create_model("mobilevig_ti", classes=3, seed=1)
    torch.save(model.state_dict(), file)
    loaded = create_model("mobilevig_ti", file, classes=3)
    assert torch.equal(loaded.get_parameter("head.weight"), model.get_parameter("head.weight"))


def test_weights_of_another_model_are_not_taken_for_another_number_of_classes(tmp_path: Path) -> None:
    file = tmp_path / "other.pt"
    for other, left_out in (("mobilevig_s", ""), ("mobilevig_ti", "dist_head.bias")):
        state = create_model(other, classes=3).state_dict()
        torch.save({key: value for key, value in state.items() if key != left_out}, file)
        with pytest.raises(CheckpointError, match="not of this MobileViG") as caught:
            create_model("mobilevig_ti", file)
        assert caught.value.fix.endswith("edgevit models")


def test_a_network_of_a_person_s_own_file_keeps_its_classes_when_it_is_folded(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text("from edgevit import create_model\nnet = lambda: create_model('mobilevig_ti', classes=3)\n")
    subject = load_subject(f"{file}:net", input_size=(64, 64))
    inputs = tuple(subject.example().values())
    assert fold(subject.module, inputs)(*inputs).shape == (1, 3)


# --- random values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vanillanet_9", "mobilevig_ti"])
def test_randomized_models_tell_two_images_apart(name: str) -> None:
    """With VanillaNet's own kernels the two are 3e-7 apart, and a fold that ruined the stem would pass every gate."""
    model = create_model(name)
    randomize(model)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        one, other = model(images)
    assert (one - other).abs().max() / one.abs().max() > 1e-2
    assert 1e-2 < one.abs().max() < 1e3


def test_randomizing_leaves_nothing_that_a_fold_could_lose_unseen() -> None:
    model = create_model("mobilevig_ti")
    randomize(model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            mean, var = present(module.running_mean), present(module.running_var)
            assert mean.std() > 0.02 and 0.5 <= var.min() < var.max() <= 1.5
            assert 0.5 <= module.weight.min() < module.weight.max() <= 1.5
    scales = torch.cat([value.flatten() for key, value in model.named_parameters() if "layer_scale" in key])
    biases = torch.cat([value.flatten() for key, value in model.named_parameters() if key.endswith("bias")])
    assert 0.2 <= scales.min() < 0.25 and 0.75 < scales.max() <= 0.8
    assert biases.std().item() == pytest.approx(0.1, rel=0.02) and (biases != 0).all()


def test_randomizing_is_decided_by_the_seed_in_every_precision() -> None:
    models = [small_vanillanet(), small_vanillanet().double(), small_vanillanet()]
    before = torch.random.get_rng_state()
    for model, seed in zip(models, (5, 5, 6), strict=True):
        randomize(model, seed)
    assert torch.equal(torch.random.get_rng_state(), before)
    first, wide, other = ([value.float() for value in model.state_dict().values()] for model in models)
    assert all(torch.equal(a, b) for a, b in zip(first, wide, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True) if a.numel() > 10)


def test_randomizing_takes_any_module() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList([nn.GroupNorm(1, 4), nn.LayerNorm(4, elementwise_affine=False)])
            self.bare = nn.BatchNorm1d(4, affine=False, track_running_stats=False)
            self.zero = nn.Parameter(torch.zeros(4, 4))
            self.still = nn.Conv2d(2, 2, 1)
            self.tied = self.still
            self.map = nn.Parameter(torch.randn(1, 9, 4))
            self.register_parameter("absent", None)
            nn.init.zeros_(self.still.weight)

    model = Odd()
    original = model.map.clone()
    randomize(model)
    norm = narrow(model.norms[0], nn.GroupNorm)
    assert 0.5 <= norm.weight.min() < norm.weight.max() and norm.bias.abs().max() > 0
    assert 0.2 <= model.zero.min() < model.zero.max() <= 0.8
    assert model.still.weight.min() < 0 < model.still.weight.max()  # a kernel, though it was constant
    assert torch.equal(model.map, original)


# --- the file of cards -------------------------------------------------------------------------------------------


@pytest.fixture
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The place of models.jsonl, empty of it."""
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    return tmp_path / "models.jsonl"


def test_cards_come_back_as_they_were_written_and_in_order(shipped: Path) -> None:
    cards = [model_card(name) for name in reversed(list_models())]
    edgevit.cards.write_lines(cards, shipped)
    assert list(edgevit.cards.load_cards().items()) == [(card.name, card) for card in cards]
    assert [path.name for path in shipped.parent.iterdir()] == ["models.jsonl"]


def test_absent_cards_name_the_command_that_makes_them(shipped: Path) -> None:
    with pytest.raises(StoreError) as caught:
        edgevit.cards.load_cards()
    assert caught.value.fix == "edgevit models --refresh" and str(shipped) in caught.value.where


@pytest.mark.parametrize("line", ["{", "{}", '{"name": 3}', "\x00", "twice"])
def test_a_damaged_card_is_refused_with_its_line(shipped: Path, line: str) -> None:
    card = to_json(model_card("vanillanet_5"))
    shipped.write_text(f"{card}\n{card if line == 'twice' else line}\n")
    with pytest.raises(StoreError, match=r"models\.jsonl, line 2"):
        edgevit.cards.load_cards()


def test_a_failed_write_leaves_the_old_cards(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edgevit.cards.write_lines([model_card("vanillanet_5")], shipped)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        edgevit.cards.write_lines([], shipped)
    assert list(edgevit.cards.load_cards()) == ["vanillanet_5"]
    assert [path.name for path in shipped.parent.iterdir()] == ["models.jsonl"]


def test_reading_cards_needs_no_torch() -> None:
    code = "import sys, json, edgevit.cards; print(json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "numpy", "safetensors"} & set(json.loads(process.stdout))
