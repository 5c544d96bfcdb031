"""Trained models scored on labelled digits, alone or together: what `digits evaluate` does."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from digits import __version__
from digits.data.source import load_digits
from digits.errors import ConfigError
from digits.exchange.model_folder import load_model, training_data
from digits.report import plots, tables
from digits.robustness import robustness
from digits.scoring import mean_probabilities, score


def evaluate(
    models: Sequence[str | Path], data: str, data_dir: Path, corrupted: bool = False, folder: Path | None = None
) -> dict[str, Any]:
    """Score ``models`` together on the test split of ``data``; returns what a run's `summary.json` would hold of it.

    Args:
        models: as :func:`digits.exchange.model_folder.load_model` takes them; none: the package's own.
        data: "mnist" or "mnist5k".
        data_dir: folder of the MNIST files, which are downloaded if it has none.
        corrupted: also score them on images that were made worse, under ``robustness``.
        folder: where to write `summary.json` and `plots/`.

    Raises:
        DigitsError: a model or the data cannot be had.
        ConfigError: a model was trained on the very digits that it would be scored on.
    """
    chosen: list[str | Path | None] = [*models] or [None]
    names = [str(model or "the package's own") for model in chosen]
    networks = [load_model(model) for model in chosen]
    if data == "mnist5k":
        for name, model in zip(names, chosen, strict=True):
            if training_data(model) != "mnist-5k":
                raise ConfigError(
                    f"--data mnist5k: its digits are of MNIST's training split, on which {name} may have been trained"
                )
    digits = load_digits(data, data_dir, offline_fallback=False)
    probabilities = mean_probabilities(networks, digits.test_images, progress="test")
    summary: dict[str, Any] = {"status": "completed", "models": names, "dataset": digits.name, "digits": __version__}
    summary["parameters"] = networks[0].count_parameters()
    summary |= score(probabilities, digits.test_labels, mnist_test=digits.name == "mnist")
    if len(networks) == 1:
        summary["temperature"] = networks[0].temperature
    if corrupted:
        summary["robustness"] = robustness(networks, digits.test_images, digits.test_labels)
    if folder is not None:
        shown = (digits.test_images.numpy(), digits.test_labels.numpy(), probabilities.numpy())
        plots.draw_all(folder / "plots", digits.name, None, *shown)
        if corrupted:
            plots.draw_robustness(summary["robustness"], digits.name, folder / "plots" / "robustness.png")
        summary["run_dir"] = str(folder)
        tables.write_json(folder / "summary.json", summary)
    return summary
