"""What was measured in each epoch: `metrics.csv`, and a line for the terminal."""

import csv
import io
import logging
import math
import time
from pathlib import Path
from typing import Any

import lightning as L
from torch import Tensor

from digits.errors import DigitsError
from digits.files import write_atomically

log = logging.getLogger("digits")


class History(L.Callback):
    """One row of measurements an epoch, in ``rows`` and in ``metrics.csv``; it survives in the checkpoint.

    Columns: epoch (from 1), step (how many were taken up to its end), train/… and val/… (loss, sparse_accuracy),
    learning_rate, images_per_second (training alone), train_seconds.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / "metrics.csv"
        self.rows: list[dict[str, float]] = []
        self.validations: list[dict[str, float]] = []  # those within epochs: step, val/…
        self._images = 0
        self._start = self._stop = 0.0
        self._validated = False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock where it stood, if an epoch is resumed in its middle: Lightning skips the hook below."""
        self._start, self._stop = time.perf_counter() - self._stop + self._start, time.perf_counter()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._images, self._start = 0, time.perf_counter()
        self._stop, self._validated = self._start, False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that this epoch was validated; without it, Lightning still reports the figures of an earlier epoch."""
        self._validated = True
        if trainer.is_last_batch or trainer.sanity_checking:
            return
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if not key.startswith("train/")}
        self.validations.append({"step": trainer.global_step} | metrics)
        if trainer.is_global_zero:
            log.info("  ".join([f"step {trainer.global_step:,}", *_parts(metrics)]))

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the images and note the time, as validation, which is no training, comes before the epoch's end."""
        self._images += len(batch["label"]) * trainer.world_size  # each process has an equal part of the batch
        self._validated = False  # as these weights were not
        if trainer.is_last_batch:
            pl_module.measured("fit")  # waits for the device, which runs behind the host
        self._stop = time.perf_counter()

    def images_per_second(self) -> float:
        """The speed of training in this epoch so far."""
        return self._images / max(self._stop - self._start, 1e-9)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Add a row, write the table, and log the epoch as one line."""
        pl_module.log_split("fit", "train")  # here, as Lightning calls the module's own hook after the callbacks'
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1, "step": trainer.global_step}
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if "/" in key}
        row |= {key: value for key, value in metrics.items() if self._validated or key.startswith("train/")}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row["learning_rate"] = float(rate.cpu()) if isinstance(rate, Tensor) else rate
        row["images_per_second"] = round(self.images_per_second(), 1)
        row["train_seconds"] = round(self._stop - self._start, 3)
        self.rows.append(row)
        for key, value in row.items():
            if key.endswith("/loss") and not math.isfinite(value):
                what = "the loss" if key == "train/loss" else key  # that of the averages, where weights are averaged
                raise DigitsError(f"epoch {row['epoch']:.0f}: {what} is {value}; lower recipe.learning_rate")
        if trainer.is_global_zero:
            self._write()
            log.info(epoch_line(row, trainer.max_epochs))

    def state_dict(self) -> dict[str, Any]:
        """The rows, and what has been counted of an epoch that is not at its end."""
        return {
            "rows": self.rows,
            "validations": self.validations,
            "images": self._images,
            "seconds": self._stop - self._start,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Those of the run that is resumed."""
        self.rows, self._images = list(state_dict["rows"]), state_dict["images"]
        self.validations = list(state_dict.get("validations", []))
        self._start, self._stop = 0.0, state_dict["seconds"]

    def _write(self) -> None:
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        text = io.StringIO()
        table = csv.DictWriter(text, columns)
        table.writeheader()
        table.writerows(self.rows)
        write_atomically(self.path, text.getvalue().encode())


def epoch_of(epoch: int, epochs: int | None) -> str:
    """As "epoch 3/10", or where no number of ``epochs`` ends the run (None, -1) "epoch 3"."""
    return f"epoch {epoch}" + (f"/{epochs}" if epochs and epochs > 0 else "")


def epoch_line(row: dict[str, float], epochs: int | None) -> str:
    """A row of the history as one line of about 80 characters."""
    return "  ".join([epoch_of(int(row["epoch"]), epochs), *_parts(row), f"{row['images_per_second']:,.0f} img/s"])


def _parts(row: dict[str, float]) -> list[str]:
    return [
        f"{name} {row[f'{prefix}/sparse_accuracy']:.2%} loss {row[f'{prefix}/loss']:.4f}"
        for prefix, name in (("train", "train"), ("val", "val"), ("test_each_epoch", "test"))
        if f"{prefix}/loss" in row
    ]
