"""What happens around the training loop: the averaged weights, the table of epochs, the progress bar."""

import csv
import itertools
import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ProgressBar, WeightAveraging
from torch import Tensor
from tqdm import tqdm

from digits.errors import DigitsError
from digits.network import BatchNorm

log = logging.getLogger("digits")


class RisingAverage(WeightAveraging):
    """Exponential average of the weights; validation, test and checkpoints use it.

    The decay rises as (1 + n) / (10 + n) with the number n of steps before up to ``decay``, so that the first, poor
    weights are soon forgotten (the rule of TensorFlow's ExponentialMovingAverage). From a decay of 0.95 on each fourth
    step's weights stand for those of all four, except on XLA: averaging takes a sixtieth of a step's time on a CPU.

    The averages get batch statistics of their own, measured after each epoch on ``statistics_images`` of the training
    images, neither warped nor dropped out, as at the test: the running ones belong to the weights as they were on the
    way, and with Keras's momentum they need some 700 steps to forget where they began.
    """

    statistics_images = 4096

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False)
        self.decay = decay
        self._measured = 0  # the step after which statistics were last measured

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make the averages like the network; Lightning copies it before it has moved and converted it."""
        assert self._average_model is not None
        self._average_model.to(pl_module.device, next(pl_module.parameters()).dtype)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the averages towards the weights; the trainer knows the number of steps, so no device is asked."""
        steps = trainer.global_step
        if steps == self._latest_update_step:
            return  # gradients are being accumulated
        decay = min(self.decay, steps / (9 + steps)) if steps > 1 else 0.0
        at_once = 4 if decay > 0.95 and pl_module.device.type != "xla" else 1  # XLA has one program for all steps
        if steps % at_once:
            return
        decay **= at_once
        assert self._average_model is not None
        average = self._average_model.module
        averages: list[Tensor] = list(average.parameters())
        weights: list[Tensor] = list(pl_module.parameters())
        if pl_module.device.type == "xla":  # a number that equals another of the program's would change the program
            share = torch.tensor([1 - decay], device=pl_module.device)
            for own, current in zip(averages, weights, strict=True):
                own.lerp_(current, share)
        else:
            torch._foreach_lerp_(averages, weights, 1 - decay)
        for own, current in zip(average.buffers(), pl_module.buffers(), strict=True):
            own.copy_(current)
        self._latest_update_step = steps

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the averages in the place of the weights, and measure their statistics."""
        super().on_validation_epoch_start(trainer, pl_module)
        if self._average_model is not None and trainer.train_dataloader is not None:
            self._measure_statistics(trainer, pl_module)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the statistics for the checkpoint where no validation has done so."""
        if self._measured != trainer.global_step:
            self._swap_models(pl_module)
            self._measure_statistics(trainer, pl_module)
            self._swap_models(pl_module)

    @torch.no_grad()
    def _measure_statistics(self, trainer: Any, pl_module: Any) -> None:
        modes = {module: module.training for module in pl_module.modules()}
        norms = [module for module in modes if isinstance(module, BatchNorm)]
        pl_module.eval()
        loader = trainer.train_dataloader
        batches = itertools.islice(loader.sampler, -(-self.statistics_images // trainer.datamodule.batch_size))
        for count, indices in enumerate(batches, start=1):
            share: float | Tensor = 1 / count  # of this batch in the mean over all so far
            if pl_module.device.type == "xla":
                share = torch.tensor([share], device=pl_module.device)
            for norm in norms:
                norm.train()
                norm.momentum = share
            batch = trainer.strategy.batch_to_device(loader.dataset[indices])
            with trainer.precision_plugin.forward_context():
                pl_module(batch["image"])
            del batch  # before the next one is sent: XLA would keep it as a result of the program
        for norm in norms:
            del norm.momentum  # back to the class's own
        for module, mode in modes.items():
            module.training = mode
        self._measured = trainer.global_step


class History(L.Callback):
    """One row of measurements an epoch, in ``rows`` and in ``metrics.csv``; it survives in the checkpoint.

    Columns: epoch (from 1), train/… and val/… (loss, sparse_accuracy), learning_rate, images_per_second (training
    alone), train_seconds.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / "metrics.csv"
        self.rows: list[dict[str, float]] = []
        self._images = 0
        self._start = self._stop = 0.0
        self._validated = False

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self._images, self._start = 0, time.perf_counter()
        self._stop, self._validated = self._start, False

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that there are new measurements; what an epoch without validation finds are those of an earlier one."""
        self._validated = True

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Count the images, and note the time: validation comes before the epoch's end and is not training."""
        self._images += len(batch["label"])
        if trainer.is_last_batch:
            pl_module.measured("fit")  # a device works behind the host: wait for it
        self._stop = time.perf_counter()

    def images_per_second(self) -> float:
        """Of the training in this epoch so far."""
        return self._images / max(self._stop - self._start, 1e-9)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Add a row, write the table, and say the epoch in one line."""
        pl_module.log_split("fit", "train")  # here, as Lightning calls the module's own hook after the callbacks'
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1}
        metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if "/" in key}
        row |= {key: value for key, value in metrics.items() if self._validated or key.startswith("train/")}
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        row["learning_rate"] = float(rate.cpu()) if isinstance(rate, Tensor) else rate
        row["images_per_second"] = round(self.images_per_second(), 1)
        row["train_seconds"] = round(self._stop - self._start, 3)
        self.rows.append(row)
        if not math.isfinite(row["train/loss"]):
            raise DigitsError(f"epoch {row['epoch']:.0f}: the loss is {row['train/loss']}; lower recipe.learning_rate")
        if trainer.is_global_zero:
            self._write()
            log.info(epoch_line(row, trainer.max_epochs))

    def state_dict(self) -> dict[str, Any]:
        """The rows, for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The rows of the run that is resumed."""
        self.rows = list(state_dict["rows"])

    def _write(self) -> None:
        columns = list(dict.fromkeys(key for row in self.rows for key in row))
        with self.path.open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, columns)
            table.writeheader()
            table.writerows(self.rows)


def epoch_of(epoch: int, epochs: int | None) -> str:
    """As "epoch 3/10", or where no number of ``epochs`` ends the run (None, -1) "epoch 3"."""
    return f"epoch {epoch}" + (f"/{epochs}" if epochs and epochs > 0 else "")


def epoch_line(row: dict[str, float], epochs: int | None) -> str:
    """A row of the history as one line of about 80 characters."""
    parts = [epoch_of(int(row["epoch"]), epochs)]
    for prefix, name in (("train", "train"), ("val", "val"), ("test_each_epoch", "test")):
        if f"{prefix}/loss" in row:
            parts.append(f"{name} {row[f'{prefix}/sparse_accuracy']:.2%} loss {row[f'{prefix}/loss']:.4f}")
    parts.append(f"{row['images_per_second']:,.0f} img/s")
    return "  ".join(parts)


class Progress(ProgressBar):
    """A bar on a terminal, 80 columns wide or more; nothing where output is piped (the epoch lines are enough)."""

    def __init__(self, history: History) -> None:
        super().__init__()
        self.history = history
        self.bar: tqdm | None = None
        self.enabled = sys.stderr.isatty()

    def disable(self) -> None:
        """Lightning asks for this on all processes but the first."""
        self.enabled = False

    def enable(self) -> None:
        """The opposite of :meth:`disable`."""
        self.enabled = sys.stderr.isatty()

    def _open(self, what: str, total: float) -> None:
        self._close()
        if self.enabled:
            layout = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {remaining}{postfix}"
            self.bar = tqdm(desc=what, total=int(total), leave=False, dynamic_ncols=True, bar_format=layout)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A new bar for the epoch."""
        self._open(epoch_of(trainer.current_epoch + 1, trainer.max_epochs), trainer.num_training_batches)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """One step further; the measurements, for which the device must be waited for, only now and then."""
        if self.bar is None:
            return
        if (batch_idx + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            loss, accuracy = pl_module.measured("fit").tolist()
            parts = [f"loss {loss:.3f}", f"acc {accuracy:.4f}"]
            if self.history.rows and "val/sparse_accuracy" in self.history.rows[-1]:
                parts.append(f"val {self.history.rows[-1]['val/sparse_accuracy']:.4f}")
            parts.append(f"{self.history.images_per_second():.0f} img/s")
            self.bar.set_postfix_str(" ".join(parts), refresh=False)
        self.bar.update()

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A bar for the validation."""
        self._open("validation", sum(trainer.num_val_batches))

    def on_validation_batch_end(self, *args: Any) -> None:
        """One step further."""
        if self.bar is not None:
            self.bar.update()

    def on_test_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """A bar for the test."""
        self._open("test", sum(trainer.num_test_batches))

    def on_test_batch_end(self, *args: Any) -> None:
        """One step further."""
        if self.bar is not None:
            self.bar.update()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make room for the epoch's line."""
        self._close()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the terminal clean."""
        self._close()

    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave the terminal clean."""
        self._close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the terminal clean."""
        self._close()
