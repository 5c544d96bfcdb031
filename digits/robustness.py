"""How a model fares on digits that are drawn worse than MNIST's: shifted, turned, blurred, noisy and so on."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as T
from tqdm import tqdm

from digits.data.warp import widened
from digits.network import DeepDigits
from digits.scoring import mean_probabilities

Change = Callable[[Tensor], Tensor]  # float (N, 1, 28, 28) in [0, 1], 1 = ink, to the same


def _affine(angle: float = 0, shift: tuple[int, int] = (0, 0), scale: float = 1, shear: float = 0) -> Change:
    return lambda images: T.affine(
        images, angle, list(shift), scale, [shear, 0.0], interpolation=InterpolationMode.BILINEAR
    )


def _thicken(times: int) -> Change:
    """Strokes wider (narrower if negative) by a pixel on every side for each of ``times``."""

    def change(images: Tensor) -> Tensor:
        for _ in range(abs(times)):
            images = widened(images) if times > 0 else 1 - widened(1 - images)
        return images

    return change


def _noise(sigma: float) -> Change:
    return lambda images: T.gaussian_noise(images, 0.0, sigma, clip=True)


def _blur(sigma: float) -> Change:
    size = 2 * math.ceil(3 * sigma) + 1  # beyond three sigma there is next to nothing
    return lambda images: T.gaussian_blur(images, [size, size], [sigma, sigma])


def _contrast(factor: float) -> Change:
    return lambda images: T.adjust_contrast(images, factor)


def _both(change: Callable[[float], Change], size: float) -> list[Change]:
    return [change(size), change(-size)]


# What is done to the images, its unit, and for each size the changes of which each image gets one.
CORRUPTIONS: dict[str, tuple[str, dict[float, list[Change]]]] = {
    "shift": (
        "pixels, along an axis or a diagonal",
        {s: [_affine(shift=(x * s, y * s)) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y] for s in (1, 2, 3, 4, 5)},
    ),
    "rotation": ("± degrees", {s: _both(lambda a: _affine(angle=a), s) for s in (10, 20, 30, 45)}),
    "scale": ("± %", {s: _both(lambda p: _affine(scale=1 + p / 100), s) for s in (15, 30, 45)}),
    "shear": ("± degrees", {s: _both(lambda a: _affine(shear=a), s) for s in (10, 20, 30)}),
    "thickness": ("pixels a side", {s: [_thicken(s)] for s in (-1, 1, 2)}),
    "blur": ("sigma in pixels", {s: [_blur(s)] for s in (0.5, 1.0, 1.5, 2.0)}),
    "noise": ("sigma, ink is 1", {s: [_noise(s)] for s in (0.1, 0.2, 0.3, 0.5)}),
    "contrast": ("of the image's own", {s: [_contrast(s)] for s in (0.5, 0.25, 0.1)}),
    "inversion": ("ink and paper exchanged", {1: [T.invert]}),
}


def robustness(networks: Sequence[DeepDigits], images: Tensor, labels: Tensor) -> list[dict[str, str | float | int]]:
    """Errors of ``networks`` together under each corruption alone: ``corruption``, ``unit``, ``size``, ``errors``, ...

    Each image gets one of the changes of a size (the directions of a shift, the signs of a rotation), the i-th the
    i-th in turn; noise is the same each time. The first row, "none", is of the images as they are.

    Args:
        networks: one, or an ensemble.
        images: uint8 (N, 28, 28), 255 = ink.
        labels: int64 (N,).
    """
    rows: list[dict[str, str | float | int]] = []
    levels = [("none", "", 0.0, [lambda x: x])]
    levels += [(name, unit, s, changes) for name, (unit, sizes) in CORRUPTIONS.items() for s, changes in sizes.items()]
    with torch.random.fork_rng(devices=[]):
        for name, unit, size, changes in tqdm(levels, "robustness", leave=False, disable=None):
            torch.manual_seed(0)
            changed = images.clone()
            for i, change in enumerate(changes):
                part = slice(i, None, len(changes))
                floats = change(images[part].unsqueeze(1).float() / 255).squeeze(1)
                changed[part] = (floats * 255).round().clamp(0, 255).byte()
            errors = int((mean_probabilities(networks, changed).argmax(1) != labels).sum())
            rows.append({"corruption": name, "unit": unit, "size": size, "errors": errors, "images": len(labels)})
    return rows
