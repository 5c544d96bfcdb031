"""`trainer.max_steps`, so that a run can go on from where it ended."""

import math
from typing import Any

import lightning as L


class StepLimit(L.Callback):
    """Ends a training after ``max_steps`` steps of the optimizer.

    Lightning's own limit makes it count in steps alone. A run that has ended with an epoch and is given more steps then
    takes up the finished epoch, finds no batch left in it, and averages over none.
    """

    def __init__(self, max_steps: int) -> None:
        self.max_steps = max_steps
        self._steps = 0

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Note how many steps have been taken."""
        self._steps = checkpoint["global_step"]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Stop before the first step if all have been taken."""
        trainer.should_stop = trainer.should_stop or self._steps >= self.max_steps

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Stop after the last step."""
        trainer.should_stop = trainer.should_stop or trainer.global_step >= self.max_steps


def steps_allowed(trainer: L.Trainer) -> float:
    """The limit of ``trainer`` in steps of the optimizer, or infinity if it has none."""
    limits = [callback.max_steps for callback in trainer.callbacks if isinstance(callback, StepLimit)]  # type: ignore[attr-defined]
    return min([*limits, trainer.max_steps if trainer.max_steps != -1 else math.inf])  # the latter by fast_dev_run
