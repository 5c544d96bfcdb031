"""Ends a hopeless trial of a search."""

from collections.abc import Callable

import lightning as L

from digits.training.history import History


class Pruned(Exception):
    """The trial was hopeless; no failure, but nothing is tested, drawn or kept of it."""


class Pruning(L.Callback):
    """Asks after each epoch whether the trial is hopeless, and ends the training if it is.

    Args:
        history: where the cross-entropy of the validation images, without the L2 term, is read from.
        is_hopeless: is told the epoch, from 1, and that value.
    """

    def __init__(self, history: History, is_hopeless: Callable[[int, float], bool]) -> None:
        self.history, self.is_hopeless = history, is_hopeless
        self.pruned = False

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Ask, of an epoch that was validated; the last one is completed anyway."""
        row = self.history.rows[-1]
        epoch = int(row["epoch"])
        hopeless = "val/cross_entropy" in row and self.is_hopeless(epoch, row["val/cross_entropy"])
        if trainer.strategy.broadcast(hopeless):  # as the first process has it, which alone knows the other trials
            self.pruned = epoch != trainer.max_epochs
            trainer.should_stop = trainer.should_stop or self.pruned

    def raise_if_pruned(self) -> None:
        """Raise Pruned if it was."""
        if self.pruned:
            raise Pruned
