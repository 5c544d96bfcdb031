"""Grayscale: a Pillow image of any mode, or an array of numbers of any range, as grey levels from 0 to 255."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias, cast

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from digits.data.mnist_image import Gray
from digits.errors import DigitsError

Matrix: TypeAlias = tuple[float, float, float, float]  # what red, green, blue and 1 are multiplied by

LUMA_WEIGHTS = np.array((0.299, 0.587, 0.114))  # of red, green and blue: ITU-R BT.601, which Pillow's mode L follows
COLOUR_MODES = {"RGB", "RGBA", "P", "CMYK", "YCbCr", "HSV"}  # Pillow's
CONTRAST_SIDE = 100  # pixels: longer side, at most, of the reduced picture in which contrasts are compared
CONTRAST_WINDOW = 1 / 3  # of that side: the surroundings that a pixel's contrast is measured against
MIN_COLOUR_GAIN = 3.0  # times the variance of brightness: colours are used instead if they vary more than this
MIN_PATCH_FILL = 0.6  # of its bounding box: how much a patch of paper fills, on what is else transparent
STRIP_VALUES = 1 << 22  # pixels, or numbers of an array, that are converted at a time, to save memory


def image_to_gray(image: Image.Image, longest: int, colours: bool) -> Gray:
    """``image`` as uint8 (H, W), its longer side ``longest`` pixels at most; see :func:`~.picture.open_picture`.

    Raises:
        DigitsError: the values cannot be a picture's.
    """
    gray, alpha = _gray_and_alpha(image, colours)
    gray = _downscale(gray, longest)
    return gray if alpha is None else _composite_over_paper(gray, _downscale(alpha, longest))


def array_to_uint8(array: NDArray[Any]) -> NDArray[np.uint8]:
    """``array``, numbers in any shape, scaled to 0 to 255; the range is guessed as in :func:`~.picture.open_picture`.

    Raises:
        DigitsError: the values cannot be a picture's.
    """
    strips = np.array_split(array, min(-(-array.size // STRIP_VALUES), len(array)))
    return _scale_to_uint8(lambda: strips)


def _gray_and_alpha(image: Image.Image, colours: bool) -> tuple[Gray, Gray | None]:
    """The brightness of ``image``, and its opacity if it has any, with which the brightness is multiplied.

    Both are uint8 (H, W). A large picture is converted strip by strip, so that it is never in memory as RGBA, float and
    grey levels at once.
    """
    if image.mode == "F" or image.mode.startswith("I"):  # more than 8 bits
        return _scale_to_uint8(lambda: (np.asarray(strip) for strip in _strips(image))), None
    gray = np.empty((image.height, image.width), np.uint8)
    alpha = np.empty_like(gray) if _is_transparent(image) else None
    mixed = colours and alpha is None and image.mode in COLOUR_MODES
    matrix = _colour_contrast_matrix(image.size, _strips(image)) if mixed else None
    top = 0
    for strip in _strips(image):
        rows = slice(top, top := top + strip.height)
        if strip.mode == "LAB":  # which Pillow converts by a colour profile only
            strip = strip.getchannel("L")
        if matrix is not None:
            gray[rows] = np.asarray(_to_rgb(strip).convert("L", matrix))
        elif alpha is None:
            gray[rows] = np.asarray(strip.convert("L"))
        else:
            strip = strip.convert("LA").convert("RGBA") if strip.mode == "La" else strip.convert("RGBA")
            alpha[rows] = np.asarray(strip.getchannel("A"))
            gray[rows] = cv2.multiply(np.asarray(strip.convert("L")), alpha[rows], scale=1 / 255)
    return gray, alpha


def _is_transparent(image: Image.Image) -> bool:
    if image.mode == "RGBA":  # many such images are opaque throughout
        least, _ = cast(tuple[tuple[int, int], ...], image.getextrema())[3]
        return least < 255
    return image.has_transparency_data


def _strips(image: Image.Image) -> Iterator[Image.Image]:
    """``image`` in horizontal strips of at most ``STRIP_VALUES`` pixels, from top to bottom."""
    rows = max(STRIP_VALUES // image.width, 1)
    if rows >= image.height:
        yield image  # no copy
        return
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _downscale(gray: Gray, longest: int) -> Gray:
    scale = longest / max(gray.shape)
    if scale >= 1:
        return gray
    height, width = (max(round(side * scale), 1) for side in gray.shape)
    return np.asarray(cv2.resize(gray, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def _composite_over_paper(gray: Gray, alpha: Gray) -> Gray:
    """``gray``, already multiplied by ``alpha``, laid over paper that it stands out from; all uint8 (H, W)."""
    visible = alpha > 127
    if visible.all() or not alpha.any():
        paper = 255.0
    else:
        paper = 255.0 if gray.sum(dtype=np.int64) < alpha.sum(dtype=np.int64) / 2 else 0.0
        _, _, width, height = cv2.boundingRect(visible.view(np.uint8))
        if np.count_nonzero(visible) > MIN_PATCH_FILL * width * height:  # may be a patch of paper, with ink of its own
            low, median, high = np.percentile(gray[visible] / alpha[visible], (5, 50, 95))
            if high - low > 0.25:
                paper = 255 * median
    return np.clip(np.round(gray + paper * (1 - alpha / np.float32(255))), 0, 255).astype(np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    """``image`` as RGB, without a copy if it is so already."""
    return image if image.mode == "RGB" else image.convert("RGB")


def _colour_contrast_matrix(size: tuple[int, int], strips: Iterable[Image.Image]) -> Matrix | None:
    """The mixture of red, green and blue with the most contrast; None where brightness will do, as it mostly does.

    Yellow on white and red on green differ in colour, but hardly in brightness. The mixture that shows such ink best is
    the first principal component of the pixels' differences from the mean colour around them. It is scaled so that grey
    levels remain within 0 to 255.

    Args:
        size: width and height of the picture, in pixels.
        strips: the picture in horizontal strips, from top to bottom.
    """
    factor = max(-(-max(size) // CONTRAST_SIDE), 1)
    small = np.concatenate([np.asarray(_to_rgb(strip).reduce(factor)) for strip in strips])
    window = round(max(small.shape[:2]) * CONTRAST_WINDOW) | 1
    difference = small - cv2.boxFilter(small, cv2.CV_32F, (window, window), borderType=cv2.BORDER_REPLICATE)
    pixels = difference.reshape(-1, 3)
    covariance = pixels.T @ pixels / len(pixels)
    variances, axes = np.linalg.eigh(covariance)
    # divided by 3, as on pictures without colour the first variance is three times that of brightness
    if variances[-1] / 3 <= MIN_COLOUR_GAIN * (LUMA_WEIGHTS @ covariance @ LUMA_WEIGHTS):
        return None
    axis = axes[:, -1] / np.abs(axes[:, -1]).sum()
    if axis @ LUMA_WEIGHTS < 0:  # what is lighter stays lighter
        axis = -axis
    red, green, blue = axis.tolist()
    return red, green, blue, float(-255 * axis[axis < 0].sum())


def _scale_to_uint8(strips: Callable[[], Iterable[NDArray[Any]]]) -> NDArray[np.uint8]:
    """The values of all ``strips``, an array cut along its first axis, scaled to 0 to 255."""
    lowest, highest = np.min([strip.min() for strip in strips()]), np.max([strip.max() for strip in strips()])
    if not np.isfinite([lowest, highest]).all():
        raise DigitsError("has values that are NaN or infinite")
    overshoot = 0.1 if np.issubdtype(highest.dtype, np.floating) else 0.0  # of the range: what resampling may add to it
    if lowest < -overshoot * max(float(highest), 1):  # such as standardised values
        raise DigitsError(f"has negative values, down to {lowest:g}; a picture's go from 0 to 1 or from 0 to 255")
    if overshoot and highest <= 1 + overshoot:
        white = 1.0
    else:
        white = 2.0 ** max(np.ceil(np.log2(float(highest) / (1 + overshoot) + 1)), 8) - 1
    return np.concatenate(
        [np.round(np.clip(strip.astype(np.float32) / white, 0, 1) * 255).astype(np.uint8) for strip in strips()]
    )
