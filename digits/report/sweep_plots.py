"""What a sweep has found, as one picture: a line, a heat map, or a panel of points for each key."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from digits.report.figure import BLUE, ORANGE, new_figure, save

MEASURE = "validation accuracy (%)"
FEW = 6  # values that are drawn side by side, at equal distances; more are drawn along a scale


class Point(NamedTuple):
    """One setting: the values of the keys that were swept, and the accuracy of each seed, in [0, 1]."""

    values: Mapping[str, Any]
    accuracies: Sequence[float]

    @property
    def percent(self) -> "np.ndarray[Any, Any]":
        """The accuracies, in percent."""
        return 100 * np.array(self.accuracies)


def draw_sweep(
    points: Sequence[Point], dataset: str, path: Path, importances: Mapping[str, float] | None = None
) -> None:
    """Write the picture to ``path``: of one key a line, of two a heat map, of more a panel for each.

    Args:
        points: at least one; all have the same keys, by their short names.
        dataset: as :func:`digits.report.plots.draw_all` takes it.
        path: a PNG; its folder is created if it does not exist.
        importances: how much of the variance each key explains, from 0 to 1; goes into the headings of the panels.
    """
    keys = list(points[0].values)
    if len(keys) == 2 and _is_grid(points, keys):
        _heat_map(points, keys, dataset, path)
        return
    columns = max(math.ceil(len(keys) / 2), 1) if len(keys) < 5 else 3
    rows = math.ceil(len(keys) / columns) or 1
    figure = new_figure("What the sweep found", dataset, height=1.2 + 3.4 * rows)
    panels = np.ravel(figure.subplots(rows, columns, squeeze=False, sharey=True))
    for panel in panels[::columns]:
        panel.set_ylabel(MEASURE)
    for panel, key in zip(panels, keys or [""], strict=False):
        share = (importances or {}).get(key)
        panel.set_title("" if share is None else f"importance {share:.0%}", fontsize=10)
        _panel(panel, points, key, line=len(keys) < 2)
    for panel in panels[max(len(keys), 1) :]:
        panel.set_visible(False)
    save(figure, path)


def _panel(axes: Axes, points: Sequence[Point], key: str, line: bool) -> None:
    values = [point.values.get(key) for point in points]
    distinct = _in_order(values)
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in distinct)
    along_scale = numbers and len(distinct) > FEW
    places = {repr(v): (v if along_scale else i) for i, v in enumerate(distinct)}
    if along_scale and min(distinct) > 0 and max(distinct) >= 100 * min(distinct):
        axes.set_xscale("log")
    x = [places[repr(value)] for value in values]
    order = np.argsort(x)
    for place, point in zip(x, points, strict=True):
        axes.plot([place] * len(point.percent), point.percent, "o", color=BLUE, alpha=0.45, markersize=4, mew=0)
    if line:
        centre = np.array([point.percent.mean() for point in points])
        spread = np.array([point.percent.std(ddof=1) if len(point.percent) > 1 else 0 for point in points])
        ordered = np.array(x)[order]
        axes.errorbar(
            ordered,
            centre[order],
            spread[order],
            color=ORANGE,
            marker="s",
            capsize=4,
            label="mean ± standard deviation",
        )
        axes.legend(frameon=False)
    if not along_scale:
        axes.set_xticks(range(len(distinct)), [_text(value) for value in distinct])
        axes.margins(x=0.2 if len(distinct) < 4 else 0.08)
    axes.set_xlabel(key)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.5g}"))
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def _heat_map(points: Sequence[Point], keys: Sequence[str], dataset: str, path: Path) -> None:
    rows, columns = (_in_order([point.values[key] for point in points]) for key in keys)
    if len(rows) > len(columns):
        keys, rows, columns = keys[::-1], columns, rows
    mean = np.full((len(rows), len(columns)), np.nan)
    seeds = np.zeros(mean.shape, int)
    for point in points:
        cell = rows.index(point.values[keys[0]]), columns.index(point.values[keys[1]])
        mean[cell], seeds[cell] = point.percent.mean(), len(point.percent)
    figure = new_figure("What the sweep found", dataset, height=1.9 + 0.75 * len(rows))
    axes = figure.subplots()
    picture = axes.imshow(mean, cmap="cividis", aspect="auto")
    middle = (np.nanmin(mean) + np.nanmax(mean)) / 2
    for (row, column), value in np.ndenumerate(mean):
        if np.isfinite(value):
            colour = "white" if value <= middle else "black"
            axes.text(column, row, f"{value:.3f}\nn={seeds[row, column]}", ha="center", va="center", color=colour)
    axes.set_yticks(range(len(rows)), [_text(value) for value in rows])
    axes.set_xticks(range(len(columns)), [_text(value) for value in columns])
    axes.set(ylabel=keys[0], xlabel=keys[1])
    bar = figure.colorbar(picture, label=f"{MEASURE}, mean")
    bar.formatter = FuncFormatter(lambda value, _: f"{value:.5g}")
    save(figure, path)


def _is_grid(points: Sequence[Point], keys: Sequence[str]) -> bool:
    """Whether at least half of the cells that the values of two keys make have a point."""
    cells = math.prod(len(_in_order([point.values[key] for point in points])) for key in keys)
    return len(points) >= cells / 2 and cells > 1


def _in_order(values: Sequence[Any]) -> list[Any]:
    distinct = list({repr(value): value for value in values}.values())
    try:
        return sorted(distinct)
    except TypeError:  # of several kinds, as null and a number
        return sorted(distinct, key=_text)


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else {None: "null"}.get(value, str(value))
