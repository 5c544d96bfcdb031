"""A picture taken apart into single digits, in reading order."""

import itertools
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from digits.reading.ink import Gray, Ink, Mask, find_ink, polarities
from digits.reading.lines import without_lines
from digits.reading.mnist_image import mnist_image, padded, stroke_width
from digits.reading.parts import Box, connected, erase_frames, is_edge_of_page, join, rows, usual_height
from digits.reading.sheet import sheet_alone

SMALL = 112  # pixels: a picture whose longer side is shorter is enlarged
TINY = 3  # pictures that are enlarged so many times are cut out by a program and hold no ruled lines
SPECK = 0.33  # of the usual digit's height: what is smaller, both ways, is no digit
STROKES = 0.55  # of a digit's longer side: a stroke that is wider is a blot
THIN = 1.2  # times the usual stroke: wider ink along the edge of a tiny picture is a shadow
FILLED = 0.85  # of a tiny picture's height and width: a digit that was cut out tightly has more
SHARP = 0.4  # how far ink turns to paper, at the rim of a stroke, in a length of the stroke's width; less is a shadow
FINE = 0.15  # of a digit's longer side: strokes that are wider must be no less sharp than such
MANY = 300  # pieces of ink: more of them are a texture, not writing
PIECES = 20  # of ink for each digit, and 10 besides: where there are more, what looks like digits is texture too
LEAST_READ = 0.5  # of the ink without frames: with less of it in digits, it is rather paper
WIDE = 1.0  # width by height: what is wider may be several digits that touch


@dataclass
class Found:
    """What may be a digit."""

    image: NDArray[np.uint8]  # (28, 28), 255 = ink, as MNIST has them
    box: Box
    row: int
    # what else it may be, several digits that touch: what lies between two of the places where it may be cut, the
    # first of which is 0
    between: dict[tuple[int, int], "Found"] = field(default_factory=dict)


def find_digits(gray: Gray) -> list[list[Found]]:
    """What may be digits in ``gray`` (H, W), in reading order: rows from above, each from left to right.

    Two answers where it is not clear whether the ink is the light or the dark, the likelier first, else one.
    """
    sheet = sheet_alone(gray)
    if sheet is not None:
        gray = sheet
    enlarged = max(1, round(SMALL / max(gray.shape)))
    if enlarged > 1:
        gray = cv2.resize(gray, None, fx=enlarged, fy=enlarged, interpolation=cv2.INTER_CUBIC)
    tiny = enlarged >= TINY
    answers: list[list[Found]] = []
    unlikely: list[list[Found]] = []  # where most of the ink is not in the digits: the page's edge, it seems
    for light_on_dark in polarities(gray):
        ink, mask = find_ink(gray, light_on_dark, shadows=enlarged == 1)
        stroke = stroke_width(mask)
        if not tiny:
            mask = without_lines(mask, stroke)
        found = _digits_of(ink, mask, stroke, tiny)
        read = sum(int(mask[d.box.top : d.box.bottom, d.box.left : d.box.right].sum()) for d in found)
        (answers if read > LEAST_READ * mask.sum() else unlikely).append(found)
        for each in [part for digit in found for part in (digit, *digit.between.values())]:
            left, top, right, bottom = each.box
            each.box = Box(left // enlarged, top // enlarged, -(-right // enlarged), -(-bottom // enlarged))
    return answers + unlikely


def _digits_of(ink: Ink, mask: Mask, stroke: float, tiny: bool) -> list[Found]:
    """What may be digits, where ``ink`` says how inky each pixel is and ``mask`` which of them are ink.

    ``stroke`` is the usual width of strokes in pixels; ``tiny``: the picture was enlarged ``TINY`` times or more.
    What is drawn around digits is taken out of ``mask``, in place.
    """
    labels, parts = connected(mask, stroke)
    if len(parts) > MANY:
        return []
    if erase_frames(mask, labels, parts):
        labels, parts = connected(mask, stroke)
    inside = [part for part in parts if not is_edge_of_page(part, labels, photo=not tiny)]
    if inside and tiny:  # cut out tightly: along the edges there may be strokes of the digit
        inside = [part for part in parts if part in inside or stroke_width(part.mask(labels)) < THIN * stroke]
    parts = inside or [part for part in parts if _fills(part.box, mask, tiny)]  # cut out tightly
    if not parts:
        return []
    usual = usual_height(parts)
    found = []
    for number, row in enumerate(rows(join(parts, usual, stroke))):
        for part in row:
            box = part.box
            own = part.mask(labels)
            cut = ink[box.top : box.bottom, box.left : box.right]
            drawn = own & mask[box.top : box.bottom, box.left : box.right]  # without the breaks that are bridged
            if not _is_digit_like(cut, drawn, usual):
                continue
            digit = Found(mnist_image(cut, own), box, number)
            if box.width > WIDE * box.height and box.height > usual / 2:
                digit.between = _between_cuts(cut, own, box, number)
            found.append(digit)
    return found if len(parts) <= 10 + PIECES * len(found) else []


def _fills(box: Box, picture: Mask, tiny: bool) -> bool:
    """Whether ``box`` is the whole of ``picture``, or of a tiny one almost."""
    share = FILLED if tiny else 1.0
    return box.height >= share * picture.shape[0] and box.width >= share * picture.shape[1]


def _is_digit_like(ink: Ink, own: Mask, usual: float) -> bool:
    """Whether what ``own`` marks, from edge to edge, has a digit's size and is drawn by strokes: no blot, no shadow."""
    height, width = own.shape
    size = max(height, width)
    if size < max(SPECK * usual, 10) or height < SPECK * usual or width > 4 * height:
        return False
    stroke = stroke_width(own)
    if stroke > STROKES * size:
        return False
    own, cut = padded(own), padded(ink)
    slope = cv2.magnitude(cv2.Sobel(cut, cv2.CV_32F, 1, 0), cv2.Sobel(cut, cv2.CV_32F, 0, 1))
    rim = cv2.morphologyEx(own, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    return cv2.mean(slope, rim)[0] / 8 * min(stroke, FINE * size) > SHARP


def _between_cuts(ink: Ink, mask: Mask, box: Box, row: int) -> dict[tuple[int, int], Found]:
    """What ``mask`` may consist of, if it is several digits that touch: all that lies between two possible cuts.

    Cuts are where a column's ink is less and lies closer together than beside it; what they part must be as high as
    digits of one line are.
    """
    height, width = mask.shape
    reach = height - mask.argmax(0) - mask[::-1].argmax(0)  # from the highest ink to the lowest
    ink_and_reach = (mask.sum(0) + reach).astype(np.float32)
    columns = cv2.blur(ink_and_reach[None], (max(height // 20, 1), 1))[0]
    cuts = [0]
    step = max(round(0.2 * height), 2)
    lowest = cv2.erode(columns[None], np.ones((1, 2 * step + 1), np.uint8))[0]
    for column in np.flatnonzero(columns == lowest):
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
        if not cv2.mean(cut, own)[0]:  # all of it bridges a break
            continue
        bottom = top + tall
        part = Box(box.left + left, box.top + top, box.left + right, box.top + bottom)
        pieces[i, j] = Found(mnist_image(cut[top:bottom], own[top:bottom]), part, row)
    return pieces if any(last == len(cuts) - 1 for _, last in pieces) else {}
