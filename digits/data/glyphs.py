"""Letters, signs and digits of fonts that OpenCV and matplotlib carry, bent as no two writers write alike."""

import functools
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIDE = 112  # pixels: of the picture that a character is drawn in
FONT_SIZE = 72  # pixels
WARP_SD = 5.0  # pixels: standard deviation by which the control points of the warp move
ROTATION, SLANT, ASPECT = 12.0, 0.35, (0.6, 1.35)  # degrees at most, shift of x by y at most, range of width by height
HERSHEY_SHARE = 0.6  # of the characters that OpenCV's fonts have: they are thin strokes, as a pen's are
HERSHEY_SCALE = {
    cv2.FONT_HERSHEY_SIMPLEX: 2.4,
    cv2.FONT_HERSHEY_PLAIN: 4.8,
    cv2.FONT_HERSHEY_DUPLEX: 2.4,
    cv2.FONT_HERSHEY_COMPLEX: 2.4,
    cv2.FONT_HERSHEY_SCRIPT_SIMPLEX: 2.4,
    cv2.FONT_HERSHEY_SCRIPT_COMPLEX: 2.4,
}
FAMILIES = ("DejaVu", "STIXGeneral", "cmb", "cmr", "cmss", "cmtt")  # of matplotlib, those with letters in ASCII's order

Picture = NDArray[np.uint8]  # (SIDE, SIDE), 255 = ink


def draw_character(character: str, random: np.random.Generator) -> Picture:
    """``character`` in the middle of a picture, in a random font, slanted, stretched, turned and bent by chance."""
    hershey = character.isascii() and random.random() < HERSHEY_SHARE
    return _bend(_hershey(character, random) if hershey else _truetype(character, random), random)


def _hershey(character: str, random: np.random.Generator) -> Picture:
    font = list(HERSHEY_SCALE)[random.integers(len(HERSHEY_SCALE))]
    thickness = int(random.integers(4, 10))
    (width, height), base = cv2.getTextSize(character, font, HERSHEY_SCALE[font], thickness)
    place = ((SIDE - width) // 2, (SIDE + height - base // 2) // 2)
    picture = np.zeros((SIDE, SIDE), np.uint8)
    cv2.putText(picture, character, place, font, HERSHEY_SCALE[font], 255, thickness, cv2.LINE_AA)
    return picture


def _truetype(character: str, random: np.random.Generator) -> Picture:
    fonts = _fonts(FAMILIES if character.isascii() else FAMILIES[:1])
    image = Image.new("L", (SIDE, SIDE))
    font = fonts[random.integers(len(fonts))]
    ImageDraw.Draw(image).text((SIDE / 2, SIDE / 2), character, 255, font, anchor="mm")
    return np.array(image)


@functools.cache
def _fonts(families: tuple[str, ...]) -> list[ImageFont.FreeTypeFont]:
    """The fonts of ``families`` that matplotlib carries."""
    matplotlib = find_spec("matplotlib")  # which need not be loaded for its fonts
    assert matplotlib is not None
    assert matplotlib.origin is not None
    folder = Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf"
    files = sorted(file for file in folder.glob("*.ttf") if file.name.startswith(families))
    return [ImageFont.truetype(file, FONT_SIZE) for file in files]


def _bend(picture: Picture, random: np.random.Generator) -> Picture:
    """``picture`` slanted, stretched, turned a little, and bent smoothly."""
    angle = np.radians(random.uniform(-ROTATION, ROTATION))
    wider = random.uniform(*ASPECT)
    slant = random.uniform(-SLANT, SLANT)
    y, x = np.indices(picture.shape) - SIDE / 2
    turned_x, turned_y = np.cos(angle) * x + np.sin(angle) * y, np.cos(angle) * y - np.sin(angle) * x
    moves = random.normal(0, WARP_SD, (2, 4, 4)).astype(np.float32)
    by_x, by_y = (cv2.resize(move, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for move in moves)
    source_x, source_y = (turned_x + slant * turned_y) / wider + SIDE / 2 + by_x, turned_y + SIDE / 2 + by_y
    maps = np.stack([source_x, source_y]).astype(np.float32)
    return np.asarray(cv2.remap(picture, maps[0], maps[1], cv2.INTER_LINEAR), np.uint8)
