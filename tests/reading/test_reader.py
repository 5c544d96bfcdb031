"""How pictures are read: binarized, segmented, made like MNIST's, classified."""

import io
import os

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pages import DIGITS, drawn, page
from PIL import Image
from sklearn.datasets import load_digits

from digits import DeepDigits, Digit, Reader
from digits.errors import DigitsError
from digits.network import to_input
from digits.reading.reader import text_lines
from digits.reading.segmentation import segment_digits

FIVE = """
.......#########
.......#########
................
..##............
..##.####.......
..#########.....
..##.....####...
..........###...
...........###..
...........###..
...........###..
...........###..
##.........###..
####......###...
.###########....
...#######......
"""  # its bar lies apart from it, along the picture's edge


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader()


def page_as_png(row: str) -> bytes:
    content = io.BytesIO()
    Image.fromarray(page(row)).save(content, "PNG")
    return content.getvalue()


def text(digits: list[Digit]) -> str:
    return "/".join(text_lines(digits))


# Shadows


def in_shadow(picture: NDArray[np.uint8], kind: str, strength: float = 0.6) -> NDArray[np.uint8]:
    """``picture`` with a shadow that begins within some 4 pixels: over its lower right, or round, as of a head."""
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]]
    middle = picture.shape[0] / 2, picture.shape[1] / 2
    inside = {
        "half": (x - middle[1]) * 0.8 + (y - middle[0]) * 0.6,
        "round": 0.4 * picture.shape[1] - np.hypot(x - picture.shape[1] * 0.9, y - middle[0]),
    }[kind]
    return (picture * (1 - strength / (1 + np.exp(-np.clip(inside, -99, 99))))).astype(np.uint8)


@pytest.mark.parametrize("kind", ["half", "round"])
@pytest.mark.parametrize("rows", [("427", "318"), ("5",)], ids="/".join)
def test_digits_in_and_beside_a_shadow_with_a_sharp_edge_are_read(reader: Reader, rows: tuple[str, ...], kind: str):
    picture = in_shadow(page(*rows), kind)
    assert text(reader.read(picture)) == "/".join(rows)


@pytest.mark.parametrize("kind", ["half", "round"])
@pytest.mark.parametrize("strength", [0.3, 0.6])
def test_a_shadow_with_a_sharp_edge_on_an_empty_page_is_no_digit(reader: Reader, kind: str, strength: float):
    assert reader.read(in_shadow(np.full((400, 500), 235, np.uint8), kind, strength)) == []


def test_mnists_own_images_come_out_as_they_went_in():
    differences = []
    for digit in DIGITS[:50]:
        found = next(answer.candidates[0] for answer in segment_digits(digit) if answer.candidates)
        differences.append(np.abs(found.image.astype(float) - digit).mean())
    assert np.mean(differences) < 12  # grey levels of 255; a shift by one pixel makes 30


# Digits in reading order


def test_rows_are_read_from_above_and_each_from_left_to_right(reader: Reader):
    assert text(reader.read(page("1234", "567", "890"))) == "1234/567/890"


def test_a_box_is_in_the_pictures_own_pixels(reader: Reader):
    picture = np.full((3000, 4000), 255, np.uint8)
    picture[1000:1560, 2000:2560] = 255 - cv2.resize(DIGITS[6], (560, 560))
    (digit,) = reader.read(picture)
    inked = np.argwhere(picture < 128)
    (top, left), (bottom, right) = inked.min(0), inked.max(0) + 1
    assert digit.value == 6
    assert digit.box == pytest.approx((left, top, right, bottom), abs=12)


@pytest.mark.parametrize(("width", "height"), [(1999, 1333), (2047, 1365), (1365, 2047)])
def test_the_box_of_a_digit_on_the_edge_ends_with_the_picture(reader: Reader, width: int, height: int):
    picture = np.full((height, width), 255, np.uint8)
    cv2.polylines(picture, [np.array([(800, height - 400), (1100, height - 400), (950, height)])], False, 0, 50)
    (digit,) = reader.read(picture)
    assert digit.box.bottom == height


def test_small_writing_on_a_large_page_is_looked_at_closer(reader: Reader):
    picture = np.full((3000, 4000), 250, np.uint8)
    small = page("2468", size=90, step=100)
    picture[200 : 200 + small.shape[0], 300 : 300 + small.shape[1]] = np.minimum(small, 250)
    assert text(reader.read(picture)) == "2468"


def test_digits_that_fill_a_tiny_square_of_black_and_white_are_read(reader: Reader):
    right = 0
    for label in range(200):
        ys, xs = np.nonzero(DIGITS[label] > 100)
        tight = DIGITS[label][ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]
        square = np.where(cv2.resize(tight, (16, 16), interpolation=cv2.INTER_AREA) > 90, 255, 0).astype(np.uint8)
        right += text(reader.read(square)) == str(label % 10)
    assert right >= 180  # a 1 becomes a block


def test_a_stroke_along_the_edge_of_a_tiny_picture_is_the_digits(reader: Reader):
    (digit,) = reader.read(drawn(FIVE))
    assert (digit.value, digit.box.top) == (5, 0)


def test_digits_of_8_by_8_pixels_are_read(reader: Reader):
    real = load_digits()
    images = (real.images * 255 / 16).astype(np.uint8)[:400]
    read = [text(digits) for digits in reader.read_many(images)]
    assert np.mean([a == str(b) for a, b in zip(read, real.target, strict=False)]) > 0.94


@pytest.mark.parametrize("index", [40, 50, 160, 170])
def test_a_bold_digit_is_no_blot(reader: Reader, index: int):
    bold = cv2.dilate(DIGITS[index], cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3)))
    assert text(reader.read(bold)) == "0"


def test_a_tight_picture_of_a_1_is_not_taken_for_a_shadow(reader: Reader):
    picture = np.zeros((16, 16), np.uint8)
    picture[:, 6:10] = 255
    assert text(reader.read(picture)) == "1"


def test_grey_digits_that_were_cut_out_tightly_are_not_taken_for_noise(reader: Reader):
    found = 0
    for image in DIGITS:
        ys, xs = np.nonzero(image > 60)
        found += len(reader.read(image[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1])) == 1
    assert found >= 0.995 * len(DIGITS)


def test_digits_that_touch_are_parted(reader: Reader):
    assert text(reader.read(page("300", step=92, thick=5))) == "300"


def written(*rows: str, height: int = 120, gap: int, down: int, uneven: int = 0) -> NDArray[np.uint8]:
    """White paper with real digits in bold, ``height`` pixels high, ``gap`` pixels of paper beside and ``down`` below.

    Of each two, one is ``uneven`` pixels lower.
    """
    paper = np.full((len(rows) * (height + down) + uneven + 100, len(rows[0]) * (height + gap) + 100), 255, np.uint8)
    for y, row in enumerate(rows):
        left = 50
        for x, value in enumerate(row):
            first, top, wide, tall = cv2.boundingRect((DIGITS[int(value)] > 60).view(np.uint8))
            cut = DIGITS[int(value)][top : top + tall, first : first + wide]
            ink = cv2.resize(cut, (round(wide * height / tall), height), interpolation=cv2.INTER_CUBIC)
            ink = np.where(ink > 60, 220, 0).astype(np.uint8)
            place = paper[50 + y * (height + down) + x % 2 * uneven :, left:][: ink.shape[0], : ink.shape[1]]
            np.minimum(place, 255 - ink, out=place)
            left += ink.shape[1] + gap
    return paper


def test_digits_that_stand_closer_than_a_stroke_is_wide_are_parted(reader: Reader):
    assert text(reader.read(written("4073625", gap=6, down=0))) == "4073625"


def test_rows_that_stand_closer_than_a_stroke_is_wide_are_parted(reader: Reader):
    assert text(reader.read(written("407362", "253740", gap=30, down=24))) == "407362/253740"


def test_digits_in_faint_pencil_are_read_on_ruled_paper(reader: Reader):
    paper = 1 - 0.1 * (255 - cv2.resize(page("407"), None, fx=0.8, fy=0.8, interpolation=cv2.INTER_AREA)) / 255
    paper = cv2.copyMakeBorder(paper, 200, 200, 200, 300, cv2.BORDER_CONSTANT, value=1)
    paper[20::50] *= 0.94
    paper = cv2.GaussianBlur(220 * paper, (0, 0), 1) + np.random.default_rng(0).normal(0, 1, paper.shape)
    assert text(reader.read(paper.astype(np.uint8))) == "407"


def test_digits_that_go_up_and_down_are_one_row(reader: Reader):
    assert text(reader.read(written("407362", gap=30, down=0, uneven=65))) == "407362"


def test_corners_that_the_lens_left_dark_are_no_digits(reader: Reader):
    picture = page("427", "305").astype(np.float32)
    y, x = (np.linspace(-1, 1, length) for length in picture.shape)
    away = np.hypot(y[:, None], x[None])
    assert text(reader.read((picture * (1 - 0.75 * np.clip(away - 0.9, 0, 1) / 0.5)).astype(np.uint8))) == "427/305"


def test_a_digit_with_a_small_break_stays_one(reader: Reader):
    picture = page("0")
    column = picture.shape[1] // 2
    picture[:, column - 2 : column + 3] = 255
    assert text(reader.read(picture)) == "0"


def test_faint_pencil_with_grain_is_read(reader: Reader):
    picture = 215 - 0.12 * (255 - page("274", "905").astype(np.float32))
    picture += np.random.default_rng(0).normal(0, 5, picture.shape)
    assert text(reader.read(picture.clip(0, 255).astype(np.uint8))) == "274/905"


def test_a_yellow_pen_on_white_is_read(reader: Reader):
    ink = 1 - page("427")[:, :, None] / 255
    assert text(reader.read((245 * (1 - ink) + np.array((255, 235, 60)) * ink).astype(np.uint8))) == "427"


def test_fragments_of_a_bold_digits_paper_are_not_read_in_its_place(reader: Reader):
    for index in (15, 862):
        ys, xs = np.nonzero(DIGITS[index] > 100)
        tight = cv2.dilate(DIGITS[index][ys.min() : ys.max() + 1, xs.min() : xs.max() + 1], np.ones((2, 2), np.uint8))
        square = (cv2.resize(tight, (16, 16), interpolation=cv2.INTER_AREA) > 90) * np.uint8(255)
        assert text(reader.read(square)) == str(index % 10)


def lined(picture: NDArray[np.uint8], *ends: tuple[int, int, int, int], tilt: float = 0) -> NDArray[np.uint8]:
    """``picture`` with lines from (x, y) to (x, y), on a page that is larger; all of it turned by ``tilt`` degrees."""
    picture = picture.copy()
    for x, y, to_x, to_y in ends:
        cv2.line(picture, (x, y), (to_x, to_y), (0,), 3)
    picture = cv2.copyMakeBorder(picture, 100, 100, 100, 100, cv2.BORDER_CONSTANT, value=255)
    height, width = picture.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), tilt, 1)
    return cv2.warpAffine(picture, turn, (width, height), borderValue=255).astype(np.uint8)


@pytest.mark.parametrize("tilt", [0, 4])
@pytest.mark.parametrize("columns", [(20, 500), (20, 190, 350, 500)])
def test_the_boxes_of_a_form_are_no_digits(reader: Reader, columns: tuple[int, ...], tilt: float):
    across = [(20, y, 500, y) for y in (30, 220, 420)]
    down = [(x, 30, x, 420) for x in columns]
    assert text(reader.read(lined(page("384", "520"), *across, *down, tilt=tilt))) == "384/520"


def test_a_digit_that_touches_its_box_is_read(reader: Reader):
    box = [(50, 60, 175, 60), (50, 170, 175, 170), (50, 60, 50, 170), (175, 60, 175, 170)]  # its floor touches
    for value in "023468":
        assert text(reader.read(lined(page(value), *box))) == value


def test_a_frame_around_a_tiny_picture_is_no_digit(reader: Reader):
    pictures = [cv2.rectangle(image.copy(), (0, 0), (27, 27), (255,), 1) for image in DIGITS[:100]]
    read = [text(digits) for digits in reader.read_many(pictures)]
    assert np.mean([answer == str(index % 10) for index, answer in enumerate(read)]) >= 0.95


@pytest.mark.parametrize("picture", ["4", "27"])
def test_a_circle_around_digits_is_no_digit(reader: Reader, picture: str):
    digits = lined(page(picture))
    height, width = digits.shape
    cv2.ellipse(digits, (width // 2, height // 2), (width // 2 - 80, 150), 0, 0, 360, (0,), 4)
    assert text(reader.read(digits)) == picture


@pytest.mark.parametrize("digits", ["8", "315"])
def test_an_underline_is_no_part_of_the_digits_above_it(reader: Reader, digits: str):
    width = page(digits).shape[1]
    assert text(reader.read(lined(page(digits), (20, 200, width - 30, 206)))) == digits


def test_specks_and_a_frame_are_no_digits(reader: Reader):
    picture = page("57")
    picture[:6], picture[-6:], picture[:, :6], picture[:, -6:] = 0, 0, 0, 0
    for y, x in ((30, 200), (230, 60), (225, 300)):
        picture[y : y + 5, x : x + 5] = 0
    assert text(reader.read(picture)) == "57"


# Blank


@pytest.mark.parametrize("size", [28, 100, 700])
@pytest.mark.parametrize("kind", ["white", "black", "gradient", "noise", "grain", "half", "vignette"])
def test_what_holds_no_digit_is_not_guessed(reader: Reader, kind: str, size: int):
    ramp = np.linspace(0, 1, size)
    picture = {
        "white": np.full((size, size), 255.0),
        "black": np.zeros((size, size)),
        "gradient": 60 + 150 * (ramp[None] + ramp[:, None]) / 2,
        "noise": np.random.default_rng(1).uniform(0, 255, (size, size)),
        "grain": np.random.default_rng(1).normal(200, 10, (size, size)),
        "half": np.where(ramp < 0.4, 90.0, 240.0)[None].repeat(size, 0),
        "vignette": 230 - 200 * np.hypot(ramp[None] - 0.5, ramp[:, None] - 0.5),
    }[kind]
    assert reader.read(picture.clip(0, 255).astype(np.uint8)) == []


@pytest.mark.parametrize("size", [200, 300])
def test_a_texture_is_not_guessed_though_some_of_it_looks_like_a_digit(reader: Reader, size: int):
    for seed in range(3):
        noise = np.random.default_rng(seed).normal(150, 40, (size, size)).clip(0, 255)
        assert reader.read(cv2.GaussianBlur(noise, (0, 0), 0.7).astype(np.uint8)) == []


@pytest.mark.parametrize(
    ("size", "blur"), [(28, 1), (64, 3), (100, 6), (200, 2), (200, 10), (640, 1), (640, 8), (640, 30)]
)
def test_noise_and_clouds_are_not_guessed_as_they_have_no_paper(reader: Reader, size: int, blur: int):
    for seed in range(3):
        noise = cv2.GaussianBlur(np.random.default_rng(seed).random((size, size)), (0, 0), blur)
        assert reader.read((noise - noise.min()) / np.ptp(noise)) == []


@pytest.mark.parametrize("shape", [(1, 1), (1, 900), (900, 1), (2, 3), (5, 700)])
def test_pictures_too_narrow_for_a_digit_have_none(reader: Reader, shape: tuple[int, int]):
    assert reader.read(np.random.default_rng(0).integers(0, 256, shape, np.uint8)) == []


# The reader


def test_probabilities_add_up_to_1_and_the_value_is_the_most_probable(reader: Reader):
    for digit in reader.read(page("3141592")):
        assert sum(digit.probabilities) == pytest.approx(1, abs=1e-5)
        assert digit.confidence == max(digit.probabilities) == digit.probabilities[digit.value]


def test_mnists_own_images_are_read_as_the_network_reads_them(reader: Reader):
    images = DIGITS[:200]
    with torch.inference_mode():
        alone = DeepDigits.from_pretrained()(to_input(torch.from_numpy(images))).argmax(1).tolist()
    read = [[digit.value for digit in digits] for digits in reader.read_many(list(images))]
    assert sum(a != [b] for a, b in zip(read, alone, strict=True)) <= 4


def test_many_pictures_come_in_their_order_and_a_bad_one_stops_nothing(reader: Reader, tmp_path):
    results = list(reader.read_many([page("1"), tmp_path / "none.png", page("2"), np.zeros((5, 5, 5)), page("3")]))
    assert [text(result) for result in results[::2]] == ["1", "2", "3"]
    assert all(isinstance(result, DigitsError) for result in results[1::2])


def test_pictures_that_cannot_be_opened_whatever_they_are_stop_nothing(reader: Reader, tmp_path):
    closed = io.BytesIO()
    closed.close()
    (tmp_path / "cut.png").write_bytes(page_as_png("5")[:-400])
    lazy = Image.open(tmp_path / "cut.png")
    results = list(reader.read_many([page("1"), closed, io.StringIO("text"), lazy, page("2")]))  # type: ignore[list-item]
    assert [text(result) for result in (results[0], results[-1])] == ["1", "2"]
    assert all(isinstance(result, DigitsError) and "\n" not in str(result) for result in results[1:-1])


def test_an_image_that_is_still_to_be_loaded_may_be_read_several_times_at_once(reader: Reader, tmp_path):
    (tmp_path / "a.png").write_bytes(page_as_png("5"))
    image = Image.open(tmp_path / "a.png")
    assert [text(result) for result in reader.read_many([image] * 8)] == ["5"] * 8


def test_what_came_before_an_error_of_the_pictures_source_is_read(reader: Reader):
    def pictures():
        yield from [page("1"), page("2"), page("3")]
        raise RuntimeError("the camera is gone")

    results = reader.read_many(pictures())
    assert [text(next(results)) for _ in range(3)] == ["1", "2", "3"]
    with pytest.raises(RuntimeError, match="the camera is gone"):
        next(results)


def test_a_blank_picture_is_read_from_a_pipe_though_it_is_looked_at_twice(reader: Reader):
    content = io.BytesIO()
    Image.new("RGB", (60, 40), "white").save(content, "PNG")
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(content.getvalue())
    with os.fdopen(reading, "rb") as pipe:
        assert reader.read(pipe) == []


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_readers_of_many_leave_the_threads_of_opencv_and_torch_as_they_were(reader: Reader, first_to_end: int):
    threads = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(3)
    torch.set_num_threads(3)
    try:
        both = [reader.read_many([page("1"), page("2")]) for _ in range(2)]
        assert [text(next(each)) for each in both] == ["1", "1"]
        assert (cv2.getNumThreads(), torch.get_num_threads()) == (1, 1)
        both[first_to_end].close()
        both[1 - first_to_end].close()
        assert (cv2.getNumThreads(), torch.get_num_threads()) == (3, 3)
    finally:
        cv2.setNumThreads(threads[0])
        torch.set_num_threads(threads[1])


def test_reading_one_by_one_and_many_at_once_gives_the_same(reader: Reader):
    pictures = [page(row) for row in ("12", "345", "6", "7890")]
    for one, many in zip(map(reader.read, pictures), reader.read_many(pictures), strict=True):
        assert [(d.value, d.box, d.row) for d in one] == [(d.value, d.box, d.row) for d in many]
