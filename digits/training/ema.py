"""The exponential moving average of the weights, by which a run is validated, tested and kept."""

import itertools
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch.nn.modules.batchnorm import _BatchNorm

from digits.backend import Backend
from digits.network import BatchNorm, to_input


class EMA(WeightAveraging):
    """Exponential moving average of the weights; validation, test and checkpoints use it.

    The decay rises as (1 + n) / (10 + n) with the number n of steps before up to ``decay``, so that the first, poor
    weights are soon forgotten (the rule of TensorFlow's ExponentialMovingAverage). From a decay of 0.95 on the weights
    of every fourth step stand for those of all four, as averaging takes a sixtieth of a step's time on a CPU; a device
    that compiles whole steps takes in each, as it has one program for all of them.

    The averages get batch statistics of their own, measured after each epoch on ``statistics_images`` of the training
    images, without augmentation and dropout, as at the test. The running ones belong to the weights as they were on
    the way, and with Keras's momentum they need some 700 steps to forget where they began.
    """

    statistics_images = 4096
    stride = 4  # steps, of which one is taken in, once the decay is slow

    def __init__(self, decay: float, backend: Backend) -> None:
        super().__init__(use_buffers=False)
        self.decay = decay
        self.backend = backend
        self._measured = 0  # the step after which statistics were last measured
        self._finished = False  # whether the averages have replaced the weights

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
        stride = self.stride if decay > 0.95 and not self.backend.compiles_steps else 1
        if steps % stride:
            return
        assert self._average_model is not None
        self.backend.average(self._average_model.module, pl_module, 1 - decay**stride)
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

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that from now on the module has the weights, not their averages."""
        self._finished = False

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the averages in the place of the weights for good."""
        super().on_train_end(trainer, pl_module)
        self._finished = True

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Do the same if a resumed run had nothing left to train, where Lightning skips the two hooks above."""
        if self._finished:
            return
        self.on_train_end(trainer, pl_module)
        if self._measured != trainer.global_step:  # it was stopped within an epoch
            trainer.train_dataloader.sampler.set_epoch(trainer.current_epoch)  # type: ignore[union-attr]
            self._measure_statistics(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """Also the step after which statistics were measured."""
        return super().state_dict() | {"measured": self._measured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take both over."""
        super().load_state_dict(state_dict)
        self._measured = state_dict["measured"]

    @torch.no_grad()
    def _measure_statistics(self, trainer: Any, pl_module: Any) -> None:
        """Set the batch statistics of ``pl_module`` to their means over some batches of the training images."""
        modes = {module: module.training for module in pl_module.modules()}
        norms: dict[Any, Any] = {m: m.momentum for m in modes if isinstance(m, BatchNorm | _BatchNorm)}
        pl_module.eval()  # for the dropout
        forward = self.backend.accelerate(pl_module.network, training=True)
        loader = trainer.train_dataloader
        batches = itertools.islice(loader.sampler, -(-self.statistics_images // trainer.datamodule.batch_size))
        for count, indices in enumerate(batches, start=1):
            share = 1 / count  # of this batch in the mean over all so far
            for norm in norms:
                norm.train()
                norm.momentum = self.backend.variable(share) if isinstance(norm, BatchNorm) else share
            batch = trainer.strategy.batch_to_device(loader.dataset[indices])
            with trainer.precision_plugin.forward_context():
                forward(to_input(batch["image"]))
            del batch  # before the next one is sent: XLA would keep it as a result of the program
        for norm, momentum in norms.items():
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
        self._measured = trainer.global_step
