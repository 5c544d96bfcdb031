"""Ink is told from paper, whatever the polarity, the light and the shadows."""

import cv2
import numpy as np
import pytest
from pages import DIGITS, drawn, page

from digits.reading.binarization import binarize, polarities

SIX = """
.....########...
....####........
..####..........
.###............
###....####.....
###.####..###...
######......###.
####.........###
###..........###
###..........###
###..........###
###..........###
####........###.
.####......####.
..###########...
....#######.....
"""  # thick strokes, and no margin


@pytest.mark.parametrize("size", [20, 200, 800])
def test_dark_ink_on_light_paper_and_the_reverse_are_told_apart(size: int):
    picture = cv2.resize(page("8"), (size, size))
    assert polarities(picture)[0] is False
    assert polarities(255 - picture)[0] is True


def test_a_bold_digit_that_fills_its_picture_is_told_from_its_paper_by_the_corners():
    for value in range(10):
        ys, xs = np.nonzero(DIGITS[value] > 100)
        tight = cv2.dilate(DIGITS[value][ys.min() : ys.max() + 1, xs.min() : xs.max() + 1], np.ones((2, 2), np.uint8))
        assert polarities(cv2.resize(tight, (112, 112)))[0] is True


def test_a_shadow_over_half_the_page_is_not_ink():
    picture = page("427").astype(float)
    shadow = 1 - 0.45 / (1 + np.exp((np.arange(picture.shape[1]) - 280) / 25))
    _, without = binarize(page("427"), light_on_dark=False)
    _, mask = binarize((picture * shadow).astype(np.uint8), light_on_dark=False)
    assert (mask != without).mean() < 0.01


def test_a_6_that_fills_a_tiny_square_keeps_its_back():
    enlarged = cv2.resize(drawn(SIX), (112, 112), interpolation=cv2.INTER_CUBIC)
    ink, _ = binarize(enlarged, light_on_dark=False)
    assert ink[45:80, :15].min() > 0.9
