"""A sheet of paper on a table: what lies around it is not read."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from digits import Reader
from digits.data.mnist import load_mnist5k
from digits.reading.reader import text_lines
from digits.reading.sheet import isolate_sheet

DIGITS = load_mnist5k().test_images.numpy()  # in turn: 0, 1, ..., 9
CORNERS = np.array([[150, 110], [640, 80], [670, 470], [130, 500]], np.int32)  # of the sheet, seen aslant
PAPER = 225


def wood() -> NDArray[np.uint8]:
    """A table of 800 x 600 pixels, brown, with grain and a gap between two boards."""
    grain = np.random.default_rng(0).normal(0, 1, (120, 6)).astype(np.float32)
    table = 110 + 25 * cv2.resize(grain, (800, 600), interpolation=cv2.INTER_CUBIC)
    table[300:304] *= 0.5
    return table.clip(0, 255).astype(np.uint8)


def desk() -> NDArray[np.uint8]:
    """A plain one."""
    return np.full((600, 800), 90, np.uint8)


def with_sheet(table: NDArray[np.uint8], numbers: tuple[int, ...] = ()) -> NDArray[np.uint8]:
    """A sheet on ``table``, lit from the left, with digits of MNIST's."""
    paper = np.full(table.shape, PAPER, np.float32)
    for place, number in enumerate(numbers):
        digit = cv2.resize(DIGITS[number] / np.float32(255), (112, 112), interpolation=cv2.INTER_CUBIC).clip(0, 1)
        paper[200:312, 180 + 130 * place : 292 + 130 * place] *= 1 - 0.8 * digit
    sheet = cv2.fillConvexPoly(np.zeros(table.shape, np.uint8), CORNERS, (1,))
    picture = np.where(sheet > 0, paper, table) * np.linspace(1, 0.75, 800)
    return cv2.GaussianBlur(picture, (0, 0), 1).astype(np.uint8)


@pytest.mark.parametrize("table", [wood, desk])
def test_digits_on_a_sheet_are_read_whatever_it_lies_on(table):
    assert text_lines(Reader().read(with_sheet(table(), (3, 0, 7)))) == ["307"]


@pytest.mark.parametrize("table", [wood, desk])
def test_an_empty_sheet_has_no_digit(table):
    assert Reader().read(with_sheet(table())) == []


def test_what_is_around_a_sheet_becomes_as_bright_as_its_nearest_part():
    alone = isolate_sheet(with_sheet(wood()))
    assert alone is not None
    light = PAPER * np.linspace(1, 0.75, 800)
    assert np.abs(alone[:, 170:620] - light[170:620]).max() < 12
    assert np.abs(alone[:, :100] - light[150]).max() < 12


def test_the_lit_half_of_a_picture_is_no_sheet():
    picture = np.full((600, 800), PAPER, np.uint8)
    picture[:, 400:] = 120
    assert isolate_sheet(picture) is None


def test_a_light_disc_is_no_sheet():
    assert isolate_sheet(cv2.circle(np.full((600, 800), 60, np.uint8), (400, 300), 200, (PAPER,), -1)) is None


def test_light_digits_are_no_sheets():
    for digit in DIGITS[:100]:
        assert isolate_sheet(cv2.resize(digit, (420, 420), interpolation=cv2.INTER_CUBIC)) is None


def test_a_light_ring_with_corners_is_no_sheet():
    picture = np.full((600, 800), 30, np.uint8)
    cv2.rectangle(picture, (250, 100), (550, 500), (PAPER,), 60)
    assert isolate_sheet(picture) is None


def test_a_small_picture_is_not_looked_at():
    assert isolate_sheet(cv2.resize(with_sheet(desk()), (160, 120))) is None
