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
STUB = 0.5  # of the distance between ruled lines: how high what is left where another line crosses them is at most


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
    columns, thickest, middles = np.arange(width), 0, []
    for distance, angle in [] if found is None else found[:MOST, 0].tolist():
        ys = (distance * scale - columns * math.cos(angle)) / math.sin(angle)
        rows = ys.round().astype(int)
        seen = (rows >= 0) & (rows < height)  # a line may leave the picture through its side
        inside = near[rows[seen], columns[seen]]
        covered = np.flatnonzero(inside)
        if len(covered) <= COVER * len(inside) or covered[-1] - covered[0] <= SPAN * len(inside):
            continue
        thickness = float(inside.sum()) / len(covered)
        if len(inside) > slender * thickness:
            ends = (0, round(ys[0])), (width - 1, round(ys[-1]))
            cv2.line(lines, *ends, (1,), thickness=round(2 * thickness + 2 * scale) + 1)
            cv2.line(near, *ends, (0,), thickness=2 * thick + 1)  # or its neighbours would be found as well
            thickest = max(thickest, round(thickness))
            middles.append(float(ys.mean()))
    if not thickest:
        return mask
    rest = mask - (lines & flat)
    # what crossed a line is joined again over the line's thickness
    across = cv2.morphologyEx(rest, cv2.MORPH_CLOSE, np.ones((thickest + 3, 1), np.uint8))
    rest |= across & lines
    return _without_stubs(rest, lines, float(np.median(np.diff(sorted(middles))))) if len(middles) > 1 else rest


def _without_stubs(mask: Mask, lines: Mask, distance: float) -> Mask:
    """``mask`` without what a faint line down the page leaves where it crosses ``lines``, ``distance`` pixels apart."""
    _, labels, stats, centres = cv2.connectedComponentsWithStatsWithAlgorithm(mask, 8, cv2.CV_32S, cv2.CCL_BBDT)
    kept = np.ones(len(stats), np.uint8)
    kept[0] = 0
    for label, ((_, _, _, tall, _), (x, y)) in enumerate(zip(stats.tolist(), centres.tolist(), strict=True)):
        if label and tall < STUB * distance:
            kept[label] = not lines[round(y - tall / 4) : round(y + tall / 4) + 1, round(x)].any()
    return kept[labels]
