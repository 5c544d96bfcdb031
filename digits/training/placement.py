"""Where and in which precision a run computes: every "auto" resolved, a missing device said before anything starts."""

from typing import Any

import torch
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler

from digits import xla
from digits.backend import Backend
from digits.errors import ConfigError, DigitsError
from digits.network.fast import native_bfloat16
from digits.settings.schema import Config

PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}


def place(config: Config) -> tuple[Backend, dict[str, Any]]:
    """The device that ``config`` asks for, and the arguments by which Lightning's Trainer computes there.

    Raises:
        DigitsError: the device that is asked for is not there.
        ConfigError: a setting does not go with it.
    """
    accelerator: str = config.trainer.accelerator
    if accelerator == "auto":
        accelerator = "tpu" if xla.tpu_present() else "gpu" if torch.cuda.is_available() else "cpu"
    xla.keep_lightning_from_looking()
    return _place_on_xla(config) if accelerator == "tpu" else _place_on_cpu_or_gpu(config, accelerator)


def _place_on_xla(config: Config) -> tuple[Backend, dict[str, Any]]:
    xla.require_device()
    if config.trainer.strategy != "auto":
        raise ConfigError(f"trainer.strategy={config.trainer.strategy}: with trainer.accelerator=tpu only auto")
    from digits.xla.backend import XLABackend  # here torch_xla is imported, which chooses its devices at once
    from digits.xla.lightning import trainer_arguments

    settings = config.trainer
    return XLABackend(), trainer_arguments(
        settings.precision, settings.devices, settings.profiler, config.data.batch_size, config.seed
    )


def _place_on_cpu_or_gpu(config: Config, accelerator: str) -> tuple[Backend, dict[str, Any]]:
    devices, precision = config.trainer.devices, config.trainer.precision
    if (profiler := config.trainer.profiler) not in (None, *PROFILERS):
        raise ConfigError(
            f"trainer.profiler={profiler}: goes with trainer.accelerator=tpu; with {accelerator} use pytorch"
        )
    metal = torch.backends.mps.is_available()
    if accelerator in ("gpu", "cuda") and not (torch.cuda.is_available() or metal):
        raise DigitsError(
            f"trainer.accelerator={accelerator}: torch {torch.__version__} finds no GPU here; "
            "check the driver, or use trainer.accelerator=cpu"
        )
    if accelerator == "mps" and not metal:
        raise DigitsError("trainer.accelerator=mps: this is no Mac with Metal; use trainer.accelerator=cpu")
    if precision == "auto":
        precision = "bf16-mixed" if native_bfloat16(accelerator) else "32-true"
    device_type = "cpu" if accelerator == "cpu" else "cuda" if torch.cuda.is_available() else "mps"
    devices = 1 if devices == "auto" else devices
    return Backend(device_type), {"accelerator": accelerator, "devices": devices, "precision": precision}
