"""Everything that touches torch_xla; this module itself imports nothing of it."""

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from digits.errors import DigitsError

if TYPE_CHECKING:
    from torch import Tensor

REHEARSAL = "PJRT_DEVICE=CPU CPU_NUM_DEVICES=8 python train.py trainer.accelerator=tpu"

# before torch_xla is imported: of the compiler's messages errors only, as its warnings are about its own parts
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def tpu_present() -> bool:
    """Whether this machine has a TPU's device files, and torch_xla to use it."""
    devices = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    return bool(devices) and torch_xla_installed()


def torch_xla_installed() -> bool:
    """Whether torch_xla can be imported; it has wheels for Linux on x86-64 only."""
    return importlib.util.find_spec("torch_xla") is not None


def require_device() -> None:
    """Look for a TPU, or for the wish to rehearse on the CPU, before torch_xla is imported.

    Raises:
        DigitsError: torch_xla is not installed, or there is neither a TPU nor PJRT_DEVICE=CPU.
    """
    if not torch_xla_installed():
        raise DigitsError("trainer.accelerator=tpu: torch_xla is not installed; it has wheels for Linux on x86-64 only")
    if os.environ.get("PJRT_DEVICE") not in ("CPU", "TPU") and not tpu_present():
        raise DigitsError(f"trainer.accelerator=tpu: no TPU was found; to rehearse on the CPU: {REHEARSAL}")


def share_of_host(indices: "Tensor", hosts: int, host: int) -> "Tensor":
    """Of the indices (N,) of a global batch those that one of several hosts sends to its own chips, in order."""
    return indices.chunk(hosts)[host].contiguous()


def keep_lightning_from_looking() -> None:
    """Keep Lightning's Trainer from looking for a TPU itself, only to print what it found.

    It would import torch_xla, which takes seconds; and where libtpu is installed without a TPU, its look ends in a
    traceback.
    """
    from lightning.pytorch.accelerators import XLAAccelerator  # not above: it takes seconds, and not all need it

    XLAAccelerator.is_available = staticmethod(lambda: False)  # type: ignore[assignment]
