"""Train two small networks on real data, fold them, and see that nothing changes: accuracy and every prediction.

    pip install 'edgevit[train]'
    python docs/examples/train_digits.py

The data are scikit-learn's digits: 1797 grey images of 8x8 pixels. A narrow VanillaNet is trained as in its paper
(arXiv 2305.12972, section 3.1): the slope of its leaky ReLUs goes from 0 to 1, which merges its layers two by two, and
before that folding is refused. A small MobileViG has no such schedule. About a minute on two cores; the checkpoints are
left in --out for anyone who needs trained weights.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgevit.count import count
from edgevit.errors import FoldError
from edgevit.folding import fold
from edgevit.models import load_weights
from edgevit.models.mobilevig import MobileViG
from edgevit.models.vanillanet import SlopeSchedule, VanillaNet

SIZE = 32  # pixels a side the networks are given; MobileViG halves the side five times
TEST = 360  # images kept for testing, the last of a fixed shuffle
BATCH = 64


@dataclass(frozen=True)
class Split:
    """Images (N, 3, 32, 32), standardised, and labels (N,), for training and for testing."""

    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Result:
    """What one network did. Accuracies in percent on the test images; `agree`: equal predictions of the two forms."""

    name: str
    before: float
    after: float
    agree: bool
    params: tuple[int, int]
    refused: str
    checkpoint: Path


def digits() -> Split:
    """scikit-learn's digits, enlarged. Raises ModuleNotFoundError with the remedy where it is not installed."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("this example needs scikit-learn: pip install 'edgevit[train]'") from error
    predicted = load_digits()
    return prepare(torch.tensor(predicted.images, dtype=torch.float32), torch.tensor(predicted.target))


def prepare(pixels: Tensor, labels: Tensor) -> Split:
    """Grey images (N, 8, 8) and labels (N,) -> shuffled, enlarged, standardised by the training images, split."""
    order = torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))
    images = F.interpolate(pixels[order, None], size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    mean, deviation = images[:-TEST].mean(), images[:-TEST].std()
    images, labels = ((images - mean) / deviation).expand(-1, 3, -1, -1), labels[order]
    return Split((images[:-TEST], labels[:-TEST]), (images[-TEST:], labels[-TEST:]))


def vanillanet() -> VanillaNet:
    """Two blocks and 32 to 96 channels, where the smallest published one has three and 512 to 4096."""
    return VanillaNet((32, 64, 96), (2, 2), classes=10)


def mobilevig() -> MobileViG:
    """A block in each stage."""
    return MobileViG((1, 1, 1), (16, 24, 32), 1, 48, 64, classes=10)


def train(model: nn.Module, split: Split, epochs: int, before_epoch: Callable[[int], None]) -> None:
    """Cross-entropy with AdamW on a one-cycle schedule; a network with two heads is trained on both."""
    images, labels = split.train
    batches = len(images) // BATCH
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=4e-3, total_steps=epochs * batches)
    generator = torch.Generator().manual_seed(1)
    model.train()
    for epoch in range(epochs):
        before_epoch(epoch)
        for chosen in torch.randperm(len(images), generator=generator)[: batches * BATCH].view(batches, BATCH):
            heads = model(images[chosen])
            heads = heads if isinstance(heads, tuple) else (heads,)
            loss = torch.stack([F.cross_entropy(logits, labels[chosen]) for logits in heads]).mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
    model.eval()


def predict(model: nn.Module, images: Tensor) -> Tensor:
    """Classes (N,)."""
    with torch.inference_mode():
        return torch.cat([model(part).argmax(1) for part in torch.split(images, BATCH)])


def refusal(model: nn.Module, images: Tensor) -> str:
    """What fold says to a network in the middle of its schedule; RuntimeError if it folds it."""
    try:
        fold(model, (images[:1],))
    except FoldError as error:
        return f"{error.what}: {error.why}"
    raise RuntimeError("a network whose slope is not 1 was folded")


def judge(name: str, trained: nn.Module, fresh: nn.Module, split: Split, out: Path, refused: str = "") -> Result:
    """Save, load into a fresh network, fold that one, and compare the two forms on the test images."""
    checkpoint = out / f"{name}.pth"
    torch.save(trained.state_dict(), checkpoint)
    load_weights(fresh.eval(), checkpoint)
    images, labels = split.test
    folded = fold(fresh, (images[:1],))
    before, after = predict(fresh, images), predict(folded, images)
    if not torch.equal(predict(trained, images), before):
        raise RuntimeError(f"{checkpoint} is not the network that was trained")
    rates = [100.0 * (predicted == labels).double().mean().item() for predicted in (before, after)]
    params = (count(fresh, images[:1]).params, count(folded, images[:1]).params)
    return Result(name, rates[0], rates[1], torch.equal(before, after), params, refused, checkpoint)


def run_vanillanet(split: Split, epochs: int, out: Path) -> Result:
    """The slope reaches 1 after two thirds of the epochs (the paper: 100 of 300); half of the way folding is tried."""
    torch.manual_seed(0)
    model, slopes, halfway = vanillanet(), SlopeSchedule(max(1, 2 * epochs // 3)), out / "vanillanet_halfway.pth"

    def before_epoch(epoch: int) -> None:
        slopes.apply(model, epoch)
        if epoch == slopes.epochs // 2:
            torch.save(model.state_dict(), halfway)

    train(model, split, epochs, before_epoch)
    reloaded = vanillanet().eval()
    load_weights(reloaded, halfway)  # the slope comes back with the weights
    return judge("vanillanet", model, vanillanet(), split, out, refusal(reloaded, split.test[0]))


def run_mobilevig(split: Split, epochs: int, out: Path) -> Result:
    """Without a schedule of its own."""
    torch.manual_seed(0)
    model = mobilevig()
    train(model, split, epochs, lambda epoch: None)
    return judge("mobilevig", model, mobilevig(), split, out)


def show(results: list[Result]) -> None:
    """A small table, and what was refused."""
    print(f"{'trained on digits':<18} {'params':>8} {'folded':>8} {'top-1 %':>8} {'folded':>8}  predictions")
    for result in results:
        numbers = f"{result.params[0]:>8} {result.params[1]:>8} {result.before:>8.2f} {result.after:>8.2f}"
        print(f"{result.name:<18} {numbers}  {'all equal' if result.agree else 'DIFFERENT'}")
    for result in results:
        if result.refused:
            print(f"halfway through its schedule, {result.name} was refused. {result.refused}")
        print(f"weights: {result.checkpoint}")


def main(arguments: list[str] | None = None, split: Split | None = None) -> list[Result]:
    """Run all; `split` instead of the digits. Raises RuntimeError where a fold changed a prediction."""
    parser = argparse.ArgumentParser(description="Train two small networks on digits, and fold them.")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--out", type=Path, help="folder for the checkpoints; a temporary one by default")
    options = parser.parse_args(arguments)
    if options.epochs < 2:
        parser.error("--epochs must be 2 or more: the slope is 0 in the first and must get to 1")
    out = options.out or Path(tempfile.mkdtemp(prefix="edgevit-digits-"))
    out.mkdir(parents=True, exist_ok=True)
    split = split or digits()
    results = [run(split, options.epochs, out) for run in (run_vanillanet, run_mobilevig)]
    show(results)
    if changed := [result.name for result in results if not result.agree or result.before != result.after]:
        raise RuntimeError(f"folding changed predictions of {', '.join(changed)}")
    return results


if __name__ == "__main__":
    main()
