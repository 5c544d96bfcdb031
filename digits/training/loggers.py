"""What Lightning's loggers are given: the figures of each epoch, and of a completed run its settings and result."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from torch.utils.tensorboard.summary import hparams

from digits.settings.schema import Config
from digits.settings.targets import accepts, build_object
from digits.training.history import History

RESULTS = (  # keys of the summary; here "result/" goes before them, as some are also the names of curves
    "test/sparse_accuracy",
    "test/errors",
    "test/loss",
    "test/nll",
    "test/ece",
    "val/sparse_accuracy",
    "val/loss",
    "images_per_second",
    "seconds",
    "epochs",
)
LENGTHS = {"epochs", "min_steps"}  # of a recipe; what came of them is the result "epochs", which a resumed run changes


def build_logger(settings: Mapping[str, Any], run_dir: Path) -> Logger | bool:
    """The logger that `conf/logger/` describes, False for none; what it writes goes into ``run_dir``.

    Raises:
        DigitsError: a package that it needs is not installed, or it cannot begin.
    """
    if settings.get("_target_") is None:
        return False
    own = {"save_dir": str(run_dir)} if accepts(settings, "save_dir") else {}
    return build_object("logger", own | dict(settings))


class EpochFigures(L.Callback):
    """Gives each row of the history to the logger; it is to come after the history and before the checkpoints.

    Validations within epochs, as `trainer.val_check_interval` asks for them, are given too.

    What a checkpoint says has happened has then been logged. A resumed run logs the rows of its checkpoint again, after
    telling TensorBoard that all that is in the folder's event files no longer counts: each epoch is shown once, as in
    `metrics.csv`.
    """

    def __init__(self, history: History) -> None:
        self.history = history

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Begin anew with the rows of the checkpoint; those of version 0.2.0 do not say at which step they were."""
        history = checkpoint["callbacks"][self.history.state_key]
        rows = history["rows"] + history.get("validations", [])
        if not trainer.is_global_zero or not all("step" in row for row in rows):
            return
        for logger in _of_tensorboard(trainer):
            start = Event(step=0, session_log=SessionLog(status=SessionLog.START))
            logger.experiment._get_file_writer().add_event(start)
        for row in sorted(rows, key=lambda row: row["step"]):
            _log_row(trainer, row)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log a validation within an epoch; that at its end is in the row."""
        last = self.history.validations[-1] if self.history.validations else {}
        if trainer.is_global_zero and not trainer.is_last_batch and last.get("step") == trainer.global_step:
            _log_row(trainer, last)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Log the row of this epoch."""
        if trainer.is_global_zero:
            _log_row(trainer, self.history.rows[-1])


def log_run(trainer: L.Trainer, config: Config, summary: dict[str, Any], mistakes: Path) -> None:
    """Log a completed run: its figures, its settings, for TensorBoard also the picture of its mistakes.

    Args:
        trainer: after the test; without a logger nothing is done.
        config: as the run was composed.
        summary: as `summary.json` holds it.
        mistakes: the PNG; left out if it is not there.
    """
    if not trainer.is_global_zero:
        return
    settings = _settings(config, summary)
    result = {f"result/{key}": summary[key] for key in RESULTS if summary.get(key) is not None}
    for logger in trainer.loggers:
        logger.log_metrics(result, trainer.global_step)
        if not isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(settings)
    for logger in _of_tensorboard(trainer):  # its own log_hyperparams replaces the results by one metric
        writer = logger.experiment
        for part in hparams(settings, result):
            writer._get_file_writer().add_summary(part)
        if mistakes.is_file():
            with Image.open(mistakes) as picture:
                writer.add_image("mistakes", np.asarray(picture.convert("RGB")), trainer.global_step, dataformats="HWC")


def close(trainer: L.Trainer, failed: bool) -> None:
    """End what the loggers have begun, or the next run of a sweep would be taken for a part of it."""
    for logger in trainer.loggers if trainer.is_global_zero else ():
        logger.finalize("failed" if failed else "success")
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=int(failed))


def _settings(config: Config, summary: dict[str, Any]) -> dict[str, Any]:
    """The settings that runs are compared by, under the names that the command line knows them by."""
    recipe = config.recipe.model_dump(exclude=LENGTHS | {"augmentation"})
    augmentation = config.recipe.augmentation.model_dump() if config.recipe.augmentation else {}
    chosen = {"name": config.name, "seed": config.seed}
    data = ("name", "batch_size", "val_size", "synthetic", "outliers")
    chosen |= {f"data.{key}": getattr(config.data, key) for key in data}
    chosen |= {f"model.{key}": value for key, value in config.model.model_dump().items()}
    chosen |= {f"recipe.{key}": value for key, value in recipe.items()}
    chosen |= {f"recipe.augmentation.{key}": value for key, value in augmentation.items()}
    return chosen | {"trainer.precision": summary["precision"], "trainer.accelerator": summary["accelerator"]}


def _log_row(trainer: L.Trainer, row: dict[str, float]) -> None:
    for logger in trainer.loggers:
        logger.log_metrics({key: row[key] for key in row.keys() - {"step"}}, int(row["step"]))
        logger.save()  # it may be killed at once


def _of_tensorboard(trainer: L.Trainer) -> list[TensorBoardLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
