"""A Pillow image of any mode as grey levels."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from digits.errors import DigitsError
from digits.reading.ink import Gray

Matrix: TypeAlias = tuple[float, float, float, float]  # what red, green, blue and 1 are multiplied by

LUMA = np.array((0.299, 0.587, 0.114))  # ITU-R BT.601, which Pillow's mode L follows
SAMPLED = 100  # pixels on the longer side of the small picture in which contrasts are looked at
NEAR = 1 / 3  # of that: around each pixel, what a contrast is measured against
MUCH = 3.0  # how many times the contrast of brightness that of colour is where colours are followed
COLOURED = {"RGB", "RGBA", "P", "CMYK", "YCbCr", "HSV"}  # Pillow's modes
BAND = 1 << 22  # values that are converted at a time


def gray_levels(image: Image.Image, longest: int, colours: bool) -> Gray:
    """``image`` as uint8 (H, W), its longer side ``longest`` pixels at most; all as in :func:`~.picture.open_picture`.

    Raises:
        DigitsError: the values are no picture's.
    """
    gray, alpha = _gray_and_alpha(image, colours)
    gray = _reduced(gray, longest)
    return gray if alpha is None else _over_paper(gray, _reduced(alpha, longest))


def array_levels(array: NDArray[Any]) -> Gray:
    """An array of numbers of any range, of any shape, as uint8; which range it is :func:`~.picture.open_picture` says.

    Raises:
        DigitsError: the values are no picture's.
    """
    parts = np.array_split(array, min(-(-array.size // BAND), len(array)))
    return _levels(lambda: parts)


def _gray_and_alpha(image: Image.Image, colours: bool) -> tuple[Gray, Gray | None]:
    """Brightness (H, W) of ``image``, multiplied by its opacity if it has one, and that opacity; both uint8.

    Band by band: a big picture is not kept as RGBA, float and grey at once.
    """
    if image.mode == "F" or image.mode.startswith("I"):  # more than 8 bits
        return _levels(lambda: (np.asarray(band) for band in _bands(image))), None
    gray = np.empty((image.height, image.width), np.uint8)
    alpha = np.empty_like(gray) if _is_transparent(image) else None
    mixed = colours and alpha is None and image.mode in COLOURED
    matrix = _gray_matrix(image.size, _bands(image)) if mixed else None
    top = 0
    for band in _bands(image):
        rows = slice(top, top := top + band.height)
        if band.mode == "LAB":  # which Pillow converts by a colour profile only
            band = band.getchannel("L")
        if matrix is not None:
            gray[rows] = np.asarray(_as_rgb(band).convert("L", matrix))
        elif alpha is None:
            gray[rows] = np.asarray(band.convert("L"))
        else:
            band = band.convert("LA").convert("RGBA") if band.mode == "La" else band.convert("RGBA")
            alpha[rows] = np.asarray(band.getchannel("A"))
            gray[rows] = cv2.multiply(np.asarray(band.convert("L")), alpha[rows], scale=1 / 255)
    return gray, alpha


def _is_transparent(image: Image.Image) -> bool:
    if image.mode == "RGBA":  # of which many are opaque
        least, _ = cast(tuple[tuple[int, int], ...], image.getextrema())[3]
        return least < 255
    return image.has_transparency_data


def _bands(image: Image.Image) -> Iterator[Image.Image]:
    rows = max(BAND // image.width, 1)
    if rows >= image.height:
        yield image  # no copy
        return
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _reduced(gray: Gray, longest: int) -> Gray:
    scale = longest / max(gray.shape)
    if scale >= 1:
        return gray
    height, width = (max(round(side * scale), 1) for side in gray.shape)
    return np.asarray(cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _over_paper(gray: Gray, alpha: Gray) -> Gray:
    """``gray``, which is multiplied by ``alpha``, on paper that it stands out from; all uint8 (H, W)."""
    visible = alpha > 127
    if visible.all() or not alpha.any():
        paper = 255.0
    else:
        paper = 255.0 if gray.sum(dtype=np.int64) < alpha.sum(dtype=np.int64) / 2 else 0.0
        if visible.mean() > 0.5:  # may be a sheet that was cut out, with ink of its own
            low, most, high = np.percentile(gray[visible] / alpha[visible], (5, 50, 95))
            if high - low > 0.25:
                paper = 255 * most
    return np.clip(np.round(gray + paper * (1 - alpha / np.float32(255))), 0, 255).astype(np.uint8)


def _as_rgb(image: Image.Image) -> Image.Image:
    """Itself, not a copy, if it is RGB."""
    return image if image.mode == "RGB" else image.convert("RGB")


def _gray_matrix(size: tuple[int, int], bands: Iterable[Image.Image]) -> Matrix | None:
    """The mixture of red, green and blue that has the most contrast; None where brightness will do, as it mostly does.

    Yellow on white and red on green differ by their colours, hardly by their brightness: there it is the first
    principal component of what each pixel differs by from the mean around it, taken so that 0 to 255 remains 0 to 255.

    Args:
        size: width and height of the picture, in pixels.
        bands: the picture in bands of rows, from above.
    """
    factor = max(-(-max(size) // SAMPLED), 1)
    small = np.concatenate([np.asarray(_as_rgb(band).reduce(factor)) for band in bands])
    reach = round(max(small.shape[:2]) * NEAR) | 1
    detail = small - cv2.boxFilter(small, cv2.CV_32F, (reach, reach), borderType=cv2.BORDER_REPLICATE)
    pixels = detail.reshape(-1, 3)
    covariance = pixels.T @ pixels / len(pixels)
    values, axes = np.linalg.eigh(covariance)
    if values[-1] / 3 <= MUCH * (LUMA @ covariance @ LUMA):  # of greys the one is as large as the other
        return None
    axis = axes[:, -1] / np.abs(axes[:, -1]).sum()
    if axis @ LUMA < 0:  # what is lighter stays so
        axis = -axis
    red, green, blue = axis.tolist()
    return red, green, blue, float(-255 * axis[axis < 0].sum())


def _levels(bands: Callable[[], Iterable[NDArray[Any]]]) -> Gray:
    lowest, highest = np.min([band.min() for band in bands()]), np.max([band.max() for band in bands()])
    if not np.isfinite([lowest, highest]).all():
        raise DigitsError("has values that are NaN or infinite")
    outside = 0.1 if np.issubdtype(highest.dtype, np.floating) else 0.0  # of the range: resampling overshoots
    if lowest < -outside * max(float(highest), 1):  # such as standardised values
        raise DigitsError(f"has negative values, down to {lowest:g}; a picture's go from 0 to 1 or from 0 to 255")
    if outside and highest <= 1 + outside:
        top = 1.0
    else:
        top = 2.0 ** max(np.ceil(np.log2(float(highest) / (1 + outside) + 1)), 8) - 1
    return np.concatenate(
        [np.round(np.clip(band.astype(np.float32) / top, 0, 1) * 255).astype(np.uint8) for band in bands()]
    )
