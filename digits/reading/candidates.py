"""Candidates: parts of a picture that may be digits, taken whole, cut into pieces, or two of them joined."""

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from digits.data.mnist_image import Ink, Mask, mnist_image
from digits.reading.components import Box, Component

# Several digits in one component
MIN_TOUCHING_ASPECT = 1.0  # width by height: what is wider may be several digits that touch
MIN_STACKED_HEIGHT = 1.5  # times the typical height: what is higher may be digits of two rows that touch
STACKED_CUT = (0.3, 0.7)  # of its height: range in which it is cut
MIN_PART_SIZE = 0.4  # of a digit's longer side: two parts of it that are larger may be two digits

# One digit in two components
MAX_JOIN_GAP = (0.4, 0.5)  # times the typical height: how far they are apart at most, sideways and vertically
MIN_PIECE_SIZE = 0.2  # times the typical height: what is smaller is no part of a digit, but a speck
MAX_JOINED_ASPECT, MAX_JOINED_HEIGHT = 1.4, 1.6  # width by height, and height by the typical one, of both together
MIN_WHOLE_HEIGHT = 0.8  # of both together: two side by side that are higher each are two digits
FAINT_INK = 0.15  # from 0 = paper to 1 = full ink: what else may belong to a digit that is in parts

Pieces = dict[tuple[int, int], "Candidate"]


@dataclass
class Candidate:
    """A part of the picture that may be a digit."""

    image: NDArray[np.uint8]  # (28, 28), 255 = ink, like MNIST's
    box: Box
    # If it may be several digits that touch: the segmentation lattice, with a candidate for all that lies between two
    # cuts, by the numbers of these cuts. Cut 0 is the left edge, or the upper one, the last one the opposite edge.
    pieces: Pieces = field(default_factory=dict)


def whole_candidate(component: Component, ink: Ink, labels: NDArray[Any], typical: float) -> Candidate:
    """``component`` as one digit, with the pieces that it may be cut into.

    Args:
        component: one that looks like a digit.
        ink: float32 (H, W), from 0 = paper to 1 = full ink.
        labels: int32 (H, W), the component of each pixel.
        typical: the typical height of the picture's digits in pixels.
    """
    candidate = _candidate(component, ink, labels)
    box = component.box
    if box.width > MIN_TOUCHING_ASPECT * box.height and box.height > typical / 2:
        candidate.pieces = _split_touching(ink, component_mask(component, ink, labels), box)
    elif box.height > max(MIN_STACKED_HEIGHT * typical, box.width):
        candidate.pieces = _split_stacked(ink, component_mask(component, ink, labels), box)
    candidate.pieces = candidate.pieces or _split_merged(component, ink, labels)
    return candidate


def component_mask(component: Component, ink: Ink, labels: NDArray[Any]) -> Mask:
    """The mask of ``component``; if it is of several parts, with the faint ink that may lead from one to the other."""
    own = component.mask(labels)
    if len(component.labels) == 1:
        return own
    left, top, right, bottom = component.box
    place = slice(top, bottom), slice(left, right)
    faint = (ink[place] > FAINT_INK) & ((labels[place] == 0) | (own > 0))
    _, traces = cv2.connectedComponentsWithAlgorithm(faint.view(np.uint8), 8, cv2.CV_32S, cv2.CCL_BBDT)
    touched = np.unique(traces[own > 0])
    return own | np.isin(traces, touched[touched > 0]).view(np.uint8)


def join_near(
    components: list[Component], others: list[Component], ink: Ink, labels: NDArray[Any], typical: float
) -> dict[tuple[int, ...], Candidate]:
    """What two of ``components``, such as the strokes of an open 4, would be together if they may be one digit.

    Also one and one of ``others``, which do not look like digits; then there is but one index.
    """
    joins: dict[tuple[int, ...], Candidate] = {}
    others = [one for one in others if max(one.box.width, one.box.height) > MIN_PIECE_SIZE * typical]
    pairs = [*itertools.combinations(enumerate(components), 2)]
    pairs += [((i, one), (-1, other)) for i, one in enumerate(components) for other in others]
    for (i, a), (j, b) in pairs:
        gap_x, gap_y = a.box.gaps(b.box)
        near = (gap_y < 0 and gap_x < MAX_JOIN_GAP[0] * typical) or (gap_x < 0 and gap_y < MAX_JOIN_GAP[1] * typical)
        both = a.box.union(b.box)
        two_digits = gap_x > 0 and min(a.box.height, b.box.height) > MIN_WHOLE_HEIGHT * both.height
        small = both.width < MAX_JOINED_ASPECT * both.height and both.height < MAX_JOINED_HEIGHT * typical
        if near and small and not two_digits:
            joins[(i, j) if j >= 0 else (i,)] = _candidate(_union([a, b]), ink, labels)
    return joins


def _candidate(component: Component, ink: Ink, labels: NDArray[Any]) -> Candidate:
    left, top, right, bottom = component.box
    return Candidate(mnist_image(ink[top:bottom, left:right], component_mask(component, ink, labels)), component.box)


def _split_touching(ink: Ink, mask: Mask, box: Box) -> Pieces:
    """The pieces of ``mask``, which may be several digits that touch; none if it cannot be.

    It is over-segmented: cut at the local minima of a vertical projection profile, which is a column's ink plus the
    distance from its highest ink to its lowest. Each piece must be as high as the digits of one text line are.
    """
    height, width = mask.shape
    cuts = _cuts(mask)
    if not 3 <= len(cuts) <= 20:
        return {}
    pieces = {}
    for (i, left), (j, right) in itertools.combinations(enumerate(cuts), 2):
        if right - left == width or right - left > height:
            continue
        piece = _piece(ink, mask, box, slice(height), slice(left, right))
        if piece is not None and piece.box.height - 1 >= 0.5 * height:
            pieces[i, j] = piece
    return pieces if any(last == len(cuts) - 1 for _, last in pieces) else {}


def _split_stacked(ink: Ink, mask: Mask, box: Box) -> Pieces:
    """The upper and the lower piece of ``mask``, cut where it is narrowest about its middle; none if one is empty."""
    height, width = mask.shape
    first, last = (round(share * height) for share in STACKED_CUT)
    cut = first + int(mask.sum(1)[first:last].argmin())
    upper, lower = (_piece(ink, mask, box, rows, slice(width)) for rows in (slice(cut), slice(cut, height)))
    return {(0, 1): upper, (1, 2): lower} if upper is not None and lower is not None else {}


def _piece(ink: Ink, mask: Mask, box: Box, rows: slice, columns: slice) -> Candidate | None:
    """The candidate in some rows and columns of ``mask``, whose place in ``ink`` is ``box``; None without ink."""
    own = mask[rows, columns]
    left, top, width, height = cv2.boundingRect(own)
    left, top = box.left + (columns.start or 0) + left, box.top + (rows.start or 0) + top
    place = Box(left, top, left + width, top + height)
    own = mask[place.top - box.top : place.bottom - box.top, place.left - box.left : place.right - box.left]
    cut = ink[place.top : place.bottom, place.left : place.right]
    if not own.size or not cv2.mean(cut, own)[0]:  # nothing, or nothing but the bridge over a break
        return None
    return Candidate(mnist_image(cut, own), place)


def _cuts(mask: Mask) -> list[int]:
    """The columns where ``mask`` may be cut, with its left and its right edge."""
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
    return [*cuts, width]


def _split_merged(component: Component, ink: Ink, labels: NDArray[Any]) -> Pieces:
    """The pieces of a component that was merged of two large parts; none if it was not."""
    least = MIN_PART_SIZE * max(component.box.width, component.box.height)
    large = [part for part in component.parts if max(part.box.width, part.box.height) > least]
    if len(large) != 2:
        return {}
    groups = [[part] for part in large]
    for part in component.parts:
        if part not in large:
            min(groups, key=lambda group: max(group[0].box.gaps(part.box))).append(part)
    return {(number, number + 1): _candidate(_union(group), ink, labels) for number, group in enumerate(groups)}


def _union(components: Sequence[Component]) -> Component:
    """``components`` as one."""
    box = functools.reduce(Box.union, (one.box for one in components))
    return Component([label for one in components for label in one.labels], box, sum(one.area for one in components))
