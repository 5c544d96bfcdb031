"""Selection: which of a picture's candidates are its digits, how certain each is, and in which order they stand."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from digits.reading import layout
from digits.reading.candidates import Candidate
from digits.reading.components import Box
from digits.reading.picture import Size
from digits.reading.segmentation import Segmentation

MIN_CONFIDENCE = 0.5  # below it, ink is more likely not a digit
MIN_LONE_CONFIDENCE = 0.35  # the same for what stands alone in a picture, which is more likely one
SURE = 0.9  # from here on a digit is not doubted
MAX_ASPECT = 1.75  # width by height of a digit; what is wider is more likely several that touch
WIDTH_PENALTY = 3.0  # what such a digit loses of its log-probability, times the excess of its width by height
USUAL_HEIGHTS = (0.5, 2.0)  # range of a digit's height by that of its neighbours; beyond it is doubted
DOUBTED = 0.89  # factor for the confidence of a digit that the picture's edge cuts off, or parted from other strokes
MIN_DIGITS_SHARE = 0.4  # of what may be digits: where fewer are, it is a texture or a text, and only sure ones count
MIN_REFUSED, MIN_REFUSED_SHARE = 5, 0.5  # glyphs that are refused in a texture: how many, and by the number of digits
MIN_ONES = 0.75  # share of 1s among what looks like digits there
MIN_LINE_SPAN = 0.88  # of the picture's height: a stroke that is longer is a line, unless the picture is cropped to it
MAX_LINE_ASPECT, MAX_FOLD_ASPECT = 0.28, 0.5  # width by height of a line; of one from edge to edge
MAX_SPECK_HEIGHT = 0.5  # of the picture's height: a doubted 1 that is lower is rather a speck or a shadow
MAX_ICON, MIN_LINE_ROOM = 45, 0.6  # pixels of its longer side, and width by height of the picture
MIN_LETTER_HEIGHT = 0.7  # of the highest in its word: what is lower is a sign, not a letter
MAX_FRAGMENT_HEIGHT = 0.6  # of the other part's height: what is lower, such as a tail, is rather a part than a digit
MIN_LETTERS = 3  # in a word


@dataclass(frozen=True)
class Digit:
    """One digit that was read."""

    value: int  # 0 to 9
    confidence: float  # the probability of `value`, at the model's temperature, lowered where the box looks wrong
    probabilities: tuple[float, ...]  # of the values 0 to 9
    box: Box  # in the picture's own pixels
    row: int  # the text line that it is in, from 0
    image: NDArray[np.uint8]  # (28, 28), 255 = ink: what the network saw


def select_digits(segmentation: Segmentation, read: Mapping[int, Digit], size: Size) -> list[Digit]:
    """The digits of a picture in reading order.

    Args:
        segmentation: the picture's candidates.
        read: what each of them, of their pieces and of the joins is, by its ``id``.
        size: width and height of the picture in its own pixels.
    """
    parts = [_best_split(candidate, read) for candidate in segmentation.candidates]
    glyphs = _join(parts, segmentation, read)
    ratios = layout.height_ratios([glyph.box for glyph in glyphs])
    glyphs = [_fit(glyph, ratio, size) for glyph, ratio in zip(glyphs, ratios, strict=True)]
    refused = {index for word in layout.words([glyph.box for glyph in glyphs]) for index in _refused(word, glyphs)}
    digits = [glyph for index, glyph in enumerate(glyphs) if index not in refused]
    if len(digits) < MIN_DIGITS_SHARE * len(glyphs):
        digits = [digit for digit in digits if digit.confidence >= SURE]
    if _may_be_texture(digits, len(refused)) or all(_may_be_any_stroke(digit, size) for digit in digits):
        digits = []
    rows = layout.rows([digit.box for digit in digits])
    numbered = [(digits[index], number) for number, row in enumerate(rows) for index in row]
    return [replace(digit, row=number) if number else digit for digit, number in numbered]  # as they are made for row 0


def _may_be_texture(digits: Sequence[Digit], refused: int) -> bool:
    """Whether ``digits``, beside so many glyphs that were ``refused``, may be strokes of a texture, such as fibres."""
    ones = sum(digit.value == 1 for digit in digits)
    return refused >= max(MIN_REFUSED, MIN_REFUSED_SHARE * len(digits)) and ones >= MIN_ONES * len(digits)


def _may_be_any_stroke(digit: Digit, size: Size) -> bool:
    """Whether ``digit``, if a 1, may be a fold, a ruled line from edge to edge, what is left of one, or a speck."""
    width, height = size
    cropped = max(size) < MAX_ICON or width < MIN_LINE_ROOM * height
    if digit.value != 1 or cropped:
        return False
    ends = (digit.box.top == 0) + (digit.box.bottom == height)  # how many of them lie at the picture's edge
    long = digit.box.height > MIN_LINE_SPAN * height or ends > 0
    thin = digit.box.width < (MAX_FOLD_ASPECT if ends == 2 else MAX_LINE_ASPECT) * digit.box.height
    speck = digit.confidence < SURE and digit.box.height < MAX_SPECK_HEIGHT * height
    return (thin and long) or speck


def _best_split(candidate: Candidate, read: Mapping[int, Digit]) -> list[Digit]:
    """The most probable reading of ``candidate``: the digit itself, or the digits that it is cut into.

    Its pieces are a segmentation lattice; the best path through it is found by dynamic programming.
    """
    whole = read[id(candidate)]
    if not candidate.pieces:
        return [whole]
    best: dict[int, tuple[float, list[Digit]]] = {0: (0.0, [])}  # up to each cut: log-probability, digits
    end = max(last for _, last in candidate.pieces)
    for last in range(1, end + 1):
        paths = [
            (best[first][0] + math.log(read[id(piece)].confidence), [*best[first][1], read[id(piece)]])
            for (first, to), piece in candidate.pieces.items()
            if to == last and first in best
        ]
        if paths:
            best[last] = max(paths, key=lambda path: path[0])
    unsplit = math.log(whole.confidence) - WIDTH_PENALTY * max(whole.box.width / whole.box.height - MAX_ASPECT, 0)
    if end not in best or best[end][0] <= unsplit:
        return [whole]
    parts = best[end][1]
    if any(part.value == 1 for part in parts):  # any stroke looks like a 1, such as those of an M
        return [replace(part, confidence=part.confidence * DOUBTED) for part in parts]
    return parts


def _join(parts: list[list[Digit]], segmentation: Segmentation, read: Mapping[int, Digit]) -> list[Digit]:
    """The digits of ``parts``, those of each candidate, with two in place of which one is surer read as that one."""
    joined: set[int] = set()
    result = []
    for pair, candidate in sorted(segmentation.joins.items(), key=lambda join: -read[id(join[1])].confidence):
        whole = read[id(candidate)]
        if whole.confidence < SURE or joined & set(pair) or any(len(parts[index]) > 1 for index in pair):
            continue
        heights = [parts[index][0].box.height for index in pair]
        apart = math.prod(parts[index][0].confidence for index in pair)
        if min(heights) < MAX_FRAGMENT_HEIGHT * max(heights) or apart < whole.confidence:
            joined.update(pair)
            result.append(whole)
    return result + [digit for index, some in enumerate(parts) if index not in joined for digit in some]


def _fit(glyph: Digit, ratio: float, size: Size) -> Digit:
    """``glyph``, less certain if its height by its neighbours', ``ratio``, is unusual or the picture's edge cuts it."""
    least, greatest = USUAL_HEIGHTS
    factor = min(ratio / least, greatest / ratio, 1.0)
    box = glyph.box
    at_side, at_end = (box.left == 0) != (box.right == size[0]), (box.top == 0) != (box.bottom == size[1])
    if (at_side and 2 * box.width < size[0]) or (at_end and 2 * box.height < size[1]):  # else it is cropped tightly
        factor *= DOUBTED
    return replace(glyph, confidence=glyph.confidence * factor) if factor < 1 else glyph


def _refused(word: Sequence[int], glyphs: Sequence[Digit]) -> list[int]:
    """Those of ``word``, indices into ``glyphs``, that are no digits: all of them if most of its letters are not."""
    least = MIN_LONE_CONFIDENCE if len(glyphs) == 1 else MIN_CONFIDENCE
    uncertain = [index for index in word if glyphs[index].confidence < least]
    high = MIN_LETTER_HEIGHT * max(glyphs[index].box.height for index in word)
    letters = [index for index in word if glyphs[index].box.height >= high]
    if len(letters) >= MIN_LETTERS and 2 * sum(index in uncertain for index in letters) > len(letters):
        return list(word)
    return uncertain
