"""The XLA device for Lightning's Trainer: accelerator, strategy and precision."""

import os
from contextlib import AbstractContextManager
from typing import Any

import torch
from lightning.pytorch.accelerators import XLAAccelerator
from lightning.pytorch.plugins.precision import XLAPrecision
from lightning.pytorch.strategies import SingleDeviceXLAStrategy

from digits.errors import DigitsError
from digits.xla import torch_xla_installed, tpu_present

REHEARSAL = "PJRT_DEVICE=CPU python train.py trainer.accelerator=tpu"


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


class XLAMixedPrecision(XLAPrecision):
    """bfloat16 for products and convolutions, float32 for the rest, as "bf16-mixed" means on CPU and GPU."""

    def __init__(self) -> None:
        super().__init__("32-true")
        self.precision = "bf16-mixed"  # Lightning's list has true precisions only

    def forward_context(self) -> AbstractContextManager[Any]:
        """Autocast around every step."""
        return torch.autocast("xla", torch.bfloat16)


def trainer_arguments(precision: str | int, devices: Any) -> dict[str, Any]:
    """Arguments of the Trainer for one XLA device.

    Raises:
        DigitsError: torch_xla is not installed, or there is neither a TPU nor PJRT_DEVICE=CPU.
    """
    if not torch_xla_installed():
        raise DigitsError("trainer.accelerator=tpu: torch_xla is not installed; it has wheels for Linux on x86-64 only")
    if os.environ.get("PJRT_DEVICE") not in ("CPU", "TPU") and not tpu_present():
        raise DigitsError(f"trainer.accelerator=tpu: no TPU was found; to rehearse on the CPU: {REHEARSAL}")
    if devices not in ("auto", 1):
        raise DigitsError(f"trainer.devices={devices}: with trainer.accelerator=tpu only auto is possible")
    plugins = {"bf16-mixed": XLAMixedPrecision, "auto": XLAPrecision, "32-true": XLAPrecision, 32: XLAPrecision}
    if precision not in plugins:
        raise DigitsError(f"trainer.precision={precision}: with trainer.accelerator=tpu: auto, 32-true or bf16-mixed")
    strategy = SingleDeviceXLAStrategy(device=0, accelerator=XLADevices(), precision_plugin=plugins[precision]())
    return {"accelerator": "auto", "strategy": strategy, "devices": 1, "precision": None}
