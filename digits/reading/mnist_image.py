"""One digit's ink as an image like MNIST's, made the way MNIST was (LeCun et al. 1998, section III-A)."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from digits.reading.ink import Ink, Mask, quantile

SIDE, BOX = 28, 20  # pixels: MNIST's images, and the box that a digit is fitted into
THINNEST, THICKEST = 2.0, 4.0  # pixels of 28: strokes outside this range are widened or narrowed to it
FULL_INK = 0.85  # quantile of a digit's ink that becomes white: a faint one looks like any other
WORK = 120  # pixels: the longer side at which strokes are measured and changed


def mnist_image(ink: Ink, mask: Mask) -> NDArray[np.uint8]:
    """Fit the digit that ``mask`` marks in ``ink`` (H, W) into 20 x 20, centre its mass in (28, 28), 255 = ink."""
    left, top, width, height = cv2.boundingRect(mask)
    place = slice(max(top - 1, 0), top + height + 1), slice(max(left - 1, 0), left + width + 1)
    mask, ink = mask[place], ink[place]
    full = quantile(ink[mask > 0], FULL_INK)
    near = cv2.dilate(mask, np.ones((3, 3), np.uint8))
    digit = np.minimum(ink / max(full, 1e-3), 1) * near  # anti-aliased: with the pixels beside the strokes
    digit = _sized(digit, WORK)
    digit = _with_usual_strokes(digit)
    return centred(_fitted(digit))


def _sized(digit: Ink, side: int) -> Ink:
    scale = side / max(digit.shape)
    size = [max(round(length * scale), 1) for length in reversed(digit.shape)]
    return np.clip(cv2.resize(digit, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC), 0, 1)


def padded(picture: NDArray[Any], by: int = 1) -> NDArray[Any]:
    """``picture`` with a margin of zeros, ``by`` pixels wide; many times as fast as ``np.pad``."""
    return cv2.copyMakeBorder(picture, by, by, by, by, cv2.BORDER_CONSTANT, value=0)


def stroke_width(mask: Mask) -> float:
    """The mean width of the strokes in ``mask``, in pixels; 0 where it has none.

    From one side of a stroke to its middle and on to the other, the distance to the nearest edge has a mean of a
    quarter of the stroke's width.
    """
    mask = padded(mask)
    distance = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    return max(4 * (cv2.mean(distance, mask)[0] - 0.5), 0.0)  # the mean of nothing is 0


def _with_usual_strokes(digit: Ink) -> Ink:
    """Widen strokes that would be thinner than MNIST's, narrow those that would be thicker."""
    unit = WORK / BOX  # pixels here for one of MNIST's
    width = stroke_width((digit > 0.5).view(np.uint8)) / unit
    if width < THINNEST:
        grow = round((THINNEST - width) * unit)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (grow + 1, grow + 1))
        return cv2.dilate(padded(digit, grow), kernel) if grow else digit
    if width > THICKEST:
        shrink = round((width - THICKEST) * unit)
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (shrink + 1, shrink + 1))
        thinner = cv2.erode(digit, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
        return thinner if (thinner > 0.5).any() else digit
    return digit


def _fitted(digit: Ink) -> Ink:
    """``digit`` without empty edges, its longer side 20 pixels."""
    left, top, width, height = cv2.boundingRect((digit > 0.25 * digit.max()).view(np.uint8))
    return _sized(digit[top : top + height, left : left + width], BOX)


def centred(digit: Ink) -> NDArray[np.uint8]:
    """Put ``digit``, at most 20 x 20, into 28 x 28 with its centre of mass in the middle, in whole pixels."""
    height, width = digit.shape
    mass = float(digit.sum())  # not by cv2.moments, which takes an array two pixels wide for a list of points
    middle = SIDE / 2  # of the pixel's number, counted from 0, as in MNIST
    top = min(max(round(middle - float(digit.sum(1) @ np.arange(height)) / mass), 0), SIDE - height)
    left = min(max(round(middle - float(digit.sum(0) @ np.arange(width)) / mass), 0), SIDE - width)
    image = np.zeros((SIDE, SIDE), np.uint8)
    image[top : top + height, left : left + width] = np.round(digit * 255)
    return image
