"""Statements beside a function: what they say, which one counts, and what is no statement."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgevit.errors import ModelError, UsageError
from edgevit.models.source import load_subject, require_taken
from edgevit.records.model import STATEABLE
from edgevit.records.preprocessing import read_stated

NET = """
from torch import nn


def net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


def other():
    return net()
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NET, encoding="utf-8")
    return path


def beside(file: Path, text: str) -> str:
    file.write_text(NET + text, encoding="utf-8")
    return f"{file}:net"


def test_a_file_states_inputs_preprocessing_and_labels(file: Path) -> None:
    text = "input_shape = '1x1x20x24'\npreprocessing = {'mean': 0.5, 'std': '0.25'}\nlabels = ('a', 'b')\n"
    subject = load_subject(beside(file, text))
    assert [spec.shape for spec in subject.inputs] == [(-1, 1, 20, 24)] and subject.labels == ("a", "b")
    assert (subject.preprocessing.mean, subject.preprocessing.std) == ((0.5,), (0.25,))
    assert subject.preprocessing.assumed == ("range", "crop", "interpolation")


def test_an_attribute_of_the_function_counts_before_the_file_and_an_option_before_both(file: Path) -> None:
    text = "input_shape = (1, 1, 8, 8)\nother.input_shape = {'x': (1, 1, 9, 9)}\npreprocessing = {'mean': 0.5}\n"
    model = beside(file, text)
    assert [load_subject(name).inputs[0].shape[2] for name in (model, f"{file}:other")] == [8, 9]
    options = {"input_size": (7, 6), "preprocessing": read_stated({"mean": 0.1})}
    subject = load_subject(model, **options)  # type: ignore[arg-type]
    assert subject.inputs[0].shape == (-1, 1, 7, 6) and subject.preprocessing.mean == (0.1,)


def test_functions_modules_and_classes_of_these_names_state_nothing(file: Path) -> None:
    text = "import sys as labels\n\n\ndef preprocessing(image):\n    return image\n\n\nclass input_shape:\n    pass\n"
    subject = load_subject(beside(file, text), input_size=(8, 8))
    assert subject.labels == () and set(subject.preprocessing.assumed) == set(STATEABLE)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("preprocessing = [0.5]\n", "is no mapping"),
        ("preprocessing = {'mena': 0.5}\n", "has no 'mena'"),
        ("labels = 'ab'\n", "no names of classes"),
        ("labels = [0, 1]\n", "no names of classes"),
        ("input_shape = 28\n", "no shape of an input"),
        ("input_shape = {'x': (2, 1, 8, 8)}\n", "begins with 2"),
    ],
)
def test_statements_that_make_no_sense_are_refused(file: Path, text: str, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        load_subject(beside(file, text), input_size=None if "input_shape" in text else (8, 8))


def test_an_rgb_image_is_an_assumption_where_only_its_size_is_stated(file: Path) -> None:
    subject = load_subject(beside(file, ""), input_size=(8, 8))
    with pytest.raises(ModelError, match="which was assumed: one RGB image") as caught:
        require_taken(subject, 1)
    assert "--input-shape" in caught.value.fix and "1 channels" in caught.value.why
