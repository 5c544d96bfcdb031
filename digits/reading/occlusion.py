"""Occlusion: which of a digit's ink speaks for what it is taken for, and which speaks against it."""

import numpy as np
from numpy.typing import NDArray

from digits.reading.reader import Reader

# Patches of 7 x 7 pixels, 3 apart, cover 28 x 28 pixels by 8 x 8 patches: the 64 images of one whole batch.
PATCH, STRIDE = 7, 3  # pixels
MIN_PROBABILITY = 1e-6  # so that its logarithm is finite


def occlusion_map(reader: Reader, image: NDArray[np.uint8], value: int) -> NDArray[np.float32]:
    """How much each pixel's ink speaks for ``value``.

    Patch by patch the ink is taken away. What the log-odds of ``value`` lose by that is the patch's share, and that of
    a pixel is the mean over the patches that it is in. The method is that of Zeiler and Fergus, "Visualizing and
    Understanding Convolutional Networks", 2014, section 4.2.

    Args:
        reader: whose network is asked.
        image: what it saw of a digit, (28, 28), 255 = ink.
        value: 0 to 9.

    Returns:
        (28, 28), from -1, against, to 1, for; the largest magnitude is 1 unless nothing matters; 0 where there is no
        ink.
    """
    starts = range(0, image.shape[0] - PATCH + 1, STRIDE)
    patches = [(slice(top, top + PATCH), slice(left, left + PATCH)) for top in starts for left in starts]
    occluded = np.repeat(image[None], len(patches), 0)
    for copy, patch in zip(occluded, patches, strict=True):
        copy[patch] = 0
    odds = _log_odds(reader.classify(np.concatenate([occluded, image[None]]))[:, value])
    total, count = np.zeros(image.shape, np.float32), np.zeros(image.shape, np.float32)
    for patch, drop in zip(patches, odds[-1] - odds[:-1], strict=True):
        total[patch] += drop
        count[patch] += 1
    shares = total / count * (image > 0)
    return shares / (np.abs(shares).max() or 1)


def _log_odds(p: NDArray[np.float32]) -> NDArray[np.float32]:
    p = p.clip(MIN_PROBABILITY, 1 - MIN_PROBABILITY)
    return np.log(p) - np.log1p(-p)
