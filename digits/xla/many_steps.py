"""`steps_per_execution`: Lightning goes on batch by batch, but a step is only noted, and K of them are sent off as one.

Recording a step costs the host some forty milliseconds, more than a TPU needs to compute it. So it is recorded once,
before the first batch, and becomes the body of a loop on the device. To each step Lightning's schedule and callbacks
give a few numbers, which are all that is sent.
"""

import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import lightning as L
import numpy as np
import torch
import torch_xla
from lightning.pytorch.plugins.precision import XLAPrecision
from torch import Tensor
from torch_xla.core import xla_model as xm

from digits.data.module import Batch
from digits.errors import DigitsError
from digits.xla.backend import XLABackend
from digits.xla.lightning import SPMDStrategy
from digits.xla.loop import StepLoop
from digits.xla.training_state import averages_of, make_optimizer_state, training_state

log = logging.getLogger("digits")
warnings.filterwarnings("ignore", "`training_step` returned `None`", module="lightning")  # as it is only noted


@dataclass
class NotedBatch:
    """What the device has to know of a batch: ``indices`` int32 (N,) on the host, and numbers that go with its step."""

    indices: Tensor
    seed: int  # of its random numbers, int64
    rates: list[float]  # of each group of the optimizer
    ends_step: bool = False  # not if gradients are being accumulated
    share: float = 0.0  # of the weights in their averages


class ManyStepsStrategy(SPMDStrategy):
    """Sends up to ``steps`` training steps off as one program; before anything reads the weights, those that are noted.

    Batches whose gradients are accumulated are rounds of the same loop, in all but the last of which the results of the
    optimizer are dropped. Random numbers depend on the run's ``seed`` and on the number of the batch alone. If the step
    cannot be recorded as a loop, training goes on step by step.
    """

    def __init__(self, precision_plugin: XLAPrecision, backend: XLABackend, steps: int, seed: int) -> None:
        super().__init__(precision_plugin)
        self.backend = backend
        self.steps = steps
        self.seed = seed
        self.most_rounds = 2**31 - 1  # of the loop; less for who wants to know the host's time alone
        self.noted: list[NotedBatch] = []
        self.loop: StepLoop | None = None
        self._gradients: list[Tensor] = []  # that are being accumulated; empty where each batch is a step

    @property
    def _trainer(self) -> Any:
        return self._module.trainer

    @property
    def _module(self) -> Any:
        return self.lightning_module

    @property
    def notes_steps(self) -> bool:
        """Whether steps are noted now."""
        return self.loop is not None and self._trainer.training

    def record(self) -> None:
        """Make the loop; nothing is computed."""
        (optimizer,) = self.optimizers
        make_optimizer_state(optimizer)
        self.noted = []
        if self._trainer.accumulate_grad_batches > 1:
            self._gradients = [torch.zeros_like(parameter) for parameter in self._module.parameters()]
        groups = [dict(group) for group in optimizer.param_groups]
        loop = StepLoop(self._step, self.state)
        try:
            indices = torch.zeros(self._trainer.datamodule.batch_size, dtype=torch.int32)
            rows, _ = self._to_device([NotedBatch(indices, 0, [0.0] * len(groups))])
            with torch.enable_grad():
                loop.record(rows)
        except Exception as error:  # a model of the user's own, or another torch_xla, may raise anything
            reason = " ".join(str(error).split())
            log.warning("steps_per_execution=%d: going on step by step, as recording fails: %s", self.steps, reason)
            return
        finally:
            optimizer.zero_grad()
            for group, before in zip(optimizer.param_groups, groups, strict=True):
                group.update(before)
        for group in optimizer.param_groups:
            rate = group["lr"]
            group["lr"] = float(rate.cpu()) if isinstance(rate, Tensor) else rate  # as it is only sent along
        self.loop, self.backend.note_share = loop, self._note_share

    def state(self) -> list[Tensor]:
        """The tensors that a training step changes."""
        return [*training_state(self._trainer, self._module), *self._gradients]

    def _step(self, indices: Tensor, numbers: Tensor) -> None:
        """A batch, as Lightning and the callbacks would go through it; it is recorded."""
        ends, share, *rates = numbers.split(1)
        ends_step = ends.squeeze() > 0
        module, trainer, (optimizer,) = self._module, self._trainer, self.optimizers
        batch = super().batch_to_device(trainer.train_dataloader.dataset.gather(indices))
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate
        with self.precision_plugin.train_step_context():
            loss = module.training_step(batch, 0)
        parameters = [*module.parameters()]
        for parameter, gradient in zip(parameters, self._gradients, strict=False):
            parameter.grad = gradient.clone()
        (loss / trainer.accumulate_grad_batches).backward()
        changed = [*parameters, *(value for state in optimizer.state.values() for value in state.values())]
        before = [tensor.detach().clone() for tensor in changed] if self._gradients else []
        for gradient, parameter in zip(self._gradients, parameters, strict=False):
            assert parameter.grad is not None
            gradient.copy_(torch.where(ends_step, 0, parameter.grad))
        module.configure_gradient_clipping(optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
        optimizer.step()
        with torch.no_grad():
            for tensor, old in zip(changed, before, strict=False):
                tensor.copy_(torch.where(ends_step, tensor, old))
            if (averages := averages_of(trainer)) is not None:
                for own, current in zip(averages.parameters(), parameters, strict=True):
                    own.lerp_(current, share.to(own.dtype))
                for buffer, latest in zip(averages.buffers(), module.buffers(), strict=True):
                    buffer.copy_(torch.where(ends_step, latest, buffer))  # what is not read cannot be of the state
        optimizer.zero_grad()

    def process_dataloader(self, dataloader: Any) -> Any:
        """Of the training images the indices alone."""
        return _IndexLoader(super().process_dataloader(dataloader), self)

    def batch_to_device(self, batch: Batch, device: torch.device | None = None, dataloader_idx: int = 0) -> Batch:
        """Mark images and labels as sharded; indices stay on the host."""
        return super().batch_to_device(batch) if "image" in batch else batch

    def training_step(self, batch: Batch, *args: Any) -> Any:
        """Note it."""
        if self.loop is None:
            return super().training_step(batch, *args)
        seed = np.random.SeedSequence((self.seed, self._trainer.fit_loop.total_batch_idx)).generate_state(1, np.uint64)
        rates = [group["lr"] for group in self.optimizers[0].param_groups]
        self.noted.append(NotedBatch(batch["label"], int(seed[0] >> 2), rates))
        return None

    def optimizer_step(self, optimizer: Any, closure: Any, model: Any = None, **kwargs: Any) -> Any:
        """Note that the step ends."""
        if self.loop is None:
            return super().optimizer_step(optimizer, closure, model, **kwargs)
        closure()
        self.noted[-1].ends_step = True
        return None

    def _note_share(self, share: float) -> None:
        self.noted[-1].share = share

    def end_batch(self, is_last: bool) -> None:
        """Send the noted steps off if there are enough of them, or no batch of the epoch is left."""
        if self.loop is None:
            super().end_batch(is_last)
        elif is_last or sum(batch.ends_step for batch in self.noted) == self.steps:
            self.execute()

    def execute(self) -> None:
        """Send off what is noted, without waiting for the devices."""
        if self.noted:
            self.call()
            torch_xla.sync()

    def call(self) -> None:
        """Record the call of the loop for what is noted; raises DigitsError if there is no loop."""
        loop = self.require_loop()
        noted, self.noted = self.noted, []
        loop(*self._to_device(noted))
        metric = self._module.metrics["fit"]
        metric._update_count, metric._computed = metric._update_count + len(noted), None  # as its `update` does

    def require_loop(self) -> StepLoop:
        """The loop; raises DigitsError if the step could not be recorded as one."""
        if self.loop is None:
            raise DigitsError(f"steps_per_execution={self.steps}: this step cannot be recorded as a loop; use 1")
        return self.loop

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """The weights after all steps up to now: for a checkpoint, of which they are the first to be read."""
        self.execute()
        return super().lightning_module_state_dict()

    def _to_device(self, noted: list[NotedBatch]) -> tuple[list[Tensor], Tensor]:
        """The rows and the count that the loop takes; rows that are not noted are there and not counted."""
        batches = noted + noted[-1:] * (self.steps * self._trainer.accumulate_grad_batches - len(noted))
        indices = self.send(torch.stack([batch.indices for batch in batches], 1))
        numbers = torch.tensor([[float(batch.ends_step), batch.share, *batch.rates] for batch in batches])
        seeds = torch.tensor([batch.seed for batch in batches])
        count = torch.tensor([min(len(noted), self.most_rounds)], dtype=torch.int32)
        sent: Any = xm.send_cpu_data_to_device([numbers.T.contiguous(), seeds, count], self.root_device)
        return [indices, *sent[:2]], sent[2]


class _IndexLoader:
    """A loader, which in training, while steps are noted, gives the indices of a batch in place of its images."""

    def __init__(self, loader: Any, strategy: ManyStepsStrategy) -> None:
        self._loader = loader
        self._strategy = strategy

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        if self._strategy.notes_steps:
            yield from ({"label": indices} for indices in self._loader.sampler)  # as many as images, which are counted
        else:
            yield from self._loader


class Executions(L.Callback):
    """Records the step, and sends what is noted off before weights are read; the first of all callbacks."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Record the step."""
        trainer.strategy.record()  # type: ignore[attr-defined]

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Send off what is noted, as within an epoch too there may be a validation."""
        trainer.strategy.execute()  # type: ignore[attr-defined]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Do the same where a limit of steps or of time ends a training within an epoch."""
        trainer.strategy.execute()  # type: ignore[attr-defined]
