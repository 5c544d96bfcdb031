"""What was read in a picture, drawn so that a person sees why: the boxes, and what the network saw."""

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from digits.reading.picture import PictureLike, open_picture
from digits.report.tables import replace_file

if TYPE_CHECKING:
    from digits.reading.reader import Digit

LONGEST, SHORTEST = 1200, 400  # pixels on the longer side of the picture as it is drawn
CROP, CAPTION, GAP = 84, 34, 10  # pixels: a 28 x 28 crop three times its size, two lines below it, the space around
CERTAIN = 0.9  # below this confidence a digit is marked as doubtful
GREEN, RED = (0, 122, 89), (191, 64, 0)  # those of the plots
DRAWN = ".digits.png"  # how the names of these files end: none is taken for a picture to read, or overwrites one
ALTERNATIVE = 0.01  # the probability from which another digit is named


def alternatives(digit: "Digit") -> list[tuple[int, float]]:
    """The other digits that ``digit`` may be by more than 1 %, each with its probability, the likeliest first."""
    others = [(value, p) for value, p in enumerate(digit.probabilities) if value != digit.value and p > ALTERNATIVE]
    return sorted(others, key=lambda pair: -pair[1])


def draw_reading(picture: PictureLike, digits: Sequence["Digit"], path: Path) -> None:
    """Write ``picture`` in grey with a box, the value and the confidence of each of ``digits`` to ``path``, a PNG.

    Beside it, in reading order, the images that the network was given, with the likeliest alternative. What is read
    with less than 90 % has a thicker box and a question mark.

    Raises:
        DigitsError: the picture cannot be opened.
        OSError: ``path`` cannot be written.
    """
    gray, size = open_picture(picture, LONGEST)
    scale = max(gray.shape) / max(size)
    if (enlarge := math.ceil(SHORTEST / max(gray.shape))) > 1:
        gray = gray.repeat(enlarge, 0).repeat(enlarge, 1)
        scale *= enlarge
    height, width = gray.shape
    rows = max((height - GAP) // (CROP + CAPTION + GAP), 3)
    columns = math.ceil(len(digits) / rows)
    rows = min(rows, len(digits))
    sheet = Image.new(
        "RGB",
        (width + columns * (CROP + GAP) + GAP * bool(digits), max(height, rows * (CROP + CAPTION + GAP) + GAP)),
        "white",
    )
    sheet.paste(Image.fromarray(gray).convert("RGB"))
    draw = ImageDraw.Draw(sheet)
    for digit in digits:
        _draw_box(draw, digit, scale, width)
    for number, digit in enumerate(digits):
        column, row = divmod(number, rows)
        _draw_crop(sheet, digit, width + GAP + column * (CROP + GAP), GAP + row * (CROP + CAPTION + GAP))
    png = io.BytesIO()
    sheet.save(png, format="png", compress_level=2)
    replace_file(path, png.getvalue())


def _draw_box(draw: ImageDraw.ImageDraw, digit: "Digit", scale: float, width: int) -> None:
    colour, certain = (GREEN, True) if digit.confidence >= CERTAIN else (RED, False)
    left, top, right, bottom = (round(edge * scale) for edge in digit.box)
    line = 2 if certain else 4
    draw.rectangle((left - line, top - line, right + line - 1, bottom + line - 1), outline=colour, width=line)
    text = f"{digit.value}{'' if certain else '?'} {math.floor(100 * digit.confidence)}%"  # 99.9 % is not 100
    font = ImageFont.load_default(min(max((right - left) / 3, 12), 28))  # about as wide as the box
    x0, y0, x1, y1 = draw.textbbox((0, 0), text, font=font, stroke_width=2)
    x = min(max(left - line, 0), max(width - (x1 - x0), 0))
    y = top - line - (y1 - y0)
    draw.text((x - x0, max(y, 0) - y0), text, fill=colour, font=font, stroke_width=2, stroke_fill="white")


def _draw_crop(sheet: Image.Image, digit: "Digit", left: int, top: int) -> None:
    crop = Image.fromarray(255 - np.asarray(digit.image)).resize((CROP, CROP), Image.Resampling.NEAREST)
    sheet.paste(crop.convert("RGB"), (left, top))
    certain = digit.confidence >= CERTAIN
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((left, top, left + CROP - 1, top + CROP - 1), outline=GREEN if certain else RED)
    text = f"{digit.value}{'' if certain else '?'}  {digit.confidence:.1%}"
    draw.text((left, top + CROP + 1), text, fill=GREEN if certain else RED, font=ImageFont.load_default(15))
    if others := alternatives(digit):
        value, probability = others[0]
        draw.text(
            (left, top + CROP + 18), f"or {value}  {probability:.1%}", fill="black", font=ImageFont.load_default(13)
        )
