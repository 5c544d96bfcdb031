"""Annotation of a picture with what was read in it: the boxes of the digits, and what the network saw."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from digits.files import write_atomically

ANNOTATED_SUFFIX = ".digits.png"  # of these files' names: so they overwrite no picture, and are not read as pictures
MAX_PICTURE_SIDE = 1200  # pixels: longer side to which a picture should be reduced before it is drawn
MIN_PICTURE_SIDE = 400  # pixels: a picture with a shorter longer side is enlarged, by a whole factor
CROP_SIDE, CAPTION_HEIGHT, GAP = 84, 34, 10  # pixels: a 28 x 28 image enlarged three times, two lines below it, space
CELL_WIDTH, CELL_HEIGHT = CROP_SIDE + GAP, CROP_SIDE + CAPTION_HEIGHT + GAP
MIN_CERTAIN_CONFIDENCE = 0.9  # a digit of less is marked as doubtful
MIN_ALTERNATIVE_PROBABILITY = 0.01  # another value is named if it is likelier than this
GREEN, RED = (0, 122, 89), (191, 64, 0)  # those of the plots


class ReadDigit(Protocol):
    """A digit that was read in a picture."""

    @property
    def value(self) -> int:
        """0 to 9."""

    @property
    def confidence(self) -> float:
        """The probability of ``value``."""

    @property
    def probabilities(self) -> Sequence[float]:
        """Of the values 0 to 9."""

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom, in the picture's own pixels."""

    @property
    def image(self) -> NDArray[np.uint8]:
        """What the network saw, (28, 28), 255 = ink."""


def alternatives(digit: ReadDigit) -> list[tuple[int, float]]:
    """The other values that ``digit`` has with more than 1 %, each with its probability, the likeliest first."""
    others = [
        (value, p)
        for value, p in enumerate(digit.probabilities)
        if value != digit.value and p > MIN_ALTERNATIVE_PROBABILITY
    ]
    return sorted(others, key=lambda pair: -pair[1])


def draw_reading(gray: NDArray[Any], size: tuple[int, int], digits: Sequence[ReadDigit], path: Path) -> None:
    """Draw a picture in grey, with a box, the value and the confidence of each digit, and write it as a PNG.

    Beside it are, in reading order, the images that the network saw, each with its likeliest alternative. Digits with a
    confidence below 90 % have a thicker box and a question mark.

    Args:
        gray: the picture's grey levels, uint8 (H, W), which may be reduced, best to ``MAX_PICTURE_SIDE`` pixels.
        size: width and height of the picture before it was reduced, in the pixels that boxes are in.
        digits: what was read, in reading order.
        path: where to write the PNG; missing folders are made.

    Raises:
        OSError: ``path`` cannot be written.
    """
    scale = max(gray.shape) / max(size)
    if (enlarge := math.ceil(MIN_PICTURE_SIDE / max(gray.shape))) > 1:
        gray = gray.repeat(enlarge, 0).repeat(enlarge, 1)
        scale *= enlarge
    height, width = gray.shape
    rows = max((height - GAP) // CELL_HEIGHT, 3)
    columns = math.ceil(len(digits) / rows)
    rows = min(rows, len(digits))
    sheet_size = width + columns * CELL_WIDTH + GAP * bool(digits), max(height, rows * CELL_HEIGHT + GAP)
    sheet = Image.new("RGB", sheet_size, "white")
    sheet.paste(Image.fromarray(gray).convert("RGB"))
    draw = ImageDraw.Draw(sheet)
    for digit in digits:
        _draw_box(draw, digit, scale, width)
    for number, digit in enumerate(digits):
        column, row = divmod(number, rows)
        _draw_crop(sheet, digit, width + GAP + column * CELL_WIDTH, GAP + row * CELL_HEIGHT)
    png = io.BytesIO()
    sheet.save(png, format="png", compress_level=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, png.getvalue())


def _draw_box(draw: ImageDraw.ImageDraw, digit: ReadDigit, scale: float, width: int) -> None:
    colour, certain = (GREEN, True) if digit.confidence >= MIN_CERTAIN_CONFIDENCE else (RED, False)
    left, top, right, bottom = (round(edge * scale) for edge in digit.box)
    line = 2 if certain else 4
    draw.rectangle((left - line, top - line, right + line - 1, bottom + line - 1), outline=colour, width=line)
    text = f"{digit.value}{'' if certain else '?'} {math.floor(100 * digit.confidence)}%"  # 99.9 % is not 100 %
    font = ImageFont.load_default(min(max((right - left) / 3, 12), 28))  # about as wide as the box
    x0, y0, x1, y1 = draw.textbbox((0, 0), text, font=font, stroke_width=2)
    x = min(max(left - line, 0), max(width - (x1 - x0), 0))
    y = top - line - (y1 - y0)
    draw.text((x - x0, max(y, 0) - y0), text, fill=colour, font=font, stroke_width=2, stroke_fill="white")


def _draw_crop(sheet: Image.Image, digit: ReadDigit, left: int, top: int) -> None:
    crop = Image.fromarray(255 - np.asarray(digit.image)).resize((CROP_SIDE, CROP_SIDE), Image.Resampling.NEAREST)
    sheet.paste(crop.convert("RGB"), (left, top))
    certain = digit.confidence >= MIN_CERTAIN_CONFIDENCE
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((left, top, left + CROP_SIDE - 1, top + CROP_SIDE - 1), outline=GREEN if certain else RED)
    text = f"{digit.value}{'' if certain else '?'}  {digit.confidence:.1%}"
    draw.text((left, top + CROP_SIDE + 1), text, fill=GREEN if certain else RED, font=ImageFont.load_default(15))
    if others := alternatives(digit):
        value, probability = others[0]
        text = f"or {value}  {probability:.1%}"
        draw.text((left, top + CROP_SIDE + 18), text, fill="black", font=ImageFont.load_default(13))
