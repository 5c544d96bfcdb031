"""Robustness: the errors of a model on corrupted images (shifted, rotated, blurred, noisy and so on)."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as T
from tqdm import tqdm

from digits.data.augmentation import dilate
from digits.evaluation.inference import ensemble_probabilities
from digits.network import Network

Transform = Callable[[Tensor], Tensor]  # input and output are float (N, 1, 28, 28) in [0, 1], 1 = ink


def _affine(angle: float = 0, shift: tuple[int, int] = (0, 0), scale: float = 1, shear: float = 0) -> Transform:
    return lambda images: T.affine(
        images, angle, list(shift), scale, [shear, 0.0], interpolation=InterpolationMode.BILINEAR
    )


def _thicken(times: int) -> Transform:
    """Widen strokes by ``times`` pixels on each side, or narrow them if it is negative."""

    def transform(images: Tensor) -> Tensor:
        for _ in range(abs(times)):
            images = dilate(images) if times > 0 else 1 - dilate(1 - images)
        return images

    return transform


def _noise(sigma: float) -> Transform:
    return lambda images: T.gaussian_noise(images, 0.0, sigma, clip=True)


def _blur(sigma: float) -> Transform:
    size = 2 * math.ceil(3 * sigma) + 1  # beyond three sigma the kernel is almost 0
    return lambda images: T.gaussian_blur(images, [size, size], [sigma, sigma])


def _contrast(factor: float) -> Transform:
    return lambda images: T.adjust_contrast(images, factor)


def _both_signs(transform: Callable[[float], Transform], size: float) -> list[Transform]:
    return [transform(size), transform(-size)]


# Name: the unit of the sizes, and for each size the transforms, of which each image gets one.
CORRUPTIONS: dict[str, tuple[str, dict[float, list[Transform]]]] = {
    "shift": (
        "pixels, along an axis or a diagonal",
        {s: [_affine(shift=(x * s, y * s)) for x in (-1, 0, 1) for y in (-1, 0, 1) if x or y] for s in (1, 2, 3, 4, 5)},
    ),
    "rotation": ("± degrees", {s: _both_signs(lambda a: _affine(angle=a), s) for s in (10, 20, 30, 45)}),
    "scale": ("± %", {s: _both_signs(lambda p: _affine(scale=1 + p / 100), s) for s in (15, 30, 45)}),
    "shear": ("± degrees", {s: _both_signs(lambda a: _affine(shear=a), s) for s in (10, 20, 30)}),
    "thickness": ("pixels a side", {s: [_thicken(s)] for s in (-1, 1, 2)}),
    "blur": ("sigma in pixels", {s: [_blur(s)] for s in (0.5, 1.0, 1.5, 2.0)}),
    "noise": ("sigma, ink is 1", {s: [_noise(s)] for s in (0.1, 0.2, 0.3, 0.5)}),
    "contrast": ("of the image's own", {s: [_contrast(s)] for s in (0.5, 0.25, 0.1)}),
    "inversion": ("ink and paper exchanged", {1: [T.invert]}),
}


def robustness(networks: Sequence[Network], images: Tensor, labels: Tensor) -> list[dict[str, str | float | int]]:
    """Count the errors of ``networks``, as an ensemble, under each corruption and size.

    The transforms of a size (the directions of a shift, the signs of a rotation) are applied to the images in turn,
    one each; noise is the same in each call.

    Args:
        networks: one, or an ensemble.
        images: uint8 (N, 28, 28), 255 = ink.
        labels: int64 (N,).

    Returns:
        Rows with ``corruption``, ``unit``, ``size``, ``errors`` and ``images``; the first one, "none", is for the
        unchanged images.
    """
    rows: list[dict[str, str | float | int]] = []
    levels = [("none", "", 0.0, [lambda x: x])]
    levels += [(name, unit, size, each) for name, (unit, sizes) in CORRUPTIONS.items() for size, each in sizes.items()]
    with torch.random.fork_rng(devices=[]):
        for name, unit, size, transforms in tqdm(levels, "robustness", leave=False, disable=None):
            torch.manual_seed(0)
            corrupted = images.clone()
            for i, transform in enumerate(transforms):
                part = slice(i, None, len(transforms))
                floats = transform(images[part].unsqueeze(1).float() / 255).squeeze(1)
                corrupted[part] = (floats * 255).round().clamp(0, 255).byte()
            errors = int((ensemble_probabilities(networks, corrupted).argmax(1) != labels).sum())
            rows.append({"corruption": name, "unit": unit, "size": size, "errors": errors, "images": len(labels)})
    return rows
