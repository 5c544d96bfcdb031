"""Record the project's own train step and test step: `python -m digits.xla.trace FOLDER BATCH < config.json`.

A process of its own, as torch_xla chooses its devices once: PJRT_DEVICE=CPU CPU_NUM_DEVICES=2. The steps are those that
`train.py` runs, by the same Trainer, callbacks included; they are recorded, and nothing is computed.
"""

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch_xla
import torch_xla.debug.metrics as met
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from digits.callbacks import RisingAverage
from digits.config import Config, check
from digits.data.module import Batch, DigitDataModule, Digits
from digits.data.source import DigitSet
from digits.network import DeepDigits
from digits.training import set_up
from digits.xla.lightning import StepGraph


class _Recorded(Exception):
    """Ends the loop: the step is written, and must not be computed."""


class Recorder(StepGraph):
    """Writes the first step of a loop where :class:`StepGraph` would send it off."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Make the optimizer's state exist, as after a first step: by one without a gradient."""
        for parameter in pl_module.parameters():
            parameter.grad = torch.zeros_like(parameter)
        trainer.optimizers[0].step()
        torch_xla.sync()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        """The training step."""
        (optimizer,) = trainer.optimizers
        tensors = [value for state in optimizer.state.values() for value in state.values()]
        tensors += [value for group in optimizer.param_groups for value in group.values() if isinstance(value, Tensor)]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RisingAverage):
                assert callback._average_model is not None
                tensors += [*callback._average_model.module.parameters(), *callback._average_model.module.buffers()]
        self._write(
            "train",
            [*pl_module.parameters(), *pl_module.buffers(), *tensors, *pl_module.metrics["fit"].metric_state.values()],
        )

    def on_test_batch_end(self, trainer: L.Trainer, pl_module: Any, *args: Any) -> None:
        """The test step."""
        self._write("test", [*pl_module.test_logits, *pl_module.metrics["test"].metric_state.values()])

    def _write(self, name: str, tensors: list[Tensor]) -> None:
        program = torch_xla._XLAC._get_xla_tensors_hlo_proto(tensors)
        (self.folder / f"{name}.hlo.pb").write_bytes(program)
        raise _Recorded


class Blank(DigitDataModule):
    """As many images as MNIST has, all black, in one batch of any size: what is recorded does not depend on them."""

    def load(self) -> DigitSet:
        """Make them."""
        train, test = (torch.zeros(size, 28, 28, dtype=torch.uint8) for size in (60_000, 10_000))
        return DigitSet("mnist", train, torch.arange(60_000) % 10, test, torch.arange(10_000) % 10)

    def _loader(self, digits: Digits, seed: int | None = None) -> DataLoader[Batch]:
        assert self.trainer is not None
        indices = torch.arange(self.batch_size, dtype=torch.int32) % len(digits)
        return DataLoader(digits.to(self.trainer.strategy.root_device), sampler=[indices], batch_size=None)


def flops_per_image() -> dict[str, float]:
    """FLOP of the network's convolutions and products for an image, in a training step and in a test step.

    To be called after the recording: autograd, once used on the CPU alone, does not take in XLA devices any more.
    """
    network, flops = DeepDigits(), {}
    with FlopCounterMode(display=False) as counter:
        loss = network(torch.zeros(2, 1, 28, 28)).sum()
        flops["test"] = counter.get_total_flops() / 2
        loss.backward()
        flops["train"] = counter.get_total_flops() / 2
    return flops


def record(config: Config, folder: Path, batch_size: int) -> dict[str, Any]:
    """Write `train.hlo.pb` and `test.hlo.pb`, for a global batch of ``batch_size``, into ``folder``.

    Returns:
        The precision, the operators that fell back to the host, and the FLOP an image of each step.
    """
    with tempfile.TemporaryDirectory() as run_dir:
        data = Blank(**dict(config.data), seed=config.seed)
        trainer, classifier, *_ = set_up(config, Path(run_dir), data)
        data.batch_size = batch_size
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        callbacks[:] = [Recorder(folder) if isinstance(callback, StepGraph) else callback for callback in callbacks]
        trainer.strategy.teardown = lambda: None  # type: ignore[method-assign]  # it fetches, so computes, the weights
        met.clear_all()
        for loop in (trainer.test, trainer.fit):  # the test first: after a training step its weights were pending
            classifier.train()  # an ended test leaves it in evaluation mode
            with contextlib.suppress(_Recorded):
                loop(classifier, data)
    fallbacks = sorted(name for name in met.counter_names() if name.startswith("aten::"))
    return {"precision": str(trainer.precision), "host_fallbacks": fallbacks, "flops": flops_per_image()}


if __name__ == "__main__":
    print(json.dumps(record(check(json.load(sys.stdin)), Path(sys.argv[1]), int(sys.argv[2]))))
