"""Synthetic training digits: forms and shapes that are rare in MNIST, whose writers were Americans.

Half are drawn stroke by stroke, a quarter in a font, and a quarter are MNIST's digits stretched and of coarse pixels.
Ones and sevens of fonts are left out, as bent ones may be taken for one another.
"""

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Points = NDArray[np.float64]  # (N, 2): x and y of points along a stroke, 0 to 1 from the left and from the top
Stroke = tuple[tuple[float, float], ...]

COARSE_HEIGHT = (10, 28)  # range, in pixels, of a digit of coarse pixels
STRETCH = (0.9, 1.6)  # range of the factor by which such a digit becomes wider; every third is stretched to a square
DIGIT_HEIGHT, MARGIN = 96, 24  # pixels: of a digit as it is drawn, and of the space around it
WARP_SD = 0.08  # of the height: standard deviation by which the control points of the warp move
SLANT = (-0.25, 0.5)  # range of how far the top leans to the right, by the height
ASPECT = (0.4, 1.25)  # range of width by height
STROKE_WIDTH = (0.06, 0.15)  # range, by the height
SPLINE_SAMPLES = 12  # points on a curve for each of its given points

# Forms in which each digit is written, as lists of strokes. A stroke of two points is straight, others are curves.
FORMS: tuple[tuple[tuple[Stroke, ...], ...], ...] = (
    (  # 0: closed; ends that cross; open at the top
        (((0.5, 0), (0.05, 0.5), (0.5, 1), (0.95, 0.5), (0.5, 0)),),
        (((0.7, 0.08), (0.45, 0.0), (0.05, 0.5), (0.5, 1), (0.95, 0.5), (0.6, 0.05), (0.4, 0.1)),),
        (((0.4, 0), (0.05, 0.5), (0.5, 1), (0.95, 0.5), (0.65, 0.03)),),
    ),
    (  # 1: a short and a long flag, and a foot; a foot; a very long flag. Warped, a short one would look like a seven
        (((0.2, 0.25), (0.55, 0)), ((0.55, 0), (0.5, 1)), ((0.15, 1), (0.9, 1))),
        (((0.05, 0.45), (0.6, 0)), ((0.6, 0), (0.55, 1)), ((0.2, 1), (0.95, 1))),
        (((0.5, 0), (0.5, 1)), ((0.1, 1), (0.9, 1))),
        (((0, 0.7), (0.6, 0)), ((0.6, 0), (0.6, 1))),
    ),
    (  # 2: a straight base; a loop; a curved base; a curl at the top
        (((0.05, 0.25), (0.35, 0.0), (0.8, 0.12), (0.75, 0.45), (0.05, 1)), ((0.05, 1), (0.95, 1))),
        (((0.05, 0.2), (0.4, 0), (0.8, 0.2), (0.65, 0.55), (0.1, 0.95), (0.12, 0.8), (0.5, 0.9), (0.95, 0.95)),),
        (((0.1, 0.2), (0.5, 0), (0.85, 0.25), (0.5, 0.65), (0.05, 0.95)), ((0.05, 0.95), (0.4, 0.88), (0.95, 1))),
        (
            ((0.45, 0.2), (0.3, 0.3), (0.15, 0.12), (0.5, 0), (0.8, 0.2), (0.6, 0.6), (0.05, 0.95)),
            ((0.05, 0.95), (0.4, 0.88), (0.95, 1)),
        ),
    ),
    (  # 3: round; a flat top
        (
            ((0.1, 0.12), (0.5, 0), (0.85, 0.2), (0.7, 0.42), (0.35, 0.48)),
            ((0.35, 0.48), (0.8, 0.55), (0.9, 0.78), (0.55, 1), (0.05, 0.88)),
        ),
        (((0.1, 0), (0.9, 0)), ((0.9, 0), (0.4, 0.4)), ((0.4, 0.4), (0.85, 0.52), (0.9, 0.8), (0.5, 1), (0.05, 0.88))),
    ),
    (  # 4: open, with a short and a long right side; closed; a short stem; one curve and a stem
        (((0.25, 0), (0.05, 0.6)), ((0.05, 0.6), (0.95, 0.6)), ((0.75, 0.25), (0.7, 1))),
        (((0.15, 0), (0.1, 0.5)), ((0.1, 0.5), (0.9, 0.5)), ((0.8, 0), (0.75, 1))),
        (((0.7, 0), (0, 0.65)), ((0, 0.65), (1, 0.65)), ((0.7, 0), (0.7, 1))),
        (((0.6, 0), (0.05, 0.65)), ((0.05, 0.65), (0.95, 0.62)), ((0.65, 0.35), (0.6, 1))),
        (((0.1, 0.05), (0.1, 0.4), (0.4, 0.55), (0.82, 0.4)), ((0.85, 0), (0.8, 1))),
    ),
    (  # 5: a bar, a side and a bowl; in one curve
        (
            ((0.9, 0), (0.2, 0.02)),
            ((0.2, 0.02), (0.15, 0.45)),
            ((0.15, 0.45), (0.5, 0.36), (0.9, 0.6), (0.75, 0.92), (0.35, 1), (0.05, 0.88)),
        ),
        (((0.9, 0.02), (0.35, 0.08), (0.2, 0.38), (0.7, 0.52), (0.8, 0.82), (0.4, 1), (0.05, 0.9)),),
    ),
    (  # 6: a round back; a straight one
        (((0.75, 0.02), (0.3, 0.3), (0.08, 0.7), (0.35, 1), (0.8, 0.85), (0.75, 0.58), (0.4, 0.52), (0.1, 0.75)),),
        (((0.6, 0), (0.2, 0.5), (0.1, 0.8), (0.45, 1), (0.85, 0.8), (0.6, 0.6), (0.2, 0.72)),),
    ),
    (  # 7: a bar; a bar and a hook; a hook. Warped, a plain one would look like a one with a flag
        (((0.05, 0.03), (0.95, 0)), ((0.95, 0), (0.4, 1)), ((0.3, 0.5), (0.9, 0.48))),
        (((0.08, 0.18), (0.1, 0)), ((0.1, 0), (0.95, 0.03)), ((0.95, 0.03), (0.4, 1)), ((0.3, 0.5), (0.9, 0.48))),
        (((0.08, 0.22), (0.1, 0)), ((0.1, 0), (0.95, 0.03)), ((0.95, 0.03), (0.45, 1))),
    ),
    (  # 8: in one curve; of two rings
        (
            (
                *((0.8, 0.1), (0.4, 0), (0.15, 0.2), (0.5, 0.47), (0.85, 0.75), (0.5, 1)),
                *((0.15, 0.78), (0.5, 0.47), (0.85, 0.22), (0.75, 0.05)),
            ),
        ),
        (
            ((0.5, 0.48), (0.18, 0.25), (0.5, 0), (0.82, 0.25), (0.5, 0.48)),
            ((0.5, 0.48), (0.05, 0.75), (0.5, 1), (0.95, 0.75), (0.5, 0.48)),
        ),
    ),
    (  # 9: a straight stem; a hook; in one curve; a tail that begins at the ring's lower end
        (((0.85, 0.22), (0.5, 0), (0.12, 0.25), (0.45, 0.5), (0.85, 0.22)), ((0.85, 0.2), (0.75, 1))),
        (((0.8, 0.25), (0.45, 0.48), (0.12, 0.25), (0.5, 0), (0.85, 0.15), (0.85, 0.6), (0.6, 1)),),
        (
            ((0.85, 0.22), (0.5, 0), (0.12, 0.25), (0.45, 0.5), (0.85, 0.22)),
            ((0.85, 0.2), (0.9, 0.6), (0.75, 0.93), (0.4, 1), (0.08, 0.88)),
        ),
        (
            ((0.35, 0.45), (0.15, 0.2), (0.5, 0), (0.8, 0.2), (0.35, 0.45)),
            ((0.35, 0.45), (0.85, 0.62), (0.75, 0.93), (0.35, 1), (0.05, 0.88)),
        ),
    ),
)


def synthetic_digits(count: int, digits: Tensor, labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Draw ``count`` digits; all classes are equally frequent.

    Args:
        count: how many.
        digits: uint8 (M, 28, 28), 255 = ink, of which the coarse ones are made; some of each class.
        labels: int64 (M,), theirs.
        seed: of the random numbers.

    Returns:
        Images uint8 (count, 28, 28), 255 = ink, normalized like those of the reader, and labels int64 (count,).
    """
    from digits.data.glyphs import draw_character  # imported here, as most training runs have no synthetic digits
    from digits.data.mnist_image import mnist_image

    random = np.random.default_rng(seed)
    drawn = np.arange(count) % 10
    by_class = [np.flatnonzero(labels.numpy() == label) for label in range(10)] if count else []
    images = np.zeros((count, 28, 28), np.uint8)
    for number, (image, label) in enumerate(zip(images, drawn.tolist(), strict=True)):
        forms, own = FORMS[label], by_class[label]
        kind = number // 10 % 4
        while not image.any():  # what is drawn may be too faint
            if kind < 2 or (kind == 2 and label in (1, 7)):
                picture = _draw_form(forms[random.integers(len(forms))], random)
            elif kind == 2:
                picture = draw_character(str(label), random)
            else:
                picture = _coarse(digits[own[random.integers(len(own))]].numpy(), random)
            if (picture > 127).any():
                image[:] = mnist_image((picture / 255).astype(np.float32), (picture > 127).view(np.uint8))
    return torch.from_numpy(images), torch.from_numpy(drawn)


def _coarse(digit: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """``digit`` (28, 28) stretched, in coarse pixels, every other black and white alone."""
    import cv2

    digit = digit[np.ix_(digit.any(1), digit.any(0))]
    height = int(random.integers(*COARSE_HEIGHT))
    width = height if random.random() < 1 / 3 else digit.shape[1] / len(digit) * height * random.uniform(*STRETCH)
    small = np.asarray(cv2.resize(digit, (max(round(width), 3), height), interpolation=cv2.INTER_AREA), np.uint8)
    if random.random() < 0.5:
        small = np.where(small > random.integers(60, 140), 255, 0).astype(np.uint8)
    larger = cv2.INTER_NEAREST if random.random() < 0.5 else cv2.INTER_CUBIC
    scale = DIGIT_HEIGHT / max(small.shape)
    return np.asarray(cv2.resize(small, None, fx=scale, fy=scale, interpolation=larger), np.uint8)


def _draw_form(form: tuple[Stroke, ...], random: np.random.Generator) -> NDArray[np.uint8]:
    """A digit of one of ``FORMS``, randomly warped."""
    import cv2

    displacements = random.normal(0, WARP_SD, (2, 3, 3))  # x and y of a 3 x 3 grid of control points
    slant, aspect, width = random.uniform(*SLANT), random.uniform(*ASPECT), random.uniform(*STROKE_WIDTH)
    picture = np.zeros((DIGIT_HEIGHT + 2 * MARGIN, 2 * DIGIT_HEIGHT + 2 * MARGIN), np.uint8)
    for stroke in form:
        points = warp(spline(stroke), displacements)
        x = points[:, 0] * aspect + slant * (0.5 - points[:, 1]) + (2 - aspect) / 2
        pixels = np.stack([x, points[:, 1]], 1) * DIGIT_HEIGHT + MARGIN
        cv2.polylines(
            picture, [np.round(pixels * 16).astype(np.int32)], False, 255, round(width * DIGIT_HEIGHT), cv2.LINE_AA, 4
        )
    return picture


@functools.cache  # fitting the spline takes longer than drawing the digit
def spline(stroke: Stroke) -> Points:
    """A cubic spline through the points of ``stroke``, closed if the last point is the first."""
    from scipy.interpolate import CubicSpline

    points = np.array(stroke)
    arc_length = np.concatenate([[0.0], np.linalg.norm(np.diff(points, axis=0), axis=1).cumsum()])
    ends = "periodic" if (points[0] == points[-1]).all() else "natural"
    return CubicSpline(arc_length, points, bc_type=ends)(np.linspace(0, arc_length[-1], SPLINE_SAMPLES * len(points)))


def warp(points: Points, displacements: NDArray[np.float64]) -> Points:
    """``points`` moved by bilinear interpolation of a 3 x 3 grid of displacements, so strokes that meet still do."""
    weights = [np.maximum(1 - np.abs(points[:, [axis]] * 2 - np.arange(3)), 0) for axis in (0, 1)]  # (N, 3) each
    return points + np.einsum("kij,nj,ni->nk", displacements, *weights)
