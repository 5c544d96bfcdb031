"""Pictures in a folder for each class: to score a model on, or to train one on."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from digits.data.mnist import DIGIT_NAMES, DigitSet
from digits.data.module import DigitDataModule
from digits.data.sampling import stratified_split
from digits.errors import ConfigError, DigitsError
from digits.reading.picture import open_picture
from digits.reading.predict import find_pictures, interruptible
from digits.reading.reader import MAX_SIDE, Reader

log = logging.getLogger(__name__)


class FolderDataModule(DigitDataModule):
    """Pictures in `FOLDER/<label>/`, or in `FOLDER/train/<label>/` and `FOLDER/test/<label>/`.

    The labels are 0 to 9, any of them, or ten names of other classes. A picture of 28 x 28 pixels is taken as it is,
    light on dark or dark on light; of another the digit is cut out as `digits predict` does it.

    Args:
        path: the folder.
        test_share: share of each class to test on, where there is no `FOLDER/test/`; which, is always the same.
        common: of :class:`~digits.data.module.DigitDataModule`.
    """

    def __init__(self, path: Path | str, test_share: float = 0.2, **common: Any) -> None:
        super().__init__(**common)
        self.path = Path(path)
        self.test_share = test_share

    def load(self) -> DigitSet:
        """Read the pictures.

        Raises:
            ConfigError: the folder is missing, or is not laid out as above.
            DigitsError: no picture in it can be used.
        """
        parts = [self.path / "train", self.path / "test"]
        if not all(part.is_dir() for part in parts):
            images, labels, classes = _read_labelled(self.path)
            train, test = stratified_split(labels, round(self.test_share * len(labels)), seed=0)
            return DigitSet(self.path.name, images[train], labels[train], images[test], labels[test], classes)
        images, labels, classes = _read_labelled(parts[0])
        test_images, test_labels, others = _read_labelled(parts[1])
        if classes != others:
            raise ConfigError(f"data.path={self.path}: train/ and test/ have sub-folders of different names")
        return DigitSet(self.path.name, images, labels, test_images, test_labels, classes)


def labelled_pictures(folder: Path, setting: str) -> tuple[list[Path], Tensor, tuple[str, ...]]:
    """The pictures in the sub-folders of ``folder``, their labels, int64 (N,), and what the labels 0 to 9 are called.

    Args:
        folder: its sub-folders are called 0 to 9, or ten other names, whose order is the alphabet's.
        setting: what named the folder, for errors: "--data " or "data.path=".

    Raises:
        ConfigError: the folder does not exist, or is not laid out so.
        DigitsError: a folder cannot be read.
    """
    if not folder.is_dir():
        raise ConfigError(f"{setting}{folder}: no such folder")
    names = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    digits = [name for name in names if name in DIGIT_NAMES]
    classes = tuple(names) if len(names) == len(DIGIT_NAMES) and not digits else DIGIT_NAMES
    pairs = [
        (path, label)
        for label, name in enumerate(classes)
        if (folder / name).is_dir()
        for path in find_pictures(folder / name)
    ]
    if not pairs:
        raise ConfigError(
            f"{setting}{folder}: no pictures in sub-folders called 0 to 9, nor ten sub-folders of other names; those "
            f"of a 7 are expected in {folder / '7'}"
        )
    return [path for path, _ in pairs], torch.tensor([label for _, label in pairs]), classes


def _read_labelled(folder: Path) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """Images uint8 (N, 28, 28), labels int64 (N,) and the classes; what cannot be used is left out and said."""
    files, labels, classes = labelled_pictures(folder, "data.path=")
    images: dict[int, NDArray[np.uint8]] = {}
    failed: dict[int, str] = {}
    larger = []
    for number, file in enumerate(tqdm(files, "pictures", leave=False, disable=None)):
        try:
            gray, size = open_picture(file, MAX_SIDE)
        except DigitsError as error:
            failed[number] = str(error)
            continue
        if tuple(size) == (28, 28):
            images[number] = _ink_bright(gray)
        else:
            larger.append(number)
    read = interruptible(Reader().read_many([files[number] for number in larger])) if larger else iter(())
    for number, digits in zip(larger, tqdm(read, "cut out", len(larger), leave=False, disable=None), strict=True):
        if isinstance(digits, DigitsError) or not digits:
            failed[number] = str(digits) if isinstance(digits, DigitsError) else f"{files[number]}: no digit was found"
        else:
            images[number] = max(digits, key=lambda digit: digit.box.bottom - digit.box.top).image
    if not images:
        raise DigitsError(f"data.path={folder}: none of the {len(files):,} pictures can be used: {_first(failed)}")
    if failed:
        log.warning("%s: %d of %d pictures are left out: %s", folder, len(failed), len(files), _first(failed))
    kept = sorted(images)
    return torch.from_numpy(np.stack([images[number] for number in kept])), labels[kept], classes


def read_own_pictures(folder: Path) -> tuple[Tensor, Tensor]:
    """The digits in the pictures `FOLDER/<label>/` of somebody's own writing, cut out as `digits predict` does it.

    What cannot be opened, has not exactly one digit, or is in no sub-folder of a digit is left out and said.

    Returns:
        Images uint8 (N, 28, 28), 255 = ink, and labels int64 (N,), 0 to 9; N is at least 1.

    Raises:
        ConfigError: the folder is missing, or has no picture in sub-folders 0 to 9.
        DigitsError: no picture in it can be used.
    """
    setting = "data.pictures="
    files, labels, classes = labelled_pictures(folder, setting)
    if classes != DIGIT_NAMES:
        raise ConfigError(f"{setting}{folder}: its sub-folders are no digits: {', '.join(classes)}; 0 to 9 are needed")
    images: dict[int, NDArray[np.uint8]] = {}
    failed: dict[int, str] = {}
    read = interruptible(Reader().read_many(files, of_one_digit=True))
    for number, digits in enumerate(tqdm(read, "pictures", len(files), leave=False, disable=None)):
        if isinstance(digits, DigitsError):
            failed[number] = str(digits)
        elif len(digits) == 1:
            images[number] = digits[0].image
        else:
            found = f"{len(digits)} digits were" if digits else "no digit was"
            failed[number] = f"{files[number]}: {found} found, where one is needed"
    if not images:
        raise DigitsError(f"{setting}{folder}: none of the {len(files):,} pictures can be used: {_first(failed)}")
    others = sorted({*find_pictures(folder)} - {*files})
    for reason in [*failed.values(), *(f"{file}: is in no sub-folder of a digit, 0 to 9" for file in others)]:
        log.warning("left out: %s", reason)
    kept = sorted(images)
    return torch.from_numpy(np.stack([images[number] for number in kept])), labels[kept]


def _ink_bright(gray: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``gray`` (28, 28) with bright ink: inverted where most of its border is bright, which is paper then."""
    border = np.concatenate([gray[0], gray[-1], gray[1:-1, 0], gray[1:-1, -1]])
    return 255 - gray if np.median(border) > 127 else gray


def _first(failed: dict[int, str]) -> str:
    reasons: Sequence[str] = [failed[number] for number in sorted(failed)]
    return "; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else "")
