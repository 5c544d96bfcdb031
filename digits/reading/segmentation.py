"""Segmentation: a picture taken apart into candidates for single digits, in reading order."""

import itertools
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from digits.data.mnist_image import Gray, Ink, Mask, mnist_image, pad_with_zeros, stroke_width
from digits.reading.binarization import binarize, polarities
from digits.reading.components import (
    Box,
    connected_components,
    erase_frames,
    group_into_text_lines,
    is_border_noise,
    merge_components,
    typical_height,
)
from digits.reading.line_removal import remove_lines
from digits.reading.sheet import isolate_sheet

MIN_PICTURE_SIDE = 112  # pixels: a picture whose longer side is shorter is enlarged, by a whole factor, to about this
TINY_ENLARGEMENT = 3  # from this factor on a picture is tiny: a digit cropped by a program, without ruled lines
MAX_TINY_EDGE_STROKE = 1.2  # times the usual stroke width: wider ink along the border of a tiny picture is a shadow
MIN_TINY_FILL = 0.85  # of a tiny picture's height and width: a digit that was cropped tightly fills more
MIN_INK_IN_DIGITS = 0.5  # of the ink without frames: if digits hold less, the polarity is rather the other one

# The size and the strokes of a digit
MIN_DIGIT_SIZE = 0.33  # times the typical height: ink that is smaller, or less high, is a speck
MAX_STROKE_WIDTH = 0.55  # of a digit's longer side: ink with wider strokes is a blot
MIN_SHARPNESS = 0.4  # how far ink turns to paper over a length of one stroke width; softer edges are a shadow's
MAX_SHARPNESS_LENGTH = 0.15  # of a digit's longer side: that length is never more, so wide strokes must be as sharp

# Texture
MAX_COMPONENTS = 300  # in a picture; more of them are a texture, not writing
MAX_COMPONENTS_PER_DIGIT = 20  # and 10 besides: if there are more, what looks like digits is part of a texture

# Digits that touch
MIN_TOUCHING_ASPECT = 1.0  # width by height: what is wider may be several digits that touch


@dataclass
class Candidate:
    """A part of the picture that may be a digit."""

    image: NDArray[np.uint8]  # (28, 28), 255 = ink, like MNIST's
    box: Box
    row: int  # the text line that it is in, from 0
    # If it may be several digits that touch: the segmentation lattice, with a candidate for all that lies between two
    # cuts, by the numbers of these cuts. Cut 0 is the left edge, the last one the right edge.
    pieces: dict[tuple[int, int], "Candidate"] = field(default_factory=dict)


def segment_digits(gray: Gray) -> list[list[Candidate]]:
    """The candidates for digits in ``gray``, uint8 (H, W).

    They are in reading order, text lines from top to bottom, each from left to right; boxes are in pixels of ``gray``.

    Returns:
        One list of candidates, or two where the polarity is not clear, one for each, the likelier first.
    """
    sheet = isolate_sheet(gray)
    if sheet is not None:
        gray = sheet
    enlarged = max(1, round(MIN_PICTURE_SIDE / max(gray.shape)))
    if enlarged > 1:
        gray = cv2.resize(gray, None, fx=enlarged, fy=enlarged, interpolation=cv2.INTER_CUBIC)
    tiny = enlarged >= TINY_ENLARGEMENT
    likely: list[list[Candidate]] = []
    unlikely: list[list[Candidate]] = []  # most of the ink is outside of the digits, so it may be the paper
    for light_on_dark in polarities(gray):
        ink, mask = binarize(gray, light_on_dark, shadows=enlarged == 1)
        stroke = stroke_width(mask)
        if not tiny:
            mask = remove_lines(mask, stroke)
        candidates = _segment_ink(ink, mask, stroke, tiny)
        ink_in_digits = sum(int(mask[c.box.top : c.box.bottom, c.box.left : c.box.right].sum()) for c in candidates)
        (likely if ink_in_digits > MIN_INK_IN_DIGITS * mask.sum() else unlikely).append(candidates)
        for each in [one for candidate in candidates for one in (candidate, *candidate.pieces.values())]:
            left, top, right, bottom = each.box
            each.box = Box(left // enlarged, top // enlarged, -(-right // enlarged), -(-bottom // enlarged))
    return likely + unlikely


def _segment_ink(ink: Ink, mask: Mask, stroke: float, tiny: bool) -> list[Candidate]:
    """The candidates for digits in a binarized picture.

    Args:
        ink: how inky each pixel is.
        mask: which pixels are ink; frames are erased from it, in place.
        stroke: the usual width of strokes, in pixels.
        tiny: whether the picture was enlarged ``TINY_ENLARGEMENT`` times or more.
    """
    labels, components = connected_components(mask, stroke)
    if len(components) > MAX_COMPONENTS:
        return []
    if erase_frames(mask, labels, components):
        labels, components = connected_components(mask, stroke)
    inside = [component for component in components if not is_border_noise(component, labels, photo=not tiny)]
    if inside and tiny:  # cropped tightly: strokes along the border may be the digit's own
        edge_stroke = MAX_TINY_EDGE_STROKE * stroke
        inside = [one for one in components if one in inside or stroke_width(one.mask(labels)) < edge_stroke]
    components = inside or [one for one in components if _fills_picture(one.box, mask, tiny)]
    if not components:
        return []
    typical = typical_height(components)
    candidates = []
    for row, line in enumerate(group_into_text_lines(merge_components(components, typical, stroke))):
        for component in line:
            box = component.box
            own = component.mask(labels)
            cut = ink[box.top : box.bottom, box.left : box.right]
            drawn = own & mask[box.top : box.bottom, box.left : box.right]  # without the breaks that are bridged
            if not _looks_like_digit(cut, drawn, typical):
                continue
            candidate = Candidate(mnist_image(cut, own), box, row)
            if box.width > MIN_TOUCHING_ASPECT * box.height and box.height > typical / 2:
                candidate.pieces = _split_touching(cut, own, box, row)
            candidates.append(candidate)
    return candidates if len(components) <= 10 + MAX_COMPONENTS_PER_DIGIT * len(candidates) else []


def _fills_picture(box: Box, picture: Mask, tiny: bool) -> bool:
    """Whether ``box`` is the whole of ``picture``, or almost the whole of a tiny one: a digit was cropped tightly."""
    share = MIN_TINY_FILL if tiny else 1.0
    return box.height >= share * picture.shape[0] and box.width >= share * picture.shape[1]


def _looks_like_digit(ink: Ink, own: Mask, typical: float) -> bool:
    """Whether ``own``, a mask as large as its bounding box, has a digit's size and sharp strokes; no blot, no shadow.

    ``typical`` is the typical height of the picture's digits in pixels.
    """
    height, width = own.shape
    size = max(height, width)
    if size < max(MIN_DIGIT_SIZE * typical, 10) or height < MIN_DIGIT_SIZE * typical or width > 4 * height:
        return False
    stroke = stroke_width(own)
    if stroke > MAX_STROKE_WIDTH * size:
        return False
    own, cut = pad_with_zeros(own), pad_with_zeros(ink)
    slope = cv2.magnitude(cv2.Sobel(cut, cv2.CV_32F, 1, 0), cv2.Sobel(cut, cv2.CV_32F, 0, 1))
    contour = cv2.morphologyEx(own, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return cv2.mean(slope, contour)[0] / 8 * min(stroke, MAX_SHARPNESS_LENGTH * size) > MIN_SHARPNESS


def _split_touching(ink: Ink, mask: Mask, box: Box, row: int) -> dict[tuple[int, int], Candidate]:
    """The :attr:`Candidate.pieces` of ``mask``, which may be several digits that touch; none if it cannot be.

    It is over-segmented: cut at the local minima of a vertical projection profile, which is a column's ink plus the
    distance from its highest ink to its lowest. Each piece must be as high as the digits of one text line are.
    """
    height, width = mask.shape
    extent = height - mask.argmax(0) - mask[::-1].argmax(0)  # from the highest ink of a column to the lowest
    ink_and_extent = (mask.sum(0) + extent).astype(np.float32)
    profile = cv2.blur(ink_and_extent[None], (max(height // 20, 1), 1))[0]
    cuts = [0]
    step = max(round(0.2 * height), 2)
    lowest = cv2.erode(profile[None], np.ones((1, 2 * step + 1), np.uint8))[0]
    for column in np.flatnonzero(profile == lowest):
        if column >= cuts[-1] + step and column <= width - step:
            cuts.append(int(column))
    cuts.append(width)
    if not 3 <= len(cuts) <= 20:
        return {}
    pieces = {}
    for (i, left), (j, right) in itertools.combinations(enumerate(cuts), 2):
        cut, own = ink[:, left:right], mask[:, left:right]
        _, top, _, tall = cv2.boundingRect(own)
        if (i, j) == (0, len(cuts) - 1) or right - left > height or tall - 1 < 0.5 * height:
            continue
        if not cv2.mean(cut, own)[0]:  # nothing but the bridge over a break
            continue
        bottom = top + tall
        part = Box(box.left + left, box.top + top, box.left + right, box.top + bottom)
        pieces[i, j] = Candidate(mnist_image(cut[top:bottom], own[top:bottom]), part, row)
    return pieces if any(last == len(cuts) - 1 for _, last in pieces) else {}
