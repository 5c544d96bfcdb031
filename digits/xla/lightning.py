"""The XLA devices for Lightning's Trainer: accelerator, SPMD strategy, precision, and when a step is sent off."""

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
from lightning.pytorch.accelerators import XLAAccelerator
from lightning.pytorch.plugins.precision import Precision, XLAPrecision
from lightning.pytorch.strategies import SingleDeviceXLAStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch_xla.core import xla_model as xm

from digits.data.module import Batch
from digits.errors import ConfigError
from digits.xla import share_of_host


class XLADevices(XLAAccelerator):
    """A TPU, or the CPU in its place where PJRT_DEVICE=CPU asks for that; Lightning counts TPU chips only."""

    @staticmethod
    def auto_device_count() -> int:  # type: ignore[override]  # Lightning caches it
        """One: a process has one logical device."""
        return 1

    @staticmethod
    def is_available() -> bool:  # type: ignore[override]  # Lightning caches it
        """True: :func:`trainer_arguments` has looked."""
        return True

    @staticmethod
    def parse_devices(devices: Any) -> int:
        """One, whatever is asked for."""
        return 1

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        """The logical device."""
        return [torch.device("xla", 0)]


class SPMDStrategy(SingleDeviceXLAStrategy):
    """One process a host and one logical device: all cores of all hosts, over which each batch is sharded.

    The compiler inserts the collectives: the maths is that of one device with the whole batch.
    """

    def __init__(self, precision_plugin: XLAPrecision) -> None:
        xr.use_spmd()  # before any XLA tensor exists
        super().__init__(device=None, accelerator=XLADevices(), precision_plugin=precision_plugin)  # type: ignore[arg-type]
        rank_zero_only.rank = xr.process_index()  # type: ignore[attr-defined]  # Lightning's loggers go by it
        self.cores = xr.global_runtime_device_count()
        self.mesh = xs.Mesh(np.arange(self.cores), (self.cores,), ("data",))

    @property
    def is_global_zero(self) -> bool:
        """Whether this is the host that logs and reports."""
        return xr.process_index() == 0

    def process_dataloader(self, dataloader: Any) -> Any:
        """Let the resident dataset send its indices sharded."""
        dataloader.dataset.send = self.send
        return dataloader

    def send(self, indices: Tensor) -> Tensor:
        """The indices (N,) of the global batch on the cores, an equal share on each; a host sends its own part only.

        What was recorded before belongs to the batch before, and is sent off first.
        """
        torch_xla.sync()
        hosts = xr.process_count()
        part = share_of_host(indices, hosts, xr.process_index())
        sharding = xs.ShardingSpec(self.mesh, ("data",), minibatch=hosts > 1)
        return xm.send_cpu_data_to_device([part], self.root_device, sharding)[0]  # type: ignore[index]

    def batch_to_device(self, batch: Batch, device: torch.device | None = None, dataloader_idx: int = 0) -> Batch:
        """Images and labels are there already; say to the compiler that both are sharded."""
        for tensor in batch.values():
            xs.mark_sharding(tensor, self.mesh, ("data", *[None] * (tensor.dim() - 1)))
        return batch

    def reduce(self, tensor: Any, *args: Any, **kwargs: Any) -> Any:
        """As it is: there is one logical device. On the host, where Lightning looks at it before each loop."""
        return tensor.cpu() if isinstance(tensor, Tensor) else tensor

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        """On each host, as hosts share no disk and each reads its own again: for the test, and to resume."""
        self.checkpoint_io.save_checkpoint(checkpoint, filepath)


class StepPrecision(XLAPrecision):
    """float32, or bfloat16 for products and convolutions and float32 for the rest, as "bf16-mixed" is elsewhere."""

    def __init__(self, mixed: bool) -> None:
        super().__init__("32-true")
        self.mixed = mixed
        if mixed:
            self.precision = "bf16-mixed"  # Lightning's list has true precisions only

    def forward_context(self) -> AbstractContextManager[Any]:
        """Around every step."""
        return torch.autocast("xla", torch.bfloat16) if self.mixed else contextlib.nullcontext()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> Any:
        """Only record it: :class:`StepGraph` sends it off, with what comes after it."""
        return Precision.optimizer_step(self, *args, **kwargs)


class StepGraph(L.Callback):
    """Sends off what has been recorded as one program, and does not wait for it.

    A training step ends after its schedule and its averages, so it stands behind the callbacks that have a part in the
    step, and before those that read. What happens between two epochs is sent off before the next step begins, by
    :meth:`SPMDStrategy.send`, or here, where the checkpoint reads it: with it the step would have to be compiled again.

    ``seed`` is the run's.
    """

    def __init__(self, seed: int) -> None:
        torch_xla.manual_seed(seed)  # torch's own does not seed XLA's generator
        self._seed = seed

    def on_train_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Other draws where a run is resumed than those it began with."""
        if trainer.current_epoch:
            torch_xla.manual_seed(self._seed + 1_000_003 * trainer.current_epoch)

    def on_train_batch_end(self, *args: Any) -> None:
        """A training step."""
        torch_xla.sync()

    def on_validation_batch_end(self, *args: Any) -> None:
        """A validation step."""
        torch_xla.sync()

    def on_test_batch_end(self, *args: Any) -> None:
        """A test step."""
        torch_xla.sync()

    def on_train_epoch_end(self, *args: Any) -> None:
        """The weights in their own place again."""
        torch_xla.sync()

    def on_train_end(self, *args: Any) -> None:
        """The averages as the final weights."""
        torch_xla.sync()


class Trace(L.Callback):
    """Records what host and devices do in ten steps of the first epoch, for TensorBoard's profile page."""

    first, last = 20, 30  # after all has been compiled
    _running = False

    def on_train_batch_start(self, trainer: L.Trainer, *args: Any) -> None:
        """Begin; a step of several batches begins more than once."""
        if trainer.global_step == self.first and not self._running:
            xp.start_trace(Path(trainer.default_root_dir) / "profile")
            self._running = True

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """End, when the devices have done what was sent off."""
        if trainer.global_step == self.last and self._running:
            torch_xla.sync(wait=True)
            xp.stop_trace()
            self._running = False


def trainer_arguments(
    precision: str | int, devices: Any, profiler: str | None, batch_size: int, seed: int
) -> dict[str, Any]:
    """Arguments of the Trainer for all XLA devices.

    Raises:
        ConfigError: a setting that is not possible there.
    """
    if devices != "auto":
        raise ConfigError(f"trainer.devices={devices}: with trainer.accelerator=tpu only auto is possible: all cores")
    mixed = {"auto": True, "bf16-mixed": True, "bf16": True, "32-true": False, "32": False, 32: False}
    if precision not in mixed:
        raise ConfigError(f"trainer.precision={precision}: with trainer.accelerator=tpu: auto, 32-true or bf16-mixed")
    strategy = SPMDStrategy(StepPrecision(mixed[precision]))
    if batch_size % strategy.cores:
        raise ConfigError(
            f"data.batch_size={batch_size}: {strategy.cores} cores share it equally; "
            f"allowed are multiples of {strategy.cores}"
        )
    callbacks = [StepGraph(seed), Trace()] if profiler == "xla" else [StepGraph(seed)]
    arguments = {"accelerator": "auto", "strategy": strategy, "devices": 1, "precision": None, "callbacks": callbacks}
    return arguments | {"profiler": None if profiler == "xla" else profiler}
