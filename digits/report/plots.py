"""The plots of a run: each function writes PNG files, 1,000 pixels wide, and opens no window.

Colours are those of Okabe and Ito, which colour-blind people can tell apart; nothing is told by colour alone.
"""

import io
import math
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from numpy.typing import ArrayLike, NDArray

from digits.data.mnist import WRONGLY_LABELLED
from digits.files import write_atomically
from digits.report.tables import DATASETS, per_digit

History = list[dict[str, float]]
WIDTH, DPI = 8.0, 125  # inches, dots per inch
GREEN, RED = "#007A59", "#BF4000"  # the palette's bluish green and vermilion, darkened for small text on white
SPLITS = (  # key in the history, name in the legend, colour, marker
    ("train", "training", "#0072B2", "o"),
    ("val", "validation", "#E69F00", "s"),
    ("test_each_epoch", "test split, scored after each epoch as the original did; nothing is selected by it", RED, "^"),
)


def draw_all(
    folder: Path,
    dataset: str,
    history: History | None,
    images: ArrayLike,
    labels: ArrayLike,
    probabilities: ArrayLike,
    predicted: ArrayLike | None = None,
) -> None:
    """Write accuracy.png, loss.png, confusion.png, ten_digits.png and mistakes.png to ``folder``.

    Args:
        folder: where to write; created if it does not exist.
        dataset: "mnist", "mnist-5k" or another name, which every title shows.
        history: one row per epoch, see ``draw_curves``; None for no curves.
        images: test images, (N, 28, 28) or (N, 1, 28, 28): integers 0 to 255 or floats 0 to 1, high = ink.
        labels: true digits (N,), integers 0 to 9.
        probabilities: softmax of the logits, (N, 10).
        predicted: predicted digits (N,), -1 where not exactly one was read; by default the most probable ones.
    """
    predicted = np.asarray(probabilities).argmax(axis=1) if predicted is None else predicted
    if history is not None:
        draw_curves(history, dataset, folder)
    draw_confusion(labels, predicted, dataset, folder / "confusion.png")
    draw_ten(images, labels, predicted, dataset, folder / "ten_digits.png")
    draw_mistakes(images, labels, probabilities, dataset, folder / "mistakes.png", predicted)


def draw_curves(history: History, dataset: str, folder: Path) -> None:
    """Write accuracy.png and loss.png to ``folder``: training and validation by epoch.

    Each row of ``history`` is an epoch: ``epoch`` (from 1) and, as far as they are known, ``loss`` and
    ``sparse_accuracy`` (in [0, 1]), prefixed by ``train/``, ``val/`` or ``test_each_epoch/``. A value that is missing,
    None or not finite becomes a gap.
    """
    epochs = [row.get("epoch") or number for number, row in enumerate(history, start=1)]
    marker_size = 4 if len(history) <= 30 else 2.5
    for name, metric, scale, unit in (("accuracy", "sparse_accuracy", 100, " (%)"), ("loss", "loss", 1, "")):
        figure = _figure(f"{name.capitalize()} by epoch", dataset, height=5)
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
                _cut_off_lowest(axes, values, ends=[known[-1] for known in drawn])
            elif values.min() > 0 and values.max() > 10 * values.min():
                axes.set_yscale("log")
                axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
                axes.yaxis.set_major_formatter("{x:g}")
            figure.legend(loc="outside lower center", frameon=False)
        else:
            axes.text(0.5, 0.5, "no epoch was finished", transform=axes.transAxes, ha="center")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        _save(figure, folder / f"{name}.png")


def draw_confusion(labels: ArrayLike, predicted: ArrayLike, dataset: str, path: Path) -> None:
    """Write the confusion matrix to ``path``: true digits (N,) down, predicted digits (N,) across.

    Where ``predicted`` is -1, not exactly one digit was read: the image is in no column, but counts in its row's share.
    """
    labels, predicted = np.asarray(labels, dtype=int), np.asarray(predicted, dtype=int)
    counts = np.zeros((10, 10), dtype=int)
    np.add.at(counts, (labels[predicted >= 0], predicted[predicted >= 0]), 1)
    mistakes = np.ma.masked_array(counts, mask=np.eye(10, dtype=bool))
    figure = _figure(f"Confusion matrix: {counts.trace():,} of {len(labels):,} test images read correctly", dataset, 7)
    axes = figure.subplots()
    colours = colormaps["Oranges"].with_extremes(bad="#dce9f2")  # the diagonal: its counts would dwarf the mistakes
    axes.imshow(mistakes, cmap=colours, vmin=0, vmax=max(1.5 * mistakes.max(), 5))  # 1.5 keeps black text legible
    for (row, column), count in np.ndenumerate(counts):
        axes.text(column, row, f"{count:,}" if count else "·", ha="center", va="center")
    axes.set(xlabel="predicted digit", ylabel="true digit", xticks=range(10), yticks=range(10))
    shares = axes.secondary_yaxis("right")
    shares.set_yticks(range(10), [f"{row['recall']:.1%}" for row in per_digit(labels, predicted)])
    shares.set_ylabel("share of the digit that was read correctly")
    for side in (axes, shares):
        side.tick_params(length=0)
        side.spines[:].set_visible(False)
    _save(figure, path)


def draw_ten(images: ArrayLike, labels: ArrayLike, predicted: ArrayLike, dataset: str, path: Path) -> None:
    """Write the first ten test digits to ``path`` with true and predicted label, green if right and red if wrong.

    Arguments as in ``draw_all``; if there are fewer than ten images, all are drawn.
    """
    pairs = list(zip(np.asarray(labels)[:10], np.asarray(predicted)[:10], strict=True))
    captions = [f"true {true}, read {_digit_text(guess)} {'✓' if true == guess else '✗'}" for true, guess in pairs]
    colours = [GREEN if true == guess else RED for true, guess in pairs]
    _draw_gallery("Ten test digits", dataset, path, np.asarray(images)[:10], captions, colours, columns=5)


def draw_mistakes(
    images: ArrayLike,
    labels: ArrayLike,
    probabilities: ArrayLike,
    dataset: str,
    path: Path,
    predicted: ArrayLike | None = None,
) -> None:
    """Write the most confident mistakes to ``path``, up to 40: true, predicted, confidence, index in the test set.

    An asterisk marks images of MNIST whose label is known to be wrong. Arguments as in ``draw_all``; if there are no
    mistakes, the plot says so.
    """
    labels, probabilities = np.asarray(labels), np.asarray(probabilities)
    predicted = probabilities.argmax(axis=1) if predicted is None else np.asarray(predicted)
    confidence = probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    shown = wrong[np.argsort(-confidence[wrong], kind="stable")][:40]
    mislabelled = set(WRONGLY_LABELLED) if dataset == "mnist" else set()
    captions = [
        f"{labels[i]}{'*' if i in mislabelled else ''} read as {_digit_text(predicted[i])}\n{confidence[i]:.1%} #{i}"
        for i in shown
    ]
    title = f"Mistakes: {len(wrong) or 'none'} in {len(labels):,} test images"
    if len(wrong) > len(shown):
        title = f"The {len(shown)} most confident of {len(wrong):,} mistakes in {len(labels):,} test images"
    if mislabelled.intersection(shown.tolist()):
        title += " (*: the label is known to be wrong)"
    _draw_gallery(title, dataset, path, np.asarray(images)[shown], captions, [RED] * len(shown), columns=8)


def draw_robustness(rows: list[dict[str, str | float | int]], dataset: str, path: Path) -> None:
    """Write the error rate by kind and size of corruption to ``path``.

    ``rows`` are those of :func:`digits.evaluation.robustness.robustness`; the first one, of unchanged images, becomes a
    dashed line.
    """
    names = list(dict.fromkeys(str(row["corruption"]) for row in rows[1:]))
    columns = 3
    figure = _figure(
        "Errors on images that were made worse", dataset, height=2.2 * math.ceil(len(names) / columns) + 0.6
    )
    cells = list(figure.subplots(-(-len(names) // columns), columns, squeeze=False, sharey=True).flat)
    for axes in cells[len(names) :]:
        axes.axis("off")
    base = 100 * float(rows[0]["errors"]) / float(rows[0]["images"])
    for axes, name in zip(cells, names, strict=False):
        found = [row for row in rows if row["corruption"] == name]
        shares = [100 * float(row["errors"]) / float(row["images"]) for row in found]
        axes.plot([f"{row['size']:g}" for row in found], shares, color="#0072B2", marker="o")
        axes.axhline(base, color="black", linewidth=0.8, linestyle="--")
        axes.set_yscale("symlog", linthresh=0.1)
        axes.set_ylim(0, 100)
        axes.yaxis.set_major_formatter("{x:g}%")
        axes.set_title(name, fontsize=11)
        axes.set_xlabel(str(found[0]["unit"]), fontsize=9)
        axes.grid(alpha=0.3)
    _save(figure, path)


def _digit_text(digit: int) -> str:
    """``digit`` for a caption; a dash for -1, which means that not exactly one digit was read."""
    return f"{digit}" if digit >= 0 else "–"


def _draw_gallery(
    title: str, dataset: str, path: Path, images: ArrayLike, captions: list[str], colours: list[str], columns: int
) -> None:
    images = np.asarray(images)
    rows = math.ceil(len(captions) / columns)
    font_size = 11 if columns < 8 else 8
    figure = _figure(title, dataset, height=0.65 + rows * (WIDTH / columns + 0.025 * font_size))
    cells = list(figure.subplots(rows, columns, squeeze=False).flat) if rows else []
    for axes in cells[len(images) :]:  # the last row may not be full
        axes.axis("off")
    ceiling = 255 if np.issubdtype(images.dtype, np.integer) else 1
    for axes, image, caption, colour in zip(cells, images, captions, colours, strict=False):
        axes.imshow(image.reshape(image.shape[-2:]), cmap="gray_r", vmin=0, vmax=ceiling)
        axes.set_title(caption, color=colour, fontsize=font_size, pad=3)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color("#cccccc")
    _save(figure, path)


def _cut_off_lowest(axes: Axes, values: NDArray[np.float64], ends: list[float]) -> None:
    """Cut off the lowest accuracies, so that 99.x % is legible; the label says how many points are not shown."""
    low, high = min(np.quantile(values, 0.15), *ends), values.max()
    margin = max(0.08 * (high - low), 0.05)
    axes.set_ylim(low - margin, min(high + margin, 100 + margin / 2))
    if below := int((values < low - margin).sum()):
        axes.set_xlabel(f"epoch\n(points below the picture: {below}, the lowest at {values.min():.1f}%)")


def _figure(title: str, dataset: str, height: float) -> Figure:
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")  # without pyplot, so without a window
    figure.suptitle(f"{title}\n{DATASETS.get(dataset, dataset)}")
    return figure


def _save(figure: Figure, path: Path) -> None:
    png = io.BytesIO()
    figure.savefig(png, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, png.getvalue())
