"""Pages to read, composed of real digits or drawn pixel by pixel."""

import cv2
import numpy as np
from numpy.typing import NDArray

from digits.data.mnist import load_mnist5k

DIGITS = load_mnist5k().test_images.numpy()  # in turn: 0, 1, ..., 9


def page(*rows: str, size: int = 140, step: int = 160, thick: int = 0) -> NDArray[np.uint8]:
    """White paper (H, W) with rows of real digits in black, ``step`` pixels apart; strokes ``thick`` pixels thicker."""
    height, width = (size + 60) * len(rows) + 60, step * max(map(len, rows)) + 100
    paper = np.full((height, width), 255.0)
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            ink = cv2.resize(DIGITS[int(value)], (size, size), interpolation=cv2.INTER_CUBIC)
            if thick:
                ink = cv2.dilate(ink, np.ones((thick, thick), np.uint8))
            place = paper[(size + 60) * y + 50 :, step * x + 40 :][:size, :size]
            np.minimum(place, 255.0 - ink, out=place)
    return paper.clip(0, 255).astype(np.uint8)


def drawn(marks: str) -> NDArray[np.uint8]:
    """Black on white, a pixel for each mark."""
    return np.array([[0 if mark == "#" else 255 for mark in row] for row in marks.split()], np.uint8)
