"""The seam between training and the device that it runs on.

Training asks a :class:`Backend` for the few things that differ between devices. `digits.xla` has the one for devices
that compile whole steps; another library for such devices would be a folder beside it, with a subclass of its own.
"""

from typing import Any

import torch
from torch import Tensor, nn

from digits.data.augmentation import resample
from digits.network import Network
from digits.network.fast import Forward, accelerate


class Backend:
    """A CPU or a GPU: each operation runs when it is called.

    ``device_type`` is as of `torch.device`: "cpu", "cuda" or "mps".
    """

    compiles_steps = False  # whether a step is recorded first and then runs as one compiled program
    processes = 1  # that train together
    resample = staticmethod(resample)  # how augmentation samples images at a grid of points

    def __init__(self, device_type: str = "cpu") -> None:
        self.device_type = device_type

    def variable(self, value: float) -> float | Tensor:
        """``value``, in the form in which it may change from step to step.

        A plain number would be part of a compiled program: with another one, the program would be compiled again.
        """
        return value

    def average(self, averages: nn.Module, weights: nn.Module, share: float) -> None:
        """Move the parameters of ``averages`` towards ``weights`` by ``share`` of their difference; copy buffers."""
        amount: Any = self.variable(share)
        for own, current in zip(averages.parameters(), weights.parameters(), strict=True):
            own.lerp_(current, amount)
        for buffer, latest in zip(averages.buffers(), weights.buffers(), strict=True):
            buffer.copy_(latest)

    def agree(self, *numbers: int) -> tuple[int, ...]:
        """The greatest of each over all processes that can be asked."""
        return numbers

    def optimizer_options(self, clips_gradients: bool) -> dict[str, Any]:
        """Arguments of torch's optimizers; Lightning does not clip the gradients of a fused one."""
        return {"fused": self.device_type in ("cpu", "cuda") and not clips_gradients}

    def random_state(self) -> dict[str, Any]:
        """The states of the random generators, of plain values and CPU tensors."""
        gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"cpu": torch.get_rng_state(), "gpus": gpus}

    def restore_random_state(self, state: dict[str, Any]) -> None:
        """Go back to what :meth:`random_state` returned; another machine's GPUs are left as they are."""
        torch.set_rng_state(state["cpu"].cpu())
        if len(state["gpus"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([gpu.cpu() for gpu in state["gpus"]])

    def accelerate(self, network: Network, training: bool = False, compiled: bool = False) -> Forward:
        """The fastest way to the logits of ``network`` here; see :func:`digits.network.fast.accelerate`."""
        return accelerate(network, self.device_type, training, compiled)
