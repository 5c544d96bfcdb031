"""The progress bar."""

import sys
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar
from tqdm import tqdm

from digits.training.history import History, epoch_of


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

    def _open(self, what: str, total: float, done: int = 0) -> None:
        self._close()
        if self.enabled:
            layout = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {remaining}{postfix}"
            options: Any = {"leave": False, "dynamic_ncols": True, "bar_format": layout}
            self.bar = tqdm(desc=what, total=int(total), initial=done, **options)

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """A new bar for the epoch, which a resumed run may begin in its middle."""
        if self.bar is None:
            self._open(epoch_of(trainer.current_epoch + 1, trainer.max_epochs), trainer.num_training_batches, batch_idx)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """One step further; the measurements, for which the device must be waited for, only now and then."""
        if self.bar is None:
            return
        if (batch_idx + 1) % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            loss, accuracy, _ = pl_module.metrics["fit"].means().tolist()  # of this process, as no other has a bar
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
