"""Folders of images: which class each folder is, what is refused because it could be two, and the digest of it all."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path

import pytest

from edgevit.errors import UsageError
from edgevit.evaluation.image_folder import Example, ImageFolder, examples_sha256, read_folder
from edgevit.records.model import IMAGENET


def made(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
    return root


def labels_of(folder: ImageFolder) -> dict[str, int]:
    return {example.name: example.label for example in folder.examples}


def listed(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# Which class a folder is


def test_folders_are_classes_in_the_order_of_their_names(tmp_path: Path) -> None:
    root = made(tmp_path / "val", "n02/b.JPEG", "n01/z.jpeg", "n10/a.png", "n01/deep/er/c.webp", "n02/A.Tiff")
    folder = read_folder(root, 3)
    assert labels_of(folder) == {
        "n01/deep/er/c.webp": 0,
        "n01/z.jpeg": 0,
        "n02/A.Tiff": 1,
        "n02/b.JPEG": 1,
        "n10/a.png": 2,
    }
    assert [example.name for example in folder.examples] == sorted(labels_of(folder))
    assert (folder.dataset, folder.images, folder.empty, folder.passed_over) == ("val", 5, 0, ())
    assert folder.describe() == "5 images of 3 classes"


def test_names_are_those_of_the_labels_where_they_are(tmp_path: Path) -> None:
    root = made(tmp_path, "cat/1.png", "dog/1.png")
    assert labels_of(read_folder(root, 2, labels=("dog", "cat"))) == {"cat/1.png": 1, "dog/1.png": 0}
    assert labels_of(read_folder(root, 2, labels=("Tench", "Crane"))) == {"cat/1.png": 0, "dog/1.png": 1}
    part = read_folder(root, 4, labels=("eel", "dog", "fox", "cat"))
    assert labels_of(part) == {"cat/1.png": 3, "dog/1.png": 1} and part.empty == 2
    with pytest.raises(UsageError, match="not among the names") as caught:
        read_folder(root, 2, labels=("dog", "eel"))
    assert "1 of 2: 'cat'" in caught.value.why


def test_a_file_of_names_gives_the_order(tmp_path: Path) -> None:
    root = made(tmp_path / "part", "n02/1.png", "n01/1.png")
    whole = listed(tmp_path / "wnids.txt", "n03", "n02", "", "n01")
    assert labels_of(read_folder(root, 3, names=whole)) == {"n01/1.png": 2, "n02/1.png": 1}
    synsets = listed(tmp_path / "synsets.txt", "n01 tench, Tinca tinca", "n02 goldfish", "n03 great white shark")
    assert labels_of(read_folder(root, 3, names=synsets)) == {"n01/1.png": 0, "n02/1.png": 1}
    spaced = made(tmp_path / "spaced", "great white shark/1.png")
    named = listed(tmp_path / "named.txt", "tench", "great white shark")
    assert labels_of(read_folder(spaced, 2, names=named)) == {"great white shark/1.png": 1}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("n01", "n02"), "it has 2 lines, the model has 3 classes"),
        (("n01", "n04", "n05"), "1 of 2: 'n02'"),
        (("n01", "n02", "n02"), "twice among the names"),
    ],
)
def test_a_file_of_other_names_is_refused(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    root = made(tmp_path / "part", "n02/1.png", "n01/1.png")
    with pytest.raises(UsageError) as caught:
        read_folder(root, 3, names=listed(tmp_path / "names.txt", *lines))
    assert message in str(caught.value)
    with pytest.raises(UsageError, match="the names of the classes cannot be read"):
        read_folder(root, 3, names=tmp_path / "absent.txt")


def test_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    root = made(tmp_path, "a/1.png", "b/1.png")
    with pytest.raises(UsageError, match="does not fit the model") as caught:
        read_folder(root, 1000)
    assert (
        "2 class folders (a, b...), the model has 1000 classes" in caught.value.why and "--classes" in caught.value.fix
    )


def test_a_folder_above_says_which_one_is_meant(tmp_path: Path) -> None:
    root = made(tmp_path, "train/a/1.png", "val/a/1.png", "val/b/1.png")
    with pytest.raises(UsageError) as caught:
        read_folder(root, 1000)
    assert caught.value.fix == f"--data {root / 'val'}"


def test_numbers_whose_order_can_be_two_are_refused(tmp_path: Path) -> None:
    """torchvision's ImageFolder takes 10 for the third class of 0 to 10, which is not the class 10."""
    root = made(tmp_path / "data", *(f"{number}/1.png" for number in range(11)))
    with pytest.raises(UsageError, match="their order can be two") as caught:
        read_folder(root, 11)
    assert "0, 1, 10..." in caught.value.why and "0, 1, 2..." in caught.value.why
    names = listed(tmp_path / "names.txt", *map(str, range(11)))
    assert labels_of(read_folder(root, 11, names=names))["10/1.png"] == 10
    padded = made(tmp_path / "padded", *(f"{number:02}/1.png" for number in range(11)))
    assert labels_of(read_folder(padded, 11))["10/1.png"] == 10


def test_names_in_other_forms_of_unicode_are_one(tmp_path: Path) -> None:
    decomposed, composed = (unicodedata.normalize(form, "Äpfel") for form in ("NFD", "NFC"))
    root = made(tmp_path / "one", f"{decomposed}/ü 1.png", "手/1.png", "Zebra/1.png")
    assert list(labels_of(read_folder(root, 3)).items()) == [("Zebra/1.png", 0), ("Äpfel/ü 1.png", 1), ("手/1.png", 2)]
    assert labels_of(read_folder(root, 3, labels=("手", composed, "Zebra")))["Äpfel/ü 1.png"] == 1
    with pytest.raises(UsageError, match="two class folders have one name"):
        read_folder(made(tmp_path / "two", f"{decomposed}/1.png", f"{composed}/1.png"), 2)


# What is in it


def test_what_is_no_data_set_is_refused(tmp_path: Path) -> None:
    for root, message in (
        (tmp_path / "absent", "cannot be read"),
        (made(tmp_path / "flat", "1.jpg", "2.jpg"), "2 images are in it directly"),
        (made(tmp_path / "hidden", ".git/1.png"), "no class folders"),
        (made(tmp_path / "texts", "a/1.txt"), "no images"),
    ):
        with pytest.raises(UsageError) as caught:
            read_folder(root, 1)
        assert message in str(caught.value), root


def test_hidden_files_are_left_out_and_others_counted(tmp_path: Path) -> None:
    root = made(tmp_path, "a/1.png", "a/.DS_Store", "a/notes.txt", "a/.thumbs/1.png", "b/list.csv", "README.txt")
    folder = read_folder(root, 2)
    assert labels_of(folder) == {"a/1.png": 0}
    assert (folder.passed_over, folder.empty) == (("a/notes.txt", "b/list.csv"), 1)


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    store = made(tmp_path / "store", "x/1.png")
    root = made(tmp_path / "val", "b/1.png")
    (root / "a").symlink_to(store / "x", target_is_directory=True)
    (root / "b" / "again").symlink_to(root / "b", target_is_directory=True)
    assert labels_of(read_folder(root, 2)) == {"a/1.png": 0, "b/1.png": 1}


def test_a_part_is_drawn_at_random_and_the_same_each_time(tmp_path: Path) -> None:
    root = made(tmp_path / "val", *(f"{name}/{number:02}.png" for name in "abcdefgh" for number in range(25)))
    part = read_folder(root, 8, limit=80)
    assert part == read_folder(root, 8, limit=80)
    names = [example.name for example in part.examples]
    assert (
        len(set(names)) == 80
        and names == sorted(names)
        and part.describe().startswith("80 of 200 images of 8 classes, drawn")
    )
    counts = [sum(name.startswith(letter) for name in names) for letter in "abcdefgh"]
    assert min(counts) >= 3, "the first 80 would leave five classes out"
    assert not read_folder(root, 8, limit=200).is_part and len(read_folder(root, 8, limit=999).examples) == 200


def test_imagenet_is_known_by_the_names_of_its_images(tmp_path: Path) -> None:
    root = made(tmp_path / "val", "n01/ILSVRC2012_val_00000293.JPEG", "n02/ILSVRC2012_val_00000294.JPEG")
    assert read_folder(root, 2).dataset == IMAGENET
    assert read_folder(root, 2, dataset="mine").dataset == "mine"
    assert read_folder(made(root, "n02/another.JPEG"), 2).dataset == "val"


# Its digest


def digest(examples: list[Example]) -> str:
    return examples_sha256(examples, ["0" * 64] * len(examples))


def test_the_digest_is_of_names_classes_and_contents(tmp_path: Path) -> None:
    root = made(tmp_path / "one", "a/1.png", "b/1.png")
    shutil.copytree(root, tmp_path / "two")
    one, two = (list(read_folder(folder, 2).examples) for folder in (root, tmp_path / "two"))
    assert digest(one) == digest(two), "where it lies does not matter"
    changes = [
        digest(one[:1]),
        digest([one[1], one[0]]),
        digest(list(read_folder(root, 2, labels=("b", "a")).examples)),
        examples_sha256(one, ["0" * 64, "1" * 64]),
    ]
    assert len({digest(one), *changes}) == 5
    names = [Example(Path("x"), 0, "a\udcff.png")]  # what Python makes of bytes that are no UTF-8
    assert len(digest(names)) == 64


def test_no_name_can_stand_for_two() -> None:
    """Names are the user's: one with what looks like the next line in it is another data set."""
    one = [Example(Path(), 1, "a/1.png"), Example(Path(), 2, "b/1.png")]
    forged = [Example(Path(), 2, f"a/1.png\n{'0' * 64}\nb/1.png")]
    assert digest(one) != digest(forged)
