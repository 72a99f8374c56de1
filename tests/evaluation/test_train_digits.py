"""docs/examples/train_digits.py: the slope goes from 0 to 1, is saved, forbids folding before, and folds are exact."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from edgevit.models.vanillanet import SlopeSchedule
from support.digits import Digits, load_example


@pytest.fixture(scope="module")
def example() -> ModuleType:
    return load_example()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def drawn(number: int = 1500) -> tuple[Tensor, Tensor]:
    """Return ten patterns of 8x8 pixels under noise, which replace scikit-learn's digits in these tests."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 10, (number,), generator=generator)
    patterns = 16 * torch.rand(10, 8, 8, generator=generator)
    return patterns[labels] + 2 * torch.randn(number, 8, 8, generator=generator), labels


def test_two_networks_learn_and_fold_without_a_change(
    example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = example.main(["--epochs", "3", "--out", str(tmp_path)], split=example.prepare(*drawn()))
    assert [result.name for result in results] == ["vanillanet", "mobilevig"]
    for result in results:
        assert result.agree and result.before == result.after > 50.0  # chance is 10
        assert result.params[1] < result.params[0]
    assert "slope is 0.5" in results[0].refused and not results[1].refused
    printed = capsys.readouterr().out
    assert printed.count("all equal") == 2 and "was refused" in printed


def test_the_slope_is_in_the_checkpoint(example: ModuleType, tmp_path: Path) -> None:
    example.run_vanillanet(example.prepare(*drawn(500)), 3, tmp_path)
    halfway, end = (
        torch.load(tmp_path / f"{name}.pth", weights_only=True) for name in ("vanillanet_halfway", "vanillanet")
    )
    assert halfway["_extra_state"].tolist() == [0.5] * 3 and end["_extra_state"].tolist() == [1.0] * 3


def test_the_slope_is_stepped_each_epoch(example: ModuleType) -> None:
    slopes_seen: list[float] = []
    model, slopes = example.vanillanet(), SlopeSchedule(4)

    def step(epoch: int) -> None:
        slopes.apply(model, epoch)
        slopes_seen.append(model.slope)

    example.train(model, example.prepare(*drawn(500)), 6, step)
    assert slopes_seen == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]


def test_too_few_epochs_for_a_schedule_are_refused(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        example.main(["--epochs", "1"], split=example.prepare(*drawn(500)))
    assert "must be 2 or more" in capsys.readouterr().err


def test_a_fold_that_changes_predictions_is_noticed(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(model: Any, inputs: Any) -> Any:
        return lambda images: model(images).roll(1, 1)

    split = example.prepare(*drawn(500))
    monkeypatch.setattr(example, "fold", wrong)
    monkeypatch.setattr(example, "count", lambda model, *inputs: type("Count", (), {"params": 0}))
    monkeypatch.setattr(example, "refusal", lambda model, images: "")
    with pytest.raises(RuntimeError, match="folding changed predictions of vanillanet, mobilevig"):
        example.main(["--epochs", "2", "--out", str(tmp_path)], split=split)


def test_a_missing_scikit_learn_is_named_with_its_remedy(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'edgevit\[train\]'"):
        example.digits()


def test_on_the_real_digits(trained_digits: Digits) -> None:
    for result in trained_digits.results:
        assert result.agree and result.before == result.after > 85.0
