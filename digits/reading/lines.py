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
RIM = 0.03  # of a frame's sides: how far from straight and level they are at most
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
    """``mask`` without the frame along its four edges, if it has one and something is in it; else as it was."""
    height, width = mask.shape
    x, y = (round(RIM * side) + 1 for side in (width, height))
    sides = mask[:y].any(0), mask[-y:].any(0), mask[:, :x].any(1), mask[:, -x:].any(1)
    if min(side.mean() for side in sides) < SPAN:
        return mask
    inner = mask.copy()
    for quarters in range(4):
        _erase_top(np.rot90(inner, quarters))
    return inner if cv2.boundingRect(inner)[3] > FILLED * height else mask


def _erase_top(mask: Mask) -> None:
    """Take the line along the upper edge of ``mask`` out of it, with what touches it there."""
    below = ((mask == 0) & (np.arange(len(mask))[:, None] > mask.argmax(0))).argmax(0)  # the line, in each column
    tilt = RIM * max(mask.shape) + 1
    mask[: below[below <= np.median(below) + tilt].max() + 1] = 0


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
