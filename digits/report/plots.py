"""The plots of a run and of an evaluation: each function writes PNG files and opens no window."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from numpy.typing import ArrayLike

from digits.data.mnist import DIGIT_NAMES, WRONGLY_LABELLED
from digits.report.curves import History, draw_curves
from digits.report.figure import BLUE, GREEN, RED, WIDTH, new_figure, save
from digits.report.reliability import draw_reliability
from digits.report.tables import per_digit


def draw_all(
    folder: Path,
    dataset: str,
    history: History | None,
    images: ArrayLike,
    labels: ArrayLike,
    probabilities: ArrayLike,
    predicted: ArrayLike | None = None,
    note: str = "",
    classes: Sequence[str] = DIGIT_NAMES,
) -> None:
    """Write accuracy.png, loss.png, mistakes.png, confusion.png, reliability.png and ten_digits.png to ``folder``.

    Args:
        folder: where to write; created if it does not exist.
        dataset: "mnist", "mnist-5k" or another name, which every title shows.
        history: one row per epoch, see :func:`~digits.report.curves.draw_curves`; None for no curves.
        images: test images, (N, 28, 28) or (N, 1, 28, 28): integers 0 to 255 or floats 0 to 1, high = ink.
        labels: true digits (N,), integers 0 to 9.
        probabilities: softmax of the logits, (N, 10).
        predicted: predicted digits (N,), -1 where not exactly one was read; by default the most probable ones.
        note: goes below the curves.
        classes: what the labels are called.
    """
    predicted = np.asarray(probabilities).argmax(axis=1) if predicted is None else predicted
    if history is not None:
        draw_curves(history, dataset, folder, note)
    draw_confusion(labels, predicted, dataset, folder / "confusion.png", classes)
    draw_reliability(labels, probabilities, dataset, folder / "reliability.png")
    draw_ten(images, labels, predicted, dataset, folder / "ten_digits.png", classes)
    draw_mistakes(images, labels, probabilities, dataset, folder / "mistakes.png", predicted, classes)


def draw_confusion(
    labels: ArrayLike, predicted: ArrayLike, dataset: str, path: Path, classes: Sequence[str] = DIGIT_NAMES
) -> None:
    """Write the confusion matrix to ``path``: true digits (N,) down, predicted digits (N,) across.

    Where ``predicted`` is -1, not exactly one digit was read: the image is in no column, but counts in its row's share.
    """
    labels, predicted = np.asarray(labels, dtype=int), np.asarray(predicted, dtype=int)
    counts = np.zeros((10, 10), dtype=int)
    np.add.at(counts, (labels[predicted >= 0], predicted[predicted >= 0]), 1)
    mistakes = np.ma.masked_array(counts, mask=np.eye(10, dtype=bool))
    figure = new_figure(
        f"Confusion matrix: {counts.trace():,} of {len(labels):,} test images read correctly", dataset, 7
    )
    axes = figure.subplots()
    colours = colormaps["Oranges"].with_extremes(bad="#dce9f2")  # the diagonal: its counts would dwarf the mistakes
    axes.imshow(mistakes, cmap=colours, vmin=0, vmax=max(1.5 * mistakes.max(), 5))  # 1.5 keeps black text legible
    for (row, column), count in np.ndenumerate(counts):
        axes.text(column, row, f"{count:,}" if count else "·", ha="center", va="center")
    axes.set(xlabel="predicted digit", ylabel="true digit")
    axes.set_xticks(range(10), classes, rotation=90 if max(map(len, classes)) > 3 else 0)
    axes.set_yticks(range(10), classes)
    shares = axes.secondary_yaxis("right")
    shares.set_yticks(range(10), [f"{row['recall']:.1%}" for row in per_digit(labels, predicted)])
    shares.set_ylabel("share of the digit that was read correctly")
    for side in (axes, shares):
        side.tick_params(length=0)
        side.spines[:].set_visible(False)
    save(figure, path)


def draw_ten(
    images: ArrayLike,
    labels: ArrayLike,
    predicted: ArrayLike,
    dataset: str,
    path: Path,
    classes: Sequence[str] = DIGIT_NAMES,
) -> None:
    """Write the first ten test digits to ``path`` with true and predicted label, green if right and red if wrong.

    Arguments as in ``draw_all``; if there are fewer than ten images, all are drawn.
    """
    pairs = list(zip(np.asarray(labels)[:10], np.asarray(predicted)[:10], strict=True))
    captions = [
        f"true {classes[true]}, read {_name(guess, classes)} {'✓' if true == guess else '✗'}" for true, guess in pairs
    ]
    colours = [GREEN if true == guess else RED for true, guess in pairs]
    _draw_gallery("Ten test digits", dataset, path, np.asarray(images)[:10], captions, colours, columns=5)


def draw_mistakes(
    images: ArrayLike,
    labels: ArrayLike,
    probabilities: ArrayLike,
    dataset: str,
    path: Path,
    predicted: ArrayLike | None = None,
    classes: Sequence[str] = DIGIT_NAMES,
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
        f"{classes[labels[i]]}{'*' if i in mislabelled else ''} read as {_name(predicted[i], classes)}\n"
        f"{confidence[i]:.1%} #{i}"
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
    figure = new_figure(
        "Errors on images that were made worse", dataset, height=2.2 * math.ceil(len(names) / columns) + 0.6
    )
    cells = list(figure.subplots(-(-len(names) // columns), columns, squeeze=False, sharey=True).flat)
    for axes in cells[len(names) :]:
        axes.axis("off")
    base = 100 * float(rows[0]["errors"]) / float(rows[0]["images"])
    for axes, name in zip(cells, names, strict=False):
        found = [row for row in rows if row["corruption"] == name]
        shares = [100 * float(row["errors"]) / float(row["images"]) for row in found]
        axes.plot([f"{row['size']:g}" for row in found], shares, color=BLUE, marker="o")
        axes.axhline(base, color="black", linewidth=0.8, linestyle="--")
        axes.set_yscale("symlog", linthresh=0.1)
        axes.set_ylim(0, 100)
        axes.yaxis.set_major_formatter("{x:g}%")
        axes.set_title(name, fontsize=11)
        axes.set_xlabel(str(found[0]["unit"]), fontsize=9)
        axes.grid(alpha=0.3)
    save(figure, path)


def _name(label: int, classes: Sequence[str]) -> str:
    """``label`` for a caption; a dash for -1, which means that not exactly one digit was read."""
    return classes[label] if label >= 0 else "–"


def _draw_gallery(
    title: str, dataset: str, path: Path, images: ArrayLike, captions: list[str], colours: list[str], columns: int
) -> None:
    images = np.asarray(images)
    rows = math.ceil(len(captions) / columns)
    font_size = 11 if columns < 8 else 8
    figure = new_figure(title, dataset, height=0.65 + rows * (WIDTH / columns + 0.025 * font_size))
    cells = list(figure.subplots(rows, columns, squeeze=False).flat) if rows else []
    for axes in cells[len(images) :]:  # the last row may not be full
        axes.axis("off")
    ceiling = 255 if np.issubdtype(images.dtype, np.integer) else 1
    for axes, image, caption, colour in zip(cells, images, captions, colours, strict=False):
        axes.imshow(image.reshape(image.shape[-2:]), cmap="gray_r", vmin=0, vmax=ceiling)
        axes.set_title(caption, color=colour, fontsize=font_size, pad=3)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color("#cccccc")
    save(figure, path)
