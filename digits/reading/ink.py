"""Where a picture has ink: polarity, uneven light and shadow taken out."""

import math
from typing import Any, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

# OpenCV's own types do not tell dtypes apart, so these names do.
Gray: TypeAlias = NDArray[Any]  # uint8 (H, W), any polarity
Ink: TypeAlias = NDArray[Any]  # float32 (H, W), 0 = paper, 1 = ink
Mask: TypeAlias = NDArray[Any]  # uint8 (H, W), 0 or 1

PAPER_SIZE = 96  # pixels on the longer side of the small picture in which the paper's brightness is looked up
POLARITY_SIZE = 200  # the same for telling ink from paper
RIM = 9  # pixels: around ink, where the paper of a small picture is not looked at to see whether it is even
SMALL = 160  # pixels on the longer side: in such pictures the soft rims are a good part of the paper
LEAST_CONTRAST = 0.065  # of ink against the paper beside it; less is dirt, shadow or noise
EVEN_SIZE = 500  # pixels on the longer side in which it is looked at whether the paper is even
EVEN = 0.05  # of the contrast: how much the paper's brightness may vary where one brightness serves for all of it
SHADED = 0.6  # of what is dark: in a shadow so much at least is wider than any stroke
DARKEST = 0.2  # of the paper's brightness: a shadow leaves more of it
NEAR = 5  # pixels of the small picture, within which a shadow's edge lies
CLEAR_SKEW = 1.0  # of the grey levels; more says of itself which side is ink
SURE, FAINT = 0.5, 0.3  # of the way from paper to ink: what is ink, and what is where it touches such
CORNER = 0.06  # of the shorter side: where the corners are looked at, which are rather paper
UNCLEAR = 0.35  # how near to one half the bright share of border and corners leaves the question open
BESIDE = 3  # pixels: how far from the ink there is no more of its soft rim, and paper begins
SAMPLED = 60  # pixels on the longer side that tell whether the paper is flat
LEAST_PAPER = 0.05  # of the picture
FLAT = 0.1  # of the contrast: how far from its usual brightness flat paper is at most
MOST = 0.5  # of the paper: how much is flat at least
CERTAIN_INK = 0.85  # quantile of the ink pixels' darkness that counts as full ink


def find_ink(gray: Gray, light_on_dark: bool, shadows: bool = True) -> tuple[Ink, Mask]:
    """How inky each pixel of ``gray`` is, and which of them are ink; none where the picture is blank, or no paper.

    Args:
        gray: the picture.
        light_on_dark: whether the ink is lighter than the paper.
        shadows: whether there may be shadows that begin abruptly, as in photos.
    """
    size = max(gray.shape)
    if size > 200:  # grain of paper and camera
        gray = cv2.GaussianBlur(gray, (0, 0), size / 1200)
    if light_on_dark:
        gray = ~gray
    picture: Ink = gray / np.float32(255)
    paper, nearest = _paper(picture, gray, light_on_dark, shadows)
    darkness = paper - picture
    darkness /= np.maximum(paper, 0.15)  # in place, here and below: new memory for a big picture is slow
    step = -(-size // SAMPLED)
    some = cv2.blur(darkness, (step, step))[::step, ::step]  # with what is lighter than paper, without grain
    if nearest is not None:
        np.subtract(nearest, picture, out=darkness)
        darkness /= np.maximum(nearest, 0.15)
    np.clip(darkness, 0, 1, out=darkness)
    levels = _levels(darkness)
    if levels is None:
        return np.zeros_like(darkness), np.zeros(gray.shape, np.uint8)
    light, dark = levels
    mask = _connected_to(darkness > light + SURE * (dark - light), darkness > light + FAINT * (dark - light))
    near = cv2.dilate(mask, np.ones((2 * BESIDE + step,) * 2, np.uint8))
    if not _has_paper(some, near[::step, ::step], dark - light):
        return np.zeros_like(darkness), np.zeros(gray.shape, np.uint8)
    full = quantile(darkness[mask.view(np.bool_)], CERTAIN_INK)
    darkness -= light
    darkness /= full - light
    return np.clip(darkness, 0, 1, out=darkness), mask


def polarities(gray: Gray) -> list[bool]:
    """Whether the ink of ``gray`` is lighter than its paper; both answers, the likelier first, where it is not clear.

    Ink is the rarer of the two: against the light around it, it makes a long tail to one side. Where the two are
    about as frequent, as in tight crops, the border and most of all the corners are rather paper.
    """
    picture = cv2.resize(gray, _scaled(gray, min(POLARITY_SIZE / max(gray.shape), 1)), interpolation=cv2.INTER_AREA)
    reach = max(picture.shape) // 3 | 1
    detail = picture - cv2.boxFilter(picture, cv2.CV_32F, (reach, reach), borderType=cv2.BORDER_REPLICATE)
    squares = detail * detail
    third = float(np.vdot(squares, detail)) / detail.size
    skew = third / max(cv2.mean(squares)[0], 1e-6) ** 1.5
    if abs(skew) > CLEAR_SKEW:
        return [skew > 0]
    threshold, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_OTSU)
    bright = gray > threshold
    margin = round(0.04 * min(gray.shape))  # within a frame, if there is one
    inner = bright[margin : gray.shape[0] - margin, margin : gray.shape[1] - margin]
    border = np.concatenate([inner[0], inner[-1], inner[1:-1, 0], inner[1:-1, -1]])
    side = max(round(CORNER * min(gray.shape)), 1)
    ends = slice(side), slice(-side, None)
    corners = [bright[y, x].mean() for y in ends for x in ends]
    share = float(border.mean() + np.mean(corners)) / 2
    return [share < 0.5] if abs(share - 0.5) > UNCLEAR else [share < 0.5, share >= 0.5]


def quantile(values: NDArray[Any], q: float) -> float:
    """The ``q``-th quantile of ``values``, from some 1,000 of them, evenly spread."""
    step = max(values.size // 1000, 1)
    while math.gcd(step, values.shape[-1]) > 1:  # or they would all lie in a few columns of a picture
        step += 1
    some = values.ravel()[::step]
    return float(np.sort(some)[int(q * (some.size - 1))])  # np.partition is slow where most values are the same


def _scaled(picture: NDArray[Any], scale: float) -> tuple[int, int]:
    """Width and height of ``picture`` at ``scale``, in whole pixels."""
    height, width = picture.shape
    return max(round(width * scale), 1), max(round(height * scale), 1)


def _paper(picture: Ink, gray: Gray, inverted: bool, shadows: bool) -> tuple[Ink, Ink | None]:
    """The brightness of the paper: one for all, (1, 1), or, where light is uneven, the lightest near each pixel.

    ``gray`` is the same as ``picture``, which may be ``inverted``, in 0 to 255.
    Where a shadow begins abruptly that is too smooth to be told ink by, and the second answer serves for it: how bright
    the paper may be that is nearest to the picture. It is None elsewhere.
    """
    threshold, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_OTSU)
    step = -(-max(gray.shape) // EVEN_SIZE)
    even = _brightness_if_even(picture[::step, ::step], gray[::step, ::step] > threshold)
    if even is not None and not shadows:
        return even, None
    scale = min(PAPER_SIZE / max(gray.shape), 1)
    small = cv2.resize(gray, _scaled(gray, scale), interpolation=cv2.INTER_AREA) / np.float32(255)
    reach = max(round(max(small.shape) * 0.25) | 1, 3)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    paper = cv2.morphologyEx(small, cv2.MORPH_CLOSE, kernel, borderType=cv2.BORDER_REPLICATE)
    if shadows and _is_shadowed(small, paper, threshold / 255, inverted):
        wide = cv2.copyMakeBorder(small, *(reach,) * 4, cv2.BORDER_CONSTANT, value=0)  # so that no corner is filled
        sharp = cv2.morphologyEx(wide, cv2.MORPH_CLOSE, kernel)[reach:-reach, reach:-reach]
        near = np.ones((NEAR, NEAR), np.uint8)
        bounds = [f(sharp, near, borderType=cv2.BORDER_REPLICATE) for f in (cv2.erode, cv2.dilate)]
        nearest = np.clip(picture, *(cv2.resize(bound, picture.shape[::-1]) for bound in bounds))
    elif even is not None:
        return even, None
    else:
        nearest = None
    paper = cv2.GaussianBlur(paper, (0, 0), reach / 6)
    return cv2.resize(paper, picture.shape[::-1], interpolation=cv2.INTER_LINEAR), nearest


def _brightness_if_even(picture: Ink, light: NDArray[np.bool_]) -> Ink | None:
    """The brightness (1, 1) of what is ``light``, if it varies little; else None."""
    clean = light
    if max(picture.shape) <= SMALL:
        clean = cv2.erode(light.view(np.uint8), np.ones((RIM, RIM), np.uint8)).view(np.bool_)
    if not clean.any() or light.all():
        return None
    lightest = picture[clean]
    bright = quantile(lightest, 0.5)
    contrast = bright - cv2.mean(picture, (~light).view(np.uint8))[0]
    lightest -= bright
    if cv2.norm(lightest, cv2.NORM_L1) / lightest.size < EVEN * contrast:
        return np.full((1, 1), bright, np.float32)
    return None


def _is_shadowed(picture: Ink, paper: Ink, threshold: float, inverted: bool) -> bool:
    """Whether there is a shadow: most of what is dark is wider than strokes, so ``paper`` has it, but no ink.

    ``threshold`` parts light from dark in ``picture``, which may be ``inverted``.
    """
    dark = paper < threshold
    if not dark.any() or dark.all() or dark.sum() < SHADED * (picture < threshold).sum():
        return False
    shade, light = quantile(paper[dark], 0.5), quantile(paper[~dark], 0.5)
    if inverted:
        shade, light = 1 - light, 1 - shade
    return shade > DARKEST * light


def _levels(darkness: Ink) -> tuple[float, float] | None:
    """How dark paper and ink are, by Otsu's criterion near edges; None where nothing stands out.

    Near edges there is as much ink as paper, however thin the pen; over the whole picture Otsu's criterion splits the
    paper where ink is rare.
    """
    levels = cv2.convertScaleAbs(darkness, alpha=255)
    steps = cv2.morphologyEx(levels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    noise = quantile(steps, 0.5)
    strong, _ = cv2.threshold(steps, 0, 255, cv2.THRESH_OTSU)
    edges = (steps > int(max(strong, 2 * noise))).view(np.uint8)
    near = cv2.dilate(edges, np.ones((3, 3), np.uint8))
    values = levels[near.view(np.bool_)].reshape(-1, 1)
    if not len(values):
        return None
    _, dark = cv2.threshold(values, 0, 255, cv2.THRESH_OTSU)
    light = cv2.bitwise_not(dark)
    if not cv2.countNonZero(dark) or not cv2.countNonZero(light):
        return None
    paper, ink = cv2.mean(values, light)[0] / 255, cv2.mean(values, dark)[0] / 255
    return (paper, ink) if ink - paper > LEAST_CONTRAST else None


def _has_paper(darkness: Ink, near: Mask, contrast: float) -> bool:
    """Whether what is not ``near`` ink is paper, most of it of one brightness; noise and clouds are not.

    ``contrast`` is that of ink against paper.
    """
    paper = darkness[near == 0]
    if paper.size < LEAST_PAPER * near.size:
        return False
    return float((np.abs(paper - quantile(paper, 0.5)) < FLAT * contrast).mean()) > MOST


def _connected_to(sure: NDArray[np.bool_], faint: NDArray[np.bool_]) -> Mask:
    """The connected regions of ``faint`` in which some pixel is ``sure``; what is sure is also faint."""
    # OpenCV's default algorithm is three times as slow here
    count, labels = cv2.connectedComponentsWithAlgorithm(faint.view(np.uint8), 8, cv2.CV_32S, cv2.CCL_BBDT)
    wanted = np.zeros(count, np.uint8)
    wanted[labels[sure]] = 1
    return wanted.take(np.asarray(labels))  # half the time of wanted[labels]
