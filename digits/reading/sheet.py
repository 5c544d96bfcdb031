"""Isolation of a sheet of paper that lies on something else: a table, a desk, a floor."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from digits.data.mnist_image import Gray, Mask

SEARCH_SIDE = 200  # pixels: longer side of the reduced picture in which a sheet is looked for; the next four are in it
MAX_STROKE_WIDTH = 11  # pixels: dark things that are narrower are writing on the sheet
MIN_LIGHT_WIDTH = 5  # pixels: light things that are narrower are no part of a sheet
MIN_SHEET_WIDTH = 21  # pixels: what juts out of a sheet and is narrower is not part of it
RIM = 4  # pixels: along the inside of a sheet's outline, where its edge may show
MIN_SHARE, MAX_SHARE = 0.1, 0.9  # of the picture: how much of it a sheet takes up
MIN_ASPECT = 0.35  # a sheet's shorter side by its longer one
MIN_DIFFERENCE = 0.08  # of the sheet's brightness: how much darker its surroundings are
MAX_VARIATION = 0.3  # of that difference: how much the sheet's own brightness may vary
MAX_BORDER_SHARE = 0.3  # of a sheet's outline: how much may be the picture's border; more may be light beside a shadow
MIN_RECTANGULARITY = 0.83  # of its bounding rectangle: how much a sheet fills, seen at an angle; a circle fills 0.79
MIN_LIGHT_SHARE = 0.97  # of a sheet: how much is light; a large 0 in white, for one, has a hole


def isolate_sheet(gray: Gray) -> Gray | None:
    """``gray`` with everything around a sheet of paper painted as bright as the nearest part of the sheet.

    Args:
        gray: uint8 (H, W).

    Returns:
        uint8 (H, W); None if the picture is small or shows no sheet as a whole.
    """
    scale = SEARCH_SIDE / max(gray.shape)
    if scale >= 1:
        return None
    size = [max(round(side * scale), 1) for side in reversed(gray.shape)]
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    picture = cv2.medianBlur(small, 5)
    threshold, bright = cv2.threshold(picture, 0, 1, cv2.THRESH_OTSU)
    sheet = _largest_component(_open(_fill_holes(_largest_component(_open(bright, MIN_LIGHT_WIDTH))), MIN_SHEET_WIDTH))
    without_writing = cv2.morphologyEx(picture, cv2.MORPH_CLOSE, _disc(MAX_STROKE_WIDTH))
    if not _is_sheet(sheet, without_writing, threshold):
        return None
    inside = cv2.erode(sheet, _disc(2 * RIM + 1), borderType=cv2.BORDER_CONSTANT, borderValue=1)
    around = _extend(without_writing, inside)
    full = gray.shape[::-1]
    mask = cv2.resize(inside, full, interpolation=cv2.INTER_NEAREST)
    return np.where(mask > 0, gray, cv2.resize(around, full, interpolation=cv2.INTER_LINEAR))


def _open(mask: Mask, size: int) -> Mask:
    """Morphological opening: ``mask`` without what is narrower than ``size`` pixels."""
    return cv2.morphologyEx(mask, cv2.MORPH_OPEN, _disc(size), borderType=cv2.BORDER_CONSTANT, borderValue=0)


def _largest_component(mask: Mask) -> Mask:
    """The largest connected component of ``mask``; nothing where it is empty."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=4)
    stats[0] = 0
    return ((labels == stats[:, cv2.CC_STAT_AREA].argmax()) & (mask > 0)).view(np.uint8)


def _fill_holes(component: Mask) -> Mask:
    outlines, _ = cv2.findContours(component, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return cv2.drawContours(np.zeros_like(component), outlines, -1, (1,), cv2.FILLED)


def _disc(size: int) -> Mask:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))


def _is_sheet(sheet: Mask, without_writing: NDArray[Any], threshold: float) -> bool:
    """Whether ``sheet`` is a rectangle within the picture, evenly bright, and brighter than what is around it.

    ``without_writing`` is the picture with dark strokes removed; ``threshold`` parts light from dark in it.
    """
    if not MIN_SHARE < sheet.mean() < MAX_SHARE:
        return False
    (outline, *_), _ = cv2.findContours(sheet, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    _, sides, _ = cv2.minAreaRect(outline)
    if min(sides) < MIN_ASPECT * max(sides) or sheet.sum() < MIN_RECTANGULARITY * min(sides) * max(sides):
        return False
    height, width = sheet.shape
    x, y = outline[:, 0].T
    if ((x == 0) | (y == 0) | (x == width - 1) | (y == height - 1)).mean() > MAX_BORDER_SHARE:
        return False
    paper, surroundings = without_writing[sheet > 0].astype(float), without_writing[sheet == 0]
    if (paper > threshold).mean() < MIN_LIGHT_SHARE:
        return False
    brightness = float(np.median(paper))
    difference = brightness - float(np.median(surroundings))
    variation = float(np.median(np.abs(paper - brightness)))
    return difference > MIN_DIFFERENCE * brightness and variation < MAX_VARIATION * difference


def _extend(picture: NDArray[Any], inside: Mask) -> NDArray[np.uint8]:
    """``picture`` where ``inside`` is 1; elsewhere each pixel takes the value of the nearest such pixel."""
    _, nearest = cv2.distanceTransformWithLabels(1 - inside, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    values = np.zeros(int(nearest.max()) + 1, np.uint8)
    values[nearest[inside > 0]] = picture[inside > 0]
    return values[nearest]
