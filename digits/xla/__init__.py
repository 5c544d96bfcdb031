"""Everything that touches torch_xla; this module itself imports nothing of it."""

import importlib.util
from pathlib import Path

from lightning.pytorch.accelerators import XLAAccelerator


def tpu_present() -> bool:
    """Whether this machine has a TPU's device files, and torch_xla to use it."""
    devices = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    return bool(devices) and torch_xla_installed()


def torch_xla_installed() -> bool:
    """Whether torch_xla can be imported; it has wheels for Linux on x86-64 only."""
    return importlib.util.find_spec("torch_xla") is not None


def leave_torch_xla_alone() -> None:
    """Keep Lightning's Trainer from importing torch_xla, which takes seconds, to print that there is no TPU."""
    XLAAccelerator.is_available = staticmethod(lambda: False)  # type: ignore[assignment]
