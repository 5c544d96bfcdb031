"""Everything that touches torch_xla; this module itself imports nothing of it."""

import importlib.util
from pathlib import Path

from lightning.pytorch.accelerators import XLAAccelerator


def tpu_present() -> bool:
    """Whether this machine has a TPU's device files and torch_xla is installed."""
    devices = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    return bool(devices) and importlib.util.find_spec("torch_xla") is not None


def leave_torch_xla_alone() -> None:
    """Keep Lightning's Trainer from importing torch_xla, which takes seconds, to print that there is no TPU."""
    XLAAccelerator.is_available = staticmethod(lambda: False)  # type: ignore[assignment]
