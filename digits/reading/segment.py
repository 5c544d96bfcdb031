"""A picture taken apart into single digits, in reading order."""

import itertools
import statistics
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from digits.reading.ink import Gray, Ink, Mask, find_ink, polarities
from digits.reading.lines import without_frame, without_lines
from digits.reading.mnist_image import mnist_image, padded, stroke_width

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
UNDERLINE = 6  # times as wide as high: what lies below a digit, is wider than it and is no part of it
LEAST_READ = 0.5  # of the ink: with less of it in digits, it is rather paper
FRAMED, CELLS = 0.3, 0.08  # of a frame's height: the least that one digit in it has, and that three of a table have
AROUND = 0.8  # of a digit's height and width: how much of it has a frame's ink on each side
WIDE = 1.0  # width by height: what is wider may be several digits that touch


class Box(NamedTuple):
    """A rectangle in pixels, as Pillow crops it: ``right`` and ``bottom`` are outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        """In pixels."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """In pixels."""
        return self.bottom - self.top

    def around(self, other: "Box") -> "Box":
        """The smallest box that holds this one and ``other``."""
        return Box(
            min(self.left, other.left), min(self.top, other.top),
            max(self.right, other.right), max(self.bottom, other.bottom),
        )  # fmt: skip


@dataclass
class Part:
    """Ink that makes one digit, or perhaps several that touch."""

    labels: list[int]  # of its connected pieces
    box: Box
    area: int  # pixels of ink

    def mask(self, labels: NDArray[Any]) -> Mask:
        """Where in its box it is, ``labels`` being the number of each pixel's piece."""
        inside = labels[self.box.top : self.box.bottom, self.box.left : self.box.right]
        if len(self.labels) == 1:
            return (inside == self.labels[0]).view(np.uint8)
        return np.isin(inside, self.labels).view(np.uint8)


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
    enlarged = max(1, round(SMALL / max(gray.shape)))
    if enlarged > 1:
        gray = cv2.resize(gray, None, fx=enlarged, fy=enlarged, interpolation=cv2.INTER_CUBIC)
    tiny = enlarged >= TINY
    answers: list[list[Found]] = []
    unlikely: list[list[Found]] = []  # where most of the ink is not in the digits: the page's edge, it seems
    for light_on_dark in polarities(gray):
        ink, mask = find_ink(gray, light_on_dark)
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
    """
    labels, parts = _connected(mask, stroke)
    if len(parts) > MANY:
        return []
    if _erase_frames(mask, labels, parts):
        labels, parts = _connected(mask, stroke)
    inside = [part for part in parts if not _is_edge_of_page(part, labels)]
    if inside and tiny:  # cut out tightly: along the edges there may be strokes of the digit
        inside = [part for part in parts if part in inside or stroke_width(part.mask(labels)) < THIN * stroke]
    parts = inside or [part for part in parts if _fills(part.box, mask, tiny)]  # cut out tightly
    if not parts:
        return []
    usual = _usual_height(parts)
    found = []
    for number, row in enumerate(_rows(_join(parts, usual, stroke))):
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


def _connected(mask: Mask, stroke: float) -> tuple[NDArray[Any], list[Part]]:
    """The connected pieces of ``mask``, small breaks bridged: their numbers, int32 (H, W), and each of them."""
    gap = max(round(0.8 * stroke), 1)
    kernel = np.ones((gap, gap), np.uint8)  # with the default border, closing widens what is near the picture's edge
    bridged = mask | cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    # OpenCV's default algorithm is three times as slow here
    _, labels, stats, _ = cv2.connectedComponentsWithStatsWithAlgorithm(bridged, 8, cv2.CV_32S, cv2.CCL_BBDT)
    parts = [
        Part([label], Box(x, y, x + w, y + h), area)
        for label, (x, y, w, h, area) in enumerate(stats.tolist())
        if label and max(w, h) > 0.01 * max(mask.shape)
    ]
    return labels, parts


def _erase_frames(mask: Mask, labels: NDArray[Any], parts: list[Part]) -> bool:
    """Take what is drawn around digits out of ``mask``, also where they touch it; whether there was any."""
    found = False
    for part in parts:
        left, top, right, bottom = part.box
        own = part.mask(labels) & mask[top:bottom, left:right]
        inner = without_frame(own)
        if inner is own and _is_frame(part, parts, labels):
            inner = np.zeros_like(own)
        if inner is not own:
            mask[top:bottom, left:right] ^= own ^ inner
            found = True
    return found


def _is_edge_of_page(part: Part, labels: NDArray[Any]) -> bool:
    """Whether ``part`` is a shadow, a frame or what lies beside the page: it runs along the picture's edge."""
    height, width = labels.shape
    box = part.box
    edges = (
        (box.left == 0, labels[:, 0]), (box.right == width, labels[:, -1]),
        (box.top == 0, labels[0]), (box.bottom == height, labels[-1]),
    )  # fmt: skip
    contact = sum(np.count_nonzero(edge == part.labels[0]) for touches, edge in edges if touches)
    if not contact:
        return False
    long = box.width + box.height if box.width > width / 2 and box.height > height / 2 else max(box.width, box.height)
    along = contact > 0.7 * long and long > 0.2 * max(height, width)
    solid = part.area > 0.7 * box.width * box.height and max(box.width / width, box.height / height) > 0.4
    through = box.top == 0 and box.bottom == height  # as a 1 that was cut out tightly
    return along or (solid and not through)


def _fills(box: Box, picture: Mask, tiny: bool) -> bool:
    """Whether ``box`` is the whole of ``picture``, or of a tiny one almost."""
    share = FILLED if tiny else 1.0
    return box.height >= share * picture.shape[0] and box.width >= share * picture.shape[1]


def _is_frame(part: Part, parts: list[Part], labels: NDArray[Any]) -> bool:
    """Whether ``part`` is drawn around others of ``parts``, as the boxes, circles and tables of forms are."""
    left, top, right, bottom = part.box
    within = [
        (box.left - left, box.top - top, box.right - left, box.bottom - top)
        for box in (other.box for other in parts)
        if left < box.left and top < box.top and box.right < right and box.bottom < bottom
        and box.height > CELLS * part.box.height
    ]  # fmt: skip
    if not within:
        return False
    ink = part.mask(labels)
    heights = []
    for x, y, end, low in within:
        sides = ink[y:low, :x].any(1), ink[y:low, end:].any(1), ink[:y, x:end].any(0), ink[low:, x:end].any(0)
        if min(side.mean() for side in sides) > AROUND:
            heights.append(low - y)
    return len(heights) > 2 or any(height > FRAMED * part.box.height for height in heights)


def _usual_height(parts: list[Part]) -> float:
    """The height that the picture's digits have, in pixels."""
    boxes = [part.box for part in parts]
    sizes = [max(box.width, box.height) for box in boxes if box.width < UNDERLINE * box.height]
    sizes = sizes or [box.width for box in boxes]
    return statistics.median(size for size in sizes if size > 0.4 * max(sizes))


def _join(parts: list[Part], usual: float, stroke: float) -> list[Part]:
    """Pieces of one digit put together: a 5's bar, a broken 0."""
    before = 0
    while len(parts) != before:  # what was joined may reach further pieces
        before, waiting, parts = len(parts), sorted(parts, key=lambda part: -part.area), []
        for part in waiting:
            for other in parts:
                if _belongs(other.box, part.box, usual, stroke):
                    other.labels += part.labels
                    other.box = other.box.around(part.box)
                    other.area += part.area
                    break
            else:
                parts.append(part)
    return parts


def _belongs(a: Box, b: Box, usual: float, stroke: float) -> bool:
    """Whether ``b``, the smaller, is a piece of ``a``'s digit."""
    across = max(a.left, b.left) - min(a.right, b.right)  # the gap between them, negative where they overlap
    down = max(a.top, b.top) - min(a.bottom, b.bottom)
    both = a.around(b)
    if max(b.width, b.height) < max(0.08 * usual, stroke):
        return False
    upper, lower = (a, b) if a.top < b.top else (b, a)
    if down > 0 and lower.width > max(upper.width, UNDERLINE * lower.height):
        return False
    if -across > 0.5 * min(a.width, b.width):  # one above the other
        return down < 2 * stroke or (down < 0.25 * usual and both.height < 1.35 * usual)
    beside = across < min(0.12 * usual, 2 * stroke) and down < 0.12 * usual
    return beside and b.height < 0.5 * a.height and both.height < 1.35 * usual


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


def _rows(parts: list[Part]) -> list[list[Part]]:
    """``parts`` by lines of writing, from above, each from left to right."""
    rows: list[list[Part]] = []
    for part in sorted(parts, key=lambda part: part.box.top + part.box.bottom):
        middle = (part.box.top + part.box.bottom) / 2
        for row in rows:
            near = min(row, key=lambda other: abs(other.box.left - part.box.left)).box
            if near.top < middle < near.bottom:
                row.append(part)
                break
        else:
            rows.append([part])
    return [sorted(row, key=lambda part: part.box.left) for row in rows]
