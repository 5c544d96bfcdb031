"""What a training step changes, as tensors."""

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn


def averages_of(trainer: L.Trainer) -> nn.Module | None:
    """The averages of the weights, as a module like the trained one; None where there are none."""
    callbacks = [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]  # type: ignore[attr-defined]
    return callbacks[0]._average_model.module if callbacks else None  # type: ignore[union-attr]


def training_state(trainer: L.Trainer, module: Any) -> list[Tensor]:
    """Weights, batch statistics, their averages, the optimizer's state and the metrics, always in the same order."""
    modules = filter(None, (module, averages_of(trainer)))
    tensors = [tensor for each in modules for tensor in (*each.parameters(), *each.buffers())]
    tensors += [value for state in trainer.optimizers[0].state.values() for value in state.values()]
    return [*tensors, *module.metrics["fit"].metric_state.values()]


def make_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    """Make the state of Adam or AdamW before their first step, which otherwise does it."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if not optimizer.state[parameter]:
                moments = {name: torch.zeros_like(parameter, requires_grad=False) for name in ("exp_avg", "exp_avg_sq")}
                optimizer.state[parameter] = {"step": torch.zeros((), device=parameter.device)} | moments
