"""XLA devices for Lightning's Trainer: accelerator, SPMD strategy, precision, and the ends of the recorded steps."""

import contextlib
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
import torch_xla
import torch_xla.debug.profiler as xp
import torch_xla.distributed.spmd as xs
import torch_xla.runtime as xr
from lightning.fabric.plugins.io import CheckpointIO, TorchCheckpointIO
from lightning.pytorch.accelerators import XLAAccelerator
from lightning.pytorch.plugins.precision import Precision, XLAPrecision
from lightning.pytorch.strategies import SingleDeviceXLAStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch_xla.core import xla_model as xm

from digits.data.module import Batch
from digits.xla import host_shard


class XLADevices(XLAAccelerator):
    """A TPU, or with PJRT_DEVICE=CPU the CPU instead, which Lightning's own accelerator does not count."""

    @staticmethod
    def auto_device_count() -> int:  # type: ignore[override]  # Lightning caches it
        """One, as SPMD has a single logical device."""
        return 1

    @staticmethod
    def is_available() -> bool:  # type: ignore[override]  # Lightning caches it
        """True: :func:`digits.xla.require_device` has checked."""
        return True

    @staticmethod
    def parse_devices(devices: Any) -> int:
        """One, as SPMD has a single logical device."""
        return 1

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        """The single logical device."""
        return [torch.device("xla", 0)]


class SPMDStrategy(SingleDeviceXLAStrategy):
    """One process per host and one logical device for all cores of all hosts, over which each batch is sharded.

    As the compiler inserts the collectives, the results are those of a single device with the whole batch.
    """

    def __init__(self, precision_plugin: XLAPrecision) -> None:
        if not xr.is_spmd():
            xr.use_spmd()  # must come before the first XLA tensor
        super().__init__(device=None, accelerator=XLADevices(), precision_plugin=precision_plugin)  # type: ignore[arg-type]
        rank_zero_only.rank = xr.process_index()  # type: ignore[attr-defined]  # Lightning's loggers use it
        self.cores = xr.global_runtime_device_count()
        self.mesh = xs.Mesh(np.arange(self.cores), (self.cores,), ("data",))

    @property  # type: ignore[override]
    def checkpoint_io(self) -> CheckpointIO:
        """The Trainer's; Lightning's strategy insists on one that writes without care for the process being killed."""
        return self._checkpoint_io or TorchCheckpointIO()

    @checkpoint_io.setter
    def checkpoint_io(self, io: CheckpointIO | None) -> None:
        self._checkpoint_io = io

    @property
    def is_global_zero(self) -> bool:
        """Whether this host is the one that logs and reports."""
        return xr.process_index() == 0

    def process_dataloader(self, dataloader: Any) -> Any:
        """Let the dataset, which is already on the device, send the indices of a batch sharded."""
        dataloader.dataset.send = self.send
        return dataloader

    def send(self, indices: Tensor) -> Tensor:
        """Send the indices (N, ...) of global batches to the cores, an equal shard to each; a host sends its own part.

        Operations that were recorded before belong to the previous batch, so they are dispatched first.
        """
        torch_xla.sync()
        hosts = xr.process_count()
        part = host_shard(indices, hosts, xr.process_index())
        sharding = xs.ShardingSpec(self.mesh, ("data", *[None] * (indices.dim() - 1)), minibatch=hosts > 1)
        return xm.send_cpu_data_to_device([part], self.root_device, sharding)[0]  # type: ignore[index]

    def batch_to_device(self, batch: Batch, device: torch.device | None = None, dataloader_idx: int = 0) -> Batch:
        """Mark images and labels, which are on the device already, as sharded."""
        for tensor in batch.values():
            xs.mark_sharding(tensor, self.mesh, ("data", *[None] * (tensor.dim() - 1)))
        return batch

    def end_batch(self, is_last: bool) -> None:
        """Dispatch what was recorded of a training batch, the last of its epoch or not; waits for no device."""
        torch_xla.sync()

    def reduce(self, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        """``tensor`` on the CPU, unchanged, as there is one logical device; Lightning reads it before each loop."""
        return tensor.cpu() if isinstance(tensor, Tensor) else tensor

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """Save on each host, as hosts share no disk and each one reads its own file for the test and to resume."""
        # as CPU tensors: those of XLA cannot be loaded where there is no such device
        on_cpu: Any = xm._maybe_convert_to_cpu(checkpoint)
        self.checkpoint_io.save_checkpoint(on_cpu, filepath)


class StepPrecision(XLAPrecision):
    """float32, or autocast to bfloat16, which is what "bf16-mixed" means on other devices."""

    def __init__(self, mixed: bool) -> None:
        super().__init__("32-true")
        self.mixed = mixed
        if mixed:
            self.precision = "bf16-mixed"  # Lightning's XLA plugin accepts only true precisions

    def forward_context(self) -> AbstractContextManager[Any]:
        """Autocast around every step if the precision is mixed."""
        return torch.autocast("xla", torch.bfloat16) if self.mixed else contextlib.nullcontext()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> Any:
        """Only record the step, as :class:`MarkStep` dispatches it together with the operations that follow."""
        return Precision.optimizer_step(self, *args, **kwargs)


class MarkStep(L.Callback):
    """Marks the end of each step, which dispatches the recorded operations as one program without waiting for it.

    A training step includes its learning rate schedule and weight averaging, so this callback comes after those that
    take part in the step and before those that read its results. Operations between two epochs are dispatched on their
    own, here or by :meth:`SPMDStrategy.send`; recorded into the next step, they would make it compile again.

    ``seed`` is the run's.
    """

    def __init__(self, seed: int) -> None:
        torch_xla.manual_seed(seed)  # torch.manual_seed does not seed XLA's generator
        self._seed = seed

    def on_train_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Reseed a resumed run, so that it does not repeat the random numbers of its first epochs."""
        if trainer.current_epoch:
            torch_xla.manual_seed(self._seed + 1_000_003 * trainer.current_epoch)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """End a training step."""
        trainer.strategy.end_batch(trainer.is_last_batch)  # type: ignore[attr-defined]

    def on_validation_batch_end(self, *args: Any) -> None:
        """End a validation step."""
        torch_xla.sync()

    def on_test_batch_end(self, *args: Any) -> None:
        """End a test step."""
        torch_xla.sync()

    def on_train_epoch_end(self, *args: Any) -> None:
        """Dispatch the swap back from the averaged weights to the trained ones."""
        torch_xla.sync()

    def on_train_end(self, *args: Any) -> None:
        """Dispatch the copy of the averaged weights into the network."""
        torch_xla.sync()


class Trace(L.Callback):
    """Profiles host and devices during some training steps, for TensorBoard's profile page.

    Ten of them, once everything has been compiled; where many are one program, its second run.
    """

    def __init__(self, steps_per_execution: int) -> None:
        self.first_step = 20 if steps_per_execution == 1 else steps_per_execution
        self.last_step = self.first_step + max(10, steps_per_execution)
        self._running = False

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Start the trace, only once even if a step accumulates several batches."""
        if trainer.global_step == self.first_step and not self._running:
            xp.start_trace(Path(trainer.default_root_dir) / "profile")
            self._running = True

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Stop the trace once the devices have finished the dispatched steps."""
        if trainer.global_step == self.last_step and self._running:
            torch_xla.sync(wait=True)
            xp.stop_trace()
            self._running = False
