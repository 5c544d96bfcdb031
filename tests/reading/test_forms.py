"""Forms, tables and pages: what is left of lines around digits, neighbouring rows, what is small, faint or no digit."""

import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from pages import DIGITS, page
from PIL import Image, ImageDraw, ImageFont

from digits import Digit, Reader
from digits.reading.candidates import Candidate, join_near
from digits.reading.components import Box, Component
from digits.reading.edge_lines import remove_edge_lines
from digits.reading.layout import height_ratios, rows, words
from digits.reading.reader import text_lines
from digits.reading.segmentation import Segmentation
from digits.reading.selection import select_digits

PAPER, INK, LINE = 235, 60, 150  # grey levels


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


def text(digits: list[Digit]) -> str:
    return "/".join(text_lines(digits))


def cell(digit: int, margin: int = 30) -> NDArray[np.uint8]:
    """A digit alone on paper, 180 pixels high."""
    ink = cv2.resize(DIGITS[digit], (120, 120), interpolation=cv2.INTER_CUBIC) / 255
    return np.pad(PAPER - (PAPER - INK) * ink, margin, constant_values=PAPER).clip(0, 255).astype(np.uint8)


def with_lines(picture: NDArray[np.uint8], sides: str, thick: int, inset: int, how: str = "") -> NDArray[np.uint8]:
    """``picture`` with lines along its ``sides`` (l, t, r, b), straight, "tilted" by 2 degrees, or "broken"."""
    height, width = picture.shape
    y, x = np.indices(picture.shape)
    lines = picture.copy()
    for side in sides:
        from_edge, along, length = (x, y, height) if side in "lr" else (y, x, width)
        from_edge = from_edge if side in "lt" else (width if side == "r" else height) - 1 - from_edge
        if how == "tilted":
            from_edge = from_edge - math.tan(math.radians(2)) * (along - length / 2)
        on_line = (from_edge >= inset) & (from_edge < inset + thick)
        if how == "broken":
            on_line &= along * 10 // length % 3 != 2
        lines[on_line] = LINE
    return lines


# What is left of a frame


@pytest.mark.parametrize("how", ["straight", "tilted", "broken"])
@pytest.mark.parametrize("sides", ["l", "b", "lt", "ltr", "ltrb"])
def test_what_is_left_of_a_cells_frame_is_no_part_of_the_digit(reader: Reader, sides: str, how: str):
    read = [text(reader.read(with_lines(cell(digit), sides, 7, 5, how))) for digit in range(10)]
    assert read == [str(digit) for digit in range(10)]


@pytest.mark.parametrize("sides", ["l", "ltr"])
def test_a_digit_that_touches_what_is_left_of_its_cells_frame_is_read(reader: Reader, sides: str):
    read = []
    for digit in range(10):
        picture = cell(digit)
        ys, xs = np.nonzero(picture < 150)
        left, top, right = (0 if side in sides else 30 for side in "ltr")
        tight = picture[ys.min() - top : ys.max() + 31, xs.min() - left : xs.max() + 1 + right]
        framed = np.pad(tight, ((6 * (top == 0), 0), (6 * (left == 0), 6 * (right == 0))), constant_values=LINE)
        read.append(text(reader.read(framed)))
    assert sum(value == str(digit) for digit, value in enumerate(read)) >= 8, read


def test_a_bar_of_a_tightly_cropped_digit_is_no_line():
    seven = np.zeros((100, 60), np.uint8)
    seven[:8] = 1
    cv2.line(seven, (55, 4), (20, 99), (1,), 8)
    assert remove_edge_lines(seven) is seven


def test_a_frame_of_a_small_cell_is_no_part_of_the_digit(reader: Reader):
    small = cv2.resize(with_lines(cell(0), "ltr", 10, 0), (40, 40), interpolation=cv2.INTER_AREA)
    assert text(reader.read(small)) == "0"


# Rows


def test_rows_that_nearly_touch_stay_apart(reader: Reader):
    picture = page("123", "456", "789")
    inked = (picture < 128).any(1)
    close = picture[inked | (np.convolve(inked, np.ones(7), "same") > 0)]  # 3 pixels of paper at each side of a row
    assert text(reader.read(np.pad(close, 40, constant_values=255))) == "123/456/789"


def test_two_digits_one_above_the_other_are_two(reader: Reader):
    assert text(reader.read(page("5", "6", size=300, step=340))) == "5/6"


def test_rows_that_lean_are_read_one_by_one():
    boxes = [Box(60 * x, 80 * y + 9 * x, 60 * x + 40, 80 * y + 9 * x + 60) for y in range(3) for x in range(9)]
    assert rows(boxes) == [list(range(9 * y, 9 * y + 9)) for y in range(3)]


def test_digits_that_stagger_are_one_row():
    assert rows([Box(0, 0, 30, 100), Box(40, 70, 80, 120), Box(90, -30, 130, 40), Box(140, 50, 180, 110)]) == [
        [0, 1, 2, 3]
    ]


def test_a_speck_between_digits_does_not_break_their_order(reader: Reader):
    picture = page("9999", "9999")
    cv2.circle(picture, (325, 215), 6, (0,), -1)
    assert text(reader.read(picture)) == "9999/9999"


# Thin, faint, small


def test_digits_10_pixels_high_in_a_table_are_read(reader: Reader):
    table = np.full((250, 300), 255, np.uint8)
    for row in range(5):
        for column in range(4):
            small = cv2.resize(DIGITS[(4 * row + column) % 10], (14, 14), interpolation=cv2.INTER_AREA)
            place = table[50 * row + 18 : 50 * row + 32, 70 * column + 28 : 70 * column + 42]
            np.minimum(place, 255 - small, out=place)
    cv2.rectangle(table, (10, 5), (290, 245), (0,), 1)
    table[100:200, 10] = 255  # the frame is broken
    assert text(reader.read(table)) == "0123/4567/8901/2345/6789"


def test_a_thin_pen_is_read_under_a_dark_strip(reader: Reader):
    picture = page("3479", size=80, step=140).astype(float)
    faint = 200 - (255 - picture) * 0.25
    strip = np.full((60, picture.shape[1]), 20.0)
    assert (
        text(reader.read(np.vstack([strip, faint, np.full((200, picture.shape[1]), 200.0)]).astype(np.uint8))) == "3479"
    )


def test_strokes_of_an_open_4_are_one_digit(reader: Reader):
    picture = np.full((150, 150), 255, np.uint8)
    cv2.polylines(picture, [np.array([(60, 40), (45, 80), (80, 82)])], False, (0,), 6)
    cv2.line(picture, (92, 50), (90, 115), (0,), 6)
    assert text(reader.read(picture)) == "4"


def test_two_digits_side_by_side_are_never_one():
    labels = np.zeros((100, 100), np.int32)
    labels[20:80, 20:35], labels[22:80, 45:60] = 1, 2
    boxes = Box(20, 20, 35, 80), Box(45, 22, 60, 80)
    components = [Component([number], box, box.width * box.height) for number, box in enumerate(boxes, 1)]
    assert join_near(components, [], (labels > 0).astype(np.float32), labels, 60) == {}


def test_a_tail_that_fades_belongs_to_its_digit(reader: Reader):
    picture = page("9", size=200).astype(float)
    rows_ = np.flatnonzero((picture < 128).any(1))
    gap = slice(rows_[0] + round(0.72 * len(rows_)), rows_[0] + round(0.86 * len(rows_)))
    picture[gap] = 255 - (255 - picture[gap]) * 0.25
    assert text(reader.read(picture.astype(np.uint8))) == "9"


# Transparency


def test_an_opaque_patch_in_a_transparent_picture_is_paper(reader: Reader):
    picture = np.zeros((600, 800, 4), np.uint8)
    picture[200:380, 300:480, :3] = cell(5)[..., None]
    picture[200:380, 300:480, 3] = 255
    assert text(reader.read(Image.fromarray(picture))) == "5"


# What is no digit


def written(words_: str, size: int = 90) -> Image.Image:
    """``words_`` in a font that matplotlib carries."""
    from matplotlib import font_manager

    font = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), size)
    left, top, right, bottom = font.getbbox(words_)
    picture = Image.new("L", (int(right - left) + 80, int(bottom - top) + 80), 255)
    ImageDraw.Draw(picture).text((40 - left, 40 - top), words_, 0, font)
    return picture


@pytest.mark.parametrize("word", ["BATH", "Name", "hungry", "WXYKMN"])
def test_a_word_has_no_digits(reader: Reader, word: str):
    assert reader.read(written(word)) == []


def test_signs_between_digits_are_left_out(reader: Reader):
    assert text(reader.read(written("82-3+46=5"))) == "823465"


def test_letters_are_not_answered_with_confidence(reader: Reader):
    answers = [reader.read(written(letter)) for letter in "ACEFHJKLMNPRTUVWXYadefhkmnprtuvwxy+=?@#&%*$"]
    confident = [digits for digits in answers if any(digit.confidence >= 0.9 for digit in digits)]
    assert len(confident) <= 0.06 * len(answers)


@pytest.mark.parametrize("rise", [0, 120])
def test_a_fold_from_edge_to_edge_is_no_1(reader: Reader, rise: int):
    picture = np.full((300, 400), PAPER, np.uint8)
    cv2.line(picture, (200, -2), (200 + rise, 302), INK, 8, cv2.LINE_AA)
    assert text(reader.read(picture)) == ""


def test_a_blot_somewhat_higher_than_wide_is_no_1(reader: Reader):
    picture = np.full((300, 400), PAPER, np.uint8)
    for x, y in ((90, 60), (200, 170), (310, 240)):
        cv2.ellipse(picture, (x, y), (9, 14), 10, 0, 360, INK, -1, cv2.LINE_AA)
    assert text(reader.read(picture)) == ""


def test_fibres_are_no_ones(reader: Reader):
    picture, rng = np.full((460, 460), PAPER, np.uint8), np.random.default_rng(0)
    for x, y, angle in rng.uniform(0, [460, 460, math.pi], (100, 3)):
        reach = np.array([math.cos(angle), math.sin(angle)]) * 11
        ends = [(round(x + sign * reach[0]), round(y + sign * reach[1])) for sign in (-1, 1)]
        cv2.line(picture, *ends, (INK,), 2, cv2.LINE_AA)
    assert text(reader.read(picture)) == ""


@pytest.mark.parametrize(
    ("confidence", "height", "expected"),
    [(0.8, 40, ""), (0.8, 200, "1"), (0.95, 40, "1")],
    ids=["doubted", "high", "sure"],
)
def test_a_lone_1_is_left_out_where_it_is_doubted_and_low_in_its_picture(confidence: float, height: int, expected: str):
    candidate = Candidate(np.zeros((28, 28), np.uint8), Box(150, 60, 150 + height // 3, 60 + height))
    one = Digit(1, confidence, (0.0,) * 10, candidate.box, 0, candidate.image)
    read = select_digits(Segmentation([candidate], {}, height), {id(candidate): one}, (400, 300))
    assert text(read) == expected


def test_a_digit_that_the_pictures_edge_cuts_off_is_doubted(reader: Reader):
    whole = page("48", size=200, step=300)
    columns = np.flatnonzero((whole < 128).any(0))
    cut = whole[:, : columns[-1] - 20]
    confidences = [digit.confidence for digit in reader.read(cut)]
    assert confidences[0] > 0.9
    assert all(confidence < 0.9 for confidence in confidences[1:])


def test_a_digit_much_lower_than_its_neighbours_is_doubted():
    ratios = height_ratios([Box(60 * x, 0, 60 * x + 40, 60) for x in range(6)] + [Box(400, 40, 410, 60)])
    assert ratios == [1, 1, 1, 1, 1, 1, pytest.approx(1 / 3)]


def test_letters_stand_in_words_and_columns_of_digits_do_not():
    boxes = [Box(0, 0, 40, 60), Box(50, 0, 90, 60), Box(300, 0, 340, 60), Box(0, 200, 40, 260)]
    assert words(boxes) == [[0, 1], [3], [2]]
