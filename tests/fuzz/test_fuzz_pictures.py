"""Any array and any file is read as a picture, or refused in one line; so are the files of MNIST."""

import gzip
import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from damage import NUMBERS, damaged
from fuzzing import contract, inputs
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from torchvision.datasets import KMNIST

from digits import Reader
from digits.data import mnist


def picture() -> Image.Image:
    """An 8, drawn with a thick pen."""
    image = Image.new("RGB", (40, 48), "white")
    pen = ImageDraw.Draw(image)
    pen.ellipse((12, 6, 28, 22), outline="black", width=4)
    pen.ellipse((10, 20, 30, 42), outline="black", width=4)
    return image


@pytest.fixture(scope="module")
def reader() -> Reader:
    reader = Reader()
    reader.read(picture())  # what is imported once is no input's
    return reader


# ---- arrays

DTYPES = ["?", "u1", "i1", "u2", ">u2", "i4", "u8", "f2", "f4", ">f4", "f8", "c8", "O", "M8[s]", "S3", "U2", "V4"]
sides = st.integers(0, 48)
shapes = st.one_of(
    st.tuples(sides, sides),
    st.tuples(sides, sides),
    st.tuples(sides, sides, st.sampled_from([0, 1, 2, 3, 4, 5])),
    st.lists(st.integers(0, 3), max_size=6).map(tuple),
)


def array(dtype: str, shape: tuple[int, ...], fill: str, seed: int, layout: str) -> np.ndarray:
    draw = np.random.default_rng(seed)
    size = int(np.prod(shape))
    kind = np.dtype(dtype)
    if fill == "bits" and kind.kind not in "OMSUV":
        made = np.frombuffer(draw.bytes(size * kind.itemsize), kind).reshape(shape).copy()
    elif fill == "stroke" and kind.kind in "uif" and len(shape) > 1:
        made = np.zeros(shape, kind)
        made[10:30, 12:18] = 120  # which int8 has too
    else:
        made = np.zeros(shape, kind) if fill != "ones" or kind.kind in "MV" else np.ones(shape, kind)
    match layout:
        case "reversed" if made.ndim:
            made = made[::-1]
        case "fortran":
            made = np.asfortranarray(made)
        case "huge" if made.size:
            made = np.broadcast_to(made.ravel()[:1].reshape(1, 1), (10**6, 10**6))
        case "long" if made.size:
            made = np.broadcast_to(made.ravel()[:1].reshape(1, 1), (1, 99_999_999))
        case "read-only":
            made.flags.writeable = False
    return made


layouts = st.sampled_from(["plain"] * 6 + ["reversed", "fortran", "read-only"] + ["huge", "long"])
fills = st.sampled_from(["bits", "stroke", "stroke", "zeros", "ones"])
arrays = st.builds(array, st.sampled_from(DTYPES), shapes, fills, st.integers(0, 2**16), layouts)


@inputs(quick=200, thorough=100_000)
@given(given_array=arrays)
def test_arrays(given_array: np.ndarray, reader: Reader):
    with contract():
        reader.read(given_array)


# ---- files


def saved(kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture().save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, colour: int, interlaced: int, rows: int, deflated: bytes | None) -> bytes:
    """A PNG whose checksums are right, whatever it says."""
    rows = min(rows, 2000)
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width % 2**32, height % 2**32, depth, colour, 0, 0, interlaced)),
        (b"PLTE", bytes(12)),
        (b"IDAT", zlib.compress(bytes(rows * 40)) if deflated is None else deflated),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def pnm(number: int, width: int, height: int, most: int, rest: bytes) -> bytes:
    return f"P{number} {width} {height} {most}\n".encode() + rest


extents = st.integers(0, 60) | st.sampled_from(NUMBERS)
made = st.one_of(
    st.builds(
        png,
        extents,
        extents,
        st.sampled_from([1, 2, 4, 8, 16, 3]),
        st.sampled_from([0, 2, 3, 4, 6, 9]),
        st.sampled_from([0, 0, 1]),
        extents,
        st.none() | st.binary(max_size=50),
    ),
    st.builds(pnm, st.integers(1, 7), extents, extents, extents, st.binary(max_size=200) | st.just(b"1 " * 10**6)),
)
JPEG = [saved("JPEG"), saved("JPEG", progressive=True, quality=30)]
OTHERS = [saved(kind) for kind in ("PNG", "BMP", "GIF", "PPM", "TIFF", "WEBP")]
files = st.one_of(*(damaged(content) for content in [*JPEG, *OTHERS]), made, st.binary(max_size=100))


@inputs(quick=200, thorough=10_000)
@given(content=files)
def test_pictures(content: bytes, reader: Reader):
    with contract():
        reader.read(io.BytesIO(content))


# ---- IDX


class Given(KMNIST):
    """A data set whose files have whatever checksums are expected: what is in them is tried here."""

    mirrors = []


IDX = [
    bytes([0, 0, 8, 3]) + struct.pack(">3I", 4, 28, 28) + bytes(4 * 784),
    bytes([0, 0, 8, 1]) + struct.pack(">I", 4) + bytes([0, 1, 2, 9]),
]


@example(contents=(IDX[0], IDX[1], IDX[0], bytes(5)), packed=b"")  # labels of no dimension
@inputs(quick=200, thorough=100_000)
@given(contents=st.tuples(*(damaged(IDX[number % 2]) for number in range(4))), packed=damaged(gzip.compress(IDX[0])))
def test_idx(contents: tuple[bytes, ...], packed: bytes, tmp_path_factory: pytest.TempPathFactory):
    raw = tmp_path_factory.getbasetemp() / "Given" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    resources = []
    for (name, _), content in zip(KMNIST.resources, [gzip.compress(content, 1) for content in contents], strict=True):
        if name.startswith("train-images") and len(contents[0]) % 4 == 0:
            content = packed
        (raw / name).write_bytes(content)
        resources.append((name, hashlib.md5(content).hexdigest()))
    Given.resources = resources
    with pytest.MonkeyPatch.context() as patch, contract():
        patch.setitem(mnist.DATASETS, "given", Given)
        mnist.load_mnist(Path(raw.parent.parent), "given")
