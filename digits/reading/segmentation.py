"""Segmentation: a picture taken apart into candidates for single digits."""

from typing import NamedTuple

import cv2
import numpy as np

from digits.data.mnist_image import Gray, Ink, Mask, pad_with_zeros, stroke_width
from digits.reading.binarization import binarize, polarities
from digits.reading.candidates import Candidate, component_mask, join_near, whole_candidate
from digits.reading.components import (
    LINE_ASPECT,
    Box,
    Component,
    connected_components,
    erase_frames,
    is_border_noise,
    merge_components,
    typical_height,
)
from digits.reading.edge_lines import remove_edge_lines
from digits.reading.line_removal import remove_lines
from digits.reading.sheet import isolate_sheet

MIN_PICTURE_SIDE = 112  # pixels: a picture whose longer side is shorter is enlarged, by a whole factor, to about this
TINY_ENLARGEMENT = 3  # from this factor on a picture is tiny: a digit cropped by a program, without ruled lines
MAX_TINY_EDGE_STROKE = 1.2  # times the usual stroke width: wider ink along the border of a tiny picture is a shadow
MIN_TINY_FILL = 0.85  # of a tiny picture's height and width: a digit that was cropped tightly fills more
MIN_INK_IN_DIGITS = 0.5  # of the ink without frames: if digits hold less, the polarity is rather the other one

# The size and the strokes of a digit
MIN_DIGIT_SIZE = 0.33  # times the typical height: ink that is smaller, or less high, is a speck
MAX_STROKE_WIDTH = 0.38  # of a digit's longer side: ink with wider strokes is a blot
MAX_TINY_STROKE_WIDTH = 0.55  # the same in a tiny picture, whose pixels are as wide as strokes
MIN_SHARPNESS = 0.4  # how far ink turns to paper over a length of one stroke width; softer edges are a shadow's
MAX_SHARPNESS_LENGTH = 0.15  # of a digit's longer side: that length is never more, so wide strokes must be as sharp

# Texture
MAX_COMPONENTS = 300  # in a picture; more of them are a texture, not writing
MAX_COMPONENTS_PER_DIGIT = 20  # and 10 besides: if there are more, what looks like digits is part of a texture


class Segmentation(NamedTuple):
    """The candidates for digits in a picture."""

    candidates: list[Candidate]
    joins: dict[tuple[int, ...], Candidate]  # what two of them, or one and a lesser piece of ink, would be together
    typical: float  # the size of what may be a digit, in pixels; 0 where there is nothing

    def all(self) -> list[Candidate]:
        """All candidates, their pieces, and the joins."""
        pieces = [one for candidate in self.candidates for one in (candidate, *candidate.pieces.values())]
        return [*pieces, *self.joins.values()]


def segment_digits(gray: Gray) -> list[Segmentation]:
    """The candidates for digits in ``gray``, uint8 (H, W); boxes are in its pixels.

    Returns:
        One segmentation, or two where the polarity is not clear, one for each, the likelier first.
    """
    sheet = isolate_sheet(gray)
    if sheet is not None:
        gray = sheet
    enlarged = max(1, round(MIN_PICTURE_SIDE / max(gray.shape)))
    if enlarged > 1:
        gray = cv2.resize(gray, None, fx=enlarged, fy=enlarged, interpolation=cv2.INTER_CUBIC)
    tiny = enlarged >= TINY_ENLARGEMENT
    likely: list[Segmentation] = []
    unlikely: list[Segmentation] = []  # most of the ink is outside of the digits, so it may be the paper
    for light_on_dark in polarities(gray):
        ink, mask = binarize(gray, light_on_dark, shadows=enlarged == 1)
        mask = remove_edge_lines(mask)
        stroke = stroke_width(mask)
        if not tiny:
            mask = remove_lines(mask, stroke)
        segmentation = _segment_ink(ink, mask, stroke, tiny)
        candidates = segmentation.candidates
        ink_in_digits = sum(int(mask[c.box.top : c.box.bottom, c.box.left : c.box.right].sum()) for c in candidates)
        (likely if ink_in_digits > MIN_INK_IN_DIGITS * mask.sum() else unlikely).append(segmentation)
        for each in segmentation.all():
            left, top, right, bottom = each.box
            each.box = Box(left // enlarged, top // enlarged, -(-right // enlarged), -(-bottom // enlarged))
    return likely + unlikely


def _segment_ink(ink: Ink, mask: Mask, stroke: float, tiny: bool) -> Segmentation:
    """The candidates for digits in a binarized picture.

    Args:
        ink: how inky each pixel is.
        mask: which pixels are ink; frames are erased from it, in place.
        stroke: the usual width of strokes, in pixels.
        tiny: whether the picture was enlarged ``TINY_ENLARGEMENT`` times or more.
    """
    labels, components = connected_components(mask, stroke)
    if len(components) > MAX_COMPONENTS:
        return Segmentation([], {}, 0)
    if erase_frames(mask, labels, components):
        labels, components = connected_components(mask, stroke)
    inside = [component for component in components if not is_border_noise(component, labels, photo=not tiny)]
    if inside and tiny:  # cropped tightly: strokes along the border may be the digit's own
        edge_stroke = MAX_TINY_EDGE_STROKE * stroke
        inside = [one for one in components if one in inside or stroke_width(one.mask(labels)) < edge_stroke]
    components = inside or [one for one in components if _fills_picture(one.box, mask, tiny)]
    if not components:
        return Segmentation([], {}, 0)
    typical = typical_height(components)
    found: list[Component] = []
    others: list[Component] = []
    for component in merge_components(components, typical, stroke):
        box = component.box
        place = slice(box.top, box.bottom), slice(box.left, box.right)
        drawn = component_mask(component, ink, labels) & mask[place]  # without the breaks that are bridged
        (found if _looks_like_digit(ink[place], drawn, typical, tiny) else others).append(component)
    if len(components) > 10 + MAX_COMPONENTS_PER_DIGIT * len(found):
        return Segmentation([], {}, typical)
    candidates = [whole_candidate(component, ink, labels, typical) for component in found]
    return Segmentation(candidates, join_near(found, others, ink, labels, typical), typical)


def _fills_picture(box: Box, picture: Mask, tiny: bool) -> bool:
    """Whether ``box`` is the whole of ``picture``, or almost the whole of a tiny one: a digit was cropped tightly."""
    share = MIN_TINY_FILL if tiny else 1.0
    return box.height >= share * picture.shape[0] and box.width >= share * picture.shape[1]


def _looks_like_digit(ink: Ink, own: Mask, typical: float, tiny: bool) -> bool:
    """Whether ``own``, a mask as large as its bounding box, has a digit's size and sharp strokes; no blot, no shadow.

    ``typical`` is the typical height of the picture's digits in pixels, and ``tiny`` as in :func:`_segment_ink`.
    """
    height, width = own.shape
    size = max(height, width)
    if (
        size < max(MIN_DIGIT_SIZE * typical, 10)
        or height < MIN_DIGIT_SIZE * typical
        or not height / LINE_ASPECT < width < 4 * height
    ):
        return False
    stroke = stroke_width(own)
    if stroke > (MAX_TINY_STROKE_WIDTH if tiny else MAX_STROKE_WIDTH) * size:
        return False
    own, cut = pad_with_zeros(own), pad_with_zeros(ink)
    slope = cv2.magnitude(cv2.Sobel(cut, cv2.CV_32F, 1, 0), cv2.Sobel(cut, cv2.CV_32F, 0, 1))
    contour = cv2.morphologyEx(own, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return cv2.mean(slope, contour)[0] / 8 * min(stroke, MAX_SHARPNESS_LENGTH * size) > MIN_SHARPNESS
