"""What the page is answered: the digits of a picture that a visitor has sent, or which ink speaks for one of them."""

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from digits.demo.limits import MAX_FILE_BYTES, MAX_PIXELS, MAX_PIXELS_REDUCED
from digits.errors import DigitsError
from digits.reading.occlusion import occlusion_map
from digits.reading.picture import open_image, open_picture
from digits.reading.reader import Digit, Reader, text_lines
from digits.reading.selection import SURE

MAX_CARDS = 60  # digits that get a card, with what the network saw
MAX_PREVIEW_SIDE = 1200  # pixels
SHOWN_FORMATS = frozenset(["PNG", "JPEG", "MPO", "WEBP", "GIF", "BMP", "AVIF"])  # that browsers show
NO_DIGIT_FOUND = "No digit found."
INK, FOR, AGAINST = np.array([(190, 190, 190), (80, 150, 255), (255, 140, 40)], np.float32)  # RGB

Answer = dict[str, Any]  # becomes JSON


def answer(reader: Reader, content: bytes, why: str = "") -> Answer:
    """What the page asks of a picture.

    Args:
        reader: reads it.
        content: the bytes of its file, which comes from a visitor and may be anything.
        why: a digit, to be told which ink speaks for it; then the picture is what the network saw.

    Returns:
        As :func:`read_picture` or :func:`explain`; or ``message``: what is wrong, and ``opened``, False.
    """
    try:
        return explain(reader, content, int(why)) if why else read_picture(reader, content)
    except DigitsError as error:
        return {"message": str(error), "opened": False}


def read_picture(reader: Reader, content: bytes) -> Answer:
    """Read the picture in ``content``, the bytes of a file.

    Returns:
        ``opened``, True; ``message``: the digits, one line for each text line, or that there are none; ``digits``, with
        ``value``, ``confidence``, ``sure``, ``probabilities``, ``box`` and ``row`` as :class:`Digit` has them, and the
        first ``cards`` of them with ``image``, a data URL; for pictures that browsers do not show ``preview``, with
        ``url`` and the picture's own ``width`` and ``height``.

    Raises:
        DigitsError: it cannot be opened, or is too large for a shared server.
    """
    if len(content) > MAX_FILE_BYTES:
        raise DigitsError(f"This file is larger than {MAX_FILE_BYTES // 1_000_000} MB.")
    file = io.BytesIO(content)
    file.name = "This file"  # how error messages refer to it
    _check_size(file)
    found = reader.read(file)
    return {
        "opened": True,
        "message": "\n".join(text_lines(found)) or NO_DIGIT_FOUND,
        "digits": [_as_json(digit, number < MAX_CARDS) for number, digit in enumerate(found)],
        "cards": MAX_CARDS,
        "preview": _preview(file),
    }


def explain(reader: Reader, content: bytes, value: int) -> Answer:
    """Which ink speaks for ``value``.

    Args:
        reader: whose network is asked.
        content: the PNG of what the network saw of a digit, as :func:`read_picture` gives it.
        value: 0 to 9.

    Returns:
        ``opened``, True, and ``image``, a data URL: its ink, blue where it speaks for ``value``, orange where against.

    Raises:
        DigitsError: this is no such image.
    """
    file = io.BytesIO(content)
    file.name = "This image"
    image, size = open_picture(file, 28)
    if size != (28, 28):
        raise DigitsError("This is no image of a digit as the network sees it.")
    shares = occlusion_map(reader, image, value)[:, :, None]
    colour = INK + np.where(shares > 0, FOR - INK, AGAINST - INK) * np.abs(shares)
    return {"opened": True, "image": _png_url((colour * image[:, :, None] / 255).round().astype(np.uint8))}


def pixels_of(content: bytes) -> int:
    """How many pixels the picture has, as its head says; 0 if that cannot be told."""
    try:
        with open_image(io.BytesIO(content)) as picture:
            return picture.width * picture.height
    except Exception:  # the reader will report what is wrong
        return 0


def _check_size(file: io.BytesIO) -> None:
    """Refuse pictures that are too large for a shared server; the reader's own limit is for a machine of one's own."""
    try:
        with open_image(file) as picture:
            pixels = picture.width * picture.height
            full_size = picture.format not in ("JPEG", "MPO") or picture.info.get("progressive")
    except Image.DecompressionBombError as error:
        raise DigitsError("This picture has too many pixels.") from error
    except Exception:  # the reader will report what is wrong
        return
    limit = MAX_PIXELS if full_size else MAX_PIXELS_REDUCED
    if pixels > limit:
        raise DigitsError(
            f"This picture has {pixels / 1e6:.0f} million pixels; {limit // 1_000_000} million are the most."
        )


def _as_json(digit: Digit, with_image: bool) -> Answer:
    answer = {
        "value": digit.value,
        "confidence": round(digit.confidence, 6),
        "sure": digit.confidence >= SURE,
        "probabilities": [round(p, 6) for p in digit.probabilities],
        "box": [int(edge) for edge in digit.box],
        "row": digit.row,
    }
    return answer | {"image": _png_url(digit.image)} if with_image else answer


def _preview(file: io.BytesIO) -> Answer | None:
    """The picture in grey, for formats that browsers do not show."""
    with open_image(file) as picture:
        if picture.format in SHOWN_FORMATS:
            return None
    gray, (width, height) = open_picture(file, MAX_PREVIEW_SIDE)
    jpeg = io.BytesIO()
    Image.fromarray(gray).save(jpeg, "JPEG")
    return {"url": _url(jpeg, "jpeg"), "width": width, "height": height}


def _png_url(image: NDArray[np.uint8]) -> str:
    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    return _url(png, "png")


def _url(file: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
