"""Where a picture has ink: polarity, uneven light and shadow taken out."""

import cv2
import numpy as np
from numpy.typing import NDArray

Gray = NDArray[np.uint8]  # (H, W), any polarity
Ink = NDArray[np.float32]  # (H, W), 0 = paper, 1 = ink
Mask = NDArray[np.uint8]  # (H, W), 0 or 1

PAPER_SIZE = 96  # pixels on the longer side of the small picture in which the paper's brightness is looked up
LEAST_CONTRAST = 0.08  # of ink against the paper beside it; less is dirt, shadow or noise
CERTAIN_INK = 0.85  # quantile of the ink pixels' darkness that counts as full ink


def find_ink(gray: Gray) -> tuple[Ink, Mask]:
    """How inky each pixel of ``gray`` is, and which of them are ink; no pixel is where the picture is blank."""
    picture = gray.astype(np.float32) / 255
    if light_on_dark(gray):
        picture = 1 - picture
    size = max(gray.shape)
    if size > 200:  # grain of paper and camera
        picture = cv2.GaussianBlur(picture, (0, 0), size / 1200)
    paper = _paper(picture)
    darkness = np.clip((paper - picture) / np.maximum(paper, 0.15), 0, 1)
    threshold = _threshold(darkness)
    if threshold is None:
        return np.zeros_like(darkness), np.zeros(gray.shape, np.uint8)
    mask = (darkness > threshold).astype(np.uint8)
    full = float(np.quantile(darkness[mask > 0], CERTAIN_INK)) if mask.any() else 1.0
    return np.clip(darkness / full, 0, 1), mask


def light_on_dark(gray: Gray) -> bool:
    """Whether the ink is lighter than the paper, which the border and most of the picture are."""
    threshold, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_OTSU)
    bright = gray > threshold
    border = np.concatenate([bright[0], bright[-1], bright[1:-1, 0], bright[1:-1, -1]])
    return float(border.mean() + bright.mean()) < 1


def _paper(picture: Ink) -> Ink:
    """The brightness of the paper at each pixel: that of the lightest places near by."""
    height, width = picture.shape
    scale = PAPER_SIZE / max(height, width)
    if scale < 1:
        small = cv2.resize(picture, (max(round(width * scale), 1), max(round(height * scale), 1)), interpolation=cv2.INTER_AREA)
    else:
        small = picture
    reach = max(round(max(small.shape) * 0.25) | 1, 3)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
    paper = cv2.morphologyEx(small, cv2.MORPH_CLOSE, kernel, borderType=cv2.BORDER_REPLICATE)
    paper = cv2.GaussianBlur(paper, (0, 0), reach / 6)
    return cv2.resize(paper, (width, height), interpolation=cv2.INTER_LINEAR)


def _threshold(darkness: Ink) -> float | None:
    """The darkness that parts ink from paper, by Otsu's criterion near edges; None where nothing stands out.

    Near edges there is as much ink as paper, however thin the pen; over the whole picture Otsu's criterion splits the
    paper where ink is rare.
    """
    levels = (darkness * 255).astype(np.uint8)
    steps = cv2.morphologyEx(levels, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    noise = float(np.median(steps))
    strong, _ = cv2.threshold(steps, 0, 255, cv2.THRESH_OTSU)
    edges = (steps > max(strong, 2 * noise)).astype(np.uint8)
    if not edges.any():
        return None
    near = cv2.dilate(edges, np.ones((3, 3), np.uint8)) > 0
    values = levels[near]
    threshold, _ = cv2.threshold(values.reshape(-1, 1), 0, 255, cv2.THRESH_OTSU)
    dark, light = values[values > threshold], values[values <= threshold]
    if not len(dark) or not len(light):
        return None
    contrast = (float(dark.mean()) - float(light.mean())) / 255
    return threshold / 255 if contrast > LEAST_CONTRAST else None
