"""Whether a model is right as often as it says: the accuracy at each confidence, and how many images have it."""

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from digits.report.figure import BLUE, ORANGE, new_figure, save

BINS = 15  # as those of `test/ece`


def draw_reliability(labels: ArrayLike, probabilities: ArrayLike, dataset: str, path: Path) -> None:
    """Write the reliability diagram to ``path`` (Guo et al. 2017, "On Calibration of Modern Neural Networks").

    Above, by confidence in 15 bins of equal width: the share of images that are read correctly, with its 95 % interval
    (Wilson), over the mean confidence. Below, on a logarithmic scale: how many images are in each bin. The title has
    the expected calibration error: the mean distance of the two, weighted by the number of images.

    Args:
        labels: true digits (N,), integers 0 to 9.
        probabilities: softmax of the logits, (N, 10); the confidence is the largest one.
        dataset: as :func:`digits.report.plots.draw_all` takes it.
        path: of the PNG.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=float)
    confidence, correct = probabilities.max(axis=1, initial=0), probabilities.argmax(axis=1) == labels
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    filled = np.flatnonzero(counts)
    means = np.array([confidence[bins == i].mean() for i in filled])
    shares = np.array([correct[bins == i].mean() for i in filled])
    error = float((counts[filled] * abs(means - shares)).sum() / max(len(labels), 1))
    intervals = [
        binomtest(int(correct[bins == i].sum()), int(counts[i])).proportion_ci(method="wilson") for i in filled
    ]
    reach = np.array([[share - ends.low, ends.high - share] for share, ends in zip(shares, intervals, strict=True)])

    title = f"Reliability: expected calibration error {error:.2%} over {len(labels):,} test images"
    figure = new_figure(title, dataset, height=6.5)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(2.4, 1))
    upper.plot([0, 100], [0, 100], color="black", linewidth=0.8, linestyle="--", label="right as often as it says")
    if len(filled):
        bars = 100 * np.maximum(reach, 0).T
        points = {"fmt": "o", "markersize": 5, "capsize": 3, "label": "read correctly, with the 95 % interval"}
        upper.errorbar(100 * means, 100 * shares, yerr=bars, color=BLUE, **points)
    upper.set(ylabel="read correctly (%)", xlim=(0, 101), ylim=(-3, 103))
    upper.legend(loc="upper left", frameon=False)
    width = 100 / BINS
    lower.bar(width * (np.arange(BINS) + 0.5), counts, width=0.9 * width, color=ORANGE)
    for i in filled:
        lower.annotate(f"{counts[i]:,}", (width * (i + 0.5), counts[i]), ha="center", va="bottom", fontsize=9)
    lower.set_yscale("symlog", linthresh=1)
    lower.yaxis.set_major_formatter("{x:,.0f}")
    lower.set(xlabel=f"confidence (%), in {BINS} bins", ylabel="images", ylim=(0, 6 * max(counts.max(), 1)))
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)
