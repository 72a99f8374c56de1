"""Every variant of the zoo, from the registry: its card, its fold, its proof, its ONNX, and goldens in small text.

A golden says what folding and exporting make of a variant. After a change that is meant to change it:
`pytest tests/models/test_zoo.py -m 'slow or not slow' --update-goldens`, then read the difference.
"""

from __future__ import annotations

import dataclasses
import functools
import gc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgevit.cards import load_cards, load_operators
from edgevit.cli.refresh_cards import counted_card
from edgevit.count import Count, count
from edgevit.folding import Folded, example_inputs, fold, max_rel, prove
from edgevit.models import create_model, list_models, model_card, randomize
from edgevit.recipes import load_recipe
from support.narrowing import present
from support.nets import image, operators

GOLDEN = Path(__file__).parents[1] / "golden" / "zoo"
PAGE = Path(__file__).parents[2] / "docs" / "zoo.md"
FIRST = [min((c for c in load_cards().values() if c.family == family), key=lambda c: c.params or 0).name
         for family in {card.family for card in load_cards().values()}]  # fmt: skip
# Minutes together; the smallest of each family is always tried, and most variants are on the meta device.
VARIANTS = [pytest.param(name, marks=() if name in FIRST else pytest.mark.slow) for name in list_models()]
# Whose graphs take longest to trace, on the meta device too.
DEEP = ("fmvit_s", "fmvit_m", "fmvit_b", "fmvit_l", "affnet_t", "affnet")
SHALLOW = [pytest.param(name, marks=pytest.mark.slow if name in DEEP else ()) for name in list_models()]
# What the official code's own merging leaves [MODELS.md]. Ours goes further: biases move on, the last layer is a sum.
OFFICIALLY_FOLDED = {
    "vanillanet_5": (15.523e6, 5.161e9), "vanillanet_6": (32.509e6, 5.993e9), "vanillanet_7": (32.798e6, 6.894e9),
    "vanillanet_8": (37.096e6, 7.736e9), "vanillanet_9": (41.395e6, 8.577e9), "vanillanet_10": (45.694e6, 9.419e9),
    "vanillanet_11": (49.993e6, 10.261e9), "vanillanet_12": (54.291e6, 11.103e9), "vanillanet_13": (58.590e6, 11.944e9),
    "vanillanet_13_x1_5": (127.796e6, 26.548e9), "vanillanet_13_x1_5_ada_pool": (127.796e6, 48.983e9),
    "mobilevig_ti": (4.724e6, 0.662e9),
}  # fmt: skip
# What no folded variant may hold: training's leftovers, operators that runtimes lack, scales that belong into layers.
NEVER = ("batch_norm", "leaky_relu", "dropout", "adaptive_max_pool2d", "amax", "permute", "fft_rfft2", "fft_irfft2",
         "complex", "einsum", "softshrink", "native_batch_norm")  # fmt: skip
# Costs that a fold may add, in MACs over the training form's: Fourier transforms counted as the products they became.
ADDED_MACS = {"affnet": 1.06}


@pytest.fixture(autouse=True)
def one_thread_and_no_garbage() -> Iterator[None]:
    """Exported programs refer to themselves in circles, and hold gigabytes until the collector comes round."""
    torch.set_num_threads(1)
    yield
    gc.collect()


@functools.cache
def on_meta(name: str) -> tuple[nn.Module, Folded, tuple[Tensor, ...]]:
    """Return a variant, its fold and its inputs on the meta device, which rewrites but computes nothing."""
    with torch.device("meta"):
        model = create_model(name)
        return model, fold(model), example_inputs(model)


@functools.cache
def counted(name: str) -> tuple[Count, Count]:
    """Count a variant and its fold."""
    model, folded, examples = on_meta(name)
    return count(model, *examples), count(folded, *examples)


@functools.lru_cache(maxsize=1)
def randomized(name: str) -> nn.Module:
    model = create_model(name)
    randomize(model)
    return model


def inputs(name: str, batch: int) -> Tensor:
    return image(batch, *model_card(name).inputs[0].shape[1:], dtype=torch.float32)


# ---- cards -------------------------------------------------------------------------------------------------------


def test_every_model_has_a_card() -> None:
    assert list(load_cards()) == list_models()


@pytest.mark.parametrize("name", SHALLOW)
def test_card_is_current(name: str) -> None:
    """If this fails after a change of a model or of folding: edgevit models --refresh"""
    before, after = counted(name)
    card = dataclasses.replace(model_card(name), params=before.params, macs=before.macs)
    assert load_cards()[name] == dataclasses.replace(card, folded_params=after.params, folded_macs=after.macs)


def test_refreshing_counts_the_same() -> None:
    card, costs = counted_card("mobilevig_ti")
    assert load_cards()["mobilevig_ti"] == card
    assert load_operators()["mobilevig_ti"] == costs.operators


def test_the_page_has_every_variant_with_the_costs_of_its_card() -> None:
    rows = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert [row[0].strip("`") for row in rows] == list_models()
    for name, provenance, params, macs, *_ in rows:
        card = load_cards()[name.strip("`")]
        assert provenance == card.provenance
        assert card.params and card.folded_params and card.macs and card.folded_macs
        assert params == f"{card.params / 1e6:.3f} → {card.folded_params / 1e6:.3f}"
        assert macs == f"{card.macs / 1e9:.3f} → {card.folded_macs / 1e9:.3f}"


# ---- folds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHALLOW)
def test_it_folds_completely(name: str) -> None:
    (before, after), folded = counted(name), on_meta(name)[1]
    assert folded.report.unfolded == ()
    assert folded.report.batch_is_open
    remaining = operators(folded)
    assert not set(NEVER) & set(remaining)
    assert (
        after.layers - remaining["layer_norm"] - remaining["group_norm"] - remaining["matmul"]
        == remaining["conv2d"] + remaining["linear"]
    )
    assert after.macs <= ADDED_MACS.get(model_card(name).family, 1) * before.macs
    params, macs = OFFICIALLY_FOLDED.get(name, (None, None))
    assert params is None or after.params <= 1.0025 * params
    assert macs is None or after.macs <= 1.001 * macs
    for node in folded.net.graph.nodes:
        value = node.meta.get("val")
        assert not isinstance(value, Tensor) or (value.dim() <= 4 and not value.is_complex()), node


@pytest.mark.parametrize("name", ["mobilevig_ti", "vanillanet_5", "turbovit"])
def test_folding_on_the_meta_device_agrees_with_the_real_fold(name: str) -> None:
    traced, real = on_meta(name)[1], fold(create_model(name))
    assert operators(traced) == operators(real)
    assert traced.report == real.report
    assert [(k, v.shape) for k, v in traced.state_dict().items()] == [
        (k, v.shape) for k, v in real.state_dict().items()
    ]
    assert count(real, inputs(name, 1)).params == load_cards()[name].folded_params


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.filterwarnings("error")
def test_the_fold_is_proven(name: str) -> None:
    proof = prove(randomized(name), (inputs(name, 1 if model_card(name).family == "vanillanet" else 2),))
    assert proof.passed, proof
    assert present(proof.float64_max_rel) <= 1e-10
    assert present(proof.float32_max_rel) <= 1e-5


@pytest.mark.parametrize(("name", "side"), [("mobilevig_ti", 7), ("vanillanet_13_x1_5_ada_pool", 10)])
def test_smallest_feature_map(name: str, side: int) -> None:
    """What an artifact's stride is told from: weights of 3x3 are no maps."""
    assert on_meta(name)[1].smallest_side == side


# ---- ONNX --------------------------------------------------------------------------------------------------------


@pytest.mark.onnx
@pytest.mark.slow
@pytest.mark.parametrize("name", list_models())
@pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning")  # torch warns of itself
def test_its_onnx_computes_the_same_and_is_what_it_was(name: str, tmp_path: Path, pytestconfig: pytest.Config) -> None:
    import onnx

    model, path, x = randomized(name), tmp_path / f"{name}.onnx", inputs(name, 2)
    folded, recipe = fold(model), load_recipe("onnx")
    recipe.export(folded, {"image": x[:1]}, path, outputs=["output"], precision="fp32", dynamic_batch=False, options={})
    session = recipe.load(path, threads=1)
    for one in torch.split(x, 1):
        session.feed((one.numpy().tobytes(),), 1)
        session.run()
        logits = torch.from_numpy(np.frombuffer(session.fetch()[0], dtype=np.float32).copy()).reshape(1, -1)
        with torch.no_grad():
            assert max_rel(model(one), logits) <= 1e-4
    nodes = Counter(node.op_type for node in onnx.load(str(path), load_external_data=False).graph.node)
    assert not {"BatchNormalization", "DFT", "STFT", "Einsum", "Where", "Erf", "LeakyRelu", "Dropout"} & set(nodes)
    check_golden(name, model, folded, nodes, pytestconfig)


def check_golden(name: str, model: nn.Module, folded: Folded, nodes: Counter[str], pytestconfig: pytest.Config) -> None:
    examples = example_inputs(model)
    before, after = count(model, *examples), count(folded, *examples)
    lines = [
        f"params {before.params} -> {after.params}",
        f"macs {before.macs} -> {after.macs}",
        f"layers {before.layers} -> {after.layers}",
        f"onnx {sum(nodes.values())} nodes",
        *(f"  {operator} {number}" for operator, number in sorted(nodes.items())),
    ]
    path, text = GOLDEN / f"{name}.txt", "\n".join(lines) + "\n"
    if pytestconfig.getoption("--update-goldens"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert path.read_text() == text
