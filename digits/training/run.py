"""One run: fitted, tested, calibrated, scored, and written into its folder."""

import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf
from torch import Tensor

from digits.data.module import DigitDataModule
from digits.errors import ConfigError
from digits.evaluation.calibration import calibrate
from digits.evaluation.scoring import score
from digits.exchange.model_folder import check_target, save_model
from digits.network import DeepDigits
from digits.report import plots, tables
from digits.settings.schema import Config
from digits.training.checkpoints import check_checkpoint, require_checkpoint
from digits.training.classifier import DigitClassifier
from digits.training.history import History
from digits.training.setup import set_up
from digits.training.summary import summarize


def train(config: Config, run_dir: Path, overrides: Sequence[str] | None = None) -> dict[str, Any]:
    """Train, test and report as ``config`` says; everything that is written goes into ``run_dir``.

    ``overrides`` are what `train.py` was called with, if it was: they go into the summary.

    Returns:
        The summary, as `summary.json` holds it. Its ``status`` is "completed", or "interrupted" after Ctrl-C.

    Raises:
        DigitsError: the data, the device or the checkpoint cannot be used.
    """
    start = time.perf_counter()
    run_dir.mkdir(parents=True, exist_ok=True)
    if config.ckpt_path is not None:
        require_checkpoint(Path(config.ckpt_path))
    trainer, classifier, data, history = set_up(config, run_dir)
    if config.ckpt_path is not None:
        check_checkpoint(Path(config.ckpt_path), classifier)
    check_target(run_dir / "model")
    # from here on what an earlier run may have left in the folder is no longer true of it
    (run_dir / "summary.json").unlink(missing_ok=True)
    OmegaConf.save(OmegaConf.create(config.model_dump(mode="json")), run_dir / "config.yaml")

    completed, tested_epoch = fit_and_test(config, trainer, classifier, data, history)
    summary = summarize(config, trainer, data, classifier, history, tested_epoch)
    summary |= {"status": "completed" if completed else "interrupted", "run_dir": str(run_dir), "overrides": overrides}
    if completed:
        network, probabilities = calibrate_and_predict(config, classifier, data)
        images, labels = data.test.images[: len(probabilities)], data.test.labels[: len(probabilities)]
        summary |= score(probabilities, labels, mnist_test=summary["dataset"] == "mnist")
        summary["temperature"] = network.temperature
        if trainer.is_global_zero:
            shown = (images.numpy(), labels.numpy(), probabilities.numpy())
            plots.draw_all(run_dir / "plots", summary["dataset"], history.rows, *shown)
    last = run_dir / "checkpoints" / "last.ckpt"
    summary["last_checkpoint"] = str(last) if last.exists() else None
    summary["seconds"] = round(time.perf_counter() - start, 1)
    if trainer.is_global_zero:
        tables.write_json(run_dir / "summary.json", summary)
        if completed and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            save_model(run_dir / "model", network, summary, run_dir / "plots")
    return summary


def fit_and_test(
    config: Config, trainer: L.Trainer, classifier: DigitClassifier, data: DigitDataModule, history: History
) -> tuple[bool, int]:
    """Fit and test; returns whether both came to their end, and which epoch (from 1) was tested, or is the last."""
    completed = _uninterrupted(trainer, trainer.fit, classifier, data, ckpt_path=config.ckpt_path, weights_only=True)
    tested_epoch = len(history.rows)
    if completed:
        best = [callback.best_model_path for callback in _model_checkpoints(trainer) if callback.monitor]
        if any(best) and selects_best_epoch(config):
            checkpoint = torch.load(best[0], weights_only=True)
            classifier.load_state_dict(checkpoint["state_dict"])
            tested_epoch = checkpoint["epoch"] + 1
        completed = _uninterrupted(trainer, trainer.test, classifier, data, verbose=False)
    return completed, tested_epoch


def selects_best_epoch(config: Config) -> bool:
    """Whether the best validation epoch is tested, and not the last one.

    A schedule that ends leads to its last weights, and which epoch reads one of 5,000 images more is chance; at a
    constant rate every epoch is as good a place to stop as any other.
    """
    return config.recipe.schedule == "constant"


def calibrate_and_predict(
    config: Config, classifier: DigitClassifier, data: DigitDataModule
) -> tuple[DeepDigits, Tensor]:
    """The network at the temperature that fits the validation images, and its probabilities (N, 10) of the test.

    N is less than the size of the test split where only a part of it was tested.
    """
    network = calibrate(classifier.network, config.model.model_dump(), data.val.images, data.val.labels)
    logits = torch.cat(classifier.test_logits).cpu()[: len(data.test)]  # without what filled up the last batch
    return network, network.softmax(logits)


def _model_checkpoints(trainer: L.Trainer) -> list[ModelCheckpoint]:
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]


def _uninterrupted(trainer: L.Trainer, function: Any, *args: Any, **kwargs: Any) -> bool:
    """Call a method of the trainer; False where Ctrl-C ended it.

    Raises:
        ConfigError: Lightning does not accept a setting, which it sees only now.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        function(*args, **kwargs)
    except SystemExit:  # Lightning saves and closes everything on Ctrl-C, ignores further ones, and exits
        if not trainer.interrupted:
            raise
    except MisconfigurationException as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
    finally:
        signal.signal(signal.SIGINT, handler)
    return not trainer.interrupted
