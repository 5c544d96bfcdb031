"""Pictures that would take much time or memory to decode are refused by what their header says."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from digits.errors import DigitsError
from digits.reading.picture import MAX_SIDE, open_picture


def png(width: int, height: int) -> io.BytesIO:
    """A PNG that says it has this size, and has no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return io.BytesIO(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))


def run_length_bmp(width: int, height: int, runs: bytes) -> bytes:
    """A bitmap of 8 bits, compressed by run lengths."""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 0, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + info + bytes(1024) + runs


@pytest.mark.parametrize(("width", "height"), [(1, 99_999_999), (99_999_999, 1), (1, MAX_SIDE + 1)])
def test_a_picture_with_a_very_long_side_is_not_decoded(width: int, height: int):
    said = f"is too long to be read: {width:,} x {height:,} pixels, a side over 200,000$"
    with pytest.raises(DigitsError, match=said):
        open_picture(png(width, height), 1000)
    with pytest.raises(DigitsError, match=said):
        open_picture(np.broadcast_to(np.uint8(0), (height, width)), 1000)


def test_a_long_strip_is_read():
    content = io.BytesIO()
    Image.new("L", (20_000, 50)).save(content, "PNG")
    assert open_picture(content, 1000)[1] == (20_000, 50)


@pytest.mark.parametrize(
    "content",
    [
        b"P1 2000 2000\n" + b"1 " * 100,
        b"P2 100 100 255\n" + b"255 " * 300_000,
        b"P3 1000 1000 255\n" + b"200 100 50 " * 1_000_000,
        b"P5 3000 3000 254\n" + bytes(9_000_000),
        b"P6 3000 3000 254\n" + bytes(27_000_000),
        run_length_bmp(3000, 3000, b"\1\2" * 1_000_000),
    ],
    ids=["P1", "P2", "P3", "P5", "P6", "BMP"],
)
def test_a_large_picture_that_would_be_decoded_in_python_is_refused(content: bytes):
    with pytest.raises(DigitsError, match="is of a kind that takes long to decode"):
        open_picture(io.BytesIO(content), 1000)


@pytest.mark.parametrize(
    "content",
    [
        b"P1 2 2\n1 0 0 1",
        b"P2 2 2 255\n0 255 255 0",
        b"P3 2 2 9\n" + b"0 0 0 9 9 9 9 9 9 0 0 0",
        b"P5 2 2 9\n\0\t\t\0",
        run_length_bmp(2, 2, b"\1\0\1\xff\0\0\1\xff\1\0\0\1"),
    ],
    ids=["P1", "P2", "P3", "P5", "BMP"],
)
def test_a_small_one_is_read(content: bytes):
    assert open_picture(io.BytesIO(content), 1000)[1] == (2, 2)


def test_a_large_picture_that_is_decoded_fast_is_read():
    assert open_picture(io.BytesIO(b"P6 3000 3000 255\n" + bytes(27_000_000)), 1000)[1] == (3000, 3000)
