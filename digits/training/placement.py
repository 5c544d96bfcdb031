"""Where and in which precision a run computes: every "auto" resolved, a missing device said before anything starts."""

import functools
import logging
import os
from typing import Any

import torch
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler

from digits import xla
from digits.backend import Backend
from digits.errors import ConfigError, DigitsError
from digits.network.fast.precision import native_bfloat16
from digits.settings.schema import Config
from digits.training.distributed.backend import DDPBackend
from digits.training.distributed.environment import OwnProcesses, launcher
from digits.training.distributed.strategy import GlobalBatchDDP
from digits.training.precision import choose_precision

log = logging.getLogger("digits")
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
    if config.trainer.num_nodes != 1:
        raise ConfigError(f"trainer.num_nodes={config.trainer.num_nodes}: a TPU's hosts are found by torch_xla")
    if config.trainer.strategy != "auto":
        raise ConfigError(f"trainer.strategy={config.trainer.strategy}: with trainer.accelerator=tpu only auto")
    steps = xla.steps_per_execution(config, os.environ.get("PJRT_DEVICE", "TPU"))
    xla.require_device()
    from digits.xla.backend import XLABackend  # here torch_xla is imported, which chooses its devices at once
    from digits.xla.trainer import trainer_arguments

    backend = XLABackend()
    return backend, trainer_arguments(config, backend, steps)


def _place_on_cpu_or_gpu(config: Config, accelerator: str) -> tuple[Backend, dict[str, Any]]:
    precision = config.trainer.precision
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
    device_type = "cpu" if accelerator == "cpu" else "cuda" if torch.cuda.is_available() else "mps"
    backend, placement = _place_processes(config, device_type)
    placement |= {"accelerator": accelerator, "precision": precision}
    if precision == "auto" and accelerator == "cpu" and backend.processes == 1:
        placement |= {"precision": None, "plugins": [choose_precision(config)]}
    elif precision == "auto":  # the CPUs of several machines may differ, their precision must not
        bfloat16 = accelerator != "cpu" and native_bfloat16(accelerator)
        placement["precision"] = "bf16-mixed" if bfloat16 else "32-true"
    return backend, placement


def _place_processes(config: Config, device_type: str) -> tuple[Backend, dict[str, Any]]:
    """The backend, and the Trainer's arguments, for as many processes as ``config`` and what has started this one say.

    Args:
        config: the run's settings.
        device_type: "cpu", "cuda" or "mps".

    Raises:
        ConfigError: there are not so many devices, or they cannot share a batch equally.
    """
    devices, nodes, external = config.trainer.devices, config.trainer.num_nodes, launcher()
    there = torch.cuda.device_count() if device_type == "cuda" else 1
    if device_type == "cuda":
        _check_gpus(devices, there)
    elif devices == -1 or isinstance(devices, list) or (device_type == "mps" and devices not in ("auto", 1)):
        allowed = "auto, or a number of processes" if device_type == "cpu" else "auto or 1"
        raise ConfigError(f"trainer.devices={devices}: goes with trainer.accelerator=gpu and CUDA; here use {allowed}")
    count = there if devices == -1 else len(devices) if isinstance(devices, list) else devices
    if external is not None:
        here = int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or 1)
        _check_started(config, here, external.world_size() // here)
        count, nodes = here, external.world_size() // here
    elif nodes > 1:
        raise ConfigError(
            f"trainer.num_nodes={nodes}: needs torchrun, on each of the machines: torchrun --nnodes={nodes} "
            "--nproc-per-node=DEVICES --rdzv-backend=c10d --rdzv-endpoint=FIRST_MACHINE:29500 train.py ...; "
            "or Slurm's srun"
        )
    if count == "auto":
        count = 1
        if there > 1:
            _say_idle(there)
    placement: dict[str, Any] = {"devices": devices if isinstance(devices, list) else count, "num_nodes": nodes}
    if count * nodes == 1:
        return Backend(device_type), placement | {"strategy": "auto"}
    if config.data.batch_size % (count * nodes):
        raise ConfigError(
            f"data.batch_size={config.data.batch_size}: {count * nodes} processes share it equally; "
            f"allowed are multiples of {count * nodes}"
        )
    strategy = GlobalBatchDDP(external or OwnProcesses(), config.seed)
    placement |= {"strategy": strategy, "use_distributed_sampler": False}
    return DDPBackend(device_type, count * nodes), placement


@functools.cache  # once for all jobs of a sweep
def _say_idle(there: int) -> None:
    log.info("%d of %d GPUs are idle: trainer.devices=-1 trains on all of them", there - 1, there)


def _check_gpus(devices: Any, there: int) -> None:
    numbers = devices if isinstance(devices, list) else []
    if len(set(numbers)) < len(numbers) or max(numbers, default=0) >= there:
        raise ConfigError(f"trainer.devices={numbers}: allowed are different numbers from 0 to {there - 1}")
    if isinstance(devices, int) and devices > there:
        raise ConfigError(f"trainer.devices={devices}: {there} GPUs are here; allowed is 1 to {there}, or -1 for all")


def _check_started(config: Config, here: int, nodes: int) -> None:
    """Raise ConfigError where the settings ask for other numbers than what torchrun or Slurm has started."""
    devices = config.trainer.devices
    count = len(devices) if isinstance(devices, list) else devices
    if count not in ("auto", -1, here):
        raise ConfigError(f"trainer.devices={devices}: {here} processes were started here; leave it out")
    if config.trainer.num_nodes not in (1, nodes):
        raise ConfigError(f"trainer.num_nodes={config.trainer.num_nodes}: {nodes} were started; leave it out")
