"""Everything that touches torch_xla; this module itself imports nothing of it."""

import importlib.util
import os
from pathlib import Path
from typing import TYPE_CHECKING

from digits.errors import DigitsError

if TYPE_CHECKING:
    from torch import Tensor

# Google's, of v2 and v3, v4, v5p, v5e, v6e, v7x; those of torch_xla 2.9 (torch_xla/_internal/tpu.py)
TPU_PCI_IDS = {("0x1ae0", device) for device in ("0x0027", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076")}
REHEARSAL = "PJRT_DEVICE=CPU CPU_NUM_DEVICES=8 python train.py trainer.accelerator=tpu"

# before torch_xla is imported: of the compiler's messages errors only, as its warnings are about its own parts
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def tpu_present(root: Path = Path("/")) -> bool:
    """Whether this machine, whose files are below ``root``, has a TPU, and torch_xla to use it.

    Older TPUs have a device file of their own. Newer ones are reached by VFIO, as other devices are that are handed to
    a virtual machine: there the PCI bus tells which they are.
    """
    found = any((root / "dev").glob("accel[0-9]*")) or any(map(_is_tpu, (root / "sys/bus/pci/devices").glob("*")))
    return found and torch_xla_installed()


def _is_tpu(device: Path) -> bool:
    try:
        return tuple((device / name).read_text().strip() for name in ("vendor", "device")) in TPU_PCI_IDS
    except OSError:
        return False


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
