"""One digit's ink becomes an image like MNIST's."""

import cv2
import numpy as np
import pytest

from digits.data.mnist_image import DIGIT_SIDE, IMAGE_SIDE, mnist_image, quantile, stroke_width


def test_a_quantile_is_taken_from_all_columns_of_a_picture():
    rising = np.tile(np.arange(1000, dtype=np.float32), (1000, 1))  # from left to right
    assert quantile(rising, 0.5) == pytest.approx(500, abs=10)
    assert quantile(rising, 0.9) == pytest.approx(900, abs=10)


def test_stroke_width_is_that_of_a_drawn_line():
    mask = np.zeros((100, 300), np.uint8)
    mask[40:52, 20:280] = 1
    assert stroke_width(mask) == pytest.approx(12, rel=0.1)


@pytest.mark.parametrize("shape", [(300, 60), (60, 300), (200, 190)])
def test_a_digit_is_fitted_into_20_pixels_and_its_mass_is_in_the_middle(shape: tuple[int, int]):
    mask = np.zeros(shape, np.uint8)
    cv2.ellipse(mask, (shape[1] // 2, shape[0] // 2), (shape[1] // 2 - 12, shape[0] // 2 - 12), 0, 0, 300, (1,), 12)
    image = mnist_image(mask.astype(np.float32), mask)
    assert image.shape == (IMAGE_SIDE, IMAGE_SIDE) and image.dtype == np.uint8
    ys, xs = np.nonzero(image > 30)
    assert max(np.ptp(ys), np.ptp(xs)) + 1 in (DIGIT_SIDE - 1, DIGIT_SIDE)
    weights, places = image / image.sum(), np.arange(IMAGE_SIDE)
    assert (weights.sum(1) @ places, weights.sum(0) @ places) == pytest.approx((14, 14), abs=0.6)


def test_a_straight_stroke_is_put_in_the_middle():
    mask = np.ones((72, 8), np.uint8)
    image = mnist_image(mask.astype(np.float32), mask)
    assert np.array_equal(np.flatnonzero(image.any(0)), [14, 15])  # in OpenCV, n x 2 is often a list of points


def test_a_thin_pen_is_made_as_wide_as_mnists():
    mask = np.zeros((400, 400), np.uint8)
    cv2.circle(mask, (200, 200), 180, (1,), 3)
    assert (mnist_image(mask.astype(np.float32), mask) > 100).sum() > 60  # a ring of 2 pixels; unchanged it would be 0
