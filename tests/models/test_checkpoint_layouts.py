"""Layouts in which people save checkpoints: the right weights are taken where they can be told, else a reason comes."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import enum
import json
import pathlib
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from edgevit.errors import CheckpointError
from edgevit.models import load_weights
from edgevit.records.artifact import WeightsChoice

State = dict[str, Tensor]


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    return nn.Sequential(OrderedDict(body=body, pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), head=nn.Linear(4, 5)))


RAW: State = dict(network(1).state_dict())
AVERAGED: State = {key: value + 1 for key, value in RAW.items()}
OTHER: State = {key: value + 2 for key, value in RAW.items()}
PARAMETERS = [name for name, _ in network().named_parameters()]
NETWORK = network()
ADAM: dict[str, Any] = {
    "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(4, 3, 3, 3)}},
    "param_groups": [],
}


class Phase(enum.Enum):
    TRAIN = "train"
    TEST = 2


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Configuration:
    width: int = 64
    phase: Phase = Phase.TEST


class Settings(dict[str, Any]):
    """A dictionary with attributes, as configuration libraries have."""

    __getattr__ = dict.__getitem__


class Average:
    """Keeps weights where a reader of data cannot see them."""

    def __init__(self) -> None:
        self.shadow = AVERAGED


def prefixed(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def as_type(state: State, dtype: torch.dtype) -> State:
    return {key: value.to(dtype) if value.is_floating_point() else value for key, value in state.items()}


def without_counters(state: State) -> State:
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


def averaged_model() -> AveragedModel:
    model = network()
    average = AveragedModel(model)
    average.module.load_state_dict(AVERAGED)
    return average


PLAIN: dict[str, Callable[[], Any]] = {
    "the state dict": lambda: RAW,
    "module. of data parallel training": lambda: prefixed("module.", RAW),
    "_orig_mod. of a compiled model": lambda: prefixed("_orig_mod.", RAW),
    "module._orig_mod. of both": lambda: prefixed("module._orig_mod.", RAW),
    "_orig_mod in the middle, of a compiled part": lambda: {
        key.replace("body.", "body._orig_mod."): value for key, value in RAW.items()},
    "module in the middle, of a part in parallel": lambda: {
        key.replace("body.", "body.module."): value for key, value in RAW.items()},
    "FSDP and checkpointed blocks": lambda: {
        f"_fsdp_wrapped_module.{key.replace('head.', 'head._checkpoint_wrapped_module.')}": value
        for key, value in RAW.items()},
    "Lightning": lambda: {
        "state_dict": {**prefixed("model.", RAW), "criterion.weight": torch.ones(5)}, "epoch": 3, "global_step": 7,
        "pytorch-lightning_version": "2.6", "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_path": ""}},
        "loops": {"fit_loop": {"state_dict": {}}}, "optimizer_states": [ADAM], "lr_schedulers": [],
        "hyper_parameters": {"lr": 1e-3}, "hparams_name": "kwargs"},
    "Lightning with a wrapper": lambda: {"state_dict": prefixed("net.module.", RAW), "optimizer_states": [ADAM]},
    "state_dict": lambda: {"state_dict": RAW, "epoch": 3, "optimizer": ADAM},
    "model_state_dict of torch's tutorial": lambda: {
        "epoch": 3, "model_state_dict": RAW, "optimizer_state_dict": ADAM, "loss": torch.tensor(0.3)},
    "model": lambda: {"model": RAW, "optimizer": ADAM, "scheduler": {"last_epoch": 3}, "scaler": {}},
    "model_state": lambda: {"model_state": RAW},
    "net of CIFAR's tutorial": lambda: {"net": RAW, "acc": 91.2, "epoch": 3},
    "network": lambda: {"network": prefixed("module.", RAW)},
    "params of BasicSR": lambda: {"params": RAW},
    "weights": lambda: {"weights": RAW},
    "nested twice": lambda: {"checkpoint": {"state_dict": prefixed("module.", RAW)}, "meta": {"epoch": 3}},
    "nested three times": lambda: {"state": {"trainer": {"model": RAW}}},
    "a dictionary for each part": lambda: {
        "body": {key[5:]: value for key, value in RAW.items() if key.startswith("body.")},
        "head": {key[5:]: value for key, value in RAW.items() if key.startswith("head.")}},
    "a list of model and optimizer": lambda: [RAW, {"lr": 0.1}],
    "an empty average": lambda: {"state_dict": RAW, "state_dict_ema": None, "ema": {}},
    "notes among the weights": lambda: {**RAW, "epoch": 3, "note": "best", "rng": torch.get_rng_state()},
    "the discriminator beside it": lambda: {"generator": RAW, "discriminator": dict(nn.Linear(3, 1).state_dict())},
    "the state of gradients of the same names": lambda: {"model": RAW, "optimizer": {"exp_avg": AVERAGED}},
    "without num_batches_tracked": lambda: without_counters(RAW),
    "parameters and buffers as nn.Parameter": lambda: {
        key: nn.Parameter(value) if value.is_floating_point() else value for key, value in RAW.items()},
    "float64": lambda: as_type(RAW, torch.float64),
    "NumPy arrays": lambda: {"params": {key: value.numpy() for key, value in RAW.items()}},
    "transposed NumPy arrays": lambda: {
        key: np.array(value.numpy(), ">f4" if value.is_floating_point() else ">i8", order="F")
        for key, value in RAW.items()},
    "arguments and numbers of NumPy": lambda: {
        "model": RAW, "args": argparse.Namespace(lr=0.1, dim=(1, None), weights=torch.ones(2)),
        "best": [np.float64(81.2), np.int64(3), np.bool_(True)], "seeds": np.arange(3), "names": np.array(["a", "b"])},
    "paths, dates and enumerations": lambda: {
        "model": RAW, "path": pathlib.Path("runs/3"), "windows": pathlib.PureWindowsPath("c:/runs"),
        "date": datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), "took": datetime.timedelta(seconds=3),
        "phase": Phase.TRAIN, "phases": {Phase.TEST: 1}, "level": Level.HIGH, "space": SimpleNamespace(a=1)},
    "configurations of the training's own classes": lambda: {
        "model": RAW, "config": Configuration(), "settings": Settings(a=1, inner=Settings(b=Phase.TEST))},
    "containers of the standard library": lambda: {
        "model": RAW, "scores": defaultdict(list, a=[1]), "last": deque([1, 2], maxlen=3), "ids": {1, 2},
        "frozen": frozenset({3}), "slice": slice(1, 2), "number": 1j},
    "weights in an ordered dictionary with metadata": lambda: {"model": network(1).state_dict()},
}  # fmt: skip

TWO_SETS: dict[str, tuple[Callable[[], Any], str, str]] = {
    "model_ema": (lambda: {"model": RAW, "model_ema": prefixed("module.", AVERAGED)}, "model_ema.module", "model"),
    "state_dict_ema of timm": (
        lambda: {"state_dict": RAW, "state_dict_ema": AVERAGED, "arch": "x"}, "state_dict_ema", "state_dict"),
    "params_ema of BasicSR": (lambda: {"params": RAW, "params_ema": AVERAGED}, "params_ema", "params"),
    "ema": (lambda: {"net": RAW, "ema": {"module": AVERAGED, "decay": 0.9}}, "ema.module", "net"),
    "ema_model": (lambda: {"model_state_dict": RAW, "ema_model": AVERAGED}, "ema_model", "model_state_dict"),
    "ema_state_dict": (lambda: {"state_dict": RAW, "ema_state_dict": AVERAGED}, "ema_state_dict", "state_dict"),
    "AveragedModel": (
        lambda: {"model": RAW, "swa": averaged_model().state_dict()}, "swa.module", "model"),
    "AveragedModel under a neutral name": (
        lambda: {"model": RAW, "second": averaged_model().state_dict()}, "second.module", "model"),
    "both in one state dict of Lightning": (
        lambda: {"state_dict": {**prefixed("model.", RAW), **prefixed("ema_model.module.", AVERAGED)}},
        "state_dict.ema_model.module", "state_dict.model"),
    "both in one file without containers": (
        lambda: {**RAW, **prefixed("ema.", AVERAGED), "ema.decay": torch.tensor(0.99)}, "ema", "."),
    "Lightning's weight averaging": (
        lambda: {"state_dict": prefixed("model.", AVERAGED), "current_model_state": prefixed("model.", RAW),
                 "averaging_state": {"n_averaged": torch.tensor(3)}}, "state_dict.model", "current_model_state.model"),
    "a callback of Lightning": (
        lambda: {"state_dict": RAW, "callbacks": {"EMACallback": {"weights": AVERAGED}}},
        "callbacks.EMACallback.weights", "state_dict"),
}  # fmt: skip

REFUSED: dict[str, tuple[Callable[[], Any], str, str]] = {
    "student and teacher": (
        lambda: {"student": RAW, "teacher": AVERAGED}, "several sets of weights", "--weights-key student"),
    "two averages": (
        lambda: {"model": RAW, "ema_fast": AVERAGED, "ema_slow": OTHER}, "several sets of averaged", "key ema_fast or"),
    "an average without names": (
        lambda: {"model": RAW, "ema": {"shadow_params": [AVERAGED[name] for name in PARAMETERS], "decay": 0.9}},
        "averaged weights under 'ema' cannot be told", "--weights-key model"),
    "an average of another network": (
        lambda: {"model": RAW, "ema": {key: value for key, value in AVERAGED.items() if "head" not in key}},
        "averaged weights under 'ema' cannot be told", "2 missing: head.weight, head.bias"),
    "an average inside an object": (
        lambda: {"model": RAW, "ema": Average()}, "refused as unsafe", "Average"),
    "a whole model": (lambda: network(), "refused as unsafe", "state_dict()"),
    "another network": (lambda: {"model": {"a.weight": torch.ones(3)}}, "not of this Sequential", "unexpected: "),
    "no weights": (lambda: {"epoch": 3}, "no weights in this checkpoint", "state_dict()"),
    "a negative variance": (
        lambda: {**RAW, "body.1.running_var": -RAW["body.1.running_var"]},
        "weights that cannot be", "body.1.running_var is a variance, and 4 of 4 values are below 0"),
    "beyond float32": (
        lambda: {**as_type(RAW, torch.float64), "head.weight": torch.full((5, 4), 1e300, dtype=torch.float64)},
        "weights that cannot be", "head.weight holds numbers beyond float32 in 20 of 20 values"),
    "NaN": (lambda: {**RAW, "head.bias": torch.full((5,), float("nan"))}, "not finite", "head.bias"),
    "8-bit integers": (
        lambda: {**RAW, "head.weight": torch.ones(5, 4, dtype=torch.int8)}, "not of this", "integer (5, 4), not float"),
}  # fmt: skip


def test_there_are_forty_layouts() -> None:
    assert len(PLAIN) + len(TWO_SETS) + len(REFUSED) >= 40


def loaded(path: Path, key: str = "") -> tuple[State, WeightsChoice]:
    model = network()
    weights = load_weights(model, path, key=key)
    return dict(model.state_dict()), weights.choice


def same(state: State, expected: State, *, counters: bool = False) -> bool:
    names = [name for name in expected if counters or not name.endswith("num_batches_tracked")]
    return all(torch.equal(state[name], expected[name].to(state[name].dtype)) for name in names)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("layout", PLAIN)
def test_the_only_weights_are_found(tmp_path: Path, layout: str, legacy: bool) -> None:
    torch.save(PLAIN[layout](), tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    state, choice = loaded(tmp_path / "w.pth")
    assert same(state, RAW)
    assert not choice.others and not choice.averaged


@pytest.mark.parametrize("layout", TWO_SETS)
def test_of_two_sets_the_averaged_one_is_taken_and_a_key_takes_the_other(tmp_path: Path, layout: str) -> None:
    make, averaged_key, raw_key = TWO_SETS[layout]
    torch.save(make(), tmp_path / "w.pth")
    state, choice = loaded(tmp_path / "w.pth")
    assert same(state, AVERAGED)
    assert (choice.key, choice.averaged, choice.others) == (averaged_key, True, (raw_key,))
    assert averaged_key in choice.describe("w.pth") and f"--weights-key {raw_key}" in choice.describe("w.pth")
    state, choice = loaded(tmp_path / "w.pth", raw_key)
    assert same(state, RAW) and (choice.key, choice.averaged) == (raw_key, False)
    for step in (step for step in raw_key.split(".") if step and step not in averaged_key.split(".")):
        assert same(loaded(tmp_path / "w.pth", step)[0], RAW), "a part of the key suffices where it is clear"


@pytest.mark.parametrize("layout", REFUSED)
def test_what_cannot_be_told_is_refused_with_a_reason(tmp_path: Path, layout: str) -> None:
    make, what, detail = REFUSED[layout]
    torch.save(make(), tmp_path / "w.pth")
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, tmp_path / "w.pth")
    assert what in caught.value.what and detail in f"{caught.value.why} {caught.value.fix}"
    assert caught.value.fix and str(tmp_path / "w.pth") in caught.value.where
    assert same(dict(model.state_dict()), before, counters=True)


@pytest.mark.parametrize(
    ("layout", "key", "expected"),
    [("student and teacher", "teacher", AVERAGED), ("two averages", "ema_slow", OTHER),
     ("an average without names", "model", RAW), ("an average of another network", "model", RAW)],
)  # fmt: skip
def test_the_command_of_a_refusal_mends_it(tmp_path: Path, layout: str, key: str, expected: State) -> None:
    torch.save(REFUSED[layout][0](), tmp_path / "w.pth")
    state, choice = loaded(tmp_path / "w.pth", key)
    assert same(state, expected) and choice.key == key


def test_a_key_that_names_nothing_lists_the_sets(tmp_path: Path) -> None:
    torch.save({"model": RAW, "model_ema": AVERAGED, "ema_part": {"head.bias": torch.ones(5)}}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="no weights under 'ema_models'") as caught:
        loaded(tmp_path / "w.pth", "ema_models")
    assert caught.value.why == "sets of this model: model, model_ema"
    assert caught.value.fix == "--weights-key model or --weights-key model_ema"
    with pytest.raises(CheckpointError, match="under 'ema_part' are not of this model"):
        loaded(tmp_path / "w.pth", "ema_part")


def test_two_equal_sets_are_one(tmp_path: Path) -> None:
    torch.save({"a": RAW, "b": {key: value.clone() for key, value in RAW.items()}}, tmp_path / "w.pth")
    state, choice = loaded(tmp_path / "w.pth")
    assert same(state, RAW) and choice.others == ("b",)


def test_averages_of_parameters_alone_take_the_statistics_of_the_raw_weights(tmp_path: Path) -> None:
    """Latent diffusion's averages have names that are run together, and no buffers."""
    run_together = {f"model_ema.{name.replace('.', '')}": AVERAGED[name] for name in PARAMETERS}
    counts = {"model_ema.decay": torch.tensor(0.99), "model_ema.num_updates": torch.tensor(3)}
    torch.save({"state_dict": {**prefixed("model.", RAW), **run_together, **counts}}, tmp_path / "w.pth")
    state, choice = loaded(tmp_path / "w.pth")
    assert all(torch.equal(state[name], AVERAGED[name]) for name in PARAMETERS)
    assert torch.equal(state["body.1.running_var"], RAW["body.1.running_var"])
    assert choice.buffers_from == "state_dict.model" and "running statistics of" in choice.describe("w.pth")


def test_tensors_that_are_no_part_of_the_model_are_named(tmp_path: Path) -> None:
    torch.save(PLAIN["Lightning"](), tmp_path / "w.pth")
    choice = loaded(tmp_path / "w.pth")[1]
    assert (choice.left_out, choice.left_out_count) == (("state_dict.criterion.weight",), 1)
    assert "1 tensors of the file are no part of the model: state_dict.criterion.weight" in choice.describe("w.pth")


def test_half_precision_fills_the_model_to_its_own_digits(tmp_path: Path) -> None:
    for dtype in (torch.float16, torch.bfloat16):
        torch.save(as_type(RAW, dtype), tmp_path / "w.pth")
        assert same(loaded(tmp_path / "w.pth")[0], as_type(RAW, dtype))


def test_a_compiled_model_and_a_model_with_a_wrapper_of_its_own_load(tmp_path: Path) -> None:
    torch.save(RAW, tmp_path / "w.pth")
    model = nn.Sequential(OrderedDict(module=network()))
    load_weights(model, tmp_path / "w.pth")
    assert same({key.removeprefix("module."): value for key, value in model.state_dict().items()}, RAW)
    compiled = nn.Sequential(OrderedDict(_orig_mod=network()))
    load_weights(compiled, tmp_path / "w.pth")
    assert same({key.removeprefix("_orig_mod."): value for key, value in compiled.state_dict().items()}, RAW)


def test_weights_that_two_layers_share_may_be_saved_once(tmp_path: Path) -> None:
    def tied(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        model[1].weight = model[0].weight
        return model

    state = {key: value for key, value in tied(1).state_dict().items() if key != "1.weight"}
    save_file(state, tmp_path / "w.safetensors")
    model = tied(0)
    load_weights(model, tmp_path / "w.safetensors")
    assert torch.equal(model.state_dict()["1.weight"], state["0.weight"])


# --- Hugging Face's files ----------------------------------------------------------------------------------------


def shards(folder: Path, state: State) -> Path:
    """Write two shards with their index, as Hugging Face's tools do; return the index."""
    names = sorted(state)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for name, keys in parts.items():
        save_file({key: state[key] for key in keys}, folder / name)
    weight_map = {key: name for name, keys in parts.items() for key in keys}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


def test_shards_are_read_by_their_index_or_folder(tmp_path: Path) -> None:
    index = shards(tmp_path, RAW)
    assert same(loaded(index)[0], RAW) and same(loaded(tmp_path)[0], RAW)
    torch.save(OTHER, tmp_path / "pytorch_model.bin")
    assert same(loaded(tmp_path)[0], RAW), "safetensors come first"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "best.ckpt", "weights.pt"])
def test_a_folder_with_one_file_of_weights_is_that_file(tmp_path: Path, name: str) -> None:
    save_file(RAW, tmp_path / name) if name.endswith("safetensors") else torch.save(RAW, tmp_path / name)
    (tmp_path / "config.json").write_text("{}")
    assert same(loaded(tmp_path)[0], RAW)


def test_safetensors_under_another_suffix_are_read(tmp_path: Path) -> None:
    save_file(prefixed("model.", RAW), tmp_path / "w.bin")
    assert same(loaded(tmp_path / "w.bin")[0], RAW)


def refusal(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        loaded(path)
    assert caught.value.what and caught.value.where
    return caught.value


def test_shards_that_are_not_whole_are_refused(tmp_path: Path) -> None:
    index = shards(tmp_path, RAW)
    first, second = sorted(tmp_path.glob("*.safetensors"))
    content = second.read_bytes()
    second.unlink()
    assert "1 of 2 are not beside the index: model-00002" in refusal(index).why
    second.write_bytes(first.read_bytes())
    assert "a shard is not the one of its index" in refusal(index).what
    second.write_bytes(content)
    index.write_text(json.dumps({"weight_map": {"head.bias": "../w.safetensors"}}))
    assert "outside its folder" in refusal(index).what
    for text in ("{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": {}}}'):
        index.write_text(text)
        refusal(index)
    index.unlink()
    assert refusal(tmp_path).what == "shards without their index"


def test_a_folder_with_several_files_of_weights_names_them(tmp_path: Path) -> None:
    for name in ("first.pth", "last.pth"):
        torch.save(RAW, tmp_path / name)
    error = refusal(tmp_path)
    assert error.fix == f"--weights {tmp_path}/first.pth or --weights {tmp_path}/last.pth"


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_programs_and_distributed_checkpoints_say_how_to_convert_them(tmp_path: Path) -> None:
    traced: Any = torch.jit.trace(NETWORK.eval(), torch.zeros(1, 3, 8, 8))  # type: ignore[no-untyped-call]
    torch.jit.save(traced, tmp_path / "w.pt")
    assert "torch.jit.load" in refusal(tmp_path / "w.pt").fix
    folder = tmp_path / "distributed"
    folder.mkdir()
    (folder / ".metadata").touch()
    (folder / "__0_0.distcp").touch()
    assert "dcp_to_torch" in refusal(folder).fix
