"""Ruled lines, squared paper and frames, taken out of a mask of ink."""

import cv2
import numpy as np

from digits.reading.ink import Mask

SPAN, COVER = 0.95, 0.6  # of the picture: how far a ruled line reaches, and how much of it is seen, at least
SEEN = 384  # pixels: the width at which lines are looked for
STEEPEST = 0.15  # how much a line may rise or fall over its length
SLENDER_ACROSS, SLENDER_DOWN = 25, 40  # times as long as thick, at least: the bar of a 7 is not, nor is a 1


def without_lines(mask: Mask, stroke: float) -> Mask:
    """``mask`` without what is long, thin and straight, across or down; strokes that cross a line stay whole.

    Args:
        mask: 1 = ink.
        stroke: the usual width of strokes, in pixels.
    """
    thick = max(round(1.2 * stroke), 2)
    mask = _without_rows(mask, thick, SLENDER_ACROSS)
    return np.ascontiguousarray(_without_rows(np.ascontiguousarray(mask.T), thick, SLENDER_DOWN).T)


def _without_rows(mask: Mask, thick: int, slender: int) -> Mask:
    height, width = mask.shape
    if width < slender * 2:
        return mask
    tall: Mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((thick + 1, 1), np.uint8))
    flat = mask & ~tall & 1
    if flat.any(0).mean() < COVER:
        return mask
    scale = max(width / SEEN, 1)
    size = (round(width / scale), max(round(height / scale), 1))
    small = (cv2.resize(flat.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0).astype(np.uint8)
    least = {"minLineLength": size[0] / 2, "maxLineGap": size[0] / 4}
    segments = cv2.HoughLinesP(small, 1, np.pi / 720, size[0] // 3, **least)
    lines = np.zeros_like(mask)
    columns, thickest = np.arange(width), 0
    for x1, y1, x2, y2 in [] if segments is None else segments.reshape(-1, 4) * scale:
        if abs(y2 - y1) > STEEPEST * abs(x2 - x1):
            continue
        band = np.zeros_like(mask)
        slope = (y2 - y1) / (x2 - x1)
        left, right = (0, round(y1 - slope * x1)), (width - 1, round(y1 + slope * (width - 1 - x1)))
        cv2.line(band, left, right, (1,), thickness=2 * thick)
        inside = band & flat
        covered = columns[inside.any(0)]
        thickness = inside.sum() / max(len(covered), 1)
        if len(covered) > COVER * width and np.ptp(covered) > SPAN * width and width > slender * thickness:
            cv2.line(lines, left, right, (1,), thickness=round(2 * thickness + 2 * scale) + 1)
            thickest = max(thickest, round(thickness))
    if not lines.any():
        return mask
    rest = mask & ~(lines & flat) & 1
    # what crossed a line is joined again over the line's thickness
    across = cv2.morphologyEx(rest, cv2.MORPH_CLOSE, np.ones((thickest + 3, 1), np.uint8))
    return rest | (across & lines)
