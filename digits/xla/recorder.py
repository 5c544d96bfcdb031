"""Records the training step and the test step of a run as HLO programs, instead of running them.

They are the steps that `train.py` runs, from the same Trainer with its callbacks. Nothing is computed.
"""

import contextlib
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch_xla
import torch_xla.debug.metrics as met
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from digits.data.mnist import DigitSet
from digits.data.module import Batch, DigitDataModule, DigitDataset
from digits.network import build_network
from digits.xla.internals import program_of
from digits.xla.lightning import MarkStep
from digits.xla.many_steps import ManyStepsStrategy
from digits.xla.training_state import make_optimizer_state, training_state


class _Recorded(Exception):
    """Ends the loop after the step has been written, before it is computed."""


class Recorder(MarkStep):
    """Writes the first program of a loop to a file where :class:`MarkStep` would dispatch it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Create the optimizer's state, so that the first step is like the others."""
        make_optimizer_state(trainer.optimizers[0])
        torch_xla.sync()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        """Write the training step, or the program of many."""
        if isinstance(trainer.strategy, ManyStepsStrategy):
            trainer.strategy.call()
            self._write("many", trainer.strategy.state())
        groups = trainer.optimizers[0].param_groups
        rates = [value for group in groups for value in group.values() if isinstance(value, Tensor)]
        self._write("train", [*training_state(trainer, pl_module), *rates])

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        """Write the test step."""
        self._write("test", [*pl_module.test_logits, *pl_module.metrics["test"].metric_state.values()])

    def _write(self, name: str, tensors: list[Tensor]) -> None:
        (self.folder / f"{name}.hlo.pb").write_bytes(program_of(tensors))
        raise _Recorded


class BlankDigits(DigitDataModule):
    """As many blank images as MNIST has, as neither the recorded steps nor the host's time depend on them."""

    def load(self) -> DigitSet:
        """Create the images."""
        train, test = (torch.zeros(size, 28, 28, dtype=torch.uint8) for size in (60_000, 10_000))
        return DigitSet("mnist", train, torch.arange(60_000) % 10, test, torch.arange(10_000) % 10)


class OneBatch(BlankDigits):
    """A single batch of any size."""

    def _loader(self, digits: DigitDataset, seed: int | None = None) -> DataLoader[Batch]:
        assert self.trainer is not None
        indices = torch.arange(self.batch_size, dtype=torch.int32) % len(digits)
        return DataLoader(digits.to(self.trainer.strategy.root_device), sampler=[indices], batch_size=None)


def flops_per_image(settings: dict[str, Any]) -> dict[str, float]:
    """FLOP per image of convolutions and products of the network of ``settings``, in a training and in a test step.

    Must be called after the recording, as autograd does not support XLA devices once it was used on the CPU alone.
    """
    network, flops = build_network(settings), {}
    with FlopCounterMode(display=False) as counter:
        loss = network(torch.zeros(2, 1, 28, 28)).sum()
        flops["test"] = counter.get_total_flops() / 2
        loss.backward()
        flops["train"] = counter.get_total_flops() / 2
    return flops


def record(trainer: L.Trainer, classifier: Any, data: OneBatch, folder: Path) -> dict[str, Any]:
    """Write `test.hlo.pb` and `train.hlo.pb`, or where many steps are one program `many.hlo.pb`, to ``folder``.

    Returns:
        The precision, and the operators that fell back to the host.
    """
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    callbacks[:] = [Recorder(folder) if isinstance(callback, MarkStep) else callback for callback in callbacks]
    # the teardown would move the weights to the host, and so compute them
    trainer.strategy.teardown = lambda: None  # type: ignore[method-assign]
    met.clear_all()
    for loop in (trainer.test, trainer.fit):  # test first, as a recorded training step leaves the weights pending
        classifier.train()  # the interrupted test leaves it in evaluation mode
        with contextlib.suppress(_Recorded):
            loop(classifier, data)
    fallbacks = sorted(name for name in met.counter_names() if name.startswith("aten::"))
    return {"precision": str(trainer.precision), "host_fallbacks": fallbacks}
