"""Draws the pictures of this folder, the same ones each time: `python examples/draw.py`."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from digits.data.synthetic import FORMS, Stroke, spline, warp

Picture = NDArray[Any]  # float64 (H, W, 3) RGB: how much of the light comes back, 0 to 1
Colour = tuple[float, float, float]  # the same of one ink or paper

BLUE, BLACK, CHALK = (0.10, 0.17, 0.50), (0.12, 0.12, 0.14), (0.92, 0.92, 0.88)
ONE = (((0.2, 0.27), (0.58, 0.0)), ((0.58, 0.0), (0.5, 1.0)))  # a flag and no foot
SEVEN = (((0.08, 0.05), (0.5, 0.02), (0.92, 0.0)), ((0.92, 0.0), (0.6, 0.42), (0.38, 1.0)))  # neither hook nor bar
CALM = (  # of each digit the forms that are drawn: those that most people write
    FORMS[0][:1], (ONE,), FORMS[2][:1] + FORMS[2][2:3], FORMS[3][:1], FORMS[4][:1] + FORMS[4][3:4],
    FORMS[5][:1], FORMS[6], (SEVEN,), FORMS[8][:1], FORMS[9][:2],
)  # fmt: skip


def noise(shape: tuple[int, ...], size: float, random: np.random.Generator) -> NDArray[Any]:
    """Smooth random numbers (H, W) of mean 0 and standard deviation 1, in spots of about ``size`` pixels."""
    step = max(size / 3, 1)  # drawn on a coarser grid, as a wide blur takes long
    small = random.normal(0, 1, (round(shape[0] / step) + 2, round(shape[1] / step) + 2))
    smooth = cv2.resize(cv2.GaussianBlur(small, (0, 0), size / step / 2), shape[1::-1], interpolation=cv2.INTER_CUBIC)
    return (smooth - smooth.mean()) / smooth.std()


def paper(width: int, height: int, colour: Colour, random: np.random.Generator) -> Picture:
    """A sheet with a grain, and with patches in which it is a little lighter or darker."""
    texture = noise((height, width), 1.5, random) + noise((height, width), 150, random)
    return np.ones((height, width, 1)) * colour * (1 + 0.006 * texture[..., None])


def rule(page: Picture, xs: range, ys: range, colour: Colour) -> None:
    """Print upright lines at ``xs`` and level ones at ``ys`` over all of ``page``, in place."""
    mask = np.zeros(page.shape[:2])
    mask[:, [*xs, *(x + 1 for x in xs)]] = 1
    mask[[*ys, *(y + 1 for y in ys)]] = 1
    page *= 1 - cv2.GaussianBlur(mask, (0, 0), 0.6)[..., None] * (1 - np.array(colour))


def turn(page: Picture, degrees: float) -> Picture:
    """``page``, turned to the left as by a camera that is held askew."""
    height, width = page.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
    return cv2.warpAffine(page, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)


class Writer:
    """A hand that writes on ``page`` in digits ``height`` pixels high, with a pen of ``width`` pixels.

    ``dry`` is how much the paper's grain shows in its strokes, 0 to 1: little with a felt pen, much with chalk.
    """

    def __init__(
        self, page: Picture, random: np.random.Generator, ink: Colour, width: float, height: float, dry: float = 0.15
    ) -> None:
        self.page, self.random, self.ink, self.width, self.height = page, random, np.array(ink), width, height
        self.forms = [forms[random.integers(len(forms))] for forms in CALM]
        self.slant, self.aspect = random.uniform(0.05, 0.2), random.uniform(0.56, 0.66)
        self.grain = (1 - dry * (0.5 + 0.6 * noise(page.shape, 2, random))).clip(0, 1)

    def write(self, text: str, x: float, y: float, step: float = 0.8, row: float = 2) -> Picture:
        """Write rows of digits and spaces, parted by slashes, ``step`` and ``row`` heights apart; returns the page."""
        for line, characters in enumerate(text.split("/")):
            drift = self.random.normal(0, 0.012)  # up or down, by the line's length
            for place, character in enumerate(characters):
                left = x + (place * step + self.random.normal(0, 0.025)) * self.height
                top = y + (line * row + place * drift * step + self.random.normal(0, 0.022)) * self.height
                if character != " ":
                    narrower = 0.85 if character in "147" else 1
                    self.draw(self.forms[int(character)], left, top, self.aspect * narrower)
        return self.page

    def draw(self, strokes: tuple[Stroke, ...], x: float, y: float, aspect: float) -> None:
        """Draw ``strokes``, ``aspect`` times as wide as high, with small deviations that are others each time."""
        displacements, size = self.random.normal(0, 0.018, (2, 3, 3)), self.height * self.random.normal(1, 0.025)
        mask = np.zeros(self.page.shape[:2], np.uint8)
        for stroke in strokes:
            if len(stroke) == 2:  # nobody's straight strokes are straight
                bend = self.random.normal(0, 0.012, 2)
                stroke = stroke[0], tuple(np.mean(stroke, 0) + bend), stroke[1]
            points = spline(tuple(map(tuple, warp(np.array(stroke), displacements))))
            across = points[:, 0] * aspect + self.slant * (0.5 - points[:, 1])
            self._draw_stroke(mask, np.stack([x + size * across, y + size * points[:, 1]], 1))
        cover = 0.95 * (cv2.GaussianBlur(mask, (0, 0), 0.8) / 255 * self.grain)[..., None]
        if self.page.mean() > 0.5:
            self.page *= 1 - cover * (1 - self.ink)
        else:  # chalk covers what ink would only darken
            self.page += cover * (self.ink - self.page)

    def _draw_stroke(self, mask: NDArray[np.uint8], points: NDArray[Any]) -> None:
        """Along ``points`` (N, 2), in pixels; the pen presses unevenly, and less at both ends."""
        lengths = np.concatenate([[0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
        at = np.arange(0, lengths[-1], 0.7)
        xs, ys = (np.interp(at, lengths, points[:, axis]) for axis in (0, 1))
        to_end = np.minimum(at, lengths[-1] - at) / self.width
        pressure = np.interp(to_end, [0, 2.5], [0.8, 1]) * (1 + 0.07 * noise((1, len(at)), 60, self.random)[0])
        for x, y, radius in zip(xs, ys, self.width / 2 * pressure, strict=True):
            cv2.circle(mask, (round(x * 16), round(y * 16)), round(radius * 16), 255, -1, cv2.LINE_AA, 4)


# ---- the pictures; a function's name is the file's


def addition(random: np.random.Generator) -> Picture:
    """Three numbers, a plus sign, a line, the sum."""
    page = paper(800, 1000, (0.97, 0.96, 0.94), random)
    writer = Writer(page, random, BLUE, 9, 120)
    writer.write("128/ 64/307", 340, 110, row=1.6)
    writer.write("499", 340, 740)
    writer.draw((((0.1, 0.55), (0.9, 0.55)), ((0.5, 0.2), (0.5, 0.9))), 200, 500, 0.6)
    writer.draw((((0, 0), (0.5, 0), (1, 0.01)),), 190, 690, 3.6)
    return page


def board(random: np.random.Generator) -> Picture:
    """Chalk on a blackboard that was wiped."""
    wiped = cv2.resize(noise((200, 60), 12, random), (1200, 600), interpolation=cv2.INTER_CUBIC)  # wide streaks
    page = paper(1200, 600, (0.17, 0.25, 0.22), random)
    page += 0.025 * (wiped + noise((600, 1200), 300, random))[..., None]
    return Writer(page, random, CHALK, 19, 260, dry=0.3).write("1967", 220, 165)


def form(random: np.random.Generator) -> Picture:
    """Boxes for a date and joined ones for a number, scanned."""
    page = np.ones((480, 1060, 3))
    for y, count, step in ((60, 8, 115), (280, 7, 90)):
        for left in range(70, 70 + step * count, step):
            cv2.rectangle(page, (left, y), (left + 90, y + 124), (0.35, 0.35, 0.35), 2, cv2.LINE_AA)
    writer = Writer(page, random, BLUE, 7, 84)
    writer.write("24071969", 90, 82, step=115 / 84)
    writer.write("3804157", 90, 302, step=90 / 84)
    return page


def hurried_form(random: np.random.Generator) -> Picture:
    """Digits that cross the lines of their boxes."""
    page = paper(1200, 480, (0.97, 0.96, 0.94), random)
    for left in range(140, 980, 105):
        cv2.rectangle(page, (left, 170), (left + 105, 300), (0.75, 0.45, 0.35), 2, cv2.LINE_AA)
    return turn(Writer(page, random, BLUE, 8, 132).write("70385294", 155, 178, step=103 / 132), 2)


def marks(random: np.random.Generator) -> Picture:
    """A table, a row for each pupil."""
    page = paper(1000, 900, (0.98, 0.98, 0.97), random)
    rule(page[70:828, 80:922], range(0, 842, 168), range(0, 758, 126), (0.3, 0.3, 0.3))
    text = "12321/21132/34243/22512/13123/45342"
    return Writer(page, random, BLACK, 7, 76).write(text, 140, 96, step=168 / 76, row=126 / 76)


def note(random: np.random.Generator) -> Picture:
    """Under a lamp, in the shadow of somebody, held askew."""
    page = paper(1400, 900, (0.95, 0.92, 0.83), random)
    page = turn(Writer(page, random, BLUE, 10, 145).write("4 82 19/60 357", 260, 200), 4)
    y, x = np.mgrid[:900, :1400] / 1400
    lamp = 1.05 * np.exp(-((x - 0.2) ** 2 + (y - 0.1) ** 2) / 0.9)
    shadow = 1 / (1 + np.exp(-(x - 0.62 - 0.25 * (y - 0.3)) * 40))  # its edge is soft
    light = (lamp * (1 - 0.4 * shadow))[..., None] * (1.0, 0.93, 0.8)
    return page * light + random.normal(0, 0.006, page.shape)


def phone(random: np.random.Generator) -> Picture:
    """A phone number on plain paper."""
    page = paper(1300, 420, (0.96, 0.95, 0.92), random)
    return Writer(page, random, BLUE, 7, 105).write("020 7946 0958", 110, 150)


def postcode(random: np.random.Generator) -> Picture:
    """On ruled paper."""
    page = paper(1100, 520, (0.98, 0.97, 0.93), random)
    rule(page, range(0), range(60, 520, 130), (0.62, 0.72, 0.88))
    return Writer(page, random, BLACK, 8, 104).write("48153", 230, 212)


def squared(random: np.random.Generator) -> Picture:
    """A page of a squared notebook."""
    page = paper(1200, 900, (0.97, 0.97, 0.95), random)
    rule(page, range(25, 1200, 50), range(20, 900, 50), (0.68, 0.78, 0.90))
    text = "2 4 8 16 32/3 9 27 81/5 25 625"
    return Writer(page, random, BLUE, 7, 90).write(text, 90, 126, step=100 / 90, row=250 / 90)


def thick_pen(random: np.random.Generator) -> Picture:
    """One digit."""
    page = paper(800, 800, (0.97, 0.97, 0.96), random)
    return Writer(page, random, BLACK, 52, 460, dry=0.05).write("5", 270, 165)


if __name__ == "__main__":
    for draw in (addition, board, form, hurried_form, marks, note, phone, postcode, squared, thick_pen):
        pixels = draw(np.random.default_rng(list(draw.__name__.encode()))).clip(0, 1) * 255
        path = Path(__file__).with_name(f"{draw.__name__}.{'png' if draw is form else 'jpg'}")
        Image.fromarray(pixels.round().astype(np.uint8)).save(path, quality=80, optimize=True)
