"""Images like MNIST's from a picture's ink, made the way MNIST was (LeCun et al. 1998, section III-A)."""

import math
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

# OpenCV's own types do not tell dtypes apart, so these names do.
Gray: TypeAlias = NDArray[Any]  # uint8 (H, W), grey levels of either polarity
Ink: TypeAlias = NDArray[Any]  # float32 (H, W), from 0 = paper to 1 = full ink
Mask: TypeAlias = NDArray[Any]  # uint8 (H, W), 0 or 1

IMAGE_SIDE = 28  # pixels: width and height of MNIST's images
DIGIT_SIDE = 20  # pixels: width and height of the box inside the image that a digit is fitted into
MIN_STROKE_WIDTH, MAX_STROKE_WIDTH = 2.0, 4.0  # pixels of the 28 x 28 image: MNIST's strokes, roughly
FULL_INK_QUANTILE = 0.85  # of a digit's ink: what becomes white, so that a faint digit looks like any other
WORKING_SIDE = 120  # pixels: a digit's longer side while the width of its strokes is measured and changed


def mnist_image(ink: Ink, mask: Mask) -> NDArray[np.uint8]:
    """The digit that ``mask`` marks in ``ink``, as a 28 x 28 image like MNIST's.

    Its longer side becomes 20 pixels, its strokes get a width that is usual in MNIST, and its centre of mass is put in
    the middle of the image.

    Args:
        ink: float32 (H, W), from 0 = paper to 1 = full ink.
        mask: uint8 (H, W), 1 where the digit is; at least one pixel.

    Returns:
        uint8 (28, 28), 255 = ink.
    """
    left, top, width, height = cv2.boundingRect(mask)
    place = slice(max(top - 1, 0), top + height + 1), slice(max(left - 1, 0), left + width + 1)
    mask, ink = mask[place], ink[place]
    full = quantile(ink[mask > 0], FULL_INK_QUANTILE)
    near = cv2.dilate(mask, np.ones((3, 3), np.uint8))
    digit = np.minimum(ink / max(full, 1e-3), 1) * near  # the pixels beside the strokes hold their soft edges
    digit = _resize(digit, WORKING_SIDE)
    digit = _normalize_stroke_width(digit)
    return _centre_mass(_fit_to_box(digit))


def quantile(values: NDArray[Any], q: float) -> float:
    """The ``q``-th quantile (0 to 1) of ``values``, estimated from about 1,000 of them that are evenly spread."""
    step = max(values.size // 1000, 1)
    while math.gcd(step, values.shape[-1]) > 1:  # else the samples would all come from a few columns of a picture
        step += 1
    some = values.ravel()[::step]
    return float(np.sort(some)[int(q * (some.size - 1))])  # np.partition is slow where most values are the same


def pad_with_zeros(picture: NDArray[Any], by: int = 1) -> NDArray[Any]:
    """``picture`` with a margin of zeros, ``by`` pixels wide; many times as fast as ``np.pad``."""
    return cv2.copyMakeBorder(picture, by, by, by, by, cv2.BORDER_CONSTANT, value=0)


def stroke_width(mask: Mask) -> float:
    """The mean width of the strokes in ``mask``, in pixels; 0 where it has none.

    It is taken from the distance transform. Across a stroke the distance to the nearest edge rises from 0 to half of
    the stroke's width and falls to 0 again, so its mean is a quarter of that width.
    """
    mask = pad_with_zeros(mask)
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    return max(4 * (cv2.mean(distance, mask)[0] - 0.5), 0.0)  # the mean of nothing is 0


def _resize(digit: Ink, side: int) -> Ink:
    """``digit`` with a longer side of ``side`` pixels."""
    scale = side / max(digit.shape)
    size = [max(round(length * scale), 1) for length in reversed(digit.shape)]
    return np.clip(cv2.resize(digit, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC), 0, 1)


def _normalize_stroke_width(digit: Ink) -> Ink:
    """Widen strokes that would be thinner than MNIST's, and narrow those that would be thicker."""
    unit = WORKING_SIDE / DIGIT_SIDE  # pixels at the working size for one pixel of the 28 x 28 image
    width = stroke_width((digit > 0.5).view(np.uint8)) / unit
    if width < MIN_STROKE_WIDTH:
        grow = round((MIN_STROKE_WIDTH - width) * unit)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grow + 1, grow + 1))
        return cv2.dilate(pad_with_zeros(digit, grow), kernel) if grow else digit
    if width > MAX_STROKE_WIDTH:
        shrink = round((width - MAX_STROKE_WIDTH) * unit)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (shrink + 1, shrink + 1))
        thinner = cv2.erode(digit, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        return thinner if (thinner > 0.5).any() else digit
    return digit


def _fit_to_box(digit: Ink) -> Ink:
    """``digit`` cropped to its bounding box and resized so that its longer side has 20 pixels."""
    left, top, width, height = cv2.boundingRect((digit > 0.25 * digit.max()).view(np.uint8))
    return _resize(digit[top : top + height, left : left + width], DIGIT_SIDE)


def _centre_mass(digit: Ink) -> NDArray[np.uint8]:
    """``digit``, 20 x 20 at most, put into 28 x 28 so that its centre of mass is in the middle, to the whole pixel."""
    height, width = digit.shape
    mass = float(digit.sum())  # not by cv2.moments, which takes an array two pixels wide for a list of points
    middle = IMAGE_SIDE / 2  # in MNIST, the centre of mass has the coordinate 14, where the first pixel has 0
    top = min(max(round(middle - float(digit.sum(1) @ np.arange(height)) / mass), 0), IMAGE_SIDE - height)
    left = min(max(round(middle - float(digit.sum(0) @ np.arange(width)) / mass), 0), IMAGE_SIDE - width)
    image = np.zeros((IMAGE_SIDE, IMAGE_SIDE), np.uint8)
    image[top : top + height, left : left + width] = np.round(digit * 255)
    return image
