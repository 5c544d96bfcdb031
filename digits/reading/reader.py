"""Pictures in, digits out."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from digits.errors import DigitsError
from digits.exchange.model_folder import load_model
from digits.network import to_input
from digits.reading.picture import PictureLike, open_picture
from digits.reading.segment import find_digits

LONGEST = 1024  # pixels on the longer side of the picture that is looked at


class Box(NamedTuple):
    """A rectangle in a picture's own pixels, as Pillow crops it: ``right`` and ``bottom`` are outside."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class Digit:
    """One digit that was read."""

    value: int  # 0 to 9
    confidence: float  # the probability of `value`, by the model's temperature
    probabilities: tuple[float, ...]  # of the ten digits
    box: Box
    row: int  # which line of the picture it is in, from 0
    image: NDArray[np.uint8]  # (28, 28), 255 = ink: what the network saw


class Reader:
    """Reads the digits of pictures.

    Args:
        model: as :func:`digits.exchange.model_folder.load_model` takes it; the package's own by default.
    """

    def __init__(self, model: str | Path | None = None) -> None:
        self.network = load_model(model)

    def read(self, picture: PictureLike) -> list[Digit]:
        """The digits of ``picture`` in reading order: rows from above, each from left to right; none in a blank one."""
        gray, scale = open_picture(picture, LONGEST)
        found = find_digits(gray)
        if not found:
            return []
        images = np.stack([item.image for item in found])
        with torch.inference_mode():
            probabilities = self.network.probabilities(to_input(torch.from_numpy(images))).numpy()
        digits = []
        for item, p in zip(found, probabilities, strict=True):
            box = Box(*(round(edge / scale) for edge in item.box))
            digits.append(Digit(int(p.argmax()), float(p.max()), tuple(map(float, p)), box, item.row, item.image))
        return digits

    def read_many(self, pictures: Iterable[PictureLike]) -> Iterator[list[Digit] | DigitsError]:
        """What :meth:`read` returns for each of ``pictures``, in their order, or the error that it would raise.

        Pictures are opened and searched side by side, and their digits classified together.
        """
        for picture in pictures:
            try:
                yield self.read(picture)
            except DigitsError as error:
                yield error
