"""A picture of a run as all of them are: 1,000 pixels wide, titled with the dataset, written whole or not at all.

Colours are those of Okabe and Ito, which colour-blind people can tell apart; nothing is told by colour alone.
"""

import io
from pathlib import Path

from matplotlib.figure import Figure

from digits.files import write_atomically
from digits.report.tables import DATASETS

WIDTH, DPI = 8.0, 125  # inches, dots per inch
BLUE, ORANGE = "#0072B2", "#E69F00"
GREEN, RED = "#007A59", "#BF4000"  # the palette's bluish green and vermilion, darkened for small text on white


def new_figure(title: str, dataset: str, height: float) -> Figure:
    """An empty figure, ``height`` inches high."""
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, layout="constrained")  # without pyplot, so without a window
    figure.suptitle(f"{title}\n{DATASETS.get(dataset, dataset)}")
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write ``figure`` to ``path`` as PNG; its folder is created if it does not exist."""
    png = io.BytesIO()
    figure.savefig(png, format="png")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, png.getvalue())
