"""Everything that touches torch_xla; this module itself imports nothing of it."""

import importlib.util
from pathlib import Path


def tpu_present() -> bool:
    """Whether this machine has a TPU's device files and torch_xla is installed."""
    devices = [*Path("/dev").glob("accel[0-9]*"), *Path("/dev/vfio").glob("[0-9]*")]
    return bool(devices) and importlib.util.find_spec("torch_xla") is not None
