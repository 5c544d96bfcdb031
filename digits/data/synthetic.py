"""Synthetic training digits, drawn stroke by stroke in forms that are rare in MNIST, whose writers were Americans."""

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Points = NDArray[np.float64]  # (N, 2): x and y of points along a stroke, 0 to 1 from the left and from the top
Stroke = tuple[tuple[float, float], ...]

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


def synthetic_digits(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw ``count`` randomly warped digits; all classes are equally frequent, all forms of a class equally likely.

    Returns:
        Images uint8 (count, 28, 28), 255 = ink, normalized like those of the reader, and labels int64 (count,).
    """
    random = np.random.default_rng(seed)
    labels = np.arange(count) % len(FORMS)
    images = np.zeros((count, 28, 28), np.uint8)
    for image, label in zip(images, labels, strict=True):
        forms = FORMS[label]
        image[:] = _draw_digit(forms[random.integers(len(forms))], random)
    return torch.from_numpy(images), torch.from_numpy(labels)


def _draw_digit(form: tuple[Stroke, ...], random: np.random.Generator) -> NDArray[np.uint8]:
    import cv2  # imported here, as most training runs have no synthetic digits

    from digits.data.mnist_image import mnist_image

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
    return mnist_image((picture / 255).astype(np.float32), (picture > 127).view(np.uint8))


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
