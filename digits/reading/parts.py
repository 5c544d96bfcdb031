"""Pieces of ink: told from frames and the page's edge, put together to digits and rows."""

import statistics
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from digits.reading.ink import Mask
from digits.reading.lines import without_frame

BREAK, SMALL_BREAK = 0.8, 0.3  # times the stroke: breaks that are bridged
WIDE, HIGH = 1.2, 0.75  # times its height: what is wider may be several digits, if two are as high as this at least
UNDERLINE = 6  # times as wide as high, at least: below a digit, it is no part of it
FRAMED, CELLS = 0.3, 0.08  # of a frame's height: the least that one digit in it has, and that three of a table have
FEW = 5  # pieces of ink; from so many on, most of them are whole digits
BESIDE = 0.4  # of the lower one's height: how much digits of one row share of it
AROUND = 0.8  # of a digit's height and width: how much of it has a frame's ink on each side


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


def connected(mask: Mask, stroke: float) -> tuple[NDArray[Any], list[Part]]:
    """The connected pieces of ``mask``, small breaks bridged: their numbers, int32 (H, W), and each of them.

    What is wide may be digits that stand close to each other: there only the smallest breaks are bridged.
    """
    labels, parts = _bridged(mask, BREAK * stroke)
    single = []
    for part in parts:
        pieces = _parted(mask, labels, part, stroke) if part.box.width > WIDE * part.box.height else []
        single += pieces or [part]
    return labels, single


def _parted(mask: Mask, labels: NDArray[Any], part: Part, stroke: float) -> list[Part]:
    """What ``part`` falls into where only the smallest breaks are bridged; none unless there are two as high as digits.

    They get numbers of their own in ``labels``, in place.
    """
    left, top, right, bottom = part.box
    inner, pieces = _bridged(part.mask(labels) & mask[top:bottom, left:right], SMALL_BREAK * stroke)
    if sum(piece.box.height > HIGH * part.box.height for piece in pieces) < 2:
        return []
    before = int(labels.max())
    labels[top:bottom, left:right][inner > 0] = before + inner[inner > 0]
    boxes = [(left + x, top + y, left + end, top + low) for x, y, end, low in (piece.box for piece in pieces)]
    return [Part([before + piece.labels[0]], Box(*box), piece.area) for piece, box in zip(pieces, boxes, strict=True)]


def _bridged(mask: Mask, gap: float) -> tuple[NDArray[Any], list[Part]]:
    """As :func:`connected`, with breaks of up to ``gap`` pixels bridged."""
    side = max(round(gap), 1)
    kernel = np.ones((side, side), np.uint8)  # with the default border, closing widens what is near the picture's edge
    bridged = mask | cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    # OpenCV's default algorithm is three times as slow here
    _, labels, stats, _ = cv2.connectedComponentsWithStatsWithAlgorithm(bridged, 8, cv2.CV_32S, cv2.CCL_BBDT)
    parts = [
        Part([label], Box(x, y, x + w, y + h), area)
        for label, (x, y, w, h, area) in enumerate(stats.tolist())
        if label and max(w, h) > 0.01 * max(mask.shape)
    ]
    return labels, parts


def erase_frames(mask: Mask, labels: NDArray[Any], parts: list[Part]) -> bool:
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


def is_edge_of_page(part: Part, labels: NDArray[Any], photo: bool) -> bool:
    """Whether ``part`` is a shadow, a frame or what lies beside the page: it runs along the picture's edge.

    In a ``photo`` it may also be a corner that the lens left dark.
    """
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
    two_edges = (box.left == 0 or box.right == width) and (box.top == 0 or box.bottom == height)
    small = box.width < width / 2 and box.height < height / 2
    corner = photo and two_edges and small and bool(contact > 0.7 * (box.width + box.height))
    return along or corner or (solid and not through)


def usual_height(parts: list[Part]) -> float:
    """The height that the picture's digits have, in pixels."""
    boxes = [part.box for part in parts]
    sizes = [max(box.width, box.height) for box in boxes if box.width < UNDERLINE * box.height]
    sizes = sizes or [box.width for box in boxes]
    return statistics.median(size for size in sizes if size > 0.4 * max(sizes))


def join(parts: list[Part], usual: float, stroke: float) -> list[Part]:
    """Pieces of one digit put together: a 5's bar, a broken 0."""
    before, few = 0, len(parts) < FEW
    while len(parts) != before:  # what was joined may reach further pieces
        before, waiting, parts = len(parts), sorted(parts, key=lambda part: -part.area), []
        for part in waiting:
            for other in parts:
                if _belongs(other.box, part.box, usual, stroke, few):
                    other.labels += part.labels
                    other.box = other.box.around(part.box)
                    other.area += part.area
                    break
            else:
                parts.append(part)
    return parts


def _belongs(a: Box, b: Box, usual: float, stroke: float, few: bool) -> bool:
    """Whether ``b``, the smaller, is a piece of ``a``'s digit; where there are ``few``, ``usual`` may be a piece's."""
    across = max(a.left, b.left) - min(a.right, b.right)  # the gap between them, negative where they overlap
    down = max(a.top, b.top) - min(a.bottom, b.bottom)
    both = a.around(b)
    if max(b.width, b.height) < max(0.08 * usual, stroke):
        return False
    upper, lower = (a, b) if a.top < b.top else (b, a)
    if down > 0 and lower.width > max(upper.width, UNDERLINE * lower.height):
        return False
    if -across > 0.5 * min(a.width, b.width):  # one above the other
        piece = few or min(a.height, b.height) < 0.6 * usual or both.height < 1.5 * usual
        return (down < 2 * stroke and piece) or (down < 0.25 * usual and both.height < 1.35 * usual)
    beside = across < min(0.12 * usual, 2 * stroke) and down < 0.12 * usual
    return beside and b.height < 0.5 * a.height and both.height < 1.35 * usual


def rows(parts: list[Part]) -> list[list[Part]]:
    """``parts`` by lines of writing, from above, each from left to right."""
    rows: list[list[Part]] = []
    for part in sorted(parts, key=lambda part: part.box.top + part.box.bottom):
        middle = (part.box.top + part.box.bottom) / 2
        for row in rows:
            near = min(row, key=lambda other: abs(other.box.left - part.box.left)).box
            both = min(near.bottom, part.box.bottom) - max(near.top, part.box.top)
            if near.top < middle < near.bottom or both > BESIDE * min(near.height, part.box.height):
                row.append(part)
                break
        else:
            rows.append([part])
    return [sorted(row, key=lambda part: part.box.left) for row in rows]
