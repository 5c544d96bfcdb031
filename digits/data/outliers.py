"""Images of what is no digit, so that a network learns to doubt it: outlier exposure (Hendrycks et al. 2019).

Hendrycks, Mazeika, Dietterich 2019, "Deep Anomaly Detection with Outlier Exposure", arXiv:1812.04606.
"""

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from digits.data.glyphs import SIDE, Picture, draw_character
from digits.data.mnist_image import mnist_image

NO_DIGIT = -1  # label of an image that is no digit; in training its target is the same probability for each class

# Those that may be taken for digits, such as O, I, l, S, Z, B, b, g, q, and the lambda for a 1, are left out.
LETTERS = "AACEEFFHHJKLMNPPRRTTUUVVWXYYaaaccdeeefhhhjkkmmnnnpprrrttuuvvwxyyy"
SIGNS = "++==--?@#&&%%*$$~:_" + "\u00d7\u00f7\u20ac\u00a3\u221a\u2192\u2713"
OTHER_SCRIPTS = "\u0394\u03a0\u03a8\u03a9\u03c0\u03bc\u03c8\u0416\u0414\u0418\u0424\u0429\u042f"
CHARACTERS = (LETTERS, LETTERS, LETTERS, SIGNS, OTHER_SCRIPTS)


def draw_outliers(count: int, digits: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Draw ``count`` images: letters, signs, scribbles, remains of lines, and pairs of digits.

    Args:
        count: how many.
        digits: uint8 (M, 28, 28), 255 = ink, of which the pairs are made; at least one.
        seed: of the random numbers.

    Returns:
        Images uint8 (count, 28, 28), 255 = ink, normalized like those of the reader, and labels int64 (count,), which
        are all ``NO_DIGIT``.
    """
    random = np.random.default_rng(seed)
    images = np.zeros((count, 28, 28), np.uint8)
    for image in images:
        while not image.any():  # what is drawn may be too faint
            kind = random.integers(len(CHARACTERS) + 3)
            if kind < len(CHARACTERS):
                characters = CHARACTERS[kind]
                picture = draw_character(characters[random.integers(len(characters))], random)
            elif kind == len(CHARACTERS):
                picture = _pair(digits[random.integers(len(digits), size=2)].numpy(), random)
            else:
                picture = _lines(random) if kind == len(CHARACTERS) + 1 else _scribble(random)
            if (picture > 127).any():
                image[:] = mnist_image((picture / 255).astype(np.float32), (picture > 127).view(np.uint8))
    return torch.from_numpy(images), torch.full((count,), NO_DIGIT)


def _scribble(random: np.random.Generator) -> Picture:
    """One or two curves through a few random points."""
    from scipy.interpolate import CubicSpline

    picture = np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(random.integers(1, 3)):
        points = random.uniform(0.15, 0.85, (random.integers(4, 9), 2))
        curve = CubicSpline(np.arange(len(points)), points)(np.linspace(0, len(points) - 1, 20 * len(points)))
        _stroke(picture, curve, int(random.integers(4, 10)))
    return picture


def _lines(random: np.random.Generator) -> Picture:
    """What frames and ruled paper leave: corners, crossings, dashes; mostly level or upright, some aslant."""
    picture = np.zeros((SIDE, SIDE), np.uint8)
    thickness = int(random.integers(3, 10))
    count = random.integers(1, 5)
    aslant = count > 1 and random.random() < 0.2
    tilt = random.normal(0, 0.05)
    for number in range(count):
        upright = number > 0 and bool(random.integers(2))  # not all of them: an upright line may be a 1
        along = np.sort(random.uniform(0.1, 0.9, 2)) if number and random.random() < 0.6 else np.array([0.1, 0.9])
        across = [0.1, 0.9, random.uniform(0.1, 0.9)][random.integers(3)]
        ends = np.stack([along, across + (along - 0.5) * (random.uniform(-1, 1) if aslant and number else tilt)], 1)
        _stroke(picture, ends[:, ::-1] if upright else ends, thickness)
    return picture


def _stroke(picture: Picture, points: NDArray[np.float64], thickness: int) -> None:
    """Draw a line through ``points`` (N, 2), x and y from 0 to 1."""
    pixels = np.round(points * SIDE * 16).astype(np.int32)
    cv2.polylines(picture, [pixels], False, 255, thickness, cv2.LINE_AA, 4)


def _pair(two: NDArray[np.uint8], random: np.random.Generator) -> Picture:
    """``two`` digits (2, 28, 28) that touch or almost do: side by side or, as of two rows, one above the other."""
    one, other = (image[np.ix_(image.any(1), image.any(0))] for image in two)
    axis = int(random.integers(2))  # 0: one above the other
    overlap = int(random.integers(-4, 3))  # below 0: so far apart
    picture = np.zeros((64, 64), np.uint8)
    top, left = random.integers(0, 4, 2)
    for image in (one, other):
        height, width = image.shape
        place = picture[top : top + height, left : left + width]
        np.maximum(place, image, out=place)
        if axis:
            left, top = left + width - overlap, random.integers(0, 5)
        else:
            top, left = top + height - overlap, random.integers(0, 5)
    return np.asarray(cv2.resize(picture, (2 * 64, 2 * 64), interpolation=cv2.INTER_CUBIC), np.uint8)
