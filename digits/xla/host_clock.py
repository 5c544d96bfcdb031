"""What sending off training steps costs the host."""

import statistics
import time
from typing import Any

import lightning as L
import torch_xla
import torch_xla.debug.metrics as met
from torch_xla.core import xla_model as xm

from digits.xla.many_steps import ManyStepsStrategy


class Enough(Exception):
    """Ends the training when enough has been measured."""


class HostClock(L.Callback):
    """Measures the host's milliseconds for each program that is sent off, and ends the training after so many.

    The clock starts when the devices are idle, and runs until the sending has returned, through all that Lightning and
    the callbacks do for the program's batches. What XLA's CPU client computes within the call that sends is taken off.
    """

    def __init__(self, programs: int) -> None:
        self.programs = programs
        self.milliseconds: list[float] = []
        self._start = self._computed = 0.0

    def median(self) -> float:
        """Of all programs but the first two, which are compiled."""
        return statistics.median(self.milliseconds[2:])

    def on_train_start(self, *args: Any) -> None:
        """Start the clock."""
        self._restart()

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Note the time if a program was sent off; raises DigitsError if there is none for many steps."""
        if isinstance(trainer.strategy, ManyStepsStrategy):
            trainer.strategy.require_loop()
            if trainer.strategy.noted:
                return
        elapsed = (time.perf_counter() - self._start) * 1e3
        self.milliseconds.append(elapsed - (_computed_milliseconds() - self._computed))
        if len(self.milliseconds) == self.programs:
            raise Enough
        self._restart()

    def _restart(self) -> None:
        torch_xla.sync(wait=True)
        xm.wait_device_ops()
        self._computed, self._start = _computed_milliseconds(), time.perf_counter()


def _computed_milliseconds() -> float:
    found = [met.metric_data(name) for name in ("ExecuteTime", "ExecuteReplicatedTime")]
    return sum(data[1] / 1e6 for data in found if data)
