"""Removal of ruled lines, squared paper and frames from a mask of ink."""

import math

import cv2
import numpy as np

from digits.data.mnist_image import Mask, stroke_width

MIN_SPAN = 0.95  # of the picture's width (or height): how far a ruled line reaches, at least
MIN_COVERAGE = 0.6  # of a ruled line's length: how much of it has ink, at least
HOUGH_WIDTH = 384  # pixels: the width of the reduced picture in which the Hough transform looks for lines
MAX_HOUGH_LINES = 300  # only those with the most ink are tested; in a texture there may be thousands
MAX_SLOPE = 0.15  # of a ruled line: its rise or fall by its length
# Length by thickness of a ruled line, at least. The bar of a 7 has less than the one, a 1 less than the other.
MIN_HORIZONTAL_ASPECT, MIN_VERTICAL_ASPECT = 25, 40
MIN_ASPECT_IN_FRAME = 10  # the same for lines that reach from one side of a frame to the other
FRAME_TOLERANCE = 0.06  # of a frame's shorter side: how far its sides may deviate from straight and level lines
MAX_FRAME_INK = 0.6  # of a frame's bounding box: how much is ink at most, with what is inside the frame
MIN_CONTENT_HEIGHT = 0.3  # of a frame's height: what is inside is at least so high, or it is no frame

# A table of which too little is left to be a frame
LONG_LINE = 0.1  # of its longer side: how long its lines are straight, at least
MIN_LINES_SHARE = 0.7  # of its ink

# A frame of thin lines, one with its digits
THIN_LINE = 0.5  # of the mean width of strokes and lines together: how thin its lines are, at most
MIN_FRAME_SIDE = 150  # pixels: its longer side, at least; in less, lines would be hardly thinner than strokes
MIN_FRAME_EXTENT = 0.9  # of the width and of the height: how much is covered by thin lines, at least

# Remains of lines
MAX_STUB_HEIGHT = 0.5  # of the distance between ruled lines: remains of lines across them are no higher


def remove_lines(mask: Mask, stroke: float) -> Mask:
    """``mask`` without ruled lines, horizontal or vertical; strokes that cross a line stay whole.

    Args:
        mask: uint8 (H, W), 1 = ink.
        stroke: the usual width of strokes, in pixels.
    """
    thickness = max(round(1.2 * stroke), 2)
    mask = _remove_horizontal_lines(mask, thickness, MIN_HORIZONTAL_ASPECT)
    return cv2.transpose(_remove_horizontal_lines(cv2.transpose(mask), thickness, MIN_VERTICAL_ASPECT))


def remove_long_lines(mask: Mask) -> Mask:
    """``mask``, uint8 (H, W), 1 = ink, without straight level and upright lines; itself if they are not most of it."""
    longest = max(round(LONG_LINE * max(mask.shape)), 10)
    level, upright = (
        cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones(size, np.uint8)) for size in ((1, longest), (longest, 1))
    )
    lines = cv2.bitwise_or(level, upright)
    if lines.sum() < MIN_LINES_SHARE * mask.sum():
        return mask
    return cv2.subtract(mask, cv2.dilate(lines, np.ones((3, 3), np.uint8)))


def remove_thin_frame(mask: Mask) -> Mask:
    """``mask``, uint8 (H, W), 1 = ink, without a frame of lines much thinner than its digits, which may cross them.

    Returned itself if there is no such frame.
    """
    if max(mask.shape) < MIN_FRAME_SIDE:
        return mask
    size = round(THIN_LINE * stroke_width(mask)) + 1
    if size < 3:
        return mask
    thick = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((size, size), np.uint8))
    strokes: Mask = cv2.bitwise_and(mask, cv2.dilate(thick, np.ones((3, 3), np.uint8)))
    thin = cv2.subtract(mask, strokes)
    if min(thin.max(0).mean(), thin.max(1).mean()) < MIN_FRAME_EXTENT or strokes.sum() < thin.sum():
        return mask
    return strokes


def remove_frame(mask: Mask) -> Mask:
    """``mask`` without the frame along its four edges and the lines that divide it into cells.

    ``mask``, uint8 (H, W), 1 = ink, is returned itself if it is no frame, or if there is nothing inside.
    """
    height, width = mask.shape
    rim = round(FRAME_TOLERANCE * min(mask.shape)) + 1
    sides = (np.rot90(mask, quarters) for quarters in range(4))
    if any(side[:rim].max(0).mean() < MIN_SPAN for side in sides) or mask.mean() > MAX_FRAME_INK:
        return mask
    top, right, bottom, left = (_top_side_depth(np.rot90(mask, quarters)) for quarters in range(4))
    if top + bottom >= height or left + right >= width:
        return mask
    inside = slice(top, height - bottom), slice(left, width - right)
    thickness = min(top, right, bottom, left)
    content = _remove_horizontal_lines(mask[inside], thickness, MIN_ASPECT_IN_FRAME)
    content = cv2.transpose(_remove_horizontal_lines(cv2.transpose(content), thickness, MIN_ASPECT_IN_FRAME))
    if cv2.boundingRect(content)[3] < MIN_CONTENT_HEIGHT * height:
        return mask
    without_frame = np.zeros_like(mask)
    without_frame[inside] = content
    return without_frame


def _top_side_depth(mask: Mask) -> int:
    """How far the top side of the frame in ``mask`` reaches down from the upper edge, in pixels."""
    below = ((mask == 0) & (np.arange(len(mask))[:, None] > mask.argmax(0))).argmax(0)
    return int(below[below <= np.median(below) + FRAME_TOLERANCE * min(mask.shape) + 1].max()) + 1


def _remove_horizontal_lines(mask: Mask, max_thickness: int, min_aspect: int) -> Mask:
    height, width = mask.shape
    if width < min_aspect * 2:
        return mask
    thick: Mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((max_thickness + 1, 1), np.uint8))
    flat = cv2.subtract(mask, thick)
    if flat.max(0).mean() < MIN_COVERAGE:
        return mask
    scale = max(width / HOUGH_WIDTH, 1)
    size = (round(width / scale), max(round(height / scale), 1))
    small = cv2.resize(flat * 255, size, interpolation=cv2.INTER_AREA)
    step, level = math.pi / 720, math.pi / 2
    steepest = step * round(math.atan(MAX_SLOPE) / step)  # in whole steps, so that level lines are tried too
    found = cv2.HoughLines(small, 1, step, size[0] // 3, min_theta=level - steepest, max_theta=level + steepest)
    # how many pixels of ink are close above and below each pixel
    near = cv2.boxFilter(flat, cv2.CV_32F, (1, 2 * max_thickness + 1), normalize=False, borderType=cv2.BORDER_CONSTANT)
    lines = np.zeros_like(mask)
    columns, thickest, middles = np.arange(width), 0, []
    for distance, angle in [] if found is None else found[:MAX_HOUGH_LINES, 0].tolist():
        ys = (distance * scale - columns * math.cos(angle)) / math.sin(angle)
        rows = ys.round().astype(int)
        inside = (rows >= 0) & (rows < height)  # a line may leave the picture through its upper or lower edge
        ink = near[rows[inside], columns[inside]]
        covered = np.flatnonzero(ink)
        if len(covered) <= MIN_COVERAGE * len(ink) or covered[-1] - covered[0] <= MIN_SPAN * len(ink):
            continue
        thickness = float(ink.sum()) / len(covered)
        if len(ink) > min_aspect * thickness:
            ends = (0, round(ys[0])), (width - 1, round(ys[-1]))
            cv2.line(lines, *ends, (1,), thickness=round(2 * thickness + 2 * scale) + 1)
            cv2.line(near, *ends, (0,), thickness=2 * max_thickness + 1)  # else similar lines would count as well
            thickest = max(thickest, round(thickness))
            middles.append(float(ys.mean()))
    if not thickest:
        return mask
    rest = mask - (lines & flat)
    # strokes that crossed a line are closed again over the line's thickness
    closed = cv2.morphologyEx(rest, cv2.MORPH_CLOSE, np.ones((thickest + 3, 1), np.uint8))
    rest |= closed & lines
    return _remove_stubs(rest, lines, float(np.median(np.diff(sorted(middles))))) if len(middles) > 1 else rest


def _remove_stubs(mask: Mask, lines: Mask, distance: float) -> Mask:
    """``mask`` without the stubs that faint vertical lines leave at their crossings with ``lines``.

    ``distance`` is that between neighbouring ``lines``, in pixels.
    """
    _, labels, stats, centres = cv2.connectedComponentsWithStatsWithAlgorithm(mask, 8, cv2.CV_32S, cv2.CCL_BBDT)
    kept = np.ones(len(stats), np.uint8)
    kept[0] = 0
    for label, ((_, _, _, height, _), (x, y)) in enumerate(zip(stats.tolist(), centres.tolist(), strict=True)):
        if label and height < MAX_STUB_HEIGHT * distance:
            kept[label] = not lines[round(y - height / 4) : round(y + height / 4) + 1, round(x)].any()
    return kept[labels]
