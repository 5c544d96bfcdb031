"""Which mixture of a picture's colours shows its ink best."""

from collections.abc import Iterable
from typing import TypeAlias

import cv2
import numpy as np
from PIL import Image

Matrix: TypeAlias = tuple[float, float, float, float]  # what red, green, blue and 1 are multiplied by

LUMA = np.array((0.299, 0.587, 0.114))  # ITU-R BT.601, which Pillow's mode L follows
SAMPLED = 100  # pixels on the longer side of the small picture in which contrasts are looked at
NEAR = 1 / 3  # of that: around each pixel, what a contrast is measured against
MUCH = 3.0  # how many times the contrast of brightness that of colour is where colours are followed


def as_rgb(image: Image.Image) -> Image.Image:
    """``image`` in mode RGB; itself, not a copy, if it is."""
    return image if image.mode == "RGB" else image.convert("RGB")


def gray_matrix(size: tuple[int, int], bands: Iterable[Image.Image]) -> Matrix | None:
    """The mixture of red, green and blue that has the most contrast; None where brightness will do, as it mostly does.

    Yellow on white and red on green differ by their colours, hardly by their brightness: there it is the first
    principal component of what each pixel differs by from the mean around it, taken so that 0 to 255 remains 0 to 255.

    Args:
        size: width and height of the picture, in pixels.
        bands: the picture in bands of rows, from above.
    """
    factor = max(-(-max(size) // SAMPLED), 1)
    small = np.concatenate([np.asarray(as_rgb(band).reduce(factor)) for band in bands])
    reach = round(max(small.shape) * NEAR) | 1
    detail = small - cv2.boxFilter(small, cv2.CV_32F, (reach, reach), borderType=cv2.BORDER_REPLICATE)
    pixels = detail.reshape(-1, 3)
    covariance = pixels.T @ pixels / len(pixels)
    values, axes = np.linalg.eigh(covariance)
    if values[-1] / 3 <= MUCH * (LUMA @ covariance @ LUMA):  # of greys the one is as large as the other
        return None
    axis = axes[:, -1] / np.abs(axes[:, -1]).sum()
    if axis @ LUMA < 0:  # what is lighter stays so
        axis = -axis
    red, green, blue = axis.tolist()
    return red, green, blue, float(-255 * axis[axis < 0].sum())
