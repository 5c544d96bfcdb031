"""Pictures of any kind, from files, Pillow or NumPy, opened as grey levels."""

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, JpegImagePlugin, UnidentifiedImageError

from digits.data.mnist_image import Gray
from digits.errors import DigitsError
from digits.reading.grayscale import array_to_uint8, image_to_gray

PictureLike: TypeAlias = "str | Path | BinaryIO | Image.Image | NDArray[Any]"
Size: TypeAlias = tuple[int, int]  # width and height in pixels

PICTURE_SUFFIXES = frozenset([  # of files that are looked for in folders; those named one by one may have any
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff",
    ".webp",
])  # fmt: skip
MAX_PIXELS = 100_000_000  # of a decoded picture: 400 MB as RGB
MAX_PIXELS_MULTI_COPY = 50_000_000  # where the decoder keeps several copies; phones write HEIC of 48 million pixels
BIG_PICTURE_PIXELS = 20_000_000  # larger pictures are decoded one at a time
MAX_SIDE = 200_000  # pixels: for each row Pillow takes memory of its own, however short the row is
# Of a picture that Pillow decodes in Python: text for pixels, maxima other than 255, bitmaps of runs. A second or so.
MAX_SLOW_BYTES, MAX_SLOW_PIXELS = 1_000_000, 1_000_000
MAX_STREAM_BYTES = 300_000_000  # of a file that comes through a pipe

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF")  # not EPS, for one, which starts Ghostscript
_MULTI_COPY_FORMATS = {"WEBP", "AVIF", "HEIF"}  # whose decoders keep several copies of the picture
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")  # in the first box of a HEIC file
_EXIF_ORIENTATION = 0x0112  # the number of the tag
_TRANSPOSE: dict[Any, Callable[[Gray], Gray]] = {  # what turns a picture upright, by its EXIF orientation
    2: np.fliplr,
    3: lambda gray: np.rot90(gray, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda gray: np.rot90(gray, -1),
    7: lambda gray: np.rot90(gray, 2).T,
    8: np.rot90,
}
_SIDEWAYS = {5, 6, 7, 8}  # EXIF orientations with width and height swapped
_warnings_lock = threading.Lock()
_load_lock = threading.Lock()
_big_lock = threading.Lock()  # held by the one thread that decodes a big picture, to limit the memory needed
logging.getLogger("PIL").addHandler(logging.NullHandler())  # else what Pillow logs of odd files reaches the terminal


def open_picture(source: PictureLike, longest: int, colours: bool = False) -> tuple[Gray, Size]:
    """``source`` as grey levels, upright, its longer side ``longest`` pixels at most.

    Args:
        source: a path, a binary file, a Pillow image or a NumPy array. Files are PNG, JPEG, WebP, TIFF, BMP, GIF (the
            first frame), PPM, AVIF, or HEIC where pillow-heif is installed; they are turned as their EXIF data says.
            Arrays are (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA. Booleans: True is white. uint8: 0 to 255.
            Other integers: 0 to 255, or, if one is above, to the next power of two less 1 (1,023, 4,095, 65,535 ...).
            Floats: 0 to 1, or, if one is above 1.1, as integers; values outside by up to a tenth of the range, as
            resampling makes them, are clipped. The same goes for files of 16 bits and of floats.
        longest: pixels, at least 1; smaller pictures stay as they are, larger ones are reduced by averaging areas.
        colours: whether the grey levels may be the mixture of red, green and blue that has the most contrast, if
            brightness has much less. By default they are brightness.

    Returns:
        The grey levels, uint8 (H, W), and the width and height of the upright ``source`` in its own pixels. Transparent
        pixels become white if the visible ones are dark, and else black; but if most of the picture is visible and has
        light and dark of its own, such as a sheet that was cut out, they become as bright as its median.

    Raises:
        DigitsError: in one line that names the file: it is missing, not readable, no picture, truncated or too big; or
            the array's shape, type or values cannot be a picture's.
    """
    with _named_errors(source):
        if isinstance(source, str | Path):
            with Path(source).open("rb") as file:
                return _from_file(file, longest, colours)
        if isinstance(source, np.ndarray):
            return _from_image(_from_array(source), longest, colours)
        if isinstance(source, Image.Image):
            _check_size(source)
            with _load_lock, _pillow_errors():  # it may read its file only now, which two threads must not do at once
                source.load()
            return _from_image(source, longest, colours)
        if hasattr(source, "read"):
            return _from_file(cast(BinaryIO, make_seekable(source)), longest, colours)
        raise DigitsError("a picture is a path, a binary file, a Pillow image or a NumPy array")


def make_seekable(source: PictureLike) -> PictureLike:
    """``source``, or, if it is a pipe, its content in memory, so that :func:`open_picture` can open it repeatedly.

    Raises:
        DigitsError: it cannot be read, or holds more than ``MAX_STREAM_BYTES``.
    """
    if not hasattr(source, "read"):
        return source
    with _named_errors(source):
        if hasattr(source, "seekable") and source.seekable():
            return source
        return read_stream(cast(BinaryIO, source))


@contextlib.contextmanager
def _named_errors(source: PictureLike) -> Iterator[None]:
    """Turns whatever goes wrong while ``source`` is opened into a DigitsError that names it."""
    name = _name(source)
    try:
        yield
    except DigitsError as error:
        raise DigitsError(f"{name}: {error}") from error
    except FileNotFoundError as error:
        raise DigitsError(f"{name}: no such file") from error
    except IsADirectoryError as error:
        raise DigitsError(f"{name}: is a folder, not a picture") from error
    except (OSError, ValueError, TypeError) as error:  # a null character in a path, a closed file, a file of text
        raise DigitsError(f"{name}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_stream(file: BinaryIO, name: str = "") -> io.BytesIO:
    """What is left in ``file``, such as a pipe, as a file in memory; ``name`` is what errors call it.

    Raises:
        DigitsError: it is more than ``MAX_STREAM_BYTES``.
    """
    content = io.BytesIO(file.read(MAX_STREAM_BYTES + 1))
    content.name = name
    if content.getbuffer().nbytes > MAX_STREAM_BYTES:
        raise DigitsError(f"{name + ': ' if name else ''}more than {MAX_STREAM_BYTES // 1_000_000} MB")
    return content


def _name(source: object) -> str:
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "the image")
    if isinstance(source, np.ndarray):
        return "the array"
    name = getattr(source, "name", "")
    return name if isinstance(name, str) and name else type(source).__name__


# ---- files


def _from_file(file: BinaryIO, longest: int, colours: bool) -> tuple[Gray, Size]:
    with _pillow_errors(), open_image(file) as image:
        full_size = image.size
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            _reduce_while_decoding(image, longest, colours)
        return _from_image(image, longest, colours, full_size)


@contextlib.contextmanager
def _pillow_errors() -> Iterator[None]:
    """Turns whatever Pillow raises on a damaged or unknown file into a DigitsError."""
    try:
        yield
    except (DigitsError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DigitsError("is no picture that can be read (PNG, JPEG, WebP, TIFF, BMP, GIF)") from error
    except Image.DecompressionBombError as error:
        raise _too_big(MAX_PIXELS) from error
    except Exception as error:  # on a damaged file Pillow may raise anything
        if "truncated" in str(error).lower() or isinstance(error, EOFError):
            raise DigitsError("is truncated: the rest of the file is missing") from error
        raise DigitsError(f"is damaged or cut short: {' '.join(str(error).split()) or type(error).__name__}") from error


def open_image(file: BinaryIO) -> Image.Image:
    """The picture in ``file``, from the file's beginning; Pillow has read only its header, with its format and size.

    Raises:
        DigitsError: the file is empty, or is HEIC where pillow-heif is not installed.
        UnidentifiedImageError: it is no picture.
        Exception: anything that Pillow raises on a damaged file.
    """
    file.seek(0)
    head = file.read(64)
    file.seek(0)
    if not head:
        raise DigitsError("is empty")
    formats = [*_FORMATS]
    if head[4:8] == b"ftyp" and any(brand in head for brand in _HEIC_BRANDS):
        try:
            import pillow_heif
        except ImportError as error:
            raise DigitsError("is HEIC: pillow-heif is not installed; pip install -e '.[heic]'") from error
        pillow_heif.register_heif_opener()
        formats = ["HEIF"]
    with _no_pillow_warnings():
        try:
            return Image.open(file, formats=formats)
        except Image.DecompressionBombError:  # of a JPEG too, which need not be decoded at its full size
            file.seek(0)
            try:
                return JpegImagePlugin.JpegImageFile(file)
            except SyntaxError:
                pass
            raise


def _reduce_while_decoding(image: JpegImagePlugin.JpegImageFile, longest: int, colours: bool) -> None:
    """Let the decoder reduce ``image`` by 2, 4 or 8, to no less than ``longest`` pixels, and to grey if possible."""
    if image.info.get("progressive"):  # the decoder keeps all coefficients, however much it reduces
        _check_size(image)
    factor = max((factor for factor in (2, 4, 8) if max(image.size) >= factor * longest), default=1)
    width, height = (max(side // factor, 1) for side in image.size)
    image.draft(None if colours else "L", (width, height))


@contextlib.contextmanager
def _no_pillow_warnings() -> Iterator[None]:
    """Silences Pillow's warnings of odd files, for one thread at a time, as Python's warning filters are global."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# ---- images


def _from_image(image: Image.Image, longest: int, colours: bool, full_size: Size | None = None) -> tuple[Gray, Size]:
    """As :func:`open_picture`; ``full_size`` is that of a picture which the decoder reduces."""
    width, height = full_size or image.size
    _check_size(image)
    with _big_lock if image.width * image.height > BIG_PICTURE_PIXELS else contextlib.nullcontext():
        if image.format == "TIFF":  # loading its pixels also reads tags, of which Pillow may warn
            with _no_pillow_warnings():
                image.load()
        gray = image_to_gray(image, longest, colours)
    with _no_pillow_warnings():
        try:
            orientation = image.getexif().get(_EXIF_ORIENTATION)
        except Exception:  # a picture with broken EXIF data can still be read
            orientation = None
    if orientation in _TRANSPOSE:
        gray = np.ascontiguousarray(_TRANSPOSE[orientation](gray))
        if orientation in _SIDEWAYS:
            width, height = height, width
    return gray, (width, height)


def _check_size(image: Image.Image) -> None:
    limit = MAX_PIXELS_MULTI_COPY if image.format in _MULTI_COPY_FORMATS else MAX_PIXELS
    if not image.width or not image.height:
        raise DigitsError("has no pixels")
    if image.width * image.height > limit:
        raise _too_big(limit, f"{image.width:,} x {image.height:,} pixels, ")
    _check_sides(*image.size)
    _check_decoder(image)


def _check_sides(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE:
        raise DigitsError(f"is too long to be read: {width:,} x {height:,} pixels, a side over {MAX_SIDE:,}")


def _check_decoder(image: Image.Image) -> None:
    if not any(tile[0] in Image.DECODERS for tile in getattr(image, "tile", [])):  # those in Python are kept there
        return
    file = cast(ImageFile.ImageFile, image).fp
    size = file.seek(0, io.SEEK_END) if file is not None else 0
    if size > MAX_SLOW_BYTES or image.width * image.height > MAX_SLOW_PIXELS:
        raise DigitsError(
            f"is of a kind that takes long to decode, and has more than {MAX_SLOW_BYTES // 1_000_000} MB or "
            f"{MAX_SLOW_PIXELS // 1_000_000} million pixels; save it as PNG"
        )


def _too_big(limit: int, size: str = "") -> DigitsError:
    return DigitsError(f"is too big to be decoded: {size}more than {limit // 1_000_000} million")


# ---- arrays


def _from_array(array: NDArray[Any]) -> Image.Image:
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))):
        raise DigitsError(f"has the shape {array.shape}; a picture's is (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    if not array.size:
        raise DigitsError(f"has no pixels: its shape is {array.shape}")
    if array.dtype.kind not in "buif":
        raise DigitsError(f"is of type {array.dtype}; a picture's is bool, an integer or a float")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise _too_big(MAX_PIXELS, f"{array.shape[1]:,} x {array.shape[0]:,} pixels, ")
    _check_sides(array.shape[1], array.shape[0])
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype != np.uint8:
        array = array_to_uint8(array)
    return Image.fromarray(array)
