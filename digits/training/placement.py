"""Where and in which precision a run computes: every "auto" resolved, a missing device said before anything starts."""

import os
from typing import Any

import torch
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler

from digits import xla
from digits.backend import Backend
from digits.errors import ConfigError, DigitsError
from digits.network.fast.precision import native_bfloat16
from digits.settings.schema import Config
from digits.training.precision import choose_precision

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
    if config.trainer.strategy != "auto":
        raise ConfigError(f"trainer.strategy={config.trainer.strategy}: with trainer.accelerator=tpu only auto")
    steps = xla.steps_per_execution(config, os.environ.get("PJRT_DEVICE", "TPU"))
    xla.require_device()
    from digits.xla.backend import XLABackend  # here torch_xla is imported, which chooses its devices at once
    from digits.xla.trainer import trainer_arguments

    backend = XLABackend()
    return backend, trainer_arguments(config, backend, steps)


def _place_on_cpu_or_gpu(config: Config, accelerator: str) -> tuple[Backend, dict[str, Any]]:
    devices, precision = config.trainer.devices, config.trainer.precision
    if config.steps_per_execution not in ("auto", 1):
        raise ConfigError(
            f"steps_per_execution={config.steps_per_execution}: goes with trainer.accelerator=tpu; "
            f"with {accelerator} each step runs on its own: 1, or auto"
        )
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
    placement: dict[str, Any] = {
        "accelerator": accelerator,
        "devices": 1 if devices == "auto" else devices,
        "precision": precision,
    }
    if precision == "auto" and accelerator == "cpu":
        placement |= {"precision": None, "plugins": [choose_precision(config)]}
    elif precision == "auto":
        placement["precision"] = "bf16-mixed" if native_bfloat16(accelerator) else "32-true"
    device_type = "cpu" if accelerator == "cpu" else "cuda" if torch.cuda.is_available() else "mps"
    return Backend(device_type), placement
