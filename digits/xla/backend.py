"""The backend for XLA devices: a TPU, or the virtual devices of a CPU instead."""

import functools
from typing import Any

import torch
from torch import Tensor

from digits.backend import Backend
from digits.data.augmentation import resample_by_matmul
from digits.network import DeepDigits
from digits.network.fast import Forward, folded


class XLABackend(Backend):
    """Records each step operation by operation, and runs it as one compiled program on all devices."""

    compiles_steps = True
    resample = staticmethod(resample_by_matmul)  # XLA has no `grid_sample`

    def __init__(self) -> None:
        super().__init__("xla")

    def variable(self, value: float) -> Tensor:
        """A tensor (1,) on the device, as an input of the program; XLA would turn a scalar 0 or 1 into a constant."""
        return torch.tensor([value], device=self.device_type)

    def optimizer_options(self, clips_gradients: bool) -> dict[str, Any]:
        """Capturable, so that the optimizer counts its steps on the device."""
        return {"capturable": True}

    def accelerate(self, network: DeepDigits, training: bool = False, compiled: bool = False) -> Forward:
        """The folded form of the network, in training and in evaluation."""
        return functools.partial(folded.forward, network)
