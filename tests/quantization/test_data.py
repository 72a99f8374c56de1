"""Samples of a calibration: which files of a folder are used, which of them judge, and what is assumed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from edgevit.errors import UsageError
from edgevit.images import calibration_files as files
from edgevit.images.calibration_files import calibration_sha256
from edgevit.quantization import data as data_module
from edgevit.quantization.data import CalibrationSamples, calibration_samples
from edgevit.records.model import Preprocessing
from edgevit.verification.inputs import make_samples
from edgevit_runtime.record import TensorSpec

IMAGE = (TensorSpec("input", (-1, 3, 8, 8)),)
PLAIN = Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3)


def folder(place: Path, count: int) -> Path:
    """Write flat grey images, each of its own shade, into two folders of classes."""
    for number in range(count):
        file = place / f"class{number % 2}" / f"{number:03}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, number, number)).save(file)
    return place


def shades(samples: CalibrationSamples) -> tuple[list[int], list[int]]:
    """Return the shades of the images that ranges come from, and of those that judge."""
    assert samples.judged is not None
    used = [round(255 * float(row.max())) for (batch,) in samples.batches for row in batch]
    return used, [round(255 * float(row.max())) for batch in samples.judged.batches for row in batch]


def test_images_that_judge_give_no_ranges(tmp_path: Path) -> None:
    samples = calibration_samples(IMAGE, PLAIN, folder(tmp_path / "photos", 40), batch=1)
    used, judging = shades(samples)
    assert len(judging) == 8 and len(used) == 32 and not set(used) & set(judging)
    assert sorted(used + judging) == list(range(40))
    assert (samples.description, samples.is_assumed) == ("32 of photos", False)
    drawn = make_samples(IMAGE, PLAIN, pictures=samples.judged)
    assert drawn.description.startswith("2 noise, 8 of photos")
    judged = samples.data(drawn).judged
    assert [round(255 * float(image.max())) for (image,) in judged] == judging


def test_a_few_images_judge_themselves_and_say_so(tmp_path: Path) -> None:
    samples = calibration_samples(IMAGE, PLAIN, folder(tmp_path / "photos", 3), batch=1)
    assert shades(samples) == ([0, 2, 1], [0, 2, 1])
    assert samples.description == "3 of photos, which judge it too"


def test_batches_are_filled_up_from_the_first_images(tmp_path: Path) -> None:
    samples = calibration_samples(IMAGE, PLAIN, folder(tmp_path / "photos", 7), batch=4)
    assert [batch.shape[0] for (batch,) in samples.batches] == [4, 4]
    used, judging = shades(samples)
    assert used[6:] == used[:2] and set(used).isdisjoint(judging)


def test_of_a_large_folder_images_at_a_regular_distance_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (files, data_module):
        monkeypatch.setattr(module, "MOST", 10)
    samples = calibration_samples(IMAGE, PLAIN, folder(tmp_path / "photos", 40), batch=1)
    used, judging = shades(samples)
    assert len(used) + len(judging) == 10
    assert len({shade // 8 for shade in used + judging}) == 5, "from everywhere"


def test_a_digest_tells_the_content_and_not_the_place(tmp_path: Path) -> None:
    here, there = folder(tmp_path / "a", 5), folder(tmp_path / "b", 5)
    samples = calibration_samples(IMAGE, PLAIN, here, batch=1)
    assert samples.sha256 == calibration_sha256(here) == calibration_sha256(there)
    Image.new("RGB", (8, 8), (9, 9, 9)).save(there / "class0" / "000.png")
    assert calibration_sha256(there) != samples.sha256


def test_samples_of_a_file_are_used_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "rows.npy"
    rows = np.arange(12 * 5, dtype=np.float32).reshape(12, 5)
    np.save(file, rows)
    samples = calibration_samples((TensorSpec("x", (-1, 5)),), PLAIN, file, batch=2)
    assert samples.judged is not None
    used = torch.cat([batch for (batch,) in samples.batches])
    judging = np.concatenate(samples.judged.batches)
    assert {*used[:, 0].tolist(), *judging[:, 0].tolist()} == set(rows[:, 0].tolist())
    assert len(samples.judged.batches) == 2, "3 of 12, in batches of 2"


def test_of_a_large_file_samples_at_a_regular_distance_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_module, "MOST", 10)
    np.save(tmp_path / "rows.npy", np.arange(40, dtype=np.float32).reshape(40, 1))
    samples = calibration_samples((TensorSpec("x", (-1, 1)),), PLAIN, tmp_path / "rows.npy", batch=1)
    assert samples.judged is not None
    every = [float(row) for (row,) in samples.batches] + [float(row.item()) for row in samples.judged.batches]
    assert sorted(every) == list(range(0, 40, 4))


def test_without_data_the_photographs_that_ship_are_assumed() -> None:
    samples = calibration_samples(IMAGE, PLAIN, None, batch=1)
    assert samples.is_assumed and samples.judged is None and len(samples.batches) == 24
    drawn = make_samples(IMAGE, PLAIN)
    crops = [crop for (crop,) in samples.batches]
    assert len(samples.data(drawn).judged) == 3
    assert not any(torch.equal(crop, judged) for (judged,) in samples.data(drawn).judged for crop in crops)


def test_a_model_without_an_image_is_calibrated_on_noise_in_its_range() -> None:
    specs = (TensorSpec("x", (-1, 7)), TensorSpec("y", (-1, 3)))
    samples = calibration_samples(specs, PLAIN, None, (0.0, 255.0), batch=1)
    assert samples.description == "8 draws of noise" and samples.is_assumed
    assert all(x.shape == (1, 7) and y.shape == (1, 3) and x.min() >= 0 and x.max() > 1 for x, y in samples.batches)


@pytest.mark.parametrize("content", [b"", b"no image"])
def test_a_file_that_is_no_image_is_named(content: bytes, tmp_path: Path) -> None:
    photos = folder(tmp_path / "photos", 3)
    (photos / "class0" / "broken.jpg").write_bytes(content)
    with pytest.raises(UsageError, match="cannot be read") as error:
        calibration_samples(IMAGE, PLAIN, photos, batch=1)
    assert error.value.where.endswith("broken.jpg")


def test_a_folder_without_images_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(UsageError, match="no images to calibrate on"):
        calibration_samples(IMAGE, PLAIN, tmp_path, batch=1)
    with pytest.raises(UsageError):
        calibration_samples(IMAGE, PLAIN, tmp_path / "missing", batch=1)
