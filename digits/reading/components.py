"""Connected components of ink: frames and border noise sorted out, fragments merged to digits."""

import statistics
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from digits.data.mnist_image import Mask
from digits.reading.line_removal import remove_frame, remove_long_lines, remove_thin_frame

# Heights and widths are those of bounding boxes.
MAX_GAP = 0.8  # times the stroke width: breaks in a stroke up to this length are bridged
MAX_GAP_IN_WIDE = 0.3  # the same inside components that are wide, which may be several digits close to each other
WIDE_ASPECT = 1.2  # width by height: a component that is wider than this counts as wide
MIN_SPLIT_HEIGHT = 0.75  # of a wide component's height: it is split if two of the parts are higher than this
SEVERAL_ASPECT = 1.5  # width by height: what is wider is taken for several digits that touch, unless it is an underline
UNDERLINE_ASPECT = 6  # width by height: what is at least as flat as this is an underline, not part of a digit
LINE_ASPECT = 25  # height by width: what is at least as narrow as this is a line, not a 1
MIN_FRAMED_HEIGHT = 0.3  # of a frame's height: one digit that is higher than this is enough to make it a frame
MIN_CELL_HEIGHT = 0.08  # of a table's height: three digits that are higher than this are enough to make it a table
MAX_CELL_CONTENT, MIN_CONTENT = 0.2, 5  # of a table's height, and pixels: what is in a cell is lower, and larger
MIN_CELLS = 4  # that hold something: enough to make it a table, whatever is left of its lines
MIN_SURROUND = 0.8  # of a digit's height and width: how much of each side must face the ink of the frame around it
FEW_COMPONENTS = 5  # from so many on, most are whole digits, so that their typical height is that of digits


class Box(NamedTuple):
    """A bounding box in pixels, as Pillow crops it: ``right`` and ``bottom`` are outside."""

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

    def union(self, other: "Box") -> "Box":
        """The smallest box that contains this one and ``other``."""
        return Box(
            min(self.left, other.left), min(self.top, other.top),
            max(self.right, other.right), max(self.bottom, other.bottom),
        )  # fmt: skip

    def gaps(self, other: "Box") -> tuple[int, int]:
        """How far this one and ``other`` are apart sideways and vertically, in pixels; negative where they overlap."""
        return (
            max(self.left, other.left) - min(self.right, other.right),
            max(self.top, other.top) - min(self.bottom, other.bottom),
        )


@dataclass
class Component:
    """A connected component of ink, or several that were merged: one digit, or perhaps several that touch."""

    labels: list[int]  # of the connected components that it consists of
    box: Box
    area: int  # pixels of ink
    parts: list["Component"] = field(default_factory=list)  # those that were merged to it, if there are several

    def mask(self, labels: NDArray[Any]) -> Mask:
        """Where in its box this component is, uint8 (height, width); ``labels`` (H, W) has each pixel's label."""
        inside = labels[self.box.top : self.box.bottom, self.box.left : self.box.right]
        if len(self.labels) == 1:
            return (inside == self.labels[0]).view(np.uint8)
        return np.isin(inside, self.labels).view(np.uint8)


def connected_components(mask: Mask, stroke: float) -> tuple[NDArray[Any], list[Component]]:
    """The connected components of ``mask``, uint8 (H, W), with small breaks in strokes bridged.

    A wide component may be several digits that stand close together; inside it only the smallest breaks are bridged.

    Args:
        mask: 1 = ink.
        stroke: the usual width of strokes, in pixels.

    Returns:
        The label of each pixel, int32 (H, W), 0 = background, and the components.
    """
    labels, components = _bridge_and_label(mask, MAX_GAP * stroke)
    result = []
    for component in components:
        is_wide = component.box.width > WIDE_ASPECT * component.box.height
        parts = _split_wide(mask, labels, component, stroke) if is_wide else []
        result += parts or [component]
    return labels, result


def _split_wide(mask: Mask, labels: NDArray[Any], component: Component, stroke: float) -> list[Component]:
    """The parts of ``component`` if only the smallest breaks are bridged; none unless two are as high as digits.

    They get new labels, which are written into ``labels``.
    """
    left, top, right, bottom = component.box
    inner, parts = _bridge_and_label(component.mask(labels) & mask[top:bottom, left:right], MAX_GAP_IN_WIDE * stroke)
    if sum(part.box.height > MIN_SPLIT_HEIGHT * component.box.height for part in parts) < 2:
        return []
    used = int(labels.max())
    labels[top:bottom, left:right][inner > 0] = used + inner[inner > 0]
    boxes = [(left + x, top + y, left + end, top + low) for x, y, end, low in (part.box for part in parts)]
    return [Component([used + part.labels[0]], Box(*box), part.area) for part, box in zip(parts, boxes, strict=True)]


def _bridge_and_label(mask: Mask, gap: float) -> tuple[NDArray[Any], list[Component]]:
    """Labels and components as of :func:`connected_components`, with breaks of up to ``gap`` pixels bridged."""
    side = max(round(gap), 1)
    kernel = np.ones((side, side), np.uint8)  # with the default border, closing widens what is near the picture's edge
    bridged = mask | cv2.morphologyEx(mask, cv2.MORPH_CLOSE, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    # OpenCV's default algorithm is three times as slow here
    _, labels, stats, _ = cv2.connectedComponentsWithStatsWithAlgorithm(bridged, 8, cv2.CV_32S, cv2.CCL_BBDT)
    components = [
        Component([label], Box(x, y, x + w, y + h), area)
        for label, (x, y, w, h, area) in enumerate(stats.tolist())
        if label and max(w, h) > 0.01 * max(mask.shape)
    ]
    return labels, components


def erase_frames(mask: Mask, labels: NDArray[Any], components: list[Component]) -> bool:
    """Erase frames, circles and tables around digits from ``mask``, in place, even where digits touch a frame.

    Returns:
        Whether there were any.
    """
    found = False
    for component in components:
        left, top, right, bottom = component.box
        own = component.mask(labels) & mask[top:bottom, left:right]
        inner = remove_frame(own)
        if inner is own and _surrounds_digits(component, components, labels):
            inner = np.zeros_like(own)
        elif inner is own and _holds_many(component, components):
            inner = remove_long_lines(own)
        if inner is own:
            inner = remove_thin_frame(own)
        if inner is not own:
            mask[top:bottom, left:right] ^= own ^ inner
            found = True
    return found


def _holds_many(component: Component, components: list[Component]) -> bool:
    """Whether several much smaller ones of ``components`` lie within the box of ``component``."""
    box = component.box
    low = (
        other.box for other in components
        if other.box.height < MAX_CELL_CONTENT * box.height and max(other.box.width, other.box.height) > MIN_CONTENT
    )  # fmt: skip
    within = [
        one for one in low
        if box.left < one.left and box.top < one.top and one.right < box.right and one.bottom < box.bottom
    ]  # fmt: skip
    return len(within) >= MIN_CELLS


def _surrounds_digits(component: Component, components: list[Component], labels: NDArray[Any]) -> bool:
    """Whether ``component`` is drawn around others of ``components``, as the boxes, circles and tables of forms are."""
    left, top, right, bottom = component.box
    within = [
        (box.left - left, box.top - top, box.right - left, box.bottom - top)
        for box in (other.box for other in components)
        if left < box.left and top < box.top and box.right < right and box.bottom < bottom
        and box.height > MIN_CELL_HEIGHT * component.box.height
    ]  # fmt: skip
    if not within:
        return False
    ink = component.mask(labels)
    heights = []
    for x, y, end, low in within:
        sides = ink[y:low, :x].any(1), ink[y:low, end:].any(1), ink[:y, x:end].any(0), ink[low:, x:end].any(0)
        if min(side.mean() for side in sides) > MIN_SURROUND:
            heights.append(low - y)
    return len(heights) > 2 or any(height > MIN_FRAMED_HEIGHT * component.box.height for height in heights)


def is_border_noise(component: Component, labels: NDArray[Any], photo: bool) -> bool:
    """Whether ``component`` runs along the picture's border: a shadow, a frame, or what lies beside the page.

    In a ``photo`` it may also be a corner that the lens left dark.
    """
    height, width = labels.shape
    box = component.box
    borders = (
        (box.left == 0, labels[:, 0]), (box.right == width, labels[:, -1]),
        (box.top == 0, labels[0]), (box.bottom == height, labels[-1]),
    )  # fmt: skip
    contact = sum(np.count_nonzero(border == component.labels[0]) for touches, border in borders if touches)
    if not contact:
        return False
    long = box.width + box.height if box.width > width / 2 and box.height > height / 2 else max(box.width, box.height)
    along = contact > 0.7 * long and long > 0.2 * max(height, width)
    solid = component.area > 0.7 * box.width * box.height and max(box.width / width, box.height / height) > 0.4
    full_height = box.top == 0 and box.bottom == height  # such as a 1 that was cropped tightly
    two_borders = (box.left == 0 or box.right == width) and (box.top == 0 or box.bottom == height)
    small = box.width < width / 2 and box.height < height / 2
    corner = photo and two_borders and small and bool(contact > 0.7 * (box.width + box.height))
    return along or corner or (solid and not full_height)


def typical_height(components: list[Component]) -> float:
    """The median size, in pixels, of the components that are large enough to be digits and are no lines."""
    boxes = [component.box for component in components]
    sizes = [
        box.height if box.width > SEVERAL_ASPECT * box.height else max(box.width, box.height)
        for box in boxes if box.width < UNDERLINE_ASPECT * box.height and box.height < LINE_ASPECT * box.width
    ]  # fmt: skip
    sizes = sizes or [max(box.width, box.height) for box in boxes]
    return statistics.median(size for size in sizes if size > 0.4 * max(sizes))


def merge_components(components: list[Component], typical: float, stroke: float) -> list[Component]:
    """``components`` with the fragments of one digit merged, such as a 5 and its bar or the halves of a broken 0.

    ``typical`` is the :func:`typical_height`, ``stroke`` the usual width of strokes, both in pixels.
    """
    before, few = 0, len(components) < FEW_COMPONENTS
    while len(components) != before:  # again, as a component that has grown may now be near to others
        before, waiting, components = len(components), sorted(components, key=lambda one: -one.area), []
        for component in waiting:
            for larger in components:
                if _same_digit(larger.box, component.box, typical, stroke, few):
                    larger.parts = [one for each in (larger, component) for one in each.parts or [replace(each)]]
                    larger.labels = larger.labels + component.labels
                    larger.box = larger.box.union(component.box)
                    larger.area += component.area
                    break
            else:
                components.append(component)
    return components


def _same_digit(a: Box, b: Box, typical: float, stroke: float, few: bool) -> bool:
    """Whether ``b``, which has less ink, is a fragment of the same digit as ``a``.

    ``few``: there are so few components that ``typical`` may be the height of a fragment.
    """
    gap_x, gap_y = a.gaps(b)
    union = a.union(b)
    if max(b.width, b.height) < max(0.08 * typical, stroke):
        return False
    upper, lower = (a, b) if a.top < b.top else (b, a)
    if gap_y > 0 and lower.width > max(upper.width, UNDERLINE_ASPECT * lower.height):
        return False
    if -gap_x > 0.5 * min(a.width, b.width):  # one above the other
        is_fragment = few or min(a.height, b.height) < 0.6 * typical or union.height < 1.5 * typical
        return (gap_y < 2 * stroke and is_fragment) or (gap_y < 0.25 * typical and union.height < 1.35 * typical)
    side_by_side = gap_x < min(0.12 * typical, 2 * stroke) and gap_y < 0.12 * typical
    return side_by_side and b.height < 0.5 * a.height and union.height < 1.35 * typical
