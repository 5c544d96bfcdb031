"""A sheet of paper that lies on something else: a table, a desk, a floor."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from digits.reading.ink import Gray, Mask

SIZE = 200  # pixels on the longer side of the small picture in which a sheet is looked for
STROKES = 11  # pixels of it: what is dark and narrower is writing on the sheet
STREAK = 5  # pixels of it: what is light and narrower is none
STUB = 21  # pixels of it: what sticks out of a sheet and is narrower is none of it
LEAST, MOST = 0.1, 0.9  # of the picture: how much of it a sheet takes up
NARROWEST = 0.35  # of its longer side: the shorter one
DARKER = 0.08  # of the sheet's brightness: how much darker what it lies on is at least
EVEN = 0.3  # of that difference: how much the sheet's own brightness varies at most
TOUCHING = 0.3  # of a sheet's outline: how much is the picture's edge at most, or it may be light beside a shadow
FITTING = 0.83  # of the rectangle around it: how much of that a sheet fills, seen aslant, at least; a circle has 0.79
WHOLE = 0.97  # of a sheet: how much of it is light at least; a 0 in white has a hole
RIM = 4  # pixels: around the inside, where the sheet's edge may show


def sheet_alone(gray: Gray) -> Gray | None:
    """``gray`` (H, W) with what lies around a sheet of paper made as bright as that; None if no sheet is seen whole."""
    scale = SIZE / max(gray.shape)
    if scale >= 1:
        return None
    size = [max(round(side * scale), 1) for side in reversed(gray.shape)]
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    picture = cv2.medianBlur(small, 5)
    threshold, bright = cv2.threshold(picture, 0, 1, cv2.THRESH_OTSU)
    sheet = _largest(_opened(_filled(_largest(_opened(bright, STREAK))), STUB))
    light = cv2.morphologyEx(picture, cv2.MORPH_CLOSE, _disc(STROKES))
    if not _is_sheet(sheet, light, threshold):
        return None
    inside = cv2.erode(sheet, _disc(2 * RIM + 1), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    around = _continued(light, inside)
    full = gray.shape[::-1]
    mask = cv2.resize(inside, full, interpolation=cv2.INTER_NEAREST)
    return np.where(mask > 0, gray, cv2.resize(around, full, interpolation=cv2.INTER_LINEAR))


def _opened(mask: Mask, size: int) -> Mask:
    """``mask`` without what is narrower than ``size``."""
    return cv2.morphologyEx(mask, cv2.MORPH_OPEN, _disc(size), borderType=cv2.BORDER_CONSTANT, borderValue=0)


def _largest(mask: Mask) -> Mask:
    """The largest connected region of ``mask``; nothing where it is empty."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    stats[0] = 0
    return ((labels == stats[:, cv2.CC_STAT_AREA].argmax()) & (mask > 0)).view(np.uint8)


def _filled(region: Mask) -> Mask:
    """``region``, which is connected, without holes."""
    outlines, _ = cv2.findContours(region, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(region), outlines, -1, (1,), cv2.FILLED)


def _disc(size: int) -> Mask:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))


def _is_sheet(sheet: Mask, light: NDArray[Any], threshold: float) -> bool:
    """Whether ``sheet`` is a rectangle within the picture, even, and brighter than what is around it.

    ``light`` is the picture without what is written, ``threshold`` parts light from dark in it.
    """
    if not LEAST < sheet.mean() < MOST:
        return False
    (outline, *_), _ = cv2.findContours(sheet, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    _, sides, _ = cv2.minAreaRect(outline)
    if min(sides) < NARROWEST * max(sides) or sheet.sum() < FITTING * min(sides) * max(sides):
        return False
    height, width = sheet.shape
    x, y = outline[:, 0].T
    if ((x == 0) | (y == 0) | (x == width - 1) | (y == height - 1)).mean() > TOUCHING:
        return False
    within, without = light[sheet > 0].astype(float), light[sheet == 0]
    if (within > threshold).mean() < WHOLE:
        return False
    brightness = float(np.median(within))
    difference = brightness - float(np.median(without))
    return difference > DARKER * brightness and float(np.median(np.abs(within - brightness))) < EVEN * difference


def _continued(light: NDArray[Any], inside: Mask) -> NDArray[np.uint8]:
    """``light`` where it is ``inside``, and outside as bright as the nearest place of that."""
    _, nearest = cv2.distanceTransformWithLabels(1 - inside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    values = np.zeros(int(nearest.max()) + 1, np.uint8)
    values[nearest[inside > 0]] = light[inside > 0]
    return values[nearest]
