"""Accuracy and loss by epoch."""

import textwrap
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

from digits.report.figure import BLUE, ORANGE, RED, new_figure, save

History = list[dict[str, float]]
SPLITS = (  # key in the history, name in the legend, colour, marker
    ("train", "training", BLUE, "o"),
    ("val", "validation", ORANGE, "s"),
    ("test_each_epoch", "test split, scored after each epoch as the original did; nothing is selected by it", RED, "^"),
)
ACCURACY_TICKS = (0, 30, 50, 70, 80, 90, 95, 98, 99, 99.5, 99.8, 99.9, 100)  # percent
PERFECT = 0.05  # percentage points of error that 100 % is drawn as, since a logarithm has no 0


def draw_curves(history: History, dataset: str, folder: Path, note: str = "") -> None:
    """Write accuracy.png and loss.png to ``folder``: training and validation by epoch.

    All points are in the picture: accuracies are drawn by the logarithm of the error, so that the first epoch and
    99.x % are both legible.

    Args:
        history: one row per epoch: ``epoch`` (from 1) and, as far as they are known, ``loss`` and ``sparse_accuracy``
            (in [0, 1]), prefixed by ``train/``, ``val/`` or ``test_each_epoch/``. A value that is missing, None or not
            finite becomes a gap.
        dataset: as :func:`digits.report.plots.draw_all` takes it.
        folder: where to write; created if it does not exist.
        note: a sentence that goes below the picture where training is drawn beside another split.
    """
    epochs = [row.get("epoch") or number for number, row in enumerate(history, start=1)]
    marker_size = 4 if len(history) <= 30 else 2.5
    for name, metric, scale, unit in (("accuracy", "sparse_accuracy", 100, " (%)"), ("loss", "loss", 1, "")):
        figure = new_figure(f"{name.capitalize()} by epoch", dataset, height=5)
        axes = figure.subplots()
        axes.set(xlabel="epoch", ylabel=name + unit)
        drawn = []
        for split, label, colour, marker in SPLITS:
            y = scale * np.array([row.get(f"{split}/{metric}") for row in history], dtype=float)  # None becomes NaN
            if (known := y[np.isfinite(y)]).size:
                end = f"{label}: {known[-1]:.2f}% at the end" if unit else f"{label}: {known[-1]:.4f} at the end"
                axes.plot(epochs, y, color=colour, marker=marker, markersize=marker_size, label=end)
                drawn.append(known)
        if drawn:
            values = np.concatenate(drawn)
            if unit:
                _scale_by_error(axes, values)
            elif values.min() > 0 and values.max() > 10 * values.min():
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter("{x:g}")
                axes.yaxis.set_minor_formatter("")
            text = textwrap.fill(note, 125) if len(drawn) > 1 else ""
            figure.legend(loc="outside lower center", frameon=False, title=text or None, title_fontsize=9)
        else:
            axes.text(0.5, 0.5, "no epoch was finished", transform=axes.transAxes, ha="center")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        save(figure, folder / f"{name}.png")


def _scale_by_error(axes: Axes, values: NDArray[np.float64]) -> None:
    """Give each halving of the error the same height, from the lowest to the highest of the accuracies."""

    def height(accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
        return -np.log(np.maximum(100 - accuracy, 0) + PERFECT)

    def accuracy(height: NDArray[np.float64]) -> NDArray[np.float64]:
        return 100 + PERFECT - np.exp(-height)

    axes.set_yscale("function", functions=(height, accuracy))
    low, high = height(np.array([values.min(), values.max()]))
    margin = max(0.05 * (high - low), 0.1)
    bottom, top = accuracy(np.array([low - margin, high + margin]))
    axes.set_ylim(bottom, top)
    ticks = [tick for tick in ACCURACY_TICKS if bottom <= tick <= top]
    if len(ticks) < 3:
        ticks = [tick for tick in MaxNLocator(5).tick_values(bottom, top) if bottom <= tick <= min(top, 100)]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter("{x:g}")
