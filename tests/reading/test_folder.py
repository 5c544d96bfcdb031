"""Pictures in a folder for each label, as data to train on."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import configure
from PIL import Image

from digits.data.mnist import DIGIT_NAMES, load_mnist5k
from digits.errors import DigitsError
from digits.reading.folder import FolderDataModule
from digits.training.run import train

DIGITS = load_mnist5k().test_images.numpy()  # in turn: 0, 1, ..., 9


def write(folder: Path, names: tuple[str, ...] = DIGIT_NAMES, each: int = 5, first: int = 0) -> Path:
    """``each`` pictures of 28 x 28 pixels for each of ``names``, every second one dark on light."""
    for number, image in enumerate(DIGITS[first : first + 10 * each]):
        (folder / names[number % 10]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(255 - image if number // 10 % 2 else image).save(folder / names[number % 10] / f"{number}.png")
    return folder


def read(folder: Path, **options: float) -> FolderDataModule:
    data = FolderDataModule(folder, **options, name="folder", batch_size=10, val_size=0)
    data.setup()
    return data


def test_pictures_of_28_by_28_pixels_are_taken_as_they_are_with_bright_ink(tmp_path: Path):
    digits = read(write(tmp_path)).digits
    assert digits is not None and digits.name == tmp_path.name
    images = torch.cat([digits.train_images, digits.test_images]).numpy()
    labels = torch.cat([digits.train_labels, digits.test_labels]).tolist()
    found = {image.tobytes(): label for image, label in zip(images, labels, strict=True)}
    assert found == {image.tobytes(): number % 10 for number, image in enumerate(DIGITS[:50])}


def test_a_share_of_each_label_is_held_out_for_the_test_and_always_the_same(tmp_path: Path):
    one, other = (read(write(tmp_path), test_share=0.4).digits for _ in range(2))
    assert one is not None and other is not None
    assert one.test_labels.bincount(minlength=10).tolist() == [2] * 10
    assert torch.equal(one.test_images, other.test_images)


def test_folders_called_train_and_test_are_the_splits(tmp_path: Path):
    write(tmp_path / "train")
    write(tmp_path / "test", each=2, first=500)
    digits = read(tmp_path).digits
    assert digits is not None and (len(digits.train_labels), len(digits.test_labels)) == (50, 20)
    assert digits.test_labels.bincount(minlength=10).tolist() == [2] * 10


def test_of_a_larger_picture_the_digit_is_cut_out(tmp_path: Path):
    write(tmp_path)
    large = Image.fromarray(255 - DIGITS[100]).resize((140, 140), Image.Resampling.BICUBIC)
    page = Image.new("L", (400, 300), "white")
    page.paste(large, (200, 100))
    page.save(tmp_path / "0" / "page.png")
    digits = read(tmp_path, test_share=0.01).digits
    assert digits is not None
    likeness = [np.corrcoef(image.flatten(), DIGITS[100].flatten())[0, 1] for image in digits.train_images.numpy()]
    assert max(likeness) > 0.9


def test_what_cannot_be_used_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write(tmp_path)
    (tmp_path / "3" / "broken.png").write_text("no picture")
    Image.new("L", (90, 90), "white").save(tmp_path / "4" / "blank.png")
    digits = read(tmp_path).digits
    assert digits is not None and len(digits.train_labels) + len(digits.test_labels) == 50
    assert "2 of 52 pictures are left out" in caplog.text
    assert "broken.png: is no picture" in caplog.text and "blank.png: no digit was found" in caplog.text


@pytest.mark.parametrize("names", [(), ("a", "b"), ("train",)])
def test_a_folder_that_is_laid_out_otherwise_is_one_line(tmp_path: Path, names: tuple[str, ...]):
    for name in names:
        (tmp_path / name).mkdir()
        Image.fromarray(DIGITS[0]).save(tmp_path / name / "0.png")
    with pytest.raises(
        DigitsError, match="no pictures in sub-folders called 0 to 9, nor ten sub-folders of other names"
    ):
        read(tmp_path)


def test_ten_names_of_other_classes_are_shown_where_digits_are(tmp_path: Path):
    names = tuple(f"kind {letter}" for letter in "abcdefghij")
    write(tmp_path / "pictures", names, each=20)
    tiny = (
        "trainer.max_epochs=1",
        "data.batch_size=16",
        "logger=none",
        "trainer.accelerator=cpu",
        "recipe.min_steps=1",
    )
    options = ("data=folder", f"data.path={tmp_path / 'pictures'}", *tiny)
    train(configure(*options), tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["classes"] == [*names]
    assert (tmp_path / "run" / "plots" / "confusion.png").is_file()
