"""Pictures of any kind become grey levels, or one line that says why not."""

import io
import os
import sys
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from digits.errors import DigitsError
from digits.reading import grayscale, picture
from digits.reading.picture import open_picture

DARK, LIGHT = 40, 220


def scene(width: int = 60, height: int = 40) -> Image.Image:
    """A dark rectangle on light paper, left of the middle and above it."""
    pixels = np.full((height, width, 3), LIGHT, np.uint8)
    pixels[height // 8 : height // 2, width // 8 : width // 2] = DARK
    return Image.fromarray(pixels)


def gray_of(source: picture.PictureLike, longest: int = 1000, colours: bool = False) -> np.ndarray:
    return open_picture(source, longest, colours)[0]


def looks_like(gray: np.ndarray, expected: np.ndarray, tolerance: float = 3) -> bool:
    return gray.shape == expected.shape and float(np.abs(gray.astype(int) - expected).mean()) < tolerance


EXPECTED = np.asarray(scene().convert("L"))


# ---- formats and modes


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif", "a.bmp", "a.gif", "a.ppm", "с пробелом и 7.png"])
def test_every_format_is_opened(name: str, tmp_path: Path):
    scene().save(tmp_path / name)
    assert looks_like(gray_of(tmp_path / name), EXPECTED)
    assert looks_like(gray_of(str(tmp_path / name)), EXPECTED)


def test_heic_is_opened(tmp_path: Path):
    pytest.importorskip("pillow_heif").register_heif_opener()
    scene(64, 64).save(tmp_path / "a.heic")
    assert looks_like(gray_of(tmp_path / "a.heic"), np.asarray(scene(64, 64).convert("L")))


def test_heic_without_its_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # import raises ImportError
    with pytest.raises(DigitsError, match=r"a\.heic: is HEIC: pillow-heif .* pip install -e '\.\[heic\]'"):
        gray_of(tmp_path / "a.heic")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV"])
def test_every_mode_of_8_bits_is_understood(mode: str):
    assert looks_like(gray_of(scene().convert(mode)), EXPECTED, {"1": 70, "P": 25}.get(mode, 3))  # those are dithered


@pytest.mark.parametrize(
    ("mode", "factor"), [("I;16", 257), ("I", 257), ("I", 1), ("F", 1 / 255), ("F", 1), ("I;16", 16)]
)
def test_more_than_8_bits_are_brought_to_8(mode: str, factor: float, tmp_path: Path):
    deep = Image.fromarray(
        (EXPECTED.astype(float) * factor).astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode])
    )
    assert deep.mode == mode
    deep.save(tmp_path / "a.tif")
    assert looks_like(gray_of(deep), EXPECTED)
    assert looks_like(gray_of(tmp_path / "a.tif"), EXPECTED)


def test_a_png_of_16_bits_is_brought_to_8(tmp_path: Path):
    Image.fromarray(EXPECTED.astype(np.uint16) * 257).save(tmp_path / "a.png")
    assert looks_like(gray_of(tmp_path / "a.png"), EXPECTED)


@pytest.mark.parametrize(
    ("ink", "paper"),
    [
        ((255, 235, 60), (245, 245, 240)),
        ((200, 50, 40), (50, 125, 50)),
        ((60, 110, 190), (230, 60, 50)),
    ],
    ids=["yellow on white", "red on green", "blue on red"],
)
@pytest.mark.parametrize(("name", "mode"), [("a.png", "RGB"), ("a.png", "RGBA"), ("a.jpg", "RGB"), ("a.gif", "RGB")])
def test_ink_that_is_as_bright_as_its_paper_is_seen_by_its_colour(
    ink: tuple[int, ...], paper: tuple[int, ...], name: str, mode: str, tmp_path: Path
):
    stroke = np.asarray(scene())[:, :, :1] == DARK
    Image.fromarray(np.where(stroke, np.uint8(ink), np.uint8(paper))).convert(mode).save(tmp_path / name)
    gray = gray_of(tmp_path / name, colours=True).astype(int)
    assert abs(gray[stroke[:, :, 0]].mean() - gray[~stroke[:, :, 0]].mean()) > 60


def test_ink_that_is_darker_than_its_paper_is_seen_by_its_brightness():
    stroke = np.asarray(scene())[:, :, :1] == DARK
    blue_on_cream = Image.fromarray(np.where(stroke, np.uint8((40, 60, 170)), np.uint8((250, 245, 225))))
    assert np.array_equal(gray_of(blue_on_cream, colours=True), np.asarray(blue_on_cream.convert("L")))


def test_a_cmyk_jpeg_and_tiff_are_understood(tmp_path: Path):
    for name in ("a.jpg", "a.tif"):
        scene().convert("CMYK").save(tmp_path / name)
        assert looks_like(gray_of(tmp_path / name), EXPECTED, 6)


def test_the_first_frame_of_an_animation_counts(tmp_path: Path):
    frames = [scene(), ImageOps.invert(scene())]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert looks_like(gray_of(tmp_path / "a.gif"), EXPECTED)


def test_a_file_without_an_end_to_seek_is_read_from_a_pipe():
    content = io.BytesIO()
    scene().save(content, "PNG")
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(content.getvalue())
    with os.fdopen(reading, "rb") as pipe:
        assert looks_like(gray_of(pipe), EXPECTED)


def test_a_single_pixel_is_a_picture():
    assert gray_of(Image.new("RGB", (1, 1), "white")).tolist() == [[255]]


# ---- transparency


def drawing(ink: int, under: int, mode: str = "LA") -> Image.Image:
    """A stroke of ``ink`` on nothing, whose colour would be ``under``."""
    pixels = np.full((40, 40, 2), (under, 0), np.uint8)
    pixels[10:30, 18:22] = (ink, 255)
    return Image.fromarray(pixels, "LA").convert(mode) if mode != "LA" else Image.fromarray(pixels, "LA")


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize(("ink", "paper"), [(0, 255), (90, 255), (255, 0), (200, 0)])
def test_ink_on_nothing_gets_paper_that_it_stands_out_from(ink: int, paper: int, mode: str):
    gray = gray_of(drawing(ink, under=ink, mode=mode))
    assert (gray[0, 0], gray[20, 20]) == (paper, ink)


def test_the_colour_of_what_is_transparent_does_not_show():
    assert (gray_of(drawing(0, under=0)) == gray_of(drawing(0, under=255))).all()


def test_a_palette_with_a_transparent_colour(tmp_path: Path):
    pixels = np.zeros((40, 40), np.uint8)
    pixels[10:30, 18:22] = 1
    image = Image.fromarray(pixels, "P")
    image.putpalette([0, 0, 0, 10, 10, 10])
    for name in ("a.png", "a.gif"):
        image.save(tmp_path / name, transparency=0)
        gray = gray_of(tmp_path / name)
        assert (gray[0, 0], gray[20, 20]) == (255, 10)


def test_a_sheet_cut_out_lies_on_paper_like_its_own():
    image = scene().convert("RGBA")
    image.putalpha(Image.fromarray(np.pad(np.full((36, 56), 255, np.uint8), 2)))
    assert abs(int(gray_of(image)[0, 0]) - LIGHT) <= 1


def test_what_is_wholly_transparent_is_blank():
    assert (gray_of(Image.new("RGBA", (5, 5))) == 255).all()


# ---- orientation and size


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
def test_pictures_are_turned_as_exif_says(orientation: int, suffix: str, tmp_path: Path):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / f"a.{suffix}"
    scene().save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("L"))
    assert looks_like(gray_of(path), expected)


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01", b"Exif\0\0"])
def test_broken_exif_does_not_hurt(exif: bytes, tmp_path: Path):
    scene().save(tmp_path / "a.jpg", exif=exif)
    assert looks_like(gray_of(tmp_path / "a.jpg"), EXPECTED)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize(
    ("size", "longest"), [((1000, 700), 100), ((700, 1000), 300), ((999, 30), 50), ((230, 170), 100)]
)
def test_large_pictures_are_reduced_by_averaging(size: tuple[int, int], longest: int, suffix: str, tmp_path: Path):
    scene(*size).save(tmp_path / f"a.{suffix}")
    gray, whole = open_picture(tmp_path / f"a.{suffix}", longest)
    assert max(gray.shape) == longest
    assert whole == size
    assert abs(gray.mean() - np.asarray(scene(*size).convert("L")).mean()) < 4


def test_small_pictures_stay_as_they_are():
    gray, size = open_picture(scene(), 1000)
    assert (gray == EXPECTED).all() and size == scene().size


def test_thin_lines_survive_the_reduction():
    pixels = np.full((1000, 1000), 255, np.uint8)
    pixels[:, 500:502] = 0
    assert gray_of(pixels, 100)[:, 50].max() < 220


def test_an_image_of_pillow_stays_as_it_was(tmp_path: Path):
    scene(1000, 700).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        open_picture(image, 100)
        assert (image.size, image.mode) == ((1000, 700), "RGB")


# ---- arrays

GRAY = EXPECTED / 255


@pytest.mark.parametrize(
    "array",
    [
        EXPECTED,
        EXPECTED[:, :, None],
        np.dstack([EXPECTED] * 3),
        np.dstack([EXPECTED] * 3 + [np.full_like(EXPECTED, 255)]),
        EXPECTED.astype(np.int64),
        EXPECTED.astype(np.uint16) * 257,
        EXPECTED.astype(np.uint16) * 16,
        GRAY,
        GRAY.astype(np.float16),
        np.dstack([GRAY] * 3),
        GRAY * 255,
        (GRAY * 255 - 127) * 1.02 + 127,  # as resampling overshoots
        np.asfortranarray(EXPECTED),
        EXPECTED[::-1][::-1],
    ],
    ids=lambda array: f"{array.dtype} {array.shape} {array.max():g}",
)
def test_arrays_of_every_usual_kind(array: np.ndarray):
    assert looks_like(gray_of(array), EXPECTED)


def test_true_is_white():
    assert gray_of(np.array([[True, False]])).tolist() == [[255, 0]]


def test_what_resampling_put_a_little_outside_is_cut():
    assert gray_of(np.array([[-0.05, 1.08, 0.5]])).tolist() == [[0, 255, 128]]


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.zeros((0, 5)), "no pixels"),
        (np.zeros(5), "shape"),
        (np.zeros((5, 5, 2)), "shape"),
        (np.zeros((2, 5, 5, 3)), "shape"),
        (np.full((5, 5), np.nan), "NaN"),
        (np.array([[0, np.inf]]), "infinite"),
        (np.array([[-0.4, 2.8]]), "negative"),
        (np.array([[-1, 5]]), "negative"),
        (np.array([["a"]]), "type <U1"),
        (np.array([[None]]), "type object"),
        (np.array([[1j]]), "type complex128"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_array_that_is_no_picture_is_refused(array: np.ndarray, reason: str):
    with pytest.raises(DigitsError, match=f"^the array: .*{reason}"):
        gray_of(array)


# ---- what cannot be read


def refused(path: Path) -> str:
    """What is wrong with ``path``: one line, which names it first."""
    with pytest.raises(DigitsError) as caught:
        gray_of(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    return message.removeprefix(f"{path}: ")


def test_a_missing_file(tmp_path: Path):
    assert refused(tmp_path / "no.png") == "no such file"


def test_a_folder(tmp_path: Path):
    assert refused(tmp_path) == "is a folder, not a picture"


def test_a_file_in_a_file(tmp_path: Path):
    (tmp_path / "a").write_text("")
    assert refused(tmp_path / "a" / "b.png") == "cannot be read: Not a directory"


def test_an_empty_file(tmp_path: Path):
    (tmp_path / "a.png").touch()
    assert refused(tmp_path / "a.png") == "is empty"


@pytest.mark.parametrize("content", [b"hello", b"\x89PNG\r\n\x1a\n", b"%!PS-Adobe-3.0 EPSF-3.0\n", bytes(1000)])
def test_what_is_no_picture(content: bytes, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(content)
    assert refused(tmp_path / "a.png").startswith("is no picture that can be read (PNG, ")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path):
    scene().save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    assert refused(tmp_path / "a.png") == "cannot be read: Permission denied"


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_a_truncated_file(suffix: str, share: float, tmp_path: Path):
    noise = np.random.default_rng(0).integers(0, 255, (100, 100, 3), np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    assert refused(path) == "is truncated: the rest of the file is missing"


def test_a_damaged_file(tmp_path: Path):
    scene().save(tmp_path / "a.webp")
    (tmp_path / "a.webp").write_bytes((tmp_path / "a.webp").read_bytes()[:60])
    assert refused(tmp_path / "a.webp").startswith("is damaged or cut short: ")


def test_what_is_no_source_at_all():
    with pytest.raises(DigitsError, match="list: a picture is a path"):
        gray_of([1, 2])  # type: ignore[arg-type]


# ---- limits


def bomb(path: Path, side: int) -> Path:
    """A small PNG of so many pixels, of which only the head is there."""
    content = io.BytesIO()
    Image.new("1", (8, 8)).save(content, "PNG")
    head = bytearray(content.getvalue())
    head[16:24] = side.to_bytes(4, "big") * 2
    head[29:33] = zlib.crc32(bytes(head[12:29])).to_bytes(4, "big")
    path.write_bytes(head)
    return path


@pytest.mark.parametrize("side", [20_000, 12_000, 10_001])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side: int, tmp_path: Path):
    assert refused(bomb(tmp_path / "a.png", side)).startswith("is too big to be decoded: ")


def test_a_large_jpeg_counts_by_what_the_decoder_makes_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(picture, "MAX_PIXELS", 100_000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    scene(1000, 700).save(tmp_path / "a.jpg")
    scene(1000, 700).save(tmp_path / "progressive.jpg", progressive=True)
    assert gray_of(tmp_path / "a.jpg", 100).shape == (70, 100)
    assert refused(tmp_path / "a.jpg").startswith("is too big")  # not reduced
    with pytest.raises(DigitsError, match="too big"):  # all its coefficients are kept
        gray_of(tmp_path / "progressive.jpg", 100)


def test_arrays_have_the_same_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(picture, "MAX_PIXELS", 100)
    with pytest.raises(DigitsError, match="11 x 10 pixels, more than"):
        gray_of(np.zeros((10, 11)))


def test_pillows_own_limit_stays(tmp_path: Path):
    before = Image.MAX_IMAGE_PIXELS
    refused(bomb(tmp_path / "a.png", 20_000))
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_stream_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(picture, "MAX_STREAM_BYTES", 1_000_000)
    with Path("/dev/zero").open("rb") as zeros, pytest.raises(DigitsError, match="more than 1 MB"):
        picture.read_stream(zeros)


def test_bands_make_no_seams(monkeypatch: pytest.MonkeyPatch):
    whole = gray_of(drawing(0, 0)), gray_of(Image.fromarray(GRAY)), gray_of(GRAY)
    monkeypatch.setattr(grayscale, "STRIP_VALUES", 100)
    for before, after in zip(
        whole, (gray_of(drawing(0, 0)), gray_of(Image.fromarray(GRAY)), gray_of(GRAY)), strict=True
    ):
        assert (before == after).all()


# ---- manners


def test_pillows_warnings_are_kept_back(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    path = bomb(tmp_path / "a.png", 9_999)  # Pillow warns from 89 million pixels on
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with warnings.catch_warnings(record=True) as unquiet:
            warnings.simplefilter("always")
            Image.open(path).close()
        refused(path)
    assert unquiet and not caught
    assert capfd.readouterr() == ("", "")


def test_threads_leave_pythons_warning_filters_as_they_were(tmp_path: Path):
    scene().save(tmp_path / "a.png")
    before = list(warnings.filters)

    def work() -> None:
        for _ in range(20):
            gray_of(tmp_path / "a.png")

    threads: list[threading.Thread] = [threading.Thread(target=work) for _ in range(4)]
    do: Callable[[threading.Thread], None]
    for do in (threading.Thread.start, threading.Thread.join):
        for thread in threads:
            do(thread)
    assert list(warnings.filters) == before
