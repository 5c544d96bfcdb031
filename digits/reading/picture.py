"""Pictures of any kind, from files, Pillow or NumPy, as grey levels."""

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
from PIL import Image, JpegImagePlugin, UnidentifiedImageError

from digits.errors import DigitsError
from digits.reading.gray import array_levels, gray_levels
from digits.reading.ink import Gray

PictureLike: TypeAlias = "str | Path | BinaryIO | Image.Image | NDArray[Any]"
Size: TypeAlias = tuple[int, int]  # width and height in pixels

SUFFIXES = frozenset([
    ".avif", ".bmp", ".gif", ".heic", ".heif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff",
    ".webp",
])  # fmt: skip
MOST_PIXELS = 100_000_000  # of what is decoded: 400 MB as RGB
MOST_PIXELS_WHOLE = 50_000_000  # where the decoder keeps several copies; phones make HEIC of 48 million
BIG = 20_000_000  # pixels, from which on pictures are decoded one at a time
MOST_BYTES = 300_000_000  # of a file that comes through a pipe

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF")  # EPS, say, would start Ghostscript
_WHOLE = {"WEBP", "AVIF", "HEIF"}
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx")  # brands in a file's first box
_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT: dict[Any, Callable[[Gray], Gray]] = {  # by the orientation that EXIF tells
    2: np.fliplr,
    3: lambda gray: np.rot90(gray, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda gray: np.rot90(gray, -1),
    7: lambda gray: np.rot90(gray, 2).T,
    8: np.rot90,
}
_LYING = {5, 6, 7, 8}  # width and height change places
_warnings_lock = threading.Lock()
_load_lock = threading.Lock()
_big_lock = threading.Lock()  # threads decode one big picture at a time, or each would need the memory for one
logging.getLogger("PIL").addHandler(logging.NullHandler())  # or Pillow's log of odd files would reach the terminal


def open_picture(source: PictureLike, longest: int, colours: bool = False) -> tuple[Gray, Size]:
    """``source`` as grey levels, upright, its longer side ``longest`` pixels at most.

    Args:
        source: a path, a binary file, a Pillow image or a NumPy array. Files are PNG, JPEG, WebP, TIFF, BMP, GIF (the
            first frame), PPM, AVIF, or HEIC where pillow-heif is installed; they are turned as their EXIF data says.
            Arrays are (H, W), (H, W, 1), (H, W, 3) RGB or (H, W, 4) RGBA. Booleans: True is white. uint8: 0 to 255.
            Other integers: 0 to 255, or, if one is above, to the next power of two less 1 (1,023, 4,095, 65,535 ...).
            Floats: 0 to 1, or, if one is above 1.1, as integers; what resampling has put outside, by up to a tenth of
            the range, is cut. The same goes for files of 16 bits and of floats.
        longest: pixels, at least 1; smaller pictures stay as they are, larger ones are reduced by averaging areas.
        colours: whether grey may be, where brightness shows little, the mixture of red, green and blue that has the
            most contrast; else it is brightness.

    Returns:
        uint8 (H, W), and the width and height of ``source`` when upright, in its own pixels. What is transparent is
        white if what is visible is dark, and else black; but where a picture's greater part is visible, with light and
        dark of its own, it is as bright as most of that.

    Raises:
        DigitsError: one line that names the file: there is none, it may not be read, is no picture, is truncated or too
            big; or the array's shape, type or values are not a picture's.
    """
    with _named_errors(source):
        if isinstance(source, str | Path):
            with Path(source).open("rb") as file:
                return _from_file(file, longest, colours)
        if isinstance(source, np.ndarray):
            return _from_image(_from_array(source), longest, colours)
        if isinstance(source, Image.Image):
            with _load_lock, _damage():  # Pillow reads the file now, and not for two threads at once
                source.load()
            return _from_image(source, longest, colours)
        if hasattr(source, "read"):
            return _from_file(cast(BinaryIO, reopenable(source)), longest, colours)
        raise DigitsError("a picture is a path, a binary file, a Pillow image or a NumPy array")


def reopenable(source: PictureLike) -> PictureLike:
    """``source``, or if it is a pipe what it holds, so that :func:`open_picture` can open it again.

    Raises:
        DigitsError: it cannot be read, or is more than ``MOST_BYTES``.
    """
    if not hasattr(source, "read"):
        return source
    with _named_errors(source):
        if hasattr(source, "seekable") and source.seekable():
            return source
        return whole_stream(cast(BinaryIO, source))


@contextlib.contextmanager
def _named_errors(source: PictureLike) -> Iterator[None]:
    """What is wrong with ``source`` as a DigitsError that names it."""
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


def whole_stream(file: BinaryIO, name: str = "") -> io.BytesIO:
    """What ``file``, a pipe say, still holds, as a file that can be read again; ``name`` is what errors call it.

    Raises:
        DigitsError: it is more than ``MOST_BYTES``.
    """
    content = io.BytesIO(file.read(MOST_BYTES + 1))
    content.name = name
    if content.getbuffer().nbytes > MOST_BYTES:
        raise DigitsError(f"{name + ': ' if name else ''}more than {MOST_BYTES // 1_000_000} MB")
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
    with _damage(), opened(file) as image:
        whole = image.size
        if isinstance(image, JpegImagePlugin.JpegImageFile):
            _draft(image, longest, colours)
        return _from_image(image, longest, colours, whole)


@contextlib.contextmanager
def _damage() -> Iterator[None]:
    """What Pillow raises where a file is damaged, or none of its own, as a DigitsError."""
    try:
        yield
    except (DigitsError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise DigitsError("is no picture that can be read (PNG, JPEG, WebP, TIFF, BMP, GIF)") from error
    except Image.DecompressionBombError as error:
        raise _too_big(MOST_PIXELS) from error
    except Exception as error:  # Pillow raises whatever a damaged file leads it to
        if "truncated" in str(error).lower() or isinstance(error, EOFError):
            raise DigitsError("is truncated: the rest of the file is missing") from error
        raise DigitsError(f"is damaged or cut short: {' '.join(str(error).split()) or type(error).__name__}") from error


def opened(file: BinaryIO) -> Image.Image:
    """The picture in ``file`` from its beginning on, of which Pillow has read the head only: its format and size.

    Raises:
        DigitsError: it is empty, or HEIC where pillow-heif is not installed.
        UnidentifiedImageError: it is no picture.
        Exception: whatever else a damaged one leads Pillow to.
    """
    file.seek(0)
    head = file.read(64)
    file.seek(0)
    if not head:
        raise DigitsError("is empty")
    formats = [*_FORMATS]
    if head[4:8] == b"ftyp" and any(brand in head for brand in _HEIC):
        try:
            import pillow_heif
        except ImportError as error:
            raise DigitsError("is HEIC: pillow-heif is not installed; pip install -e '.[heic]'") from error
        pillow_heif.register_heif_opener()
        formats = ["HEIF"]
    with _quiet():
        try:
            return Image.open(file, formats=formats)
        except Image.DecompressionBombError:  # Pillow's limit is for what is decoded whole, which JPEG is not
            file.seek(0)
            try:
                return JpegImagePlugin.JpegImageFile(file)
            except SyntaxError:
                pass
            raise


def _draft(image: JpegImagePlugin.JpegImageFile, longest: int, colours: bool) -> None:
    """Have the decoder reduce by 2, 4 or 8, as far as ``longest`` pixels remain, and leave out colours if it may."""
    if image.info.get("progressive"):  # the decoder keeps all coefficients, however much it reduces
        _check_size(image)
    factor = max((factor for factor in (2, 4, 8) if max(image.size) >= factor * longest), default=1)
    width, height = (max(side // factor, 1) for side in image.size)
    image.draft(None if colours else "L", (width, height))


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Pillow's warnings of odd files kept from the terminal; one thread at a time, as Python's filters are shared."""
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# ---- images


def _from_image(image: Image.Image, longest: int, colours: bool, whole: Size | None = None) -> tuple[Gray, Size]:
    """As :func:`open_picture`; ``whole`` is the size before the decoder reduced it."""
    width, height = whole or image.size
    _check_size(image)
    with _big_lock if image.width * image.height > BIG else contextlib.nullcontext():
        if image.format == "TIFF":  # reads tags, of which Pillow may warn, with the pixels
            with _quiet():
                image.load()
        gray = gray_levels(image, longest, colours)
    with _quiet():
        try:
            orientation = image.getexif().get(_ORIENTATION)
        except Exception:  # broken EXIF data makes no picture unreadable
            orientation = None
    if orientation in _UPRIGHT:
        gray = np.ascontiguousarray(_UPRIGHT[orientation](gray))
        if orientation in _LYING:
            width, height = height, width
    return gray, (width, height)


def _check_size(image: Image.Image) -> None:
    most = MOST_PIXELS_WHOLE if image.format in _WHOLE else MOST_PIXELS
    if not image.width or not image.height:
        raise DigitsError("has no pixels")
    if image.width * image.height > most:
        raise _too_big(most, f"{image.width:,} x {image.height:,} pixels, ")


def _too_big(most: int, size: str = "") -> DigitsError:
    return DigitsError(f"is too big to be decoded: {size}more than {most // 1_000_000} million")


# ---- arrays


def _from_array(array: NDArray[Any]) -> Image.Image:
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))):
        raise DigitsError(f"has the shape {array.shape}; a picture's is (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)")
    if not array.size:
        raise DigitsError(f"has no pixels: its shape is {array.shape}")
    if array.dtype.kind not in "buif":
        raise DigitsError(f"is of type {array.dtype}; a picture's is bool, an integer or a float")
    if array.shape[0] * array.shape[1] > MOST_PIXELS:
        raise _too_big(MOST_PIXELS, f"{array.shape[1]:,} x {array.shape[0]:,} pixels, ")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype != np.uint8:
        array = array_levels(array)
    return Image.fromarray(array)
