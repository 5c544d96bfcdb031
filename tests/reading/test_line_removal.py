"""Ruled lines and frames are removed, and the strokes of digits stay."""

import cv2
import numpy as np
import pytest
from pages import DIGITS, page

from digits.data.mnist_image import stroke_width
from digits.reading.line_removal import remove_frame, remove_lines


def test_ruled_lines_go_and_the_strokes_that_cross_them_stay():
    digits = (page("42") < 128).astype(np.uint8)
    ruled = digits.copy()
    ruled[60::50] = 1
    ruled[61::50] = 1
    left = remove_lines(ruled, stroke_width(digits))
    assert (left & ~digits & 1).sum() < 0.02 * digits.sum()
    assert (digits & ~left & 1).sum() < 0.05 * digits.sum()


def test_ruled_lines_go_that_leave_the_picture_through_its_side():
    ruled = np.zeros((600, 800), np.uint8)
    for y in range(-90, 600, 60):
        cv2.line(ruled, (0, y), (799, y + 100), (1,), 3)
    assert remove_lines(ruled, 4).sum() < 0.05 * ruled.sum()


def test_bits_of_faint_lines_down_the_page_go_where_they_cross_ruled_lines_and_digits_stay():
    squared = np.zeros((600, 800), np.uint8)
    squared[30::60] = squared[31::60] = 1
    for x in range(30, 800, 60):
        for y in range(30, 600, 60):
            squared[y - 8 : y + 9, x : x + 2] = 1
    assert not remove_lines(squared, 3).any()
    seven = (cv2.resize(DIGITS[7], (60, 60)) > 128).astype(np.uint8)  # stands on a line
    squared[154:214, 300:360] |= seven
    assert remove_lines(squared, 3).sum() > 0.8 * seven.sum()


def test_the_bar_of_a_digit_that_fills_its_picture_is_no_ruled_line():
    seven = (cv2.resize(DIGITS[7], (112, 112)) > 128).astype(np.uint8)
    ys, xs = np.flatnonzero(seven.any(1)), np.flatnonzero(seven.any(0))
    tight = np.ascontiguousarray(seven[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1])
    assert np.array_equal(remove_lines(tight, stroke_width(tight)), tight)


def test_a_frame_and_the_lines_of_its_cells_go_and_the_digits_stay_though_they_touch_it():
    digits = (page("42") < 128).astype(np.uint8)
    top, bottom, right = 40, 180, digits.shape[1] - 20
    digits[bottom:] = 0
    framed = digits.copy()
    for x in (20, 200, right):
        cv2.line(framed, (x, top), (x, bottom), (1,), 3)
    for y in (top, bottom):
        cv2.line(framed, (20, y), (right, y), (1,), 3)
    place = slice(top - 1, bottom + 2), slice(19, right + 2)
    left = remove_frame(framed[place])
    assert (left & ~digits[place] & 1).sum() < 0.02 * digits.sum()
    assert (digits[place] & ~left & 1).sum() < 0.05 * digits.sum()


@pytest.mark.parametrize("filled", [False, True])
def test_what_holds_nothing_is_no_frame(filled: bool):
    square = np.ones((60, 60), np.uint8)
    square[6:-6, 6:-6] = filled
    assert np.array_equal(remove_frame(square), square)
