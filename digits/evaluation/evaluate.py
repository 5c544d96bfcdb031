"""`digits evaluate`: scores a trained model, or an ensemble of several, on labelled digits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from digits import __version__
from digits.data.mnist import DATASETS, load_digits
from digits.errors import ConfigError, DigitsError
from digits.evaluation.inference import ensemble_probabilities
from digits.evaluation.robustness import robustness
from digits.evaluation.scoring import score
from digits.exchange.model_folder import load_model, training_data
from digits.reading.folder import labelled_pictures
from digits.reading.predict import interruptible
from digits.reading.reader import Reader
from digits.report import plots, tables


def evaluate(
    models: Sequence[str | Path], data: str, data_dir: Path, corrupted: bool = False, folder: Path | None = None
) -> dict[str, Any]:
    """Score ``models``, as an ensemble if there are several, on the test split of ``data``.

    The pictures of a folder are read by a :class:`~digits.reading.reader.Reader`. A picture counts as correct if each
    model finds exactly one digit in it and the mean of their probabilities is highest for the label. If a model finds
    several digits, the probabilities are those of the largest one; if it finds none, they are 0.1 each.

    Args:
        models: as :func:`digits.exchange.model_folder.load_model` takes them; if empty, the package's own.
        data: "mnist", "mnist5k", "fashion_mnist", "kmnist", or a folder with a sub-folder for each label, of pictures
            of one digit each.
        data_dir: folder of the MNIST files; missing files are downloaded to it.
        corrupted: also score them on corrupted images, under ``robustness``.
        folder: where to write `summary.json` and `plots/`.

    Returns:
        The same keys as in a run's `summary.json`. For a folder of pictures also ``test/none_found`` and
        ``test/several_found``, which are numbers of pictures, ``failed``, a line for each file that could not be opened
        and is in no figure, and the file of each mistake in ``test/wrong``.

    Raises:
        DigitsError: a model or the data cannot be loaded.
        ConfigError: a model was trained on the digits that it would be scored on, there is no such data, ``corrupted``
            was asked for with a folder of pictures, or ``folder`` holds a run or a model, whose summary would be lost.
    """
    if folder is not None:
        _check_folder(folder)
    chosen: list[str | Path | None] = [*models] or [None]
    names = [str(model or "the package's own") for model in chosen]
    networks = [load_model(model) for model in chosen]
    if data == "mnist5k":
        for name, model in zip(names, chosen, strict=True):
            if training_data(model) != "mnist-5k":
                raise ConfigError(
                    f"--data mnist5k: its digits are of MNIST's training split, on which {name} may have been trained"
                )
    found: dict[str, Any] = {}
    if data in ("mnist5k", *DATASETS):
        digits = load_digits(data, data_dir, offline_fallback=False)
        dataset, images, labels, classes = digits.name, digits.test_images, digits.test_labels, digits.classes
        probabilities = ensemble_probabilities(networks, images, progress="test")
        predicted = probabilities.argmax(1)
    else:
        if corrupted:
            raise ConfigError("--robustness: goes with MNIST only, whose images it makes worse, not with a folder")
        if not Path(data).is_dir():
            raise ConfigError(f"--data {data}: is none of mnist, mnist5k, fashion_mnist, kmnist, and no folder")
        dataset, (files, labels, classes) = data, labelled_pictures(Path(data), "--data ")
        images, probabilities, predicted, kept, found = _read_pictures(chosen, files)
        files, labels = [files[i] for i in kept], labels[kept]
    summary: dict[str, Any] = {"status": "completed", "models": names, "dataset": dataset, "digits": __version__}
    summary["parameters"] = sum(network.count_parameters() for network in networks)
    summary |= score(probabilities, labels, dataset == "mnist", predicted, classes) | found
    if found:
        summary["test/wrong"] = [mistake | {"file": str(files[mistake["index"]])} for mistake in summary["test/wrong"]]
    if len(networks) == 1:
        summary["temperature"] = networks[0].temperature
    if corrupted:
        summary["robustness"] = robustness(networks, images, labels)
    if folder is not None:
        shown = (images.numpy(), labels.numpy(), probabilities.numpy(), predicted.numpy())
        folder.mkdir(parents=True, exist_ok=True)
        plots.draw_all(folder / "plots", dataset, None, *shown, classes=classes)
        if corrupted:
            plots.draw_robustness(summary["robustness"], dataset, folder / "plots" / "robustness.png")
        summary["run_dir"] = str(folder)
        tables.write_json(folder / "summary.json", summary)
    return summary


def _check_folder(folder: Path) -> None:
    summary = tables.read_summary(folder)
    if summary is not None and "models" not in summary:
        raise ConfigError(f"--save {folder}: its summary.json is that of a run or a model; name another folder")


def _read_pictures(
    models: Sequence[str | Path | None], files: Sequence[Path]
) -> tuple[Tensor, Tensor, Tensor, list[int], dict[str, Any]]:
    """Read ``files`` by ``models``.

    Returns:
        For the N files that could be opened: the image of the largest digit, uint8 (N, 28, 28), blank if none was
        found; probabilities (N, 10); predicted digits (N,), -1 where not exactly one was found; indices into ``files``;
        and the keys for the summary.
    """
    counts = np.zeros((len(models), len(files)), int)
    probabilities = np.full((len(models), len(files), 10), 0.1, np.float32)
    images = np.zeros((len(files), 28, 28), np.uint8)
    failed: dict[int, str] = {}
    for row, model in enumerate(models):
        results = tqdm(interruptible(Reader(model).read_many(files)), "test", len(files), leave=False, disable=None)
        for i, digits in enumerate(results):
            if isinstance(digits, DigitsError):
                failed[i] = str(digits)
            elif digits:
                largest = max(digits, key=lambda digit: digit.box.bottom - digit.box.top)
                counts[row, i], probabilities[row, i], images[i] = len(digits), largest.probabilities, largest.image
    kept = [i for i in range(len(files)) if i not in failed]
    if not kept:
        raise DigitsError(f"none of the {len(files):,} pictures could be read; the first: {failed[0]}")
    counts, mean = counts[:, kept], torch.from_numpy(probabilities[:, kept]).mean(0)
    one, none = torch.from_numpy((counts == 1).all(0)), (counts == 0).any(0)
    found = {
        "test/none_found": int(none.sum()),
        "test/several_found": int(len(kept) - one.sum() - none.sum()),
        "failed": [*failed.values()],
    }
    return torch.from_numpy(images[kept]), mean, torch.where(one, mean.argmax(1), -1), kept, found
