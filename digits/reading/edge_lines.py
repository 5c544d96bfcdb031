"""Removal of what is left of a frame along the edges of a picture that was cut out of a form or a table."""

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from digits.data.mnist_image import Mask

BAND = 0.13  # of the picture's shorter side: how far from the edge such a line is looked for
SEARCH_SIDE = 256  # pixels: longer side, at most, of the reduced picture in which it is looked for
MAX_SLOPE = 0.07  # its rise or fall by its length
MIN_COVERAGE = 0.6  # of its length: how much has ink, as it may be broken
MIN_SPAN = 0.9  # of the picture's width (or height): how far it reaches
MAX_THICKNESS = 0.12  # of the picture's shorter side
ROUGHNESS = 0.04  # of that side: what is left of a line lies so near to it
MIN_STEM = 0.4  # of the picture's height (or width): what reaches so far, from an edge to the line, is a digit's stem

Rows = NDArray[Any]  # (W,), a row for each column of a picture


def remove_edge_lines(mask: Mask) -> Mask:
    """``mask`` without the straight lines along the picture's edges, and without what lies beyond them.

    ``mask``, uint8 (H, W), 1 = ink, is returned itself where there is no such line, or where the line may be a stroke
    of a digit that was cropped tightly.
    """
    depth = math.ceil(BAND * min(mask.shape))
    both = mask, cv2.transpose(mask)  # as the greatest of each row takes far longer than that of each column
    bands = [edge.max(0) for upright in both for edge in (upright[:depth], upright[-depth:])]
    if all(2 * cv2.countNonZero(band) < len(band) for band in bands):
        return mask  # mostly; the rest takes longer
    lines, outside = np.zeros_like(mask), np.zeros_like(mask)
    free = []  # edges without a line, by the quarter turns that make them the upper one
    for quarters in range(4):
        turned, line, beyond = (np.rot90(one, quarters) for one in (mask, lines, outside))
        found = _find_line(turned)
        if found is None:
            free.append(quarters)
            continue
        first, last = found
        rows = np.arange(len(turned))[:, None]
        line |= ((rows >= first) & (rows <= last)).view(np.uint8)
        beyond |= (rows < first).view(np.uint8)
    if not lines.any():
        return mask
    rest: Mask = cv2.subtract(mask, lines)
    side = 2 * round(ROUGHNESS * min(mask.shape)) + 3
    outside |= cv2.dilate(lines, np.ones((side, side), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStatsWithAlgorithm(rest, 8, cv2.CV_32S, cv2.CCL_BBDT)
    at_line = np.unique(labels[cv2.dilate(lines, np.ones((3, 3), np.uint8)) > 0])
    for quarters in free:
        at_edge = np.unique(np.rot90(labels * (1 - outside), quarters)[0])
        extent = stats[:, cv2.CC_STAT_WIDTH if quarters % 2 else cv2.CC_STAT_HEIGHT]
        stem = extent > MIN_STEM * mask.shape[quarters % 2]
        if stem[np.intersect1d(at_edge[at_edge > 0], at_line)].any():
            return mask
    kept = np.bincount(labels[outside == 0], minlength=len(stats)) > 0
    kept[0] = False
    return kept.astype(np.uint8)[labels]


def _find_line(mask: Mask) -> tuple[Rows, Rows] | None:
    """The first and the last row of a line along the upper edge of ``mask``; None if it has none."""
    shorter, width = min(mask.shape), mask.shape[1]
    band = mask[: math.ceil(BAND * shorter)]
    if shorter < 8 or band.any(0).mean() < MIN_COVERAGE:
        return None
    scale = min(SEARCH_SIDE / max(mask.shape), 1)
    size = max(round(width * scale), 1), max(round(len(band) * scale), 1)
    slope, sheared = _straighten(cv2.resize(band * np.float32(1), size, interpolation=cv2.INTER_AREA))
    coverage = sheared.mean(1)
    if coverage.max() < MIN_COVERAGE:
        return None
    first = last = int(coverage.argmax())
    strong = coverage > coverage.max() / 2
    while first > 0 and strong[first - 1]:
        first -= 1
    while last < len(strong) - 1 and strong[last + 1]:
        last += 1
    covered = np.flatnonzero(sheared[first : last + 1].max(0) > 0.25)
    too_short = covered[-1] - covered[0] < MIN_SPAN * size[0] - 1
    if too_short or last - first > MAX_THICKNESS * shorter * scale:
        return None
    room = (len(sheared) - size[1]) // 2
    middle = slope * (np.arange(width) - (width - 1) / 2)
    margin = 1 / scale  # for the soft edges of the line
    return (first - room) / scale + middle - margin, (last + 1 - room) / scale + middle + margin


def _straighten(band: NDArray[Any]) -> tuple[float, NDArray[Any]]:
    """``band``, float32 (H, W), sheared so that the line in it is level, with room above and below; and its slope."""
    width = band.shape[1]
    room = math.ceil(MAX_SLOPE * width / 2)
    padded = cv2.copyMakeBorder(band, room, room, 0, 0, cv2.BORDER_CONSTANT, value=0)
    columns, rows = np.arange(width), np.arange(len(padded))[:, None]
    best, best_peak, best_slope = padded, -1.0, 0.0
    for slope in np.linspace(-MAX_SLOPE, MAX_SLOPE, 2 * room + 1).tolist():
        sources = rows + np.round(slope * (columns - (width - 1) / 2)).astype(int)
        inside = (sources >= 0) & (sources < len(padded))
        sheared = np.where(inside, padded[sources.clip(0, len(padded) - 1), columns], 0)
        peak = float(sheared.mean(1).max())
        if peak > best_peak:
            best, best_peak, best_slope = sheared, peak, slope
    return best_slope, best
