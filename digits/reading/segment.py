"""A picture taken apart into single digits, in reading order."""
from dataclasses import dataclass
import numpy as np
from digits.reading.ink import find_ink
from digits.reading.mnist_image import mnist_image

@dataclass
class Found:
    image: np.ndarray
    box: tuple
    row: int

def find_digits(gray):
    ink, mask = find_ink(gray)
    if not mask.any():
        return []
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [Found(mnist_image(ink, mask), (xs[0], ys[0], xs[-1]+1, ys[-1]+1), 0)]
