"""The backend for XLA devices: a TPU, or the virtual devices of a CPU instead."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch_xla.runtime as xr
from torch import Tensor, nn
from torch_xla.core import xla_model as xm

from digits.backend import Backend
from digits.data.augmentation import resample_by_matmul
from digits.network import DeepDigits, Network
from digits.network.fast import Forward, folded


class XLABackend(Backend):
    """Records each step operation by operation, and runs it as one compiled program on all devices."""

    compiles_steps = True
    resample = staticmethod(resample_by_matmul)  # XLA has no `grid_sample`

    def __init__(self) -> None:
        super().__init__("xla")
        self.processes = xr.process_count()
        self.note_share: Callable[[float], None] | None = None  # where steps are only noted; see many_steps.py

    def variable(self, value: float) -> Tensor:
        """A tensor (1,) on the device, as an input of the program; XLA would turn a scalar 0 or 1 into a constant."""
        return torch.tensor([value], device=self.device_type)

    def average(self, averages: nn.Module, weights: nn.Module, share: float) -> None:
        """Note the share where steps are noted."""
        if self.note_share is None:
            super().average(averages, weights, share)
        else:
            self.note_share(share)

    def optimizer_options(self, clips_gradients: bool) -> dict[str, Any]:
        """Capturable, so that the optimizer counts its steps on the device."""
        return {"capturable": True}

    def random_state(self) -> dict[str, Any]:
        """Also that of XLA's generator: between two programs, which is when it is asked for, a single number."""
        return super().random_state() | {"xla": xm.get_rng_state()}

    def restore_random_state(self, state: dict[str, Any]) -> None:
        """Go back to it; a checkpoint of another kind of device has none."""
        super().restore_random_state(state)
        if "xla" in state:
            xm.set_rng_state(state["xla"])

    def accelerate(self, network: Network, training: bool = False, compiled: bool = False) -> Forward:
        """Of DeepDigits its folded form, in training and in evaluation; of another network itself."""
        return functools.partial(folded.forward, network) if isinstance(network, DeepDigits) else network.__call__
