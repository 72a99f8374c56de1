"""Checkpoints: every published form is read; what is damaged, unsafe or another model's is refused whole."""

from __future__ import annotations

import argparse
import os
import pickle
import pickletools
import random
import time
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgevit.errors import CheckpointError
from edgevit.models import create_model, load_weights
from edgevit.models.checkpoint_objects import object_of, object_with_tensors
from edgevit.models.vanillanet import VanillaNet
from support.parity_fill import fill, load_golden


def small_model(seed: int = 0, channels: int = 4) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, channels, 3), nn.BatchNorm2d(channels))


STATE = small_model(seed=1).state_dict()
AVERAGED = {key: value + 1 for key, value in STATE.items()}  # recognisable


def same(loaded: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return loaded.keys() == expected.keys() and all(torch.equal(loaded[key], expected[key]) for key in expected)


def loaded(path: Path | str) -> dict[str, Tensor]:
    """Return the weights of a model that has loaded a checkpoint."""
    model = small_model()
    load_weights(model, path)
    return dict(model.state_dict())


def write(path: Path, content: Any, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def refused(path: Path, model: nn.Module | None = None) -> CheckpointError:
    """Return the refusal, after checks that nothing was loaded and that the message helps."""
    model = model or small_model()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, path)
    assert same(model.state_dict(), before)
    assert caught.value.what and caught.value.fix and str(path) in caught.value.where
    assert "weights_only" not in str(caught.value)  # torch advises to switch the protection off
    return caught.value


# --- what is read ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".pt"])
@pytest.mark.parametrize("nest", [None, "model_ema", "state_dict_ema", "model", "state_dict", "model_state"])
def test_published_forms_are_read(tmp_path: Path, suffix: str, nest: str | None) -> None:
    content = {nest: STATE, "epoch": 299} if nest else STATE
    assert same(loaded(write(tmp_path / f"w{suffix}", content)), STATE)


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(dict(STATE), tmp_path / "w.safetensors")
    assert same(loaded(str(tmp_path / "w.safetensors")), STATE)


@pytest.mark.parametrize("legacy", [False, True])
def test_training_checkpoints_are_read_whatever_lies_beside_the_weights(tmp_path: Path, legacy: bool) -> None:
    content = {
        "model": STATE,
        "model_ema": OrderedDict((f"module.{key}", value) for key, value in AVERAGED.items()),
        "optimizer": {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-3}]},
        "args": argparse.Namespace(lr=0.1, name="x", nested=argparse.Namespace(a=(1, None))),
        "epoch": 299,
        "best": [np.float64(81.2), np.float32(1.0), np.int64(3), np.uint8(1), np.bool_(True)],
    }
    path = write(tmp_path / "w.pth.tar", content, _use_new_zipfile_serialization=not legacy)
    assert same(loaded(path), AVERAGED)


def test_numpy_numbers_of_older_files_are_read(tmp_path: Path) -> None:
    """NumPy 1 wrote numpy.core where NumPy 2 writes numpy._core, and had no separate modules for dtypes."""
    path = write(tmp_path / "w.pth", {"model": STATE, "best": np.float64(1.0)}, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    assert same(loaded(path), STATE)


@pytest.mark.parametrize("absent", [None, {}])
def test_averaged_weights_come_first_unless_there_are_none(tmp_path: Path, absent: object) -> None:
    both = write(tmp_path / "a.pth", {"state_dict": STATE, "state_dict_ema": AVERAGED})
    assert same(loaded(both), AVERAGED)
    one = write(tmp_path / "b.pth", {"state_dict": STATE, "state_dict_ema": absent})
    assert same(loaded(one), STATE)


def test_precision_follows_the_model(tmp_path: Path) -> None:
    halves = {key: value.half() if value.is_floating_point() else value for key, value in STATE.items()}
    model = small_model()
    load_weights(model, write(tmp_path / "w.pth", halves))
    weight = model.get_parameter("0.weight")
    assert weight.dtype == torch.float32 and torch.equal(weight, STATE["0.weight"].half().float())


def test_create_model_loads_an_official_layout(tmp_path: Path) -> None:
    state = fill(load_golden("mobilevig_ti")["keys"])
    path = write(tmp_path / "w.pth.tar", {"state_dict": {}, "state_dict_ema": state})
    model = create_model("mobilevig_ti", path)
    assert same(model.state_dict(), state) and not model.training


def test_an_official_vanillanet_file_loads_with_slope_one_and_ours_with_its_own(tmp_path: Path) -> None:
    model = VanillaNet((4, 4), (1,), classes=3)
    model.slope = 0.25
    ours = write(tmp_path / "ours.pth", model.state_dict())
    official = {key: value for key, value in model.state_dict().items() if key != "_extra_state"}
    load_weights(model, write(tmp_path / "official.pth", official))
    assert model.slope == 1.0
    load_weights(model, ours)
    assert model.slope == 0.25 and model.stages[0].slope == 0.25
    save_file(model.state_dict(), tmp_path / "ours.safetensors")
    load_weights(model, tmp_path / "ours.safetensors")
    assert model.slope == 0.25


# --- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_missing_files_and_folders_are_refused(tmp_path: Path, suffix: str) -> None:
    assert "no such checkpoint" in refused(tmp_path / f"none{suffix}").what
    (tmp_path / f"folder{suffix}").mkdir()
    assert "no such checkpoint" in refused(tmp_path / f"folder{suffix}").what


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_damaged_files_are_refused(tmp_path: Path, form: str) -> None:
    """Cut at many places, or overwritten at random: a state dict of tensors comes back, or a CheckpointError."""
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(dict(STATE), path)
    else:
        write(path, {"model": STATE, "args": argparse.Namespace(a=1)}, _use_new_zipfile_serialization=form == "zip")
    whole, draw = path.read_bytes(), random.Random(0)
    for share in (0.0, 0.01, 0.1, 0.5, 0.9, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        refused(path)
    for reach in (1500, 10**6) * 80:  # the pickle of a zip lies at the head, its table of contents at the tail
        damaged = bytearray(whole)
        for _ in range(draw.randrange(1, 20)):
            damaged[draw.randrange(min(len(damaged), reach))] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            assert all(torch.isfinite(value).all() for value in loaded(path).values())
        except CheckpointError as error:
            assert "weights_only" not in str(error)


def test_a_disk_that_fails_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(torch, "load", fail)
    assert "Input/output error" in refused(write(tmp_path / "w.pth", STATE)).why


def test_a_zip_with_something_else_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("hello/data.txt", "no weights in here")
    assert "cannot be read" in refused(tmp_path / "w.pth").what


class Intruder:
    """Unpickling this runs a command."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (self.command,))


@pytest.mark.parametrize("form", ["torch", "legacy", "pickle"])
def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path: Path, form: str) -> None:
    trace, path = tmp_path / "it_ran", tmp_path / "w.pth"
    content = {"model": STATE, "args": argparse.Namespace(hook=Intruder(f"touch {trace}"))}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content["args"], protocol=2))
    else:
        write(path, content, _use_new_zipfile_serialization=form == "torch")
    error = refused(path)
    assert not trace.exists()
    assert form == "pickle" or ("unsafe" in error.what and "system" in error.why)
    torch.load(path, weights_only=False) if form == "torch" else None
    assert trace.exists() == (form == "torch")  # it would have run


def test_a_class_with_an_endless_name_is_refused_at_once(tmp_path: Path) -> None:
    """torch searches the name with a pattern that takes minutes for a million characters."""
    path = write(tmp_path / "w.pth", STATE, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes().replace(b"FloatStorage", b"x" * 2_000))
    assert "2005 characters" in refused(path).why


def with_pickle(path: Path, operations: bytes) -> Path:
    """Write a file of torch's form whose content is this pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", pickle.PROTO + b"\x02" + operations + pickle.STOP)
        archive.writestr("w/version", "3\n")
    return path


def text(characters: str) -> bytes:
    return pickle.BINUNICODE + len(encoded := characters.encode()).to_bytes(4, "little") + encoded


# Each is far too small to keep anything busy.
CALLS: dict[str, tuple[bytes, str]] = {
    "a text": (text("x" * 2_000) + pickle.EMPTY_TUPLE + pickle.REDUCE, "calls something that is no class"),
    "a text for a new object": (text("x") + pickle.EMPTY_TUPLE + pickle.NEWOBJ, "calls something that is no class"),
    "the result of a call": (
        pickle.GLOBAL + b"collections\nOrderedDict\n" + (pickle.EMPTY_TUPLE + pickle.REDUCE) * 2,
        "calls something that is no class",
    ),
    "a slow encoding": (
        pickle.GLOBAL + b"_codecs\nencode\n" + text("ä") + text("punycode") + pickle.TUPLE2 + pickle.REDUCE,
        "_codecs.encode with an encoding",
    ),
    "a slow encoding in a list": (
        pickle.GLOBAL + b"_codecs\nencode\n" + pickle.EMPTY_LIST + pickle.MARK + text("ä") + text("punycode")
        + pickle.APPENDS + pickle.REDUCE,
        "_codecs.encode with an encoding",
    ),
    "a slow encoding of an array of bytes": (
        pickle.GLOBAL + b"__builtin__\nbytearray\n" + text("ä") + text("idna") + pickle.TUPLE2 + pickle.REDUCE,
        "builtins.bytearray with an encoding",
    ),
    "a tuple of itself again and again": (
        pickle.EMPTY_TUPLE + b"".join(pickle.BINPUT + bytes([n]) + pickle.BINGET + bytes([n]) + pickle.TUPLE2
                                      for n in range(16)),
        "most of which are the same",
    ),
    "what is not there": (pickle.EMPTY_TUPLE + pickle.REDUCE, "takes more than it has"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CALLS)
def test_what_torch_refuses_slowly_is_refused_before(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch searches its own refusal with a pattern, and hashes a tuple with all that is in it, as often as it is."""
    operations, why = CALLS[kind]
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("torch has read it"))
    assert why in refused(with_pickle(tmp_path / "w.pth", operations)).why


def test_every_pickle_of_an_older_file_is_looked_at(tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth", STATE, _use_new_zipfile_serialization=False)
    with path.open("rb") as file:
        for _ in range(4):
            list(pickletools.genops(file))
        head = path.read_bytes()[: file.tell()]
    path.write_bytes(head + pickle.PROTO + b"\x02" + text("x") + pickle.EMPTY_TUPLE + pickle.REDUCE + pickle.STOP)
    assert "calls something that is no class" in refused(path).why


def test_containers_that_hold_each_other_again_and_again_are_refused(tmp_path: Path) -> None:
    nested: list[Any] = [STATE]
    for _ in range(15):
        nested = [nested, nested]
    assert "again and again" in refused(write(tmp_path / "w.pth", nested)).why
    itself: list[Any] = [STATE]
    itself += [itself, itself]
    assert "again and again" in refused(write(tmp_path / "w.pth", itself)).why
    shared = {"a": STATE, "b": STATE, "log": [[0.5] * 9_000] * 3}
    assert same(loaded(write(tmp_path / "w.pth", shared)), STATE), "what is shared a few times is read"


def test_more_sets_than_can_be_compared_are_refused(tmp_path: Path) -> None:
    """Every one is compared with all values of the file: ten thousand small ones would take minutes."""
    many = {f"epoch_{number}": {"0.weight": STATE["0.weight"]} for number in range(3_500)}
    assert "too many sets of weights" in refused(write(tmp_path / "w.pth", many)).what
    few = {f"epoch_{number}": [STATE, AVERAGED][number % 2] for number in range(30)}
    assert "several sets of weights" in refused(write(tmp_path / "w.pth", few)).what


def test_objects_in_objects_are_searched_once(tmp_path: Path) -> None:
    """Each holds all that are inside it: 4,000 in a row were searched eight million times."""
    inner: Any = torch.ones(1)
    for _ in range(4_000):
        outer = object_of("mine.Thing")
        vars(outer)["inner"] = inner
        inner = outer
    begin = time.process_time()
    assert object_with_tensors(inner) == "mine.Thing"
    vars(outer)["inner"] = [object_of("mine.Other"), object_of("mine.Other")]
    assert object_with_tensors(outer) == ""
    chain = None
    for _ in range(4_000):
        outer = object_of("mine.Thing")
        vars(outer)["inner"], chain = chain, outer
    assert object_with_tensors(chain) == "" and time.process_time() - begin < 1


@pytest.mark.parametrize("stowaway", [small_model(), torch.nn.Linear, os.getcwd, np.array([small_model()])])
def test_whole_models_and_code_are_refused(tmp_path: Path, stowaway: object) -> None:
    error = refused(write(tmp_path / "w.pth", {"model": STATE, "extra": stowaway}))
    assert "unsafe" in error.what and "state_dict()" in error.fix


@pytest.mark.parametrize("content", [{}, [], 3, {"model": {}}, {"epoch": 3}, "text", [{"a": [1]}]])
def test_files_without_a_state_dict_are_refused(tmp_path: Path, content: object) -> None:
    error = refused(write(tmp_path / "w.pth", content))
    assert error.what.endswith("in this checkpoint") and error.why


@pytest.mark.parametrize("bad", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float8_e4m3fn])
def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, bad: str, dtype: torch.dtype) -> None:
    bad = "nan" if dtype == torch.float8_e4m3fn else bad  # it has no infinities
    weight = STATE["0.weight"].clone()
    weight[0, 0, 0, :2] = float(bad)
    error = refused(write(tmp_path / "w.pth", {**STATE, "0.weight": weight.to(dtype)}))
    assert error.why == "0.weight holds NaN or infinity in 2 of 108 values"


def test_sparse_tensors_are_refused(tmp_path: Path) -> None:
    error = refused(write(tmp_path / "w.pth", {**STATE, "0.bias": torch.ones(4).to_sparse()}))
    assert error.why == "1 of another shape: 0.bias is Tensor, not a dense tensor, not float (4,)"


def test_another_model_s_weights_are_refused_with_names_and_numbers(tmp_path: Path) -> None:
    path = write(tmp_path / "w.pth", {**STATE, "2.weight": torch.ones(1), "3.weight": torch.ones(1)})
    assert refused(path).why == "2 unexpected: 2.weight, 3.weight"
    state = {key: value for key, value in STATE.items() if key != "0.bias"}
    assert refused(write(path, {**state, "0.beta": STATE["0.bias"]})).why == "1 missing: 0.bias; 1 unexpected: 0.beta"
    error = refused(path, small_model(channels=5))
    assert "5 of another shape: 0.weight is float (4, 3, 3, 3), not float (5, 3, 3, 3), " in error.why
    assert error.what == "these weights are not of this Sequential"


def test_a_long_list_is_cut_after_ten(tmp_path: Path) -> None:
    error = refused(write(tmp_path / "w.pth", {**STATE, **{f"x{i:02d}": torch.ones(1) for i in range(30)}}))
    assert error.why == "30 unexpected: " + ", ".join(f"x{i:02d}" for i in range(10)) + ", ..."


def test_integers_are_no_weights(tmp_path: Path) -> None:
    quantised = {**STATE, "0.weight": torch.ones(4, 3, 3, 3, dtype=torch.int8)}
    assert "0.weight is integer (4, 3, 3, 3), not float" in refused(write(tmp_path / "w.pth", quantised)).why


@pytest.mark.parametrize("slopes", [[2.0, 1.0], [1.0]])
def test_slopes_that_cannot_be_are_refused_before_anything_is_copied(tmp_path: Path, slopes: list[float]) -> None:
    other = VanillaNet((4, 4), (1,), classes=3).state_dict()
    other["_extra_state"] = torch.tensor(slopes, dtype=torch.float64)
    refused(write(tmp_path / "w.pth", other), VanillaNet((4, 4), (1,), classes=3))
