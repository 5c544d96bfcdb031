"""Binarization: which pixels of a picture are ink, whatever its polarity and however uneven its light."""

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from digits.data.mnist_image import Gray, Ink, Mask, quantile

# Polarity: is the ink the dark or the light side?
POLARITY_SIDE = 200  # pixels: longer side of the reduced picture in which this is decided
MIN_CLEAR_SKEWNESS = 1.0  # of the local contrast: from here on its sign alone decides
CORNER_SIDE = 0.06  # of the picture's shorter side: size of the corners, which are more likely paper than ink
MAX_FRAME_WIDTH = 0.1  # of the picture's shorter side
MAX_FRAME_VARIATION = 25  # grey levels: how even a frame is
MIN_CLEAR_MARGIN = 0.35  # how far from 1/2 the bright share of border and corners must be for a clear answer

# Background estimation: how bright is the paper?
BACKGROUND_SIDE = 96  # pixels: longer side of the reduced picture from which uneven paper is estimated
MIN_PAPER_BRIGHTNESS = 0.15  # darkness is relative to the paper's brightness, but never to less than this
UNIFORMITY_SIDE = 500  # pixels: longer side, at most, of the sampled picture in which paper is tested for even light
SMALL_PICTURE_SIDE = 160  # pixels: up to this longer side, the soft edges of strokes cover a good part of the paper
SOFT_EDGE_WINDOW = 9  # pixels: in such a picture, only paper without ink in a window of this size is tested
MAX_PAPER_VARIATION = 0.05  # of the contrast: mean deviation of the paper's brightness up to which one value serves

# Shadows with a sharp edge
MIN_SHADOW_SHARE = 0.6  # of the dark pixels: in a shadowed picture at least so many are in areas wider than any stroke
MIN_SHADOW_BRIGHTNESS = 0.2  # of the lit paper's brightness: a shadow leaves more than this
SHADOW_EDGE_WINDOW = 5  # pixels of the reduced picture: the edge of a shadow lies within such a window

# Ink
MIN_CONTRAST = 0.065  # between ink and the paper beside it; anything fainter is dirt, shadow or noise
# Hysteresis thresholds, from 0 = paper to 1 = ink: ink is above the high one; what touches it, above the low one
HIGH_THRESHOLD, LOW_THRESHOLD = 0.5, 0.3
FULL_INK_QUANTILE = 0.85  # of the ink pixels' darkness: what counts as full ink

# A dark strip along an edge
STRIP_SEARCH_SIDE = 200  # pixels: longer side of the reduced picture in which it is looked for
MIN_STRIP_WIDTH = 0.08  # of the picture's longer side
MIN_STRIP_LENGTH = 0.9  # of the edge that it lies along
MAX_BESIDE_STRIP = 0.75  # of the contrast: ink beside the strip is so much fainter, or the strip does no harm

# Is there paper at all? Noise and clouds have no large area of one brightness.
PAPER_SAMPLE_SIDE = 60  # pixels: longer side, at most, of the sampled picture in which paper is tested for flatness
SOFT_EDGE_WIDTH = 3  # pixels around ink which may belong to its soft edge and are not counted as paper
MIN_PAPER_SHARE = 0.05  # of the picture
FLAT_TOLERANCE = 0.1  # of the contrast: flat paper is within this distance of its median brightness
MIN_FLAT_SHARE = 0.5  # of the paper: how much of it must be flat


def binarize(gray: Gray, light_on_dark: bool, shadows: bool = True) -> tuple[Ink, Mask]:
    """Tell ink from paper in ``gray``.

    Args:
        gray: uint8 (H, W).
        light_on_dark: the polarity: whether the ink is lighter than the paper.
        shadows: whether to expect shadows with a sharp edge and dark strips along an edge, as photos have them.

    Returns:
        How inky each pixel is, float32 (H, W) from 0 to 1, and which pixels are ink, uint8 (H, W), 0 or 1. Both are
        all 0 if the picture is blank or has no paper.
    """
    size = max(gray.shape)
    if size > 200:  # smooths the grain of paper and camera
        gray = cv2.GaussianBlur(gray, (0, 0), size / 1200)
    if light_on_dark:
        gray = ~gray
    picture: Ink = gray / np.float32(255)
    background, sharp_background = _estimate_background(picture, gray, light_on_dark, shadows)
    darkness = background - picture
    darkness /= np.maximum(background, MIN_PAPER_BRIGHTNESS)  # in place: new memory for a large picture is slow
    step = -(-size // PAPER_SAMPLE_SIDE)
    # Before clipping, so that what is lighter than the paper counts as uneven too; averaged, so that grain does not.
    sample = cv2.blur(darkness, (step, step))[::step, ::step]
    if sharp_background is not None:
        np.subtract(sharp_background, picture, out=darkness)
        darkness /= np.maximum(sharp_background, MIN_PAPER_BRIGHTNESS)
    np.clip(darkness, 0, 1, out=darkness)
    levels = _paper_and_ink_darkness(darkness)
    if levels is None:
        return np.zeros_like(darkness), np.zeros(gray.shape, np.uint8)
    mask = _hysteresis(darkness, *levels)
    light, dark = levels
    if shadows and (strip := _dark_strip(mask)) is not None:  # beside it fainter ink may have been lost
        beside = darkness * (1 - strip)
        levels = _paper_and_ink_darkness(beside)
        if levels is not None and levels[1] - levels[0] < MAX_BESIDE_STRIP * (dark - light):
            darkness, (light, dark) = beside, levels
            mask = _hysteresis(darkness, light, dark)
    near = cv2.dilate(mask, np.ones((2 * SOFT_EDGE_WIDTH + step,) * 2, np.uint8))
    if not _has_flat_paper(sample, near[::step, ::step], dark - light):
        return np.zeros_like(darkness), np.zeros(gray.shape, np.uint8)
    full = quantile(darkness[mask.view(np.bool_)], FULL_INK_QUANTILE)
    darkness -= light
    darkness /= full - light
    return np.clip(darkness, 0, 1, out=darkness), mask


def polarities(gray: Gray) -> list[bool]:
    """Whether the ink of ``gray``, uint8 (H, W), is lighter than its paper: False, True, or both, the likelier first.

    There is usually less ink than paper, so the local contrast (brightness minus the mean around it) has a long tail on
    the side of the ink, and its skewness tells the polarity. In tight crops there may be as much ink as paper: then the
    border and the corners, which are more likely paper, decide; where they disagree, both polarities are returned.
    """
    turned = gray, gray[:, ::-1].T, gray[::-1, ::-1], gray.T[:, ::-1]  # np.rot90 takes ten times as long
    top, right, bottom, left = map(_frame_depth, turned)
    gray = gray[top : gray.shape[0] - bottom, left : gray.shape[1] - right]
    scale = min(POLARITY_SIDE / max(gray.shape), 1)
    picture = cv2.resize(gray, _scaled_size(gray, scale), interpolation=cv2.INTER_AREA)
    window = max(picture.shape) // 3 | 1
    contrast = picture - cv2.boxFilter(picture, cv2.CV_32F, (window, window), borderType=cv2.BORDER_REPLICATE)
    squares = contrast * contrast
    third_moment = float(np.vdot(squares, contrast)) / contrast.size
    skewness = third_moment / max(cv2.mean(squares)[0], 1e-6) ** 1.5
    if abs(skewness) > MIN_CLEAR_SKEWNESS:
        return [skewness > 0]
    threshold, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_OTSU)
    bright = gray > threshold
    margin = round(0.04 * min(gray.shape))  # the picture may have a frame: look inside it
    inner = bright[margin : gray.shape[0] - margin, margin : gray.shape[1] - margin]
    border = np.concatenate([inner[0], inner[-1], inner[1:-1, 0], inner[1:-1, -1]])
    side = max(round(CORNER_SIDE * min(gray.shape)), 1)
    ends = slice(side), slice(-side, None)
    corners = [bright[y, x].mean() for y in ends for x in ends]
    share = float(border.mean() + np.mean(corners)) / 2
    return [share < 0.5] if abs(share - 0.5) > MIN_CLEAR_MARGIN else [share < 0.5, share >= 0.5]


def _frame_depth(gray: Gray) -> int:
    """How many rows at the upper edge of ``gray`` are those of a frame, which would be taken for paper; 0 for none."""
    last, middle = round(MAX_FRAME_WIDTH * min(gray.shape)), gray.shape[1] // 2
    if gray.shape[1] < 2 or abs(gray.item(last, middle) - gray.item(0, middle)) <= MAX_FRAME_VARIATION:
        return 0  # mostly; the rest takes longer
    levels = np.sort(gray[: last + 1], axis=1)
    tenth = gray.shape[1] // 10
    if int(levels[0, -1 - tenth]) - int(levels[0, tenth]) > MAX_FRAME_VARIATION:
        return 0
    others = np.flatnonzero(np.abs(levels[:, middle].astype(int) - int(levels[0, middle])) > 2 * MAX_FRAME_VARIATION)
    return int(others[0]) + 1 if others.size else 0


def _scaled_size(picture: NDArray[Any], scale: float) -> tuple[int, int]:
    """Width and height of ``picture`` at ``scale``, in whole pixels."""
    height, width = picture.shape
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _estimate_background(picture: Ink, gray: Gray, inverted: bool, shadows: bool) -> tuple[Ink, Ink | None]:
    """The brightness that the paper has, or would have without the ink, at each pixel.

    Args:
        picture: brightness, 0 to 1, of dark ink on light paper.
        gray: the same, uint8 from 0 to 255.
        inverted: whether the original picture had light ink, so that both are its negative.
        shadows: whether to look for shadows with a sharp edge.

    Returns:
        The brightness of the paper: one value, (1, 1), where the light is even, else a smooth map (H, W) by a
        morphological closing, which fills strokes. Then, if there is a shadow with a sharp edge, a second map (H, W),
        as the smooth one would make ink of the shadow's edge: the brightness closest to the pixel's own that paper has
        nearby, lit or in the shadow. Otherwise None.
    """
    threshold, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_OTSU)
    step = -(-max(gray.shape) // UNIFORMITY_SIDE)
    uniform = _uniform_brightness(picture[::step, ::step], gray[::step, ::step] > threshold)
    if uniform is not None and not shadows:
        return uniform, None
    scale = min(BACKGROUND_SIDE / max(gray.shape), 1)
    small = cv2.resize(gray, _scaled_size(gray, scale), interpolation=cv2.INTER_AREA) / np.float32(255)
    window = max(round(max(small.shape) * 0.25) | 1, 3)  # wider than any stroke
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (window, window))
    background = cv2.morphologyEx(small, cv2.MORPH_CLOSE, kernel, borderType=cv2.BORDER_REPLICATE)
    if shadows and _has_shadow(small, background, threshold / 255, inverted):
        # black beyond the border, so that the closing fills no corner
        wide = cv2.copyMakeBorder(small, *(window,) * 4, cv2.BORDER_CONSTANT, value=0)
        closed = cv2.morphologyEx(wide, cv2.MORPH_CLOSE, kernel)[window:-window, window:-window]
        near = np.ones((SHADOW_EDGE_WINDOW, SHADOW_EDGE_WINDOW), np.uint8)
        bounds = [f(closed, near, borderType=cv2.BORDER_REPLICATE) for f in (cv2.erode, cv2.dilate)]
        sharp = np.clip(picture, *(cv2.resize(bound, picture.shape[::-1]) for bound in bounds))
    elif uniform is not None:
        return uniform, None
    else:
        sharp = None
    background = cv2.GaussianBlur(background, (0, 0), window / 6)
    return cv2.resize(background, picture.shape[::-1], interpolation=cv2.INTER_LINEAR), sharp


def _uniform_brightness(picture: Ink, light: NDArray[np.bool_]) -> Ink | None:
    """The median brightness (1, 1) of the ``light`` pixels, which are taken for paper; None if they vary too much."""
    clean = light
    if max(picture.shape) <= SMALL_PICTURE_SIDE:
        clean = cv2.erode(light.view(np.uint8), np.ones((SOFT_EDGE_WINDOW,) * 2, np.uint8)).view(np.bool_)
    if not clean.any() or light.all():
        return None
    paper = picture[clean]
    median = quantile(paper, 0.5)
    contrast = median - cv2.mean(picture, (~light).view(np.uint8))[0]
    paper -= median
    if cv2.norm(paper, cv2.NORM_L1) / paper.size < MAX_PAPER_VARIATION * contrast:
        return np.full((1, 1), median, np.float32)
    return None


def _has_shadow(picture: Ink, background: Ink, threshold: float, inverted: bool) -> bool:
    """Whether a part of the paper lies in shadow.

    Ink is thin, so the closing removes it from ``background``. If most of what is darker than ``threshold`` in
    ``picture`` is dark in ``background`` too, it is a shadow, unless it is darker than shadows are. ``inverted``
    says that the original picture had light ink.
    """
    dark = background < threshold
    if not dark.any() or dark.all() or dark.sum() < MIN_SHADOW_SHARE * (picture < threshold).sum():
        return False
    shaded, lit = quantile(background[dark], 0.5), quantile(background[~dark], 0.5)
    if inverted:
        shaded, lit = 1 - lit, 1 - shaded
    return shaded > MIN_SHADOW_BRIGHTNESS * lit


def _paper_and_ink_darkness(darkness: Ink) -> tuple[float, float] | None:
    """The mean darkness of paper and of ink, parted by Otsu's method near edges; None where nothing stands out.

    Near edges there is as much ink as paper, however thin the pen. Over the whole picture there may be so little ink
    that Otsu's method would split the paper instead.
    """
    levels = cv2.convertScaleAbs(darkness, alpha=255)
    gradient = cv2.morphologyEx(levels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    noise = quantile(gradient, 0.5)
    threshold, _ = cv2.threshold(gradient, 0, 255, cv2.THRESH_OTSU)
    edges = (gradient > int(max(threshold, 2 * noise))).view(np.uint8)
    near = cv2.dilate(edges, np.ones((3, 3), np.uint8))
    values = levels[near.view(np.bool_)].reshape(-1, 1)
    if not len(values):
        return None
    _, dark = cv2.threshold(values, 0, 255, cv2.THRESH_OTSU)
    light = cv2.bitwise_not(dark)
    if not cv2.countNonZero(dark) or not cv2.countNonZero(light):
        return None
    paper, ink = cv2.mean(values, light)[0] / 255, cv2.mean(values, dark)[0] / 255
    return (paper, ink) if ink - paper > MIN_CONTRAST else None


def _has_flat_paper(darkness: Ink, near: Mask, contrast: float) -> bool:
    """Whether there is paper outside of ``near``, the surroundings of the ink, and most of it has one brightness.

    ``contrast`` is the difference in darkness between ink and paper.
    """
    paper = darkness[near == 0]
    if paper.size < MIN_PAPER_SHARE * near.size:
        return False
    return float((np.abs(paper - quantile(paper, 0.5)) < FLAT_TOLERANCE * contrast).mean()) > MIN_FLAT_SHARE


def _dark_strip(mask: Mask) -> Mask | None:
    """Where the picture is dark along one of its edges, wider than any stroke: what lies beside the page, or a shadow.

    ``mask``, uint8 (H, W), 1 = dark; the strip is given in the same form, None if there is none.
    """
    if max(side.mean() for side in (mask[0], mask[-1], mask[:, 0], mask[:, -1])) < MIN_STRIP_LENGTH:
        return None
    small = cv2.resize(mask, _scaled_size(mask, min(STRIP_SEARCH_SIDE / max(mask.shape), 1)))
    width = 2 * round(MIN_STRIP_WIDTH * max(small.shape) / 2) + 1
    wide = cv2.morphologyEx(small, cv2.MORPH_OPEN, np.ones((width, width), np.uint8))
    count, labels = cv2.connectedComponents(wide)
    sides = [np.bincount(side, minlength=count)[1:] / side.size for side in (*labels[[0, -1]], *labels[:, [0, -1]].T)]
    strips = 1 + np.flatnonzero(np.max(sides, 0) > MIN_STRIP_LENGTH) if count > 1 else np.zeros(0)
    if not strips.size:
        return None
    strip = cv2.dilate(np.isin(labels, strips).view(np.uint8), np.ones((width, width), np.uint8))
    return cv2.resize(strip, mask.shape[::-1], interpolation=cv2.INTER_NEAREST)


def _hysteresis(darkness: Ink, paper: float, ink: float) -> Mask:
    """The connected components that are dark enough, in which some pixel is darker still: hysteresis thresholding.

    ``paper`` and ``ink`` are their mean ``darkness``.
    """
    above_high, above_low = (darkness > paper + share * (ink - paper) for share in (HIGH_THRESHOLD, LOW_THRESHOLD))
    # OpenCV's default algorithm is three times as slow here
    count, labels = cv2.connectedComponentsWithAlgorithm(above_low.view(np.uint8), 8, cv2.CV_32S, cv2.CCL_BBDT)
    kept = np.zeros(count, np.uint8)
    kept[labels[above_high]] = 1
    return kept.take(np.asarray(labels))  # half the time of kept[labels]
