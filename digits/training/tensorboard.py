"""What TensorBoard shows: the figures of each epoch, and of a completed run its result, settings and mistakes."""

from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from digits.settings.schema import Config
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


class EpochFigures(L.Callback):
    """Adds each row of the history to the event file; it is to come after the history and before the checkpoints.

    What a checkpoint says has happened is then in the file. A resumed run says that all that is in the folder's event
    files no longer counts, and adds the rows of its checkpoint again: each epoch is shown once, as in `metrics.csv`.
    """

    def __init__(self, history: History) -> None:
        self.history = history

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Begin anew with the rows of the checkpoint; those of version 0.2.0 do not say at which step they were."""
        rows = checkpoint["callbacks"][self.history.state_key]["rows"]
        writer = _writer(trainer)
        if writer is not None and all("step" in row for row in rows):
            start = Event(step=0, session_log=SessionLog(status=SessionLog.START))
            writer._get_file_writer().add_event(start)
            for row in rows:
                _add_row(writer, row)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add the row of this epoch."""
        writer = _writer(trainer)
        if writer is not None:
            _add_row(writer, self.history.rows[-1])


def add_result(trainer: L.Trainer, config: Config, summary: dict[str, Any], mistakes: Path) -> None:
    """Add the result of a completed run: its figures, its settings for the HPARAMS tab, the picture of its mistakes.

    Args:
        trainer: after the test; without a TensorBoard logger nothing is done.
        config: as the run was composed.
        summary: as `summary.json` holds it.
        mistakes: the PNG; left out if it is not there.
    """
    writer = _writer(trainer)
    if writer is None:
        return
    result = {f"result/{key}": summary[key] for key in RESULTS if summary.get(key) is not None}
    for key, value in result.items():
        writer.add_scalar(key, value, trainer.global_step)
    for part in hparams(_settings(config, summary), result):
        writer._get_file_writer().add_summary(part)
    if mistakes.is_file():
        with Image.open(mistakes) as picture:
            writer.add_image("mistakes", np.asarray(picture.convert("RGB")), trainer.global_step, dataformats="HWC")
    writer.close()


def _settings(config: Config, summary: dict[str, Any]) -> dict[str, Any]:
    """The settings that runs are compared by, under the names that the command line knows them by."""
    recipe = config.recipe.model_dump(exclude=LENGTHS | {"augmentation"})
    augmentation = config.recipe.augmentation.model_dump() if config.recipe.augmentation else {}
    chosen = {"name": config.name, "seed": config.seed}
    chosen |= {f"data.{key}": getattr(config.data, key) for key in ("name", "batch_size", "val_size", "synthetic")}
    chosen |= {f"model.{key}": value for key, value in config.model.model_dump().items()}
    chosen |= {f"recipe.{key}": value for key, value in recipe.items()}
    chosen |= {f"recipe.augmentation.{key}": value for key, value in augmentation.items()}
    return chosen | {"trainer.precision": summary["precision"], "trainer.accelerator": summary["accelerator"]}


def _add_row(writer: SummaryWriter, row: dict[str, float]) -> None:
    for key in row.keys() - {"step"}:
        writer.add_scalar(key, row[key], int(row["step"]))
    writer.flush()


def _writer(trainer: L.Trainer) -> SummaryWriter | None:
    """That of the first process; None without a TensorBoard logger, as with trainer.logger=false or fast_dev_run."""
    loggers = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
    return loggers[0].experiment if loggers and trainer.is_global_zero else None
