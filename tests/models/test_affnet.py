"""AFFNet: the official layout, numbers and names, all precisions, and a folded form in which nothing is complex."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgevit.count import count
from edgevit.errors import UnknownNameError
from edgevit.folding import Folded, fold, max_rel
from edgevit.folding.agreement import compare
from edgevit.models import affnet, create_model, list_models, model_card, randomize
from support.parity_fill import fill, load_golden, noise_image

# Parameters in millions and GMACs at 256x256 as published, without the transforms.
COSTS = {"affnet_et": ("1.436", 0.356), "affnet_t": ("2.654", 0.786), "affnet": ("5.569", 1.454)}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def official() -> tuple[nn.Module, Tensor, Tensor]:
    """Return affnet_et filled by the golden's rule, its image, and the official logits (filter in float32)."""
    golden = load_golden("affnet_et")
    model = create_model("affnet_et")
    model.load_state_dict(fill(golden["keys"]))
    return model, noise_image(golden["input_shape"]), torch.tensor(golden["logits"], dtype=torch.float64)[None]


def random_model(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    model = create_model(name)
    randomize(model)
    return model.to(dtype)


def noise(batch: int = 1, size: int = 256) -> Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_layout_is_the_official_one() -> None:
    with torch.device("meta"):
        state = create_model("affnet_et").state_dict()
    assert {key: list(value.shape) for key, value in state.items()} == load_golden("affnet_et")["keys"]


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.float64, 1e-5), (torch.float16, 1e-2), (torch.bfloat16, 5e-2)],
)
def test_logits_are_the_official_ones_in_every_precision(dtype: torch.dtype, tolerance: float) -> None:
    model, image, expected = official()
    with torch.no_grad():
        logits = model.to(dtype)(image.to(dtype))
    assert logits.dtype == dtype
    assert max_rel(expected, logits) <= tolerance


def test_the_filter_of_a_half_precision_model_is_that_of_float32() -> None:
    torch.manual_seed(0)
    layer = affnet.FrequencyFilter(16).half()
    x = torch.randn(2, 16, 6, 8).half()
    with torch.no_grad():
        expected = (layer.float()(x.float()) - x.float()).half() + x
        assert torch.equal(layer.half()(x), expected)


@pytest.mark.parametrize("name", COSTS)
def test_parameters_and_macs_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        counted = count(create_model(name), torch.empty(1, 3, 256, 256))
    assert f"{counted.params / 1e6:.3f}" == COSTS[name][0]
    assert counted.macs / 1e9 == pytest.approx(COSTS[name][1], rel=5e-3)


def test_official_names_find_our_models_and_their_checkpoints_load(tmp_path: Path) -> None:
    golden = load_golden("affnet_et")
    torch.save(fill(golden["keys"]), tmp_path / "official.pt")
    model = create_model("xx_small", tmp_path / "official.pt")
    assert torch.equal(model.state_dict()["layer_3.1.global_rep.0.filter.w1"],
                       fill(golden["keys"])["layer_3.1.global_rep.0.filter.w1"])  # fmt: skip
    names = {"xx_small": "affnet_et", "affnet_x_small": "affnet_t", "small": "affnet", "affnet_small": "affnet"}
    assert {alias: model_card(alias).name for alias in names} == names
    assert not set(names) & set(list_models())
    with pytest.raises(UnknownNameError):
        create_model("vanillanet_small")


def test_the_card_asks_for_plain_pixels() -> None:
    card = model_card("affnet")
    assert (card.preprocessing.mean, card.preprocessing.std) == ((0.0,) * 3, (1.0,) * 3)
    assert card.licence == "MIT" and card.provenance == "published" and card.top1_percent == 79.8


@pytest.mark.parametrize(
    "name", ["affnet_et", *(pytest.param(name, marks=pytest.mark.slow) for name in ("affnet_t", "affnet"))]
)
def test_nothing_is_left_to_fold(name: str) -> None:
    with torch.device("meta"):
        assert_plain(fold(create_model(name)))


def assert_plain(folded: Folded) -> None:
    """Assert no transform, nothing complex, nothing above rank 4, no BatchNorm, and no foldable part of a norm."""
    nodes = [node for node in folded.net.graph.nodes if node.op == "call_function"]
    values = [node.meta["val"] for node in nodes if isinstance(node.meta.get("val"), Tensor)]
    assert not any(value.is_complex() or value.dim() > 4 for value in values)
    assert not any(word in str(node.target) for node in nodes for word in ("fft", "complex", "batch_norm", "einsum"))
    assert folded.report.unfolded == () and folded.report.batch_is_open
    bare = [node for node in nodes if "group_norm" in str(node.target) and node.args[2] is None]
    assert len(bare) == 3  # the last of each stage; the others are read by an addition too
    convolutions = [node for node in nodes if "conv2d" in str(node.target)]
    local, mixed = 3 * (4 + 3), 9 * (3 + 2)  # inverted residuals; the filters' two layers in the mixers
    assert len(convolutions) in (1 + local + mixed + 3 + 1, 1 + local + mixed + 3)  # one pair merges in affnet_et


def test_another_resolution_and_a_half_precision_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one mixer in each stage, where affnet_et has up to four that are alike."""
    monkeypatch.setattr(affnet, "BLOCKS", (1, 1, 1))
    model, image = random_model("affnet_et"), noise(2, 160)  # 20, 10 and 5 pixels a side: even and odd
    assert compare(model, fold(model, (image[:1],)), (image,)) <= 1e-5
    half = model.half()
    assert compare(half, fold(half, (image[:1].half(),)), (image.half(),)) <= 2e-2
