"""Ruled lines, squared paper and frames, taken out of a mask of ink."""

import math

import cv2
import numpy as np

from digits.reading.ink import Mask

SPAN, COVER = 0.95, 0.6  # of the picture: how far a ruled line reaches, and how much of it is seen, at least
SEEN = 384  # pixels: the width at which lines are looked for
MOST = 300  # lines that are looked at, those with the most ink; a texture may hold thousands
STEEPEST = 0.15  # how much a line may rise or fall over its length
SLENDER_ACROSS, SLENDER_DOWN = 25, 40  # times as long as thick, at least: the bar of a 7 is not, nor is a 1
SLENDER_WITHIN = 10  # the same for lines from one edge of a frame to the other
RIM = 0.06  # of a frame's shorter side: how far from straight and level its lines are at most
HOLLOW = 0.6  # of a frame: how much is ink at most, what is in it included
FILLED = 0.3  # of a frame's height: the least that is in it


def without_lines(mask: Mask, stroke: float) -> Mask:
    """``mask`` without what is long, thin and straight, across or down; strokes that cross a line stay whole.

    Args:
        mask: 1 = ink.
        stroke: the usual width of strokes, in pixels.
    """
    thick = max(round(1.2 * stroke), 2)
    mask = _without_rows(mask, thick, SLENDER_ACROSS)
    return cv2.transpose(_without_rows(cv2.transpose(mask), thick, SLENDER_DOWN))


def without_frame(mask: Mask) -> Mask:
    """``mask`` without the frame along its four edges and the lines between them; as it was, if it is no frame.

    It is one only if something is in it.
    """
    height, width = mask.shape
    rim = round(RIM * min(mask.shape)) + 1
    sides = (np.rot90(mask, quarters) for quarters in range(4))
    if any(side[:rim].max(0).mean() < SPAN for side in sides) or mask.mean() > HOLLOW:
        return mask
    top, right, bottom, left = (_inner_edge(np.rot90(mask, quarters)) for quarters in range(4))
    if top + bottom >= height or left + right >= width:
        return mask
    place = slice(top, height - bottom), slice(left, width - right)
    thick = min(top, right, bottom, left)
    cells = _without_rows(mask[place], thick, SLENDER_WITHIN)
    cells = cv2.transpose(_without_rows(cv2.transpose(cells), thick, SLENDER_WITHIN))
    if cv2.boundingRect(cells)[3] < FILLED * height:
        return mask
    inner = np.zeros_like(mask)
    inner[place] = cells
    return inner


def _inner_edge(mask: Mask) -> int:
    """How far the line along the upper edge of ``mask`` reaches into it, in pixels."""
    below = ((mask == 0) & (np.arange(len(mask))[:, None] > mask.argmax(0))).argmax(0)
    return int(below[below <= np.median(below) + RIM * min(mask.shape) + 1].max()) + 1


def _without_rows(mask: Mask, thick: int, slender: int) -> Mask:
    height, width = mask.shape
    if width < slender * 2:
        return mask
    tall: Mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((thick + 1, 1), np.uint8))
    flat = cv2.subtract(mask, tall)
    if flat.max(0).mean() < COVER:
        return mask
    scale = max(width / SEEN, 1)
    size = (round(width / scale), max(round(height / scale), 1))
    small = cv2.resize(flat * 255, size, interpolation=cv2.INTER_AREA)
    step, level = math.pi / 720, math.pi / 2
    steepest = step * round(math.atan(STEEPEST) / step)  # in whole steps, so that level lines are tried too
    found = cv2.HoughLines(small, 1, step, size[0] // 3, min_theta=level - steepest, max_theta=level + steepest)
    # how much ink there is around each pixel, as far up and down as a line is thick
    near = cv2.boxFilter(flat, cv2.CV_32F, (1, 2 * thick + 1), normalize=False, borderType=cv2.BORDER_CONSTANT)
    lines = np.zeros_like(mask)
    columns, thickest = np.arange(width), 0
    for distance, angle in [] if found is None else found[:MOST, 0].tolist():
        ys = (distance * scale - columns * math.cos(angle)) / math.sin(angle)
        inside = near[ys.round().astype(int).clip(0, height - 1), columns]
        covered = np.flatnonzero(inside)
        if len(covered) <= COVER * width or covered[-1] - covered[0] <= SPAN * width:
            continue
        thickness = float(inside.sum()) / len(covered)
        if width > slender * thickness:
            ends = (0, round(ys[0])), (width - 1, round(ys[-1]))
            cv2.line(lines, *ends, (1,), thickness=round(2 * thickness + 2 * scale) + 1)
            cv2.line(near, *ends, (0,), thickness=2 * thick + 1)  # or its neighbours would be found as well
            thickest = max(thickest, round(thickness))
    if not thickest:
        return mask
    rest = mask - (lines & flat)
    # what crossed a line is joined again over the line's thickness
    across = cv2.morphologyEx(rest, cv2.MORPH_CLOSE, np.ones((thickest + 3, 1), np.uint8))
    return rest | (across & lines)
