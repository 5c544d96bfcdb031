"""The seam between training and the device that it runs on.

Training asks a :class:`Backend` for the few things that differ between devices. `digits.xla` has the one for devices
that compile whole steps; another library for such devices would be a folder beside it, with a subclass of its own.
"""

from typing import Any

from torch import Tensor

from digits.data.augmentation import resample
from digits.network import DeepDigits
from digits.network.fast import Forward, accelerate


class Backend:
    """A CPU or a GPU: each operation runs when it is called.

    ``device_type`` is as of `torch.device`: "cpu", "cuda" or "mps".
    """

    compiles_steps = False  # whether a step is recorded first and then runs as one compiled program
    resample = staticmethod(resample)  # how augmentation samples images at a grid of points

    def __init__(self, device_type: str = "cpu") -> None:
        self.device_type = device_type

    def variable(self, value: float) -> float | Tensor:
        """``value``, in the form in which it may change from step to step.

        A plain number would be part of a compiled program: with another one, the program would be compiled again.
        """
        return value

    def optimizer_options(self, clips_gradients: bool) -> dict[str, Any]:
        """Arguments of torch's optimizers; Lightning does not clip the gradients of a fused one."""
        return {"fused": self.device_type in ("cpu", "cuda") and not clips_gradients}

    def accelerate(self, network: DeepDigits, training: bool = False, compiled: bool = False) -> Forward:
        """The fastest way to the logits of ``network`` here; see :func:`digits.network.fast.accelerate`."""
        return accelerate(network, self.device_type, training, compiled)
