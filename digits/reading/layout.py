"""Layout: which boxes form a row, which a word, and which are as high as those around them."""

import statistics
from collections.abc import Sequence

from digits.reading.components import Box

MIN_ROW_OVERLAP = 0.4  # of the lower one's height: two digits that overlap vertically by more may be in one row
ROW_MEMORY = 3  # digits to the left that a digit is compared with; rows may lean, and digits stagger
MAX_LETTER_GAP = 0.6  # of the higher one's height: how far two letters of a word are apart, at most
NEIGHBOURS = 5  # nearest boxes, whose height a box is compared with


def rows(boxes: Sequence[Box]) -> list[list[int]]:
    """The indices of ``boxes`` in reading order: rows from top to bottom, each from left to right.

    Each box, from left to right, joins the row whose last boxes are most level with it.
    """
    found: list[list[int]] = []
    for index in sorted(range(len(boxes)), key=lambda one: boxes[one].left):
        levels = [_level(boxes[index], [boxes[other] for other in row[-ROW_MEMORY:]]) for row in found]
        nearest = min((level for level in levels if level is not None), default=None)
        if nearest is None:
            found.append([index])
        else:
            found[levels.index(nearest)].append(index)
    return sorted(found, key=lambda row: statistics.fmean(_middle(boxes[index]) for index in row))


def words(boxes: Sequence[Box]) -> list[list[int]]:
    """The indices of ``boxes`` in groups whose members stand level and close to the next one, as letters do."""
    groups: list[list[int]] = []
    for index in sorted(range(len(boxes)), key=lambda one: boxes[one].left):
        for group in groups:
            last = boxes[group[-1]]
            gap = MAX_LETTER_GAP * max(last.height, boxes[index].height)
            if _overlap(last, boxes[index]) > MIN_ROW_OVERLAP and boxes[index].left - last.right < gap:
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def height_ratios(boxes: Sequence[Box]) -> list[float]:
    """The height of each of ``boxes`` by the median height of those nearest to it; 1 for each where there are few."""
    if len(boxes) <= NEIGHBOURS // 2 + 1:
        return [1.0] * len(boxes)
    ratios = []
    for box in boxes:
        others = sorted(boxes, key=lambda other: _distance(box, other))[1 : NEIGHBOURS + 1]
        ratios.append(box.height / statistics.median(other.height for other in others))
    return ratios


def _level(box: Box, others: Sequence[Box]) -> float | None:
    """How far the middle of ``box`` is from that of the most level one of ``others``; None if it overlaps with none."""
    distances = [abs(_middle(box) - _middle(other)) for other in others if _overlap(box, other) > MIN_ROW_OVERLAP]
    return min(distances, default=None)


def _overlap(a: Box, b: Box) -> float:
    """How much of the lower one's height overlaps with the other's."""
    return -a.gaps(b)[1] / max(min(a.height, b.height), 1)


def _middle(box: Box) -> float:
    return (box.top + box.bottom) / 2


def _distance(a: Box, b: Box) -> float:
    return abs(a.left + a.right - b.left - b.right) + abs(a.top + a.bottom - b.top - b.bottom)
