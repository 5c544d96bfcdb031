"""XLA: all code that uses torch_xla, jax or libtpu. This module itself imports none of them."""

import importlib.metadata
import importlib.util
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from digits.errors import ConfigError, DigitsError
from digits.settings.schema import Config
from digits.settings.targets import overridden

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("digits")
# Vendor Google, devices v2 and v3, v4, v5p, v5e, v6e, v7x, as in torch_xla 2.9 (torch_xla/_internal/tpu.py)
TPU_PCI_IDS = {("0x1ae0", device) for device in ("0x0027", "0x005e", "0x0062", "0x0063", "0x006f", "0x0076")}
REHEARSAL_COMMAND = "PJRT_DEVICE=CPU CPU_NUM_DEVICES=8 python train.py trainer.accelerator=tpu"

STEPS_PER_EXECUTION = 50  # of the original
# Hooks of Lightning's callbacks that see, or change, what is computed in a training step
WITHIN_A_STEP = (
    *("on_train_batch_start", "on_train_batch_end", "on_before_zero_grad", "on_before_backward", "on_after_backward"),
    "on_before_optimizer_step",
)

# Only errors of the compiler are shown, as its warnings are about its own internals; torch_xla reads this on import.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def tpu_present(root: Path = Path("/")) -> bool:
    """Whether this machine, whose files are below ``root``, has a TPU and torch_xla is installed.

    Older TPUs have a device file of their own. Newer ones are passed to a virtual machine by VFIO like any other
    device, so they are recognized by their PCI ids.
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


def require_torch_xla(what: str, extra: str) -> None:
    """Check that torch_xla is installed with a matching torch; beside another one, importing it fails.

    Raises:
        DigitsError: it is not installed or does not match; the message begins with ``what``, which
            needs it, and ends with the ``extra`` to install.
    """
    remedy = f"pip install -e '.[{extra}]'"
    if not torch_xla_installed():
        raise DigitsError(f"{what}: torch_xla is not installed; it has wheels for Linux on x86-64 only: {remedy}")
    torch, torch_xla = (importlib.metadata.version(name) for name in ("torch", "torch_xla"))
    matching = ".".join(torch_xla.split(".")[:2])  # its metadata does not say so
    if not torch.startswith(f"{matching}."):
        raise DigitsError(f"{what}: torch_xla {torch_xla} goes with torch {matching}, here is {torch}: {remedy}")


def require_device() -> None:
    """Check, before torch_xla is imported, that there is a TPU or that PJRT_DEVICE asks for one or for the CPU.

    Raises:
        DigitsError: torch_xla cannot be used, or there is no device for it.
    """
    require_torch_xla("trainer.accelerator=tpu", "tpu")
    if os.environ.get("PJRT_DEVICE") not in ("CPU", "TPU") and not tpu_present():
        raise DigitsError(f"trainer.accelerator=tpu: no TPU was found; to rehearse on the CPU: {REHEARSAL_COMMAND}")


def why_step_by_step(config: Config) -> str:
    """Why each training step must be a program of its own with the settings of ``config``; empty if it need not be."""
    if config.trainer.detect_anomaly:
        return "trainer.detect_anomaly=true looks into each step"
    for settings in config.callbacks:
        if hooks := overridden(settings, WITHIN_A_STEP):
            return f"{settings['_target_']} acts within a step: {', '.join(hooks)}"
    return ""


def steps_per_execution(config: Config, device_type: str) -> int:
    """How many training steps are to be one program on such a device ("TPU" or "CPU"), as ``config`` says.

    `auto` is one step on a CPU, as XLA computes a step ten times slower there inside of a loop.

    Raises:
        ConfigError: a number is asked for that is not possible.
    """
    wanted, reason = config.steps_per_execution, why_step_by_step(config)
    if wanted == "auto":
        if reason and device_type != "CPU":
            log.info("steps_per_execution=auto: each step is a program of its own, as %s", reason)
        return 1 if reason or device_type == "CPU" else STEPS_PER_EXECUTION
    if wanted > 1 and reason:
        raise ConfigError(f"steps_per_execution={wanted}: only 1 is possible here: {reason}")
    return wanted


def host_shard(indices: "Tensor", hosts: int, host: int) -> "Tensor":
    """The part of a global batch's indices (N,) that one of several hosts sends to its own chips."""
    return indices.chunk(hosts)[host].contiguous()


def keep_lightning_from_looking() -> None:
    """Keep Lightning's Trainer from looking for a TPU, which it does only to print whether there is one.

    For that it would import torch_xla, which takes seconds, and with libtpu installed but no TPU it would print a
    traceback.
    """
    from lightning.pytorch.accelerators import XLAAccelerator  # imported here, as it takes seconds

    XLAAccelerator.is_available = staticmethod(lambda: False)  # type: ignore[assignment]
