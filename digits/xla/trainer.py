"""Arguments of Lightning's Trainer for XLA devices."""

from typing import Any

from digits.errors import ConfigError
from digits.settings.schema import Config
from digits.xla.backend import XLABackend
from digits.xla.lightning import MarkStep, SPMDStrategy, StepPrecision, Trace
from digits.xla.many_steps import Executions, ManyStepsStrategy

MIXED = {"auto": True, "bf16-mixed": True, "bf16": True, "32-true": False, "32": False, 32: False}


def trainer_arguments(config: Config, backend: XLABackend, steps: int) -> dict[str, Any]:
    """Arguments of the Trainer to train on all XLA devices as ``config`` says, with so many ``steps`` in a program.

    ``first_callbacks`` among them come before those that take part in a step, ``callbacks`` after them.

    Raises:
        ConfigError: a setting is not possible on XLA devices.
    """
    settings, batch_size = config.trainer, config.data.batch_size
    if settings.devices != "auto":
        raise ConfigError(
            f"trainer.devices={settings.devices}: with trainer.accelerator=tpu only auto is possible: all cores"
        )
    if settings.precision not in MIXED:
        raise ConfigError(
            f"trainer.precision={settings.precision}: with trainer.accelerator=tpu: auto, 32-true or bf16-mixed"
        )
    precision = StepPrecision(MIXED[settings.precision])
    strategy = SPMDStrategy(precision) if steps == 1 else ManyStepsStrategy(precision, backend, steps, config.seed)
    if batch_size % strategy.cores:
        raise ConfigError(
            f"data.batch_size={batch_size}: {strategy.cores} cores share it equally; "
            f"allowed are multiples of {strategy.cores}"
        )
    trace = settings.profiler == "xla"
    return {
        "accelerator": "auto",
        "strategy": strategy,
        "devices": 1,
        "precision": None,
        "profiler": None if trace else settings.profiler,
        "first_callbacks": [] if steps == 1 else [Executions()],
        "callbacks": [MarkStep(config.seed), *([Trace(steps)] if trace else [])],
        "log_every_n_steps": max(settings.log_every_n_steps, steps * settings.accumulate_grad_batches),
    }
