"""Which ink speaks for a digit, and which against it."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from digits import Digit, Reader
from digits.reading.occlusion import occlusion_map


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


@pytest.fixture(scope="module")
def seven(reader: Reader) -> Digit:
    picture = Image.new("L", (200, 200), 255)
    ImageDraw.Draw(picture).line([(60, 40), (140, 40), (100, 160)], fill=0, width=14)
    (digit,) = reader.read(picture)
    assert digit.value == 7
    return digit


def test_the_bar_of_a_seven_speaks_for_it_and_against_a_one(reader: Reader, seven: Digit):
    rows, columns = np.nonzero(seven.image > 127)
    bar = (slice(rows.min(), rows.min() + 4), slice(columns.min(), columns.min() + 5))  # its left end: no 1 has it
    assert occlusion_map(reader, seven.image, 7)[bar].sum() > 0
    assert occlusion_map(reader, seven.image, 1)[bar].sum() < 0


def test_only_ink_counts_and_the_strongest_is_one(reader: Reader, seven: Digit):
    shares = occlusion_map(reader, seven.image, 7)
    assert shares.shape == (28, 28) and not shares[seven.image == 0].any()
    assert np.abs(shares).max() == pytest.approx(1)


def test_an_empty_image_has_no_shares(reader: Reader):
    assert not occlusion_map(reader, np.zeros((28, 28), np.uint8), 3).any()
