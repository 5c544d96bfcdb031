"""Adam as Keras has it, and what an optimizer takes of a checkpoint that another device may have written."""

from typing import Any

import torch
from torch import Tensor


class KerasAdam(torch.optim.Adam):
    """Adam with Keras's epsilon.

    Keras adds epsilon to the root of the raw second moment, torch to that of the bias-corrected one: Kingma & Ba
    2015's "epsilon hat", of consequence in the first few hundred steps and for small gradients.
    """

    keras_eps = 1e-7

    def step(self, closure: Any = None) -> Any:
        """One step; ``closure`` computes the loss."""
        for group in self.param_groups:
            state = self.state.get(group["params"][0])
            steps: Any = state["step"] if state else 0
            if not group["capturable"]:  # else the count stays on the device: as a number it would change the program
                steps = float(steps)
            group["eps"] = self.keras_eps / (1 - group["betas"][1] ** (steps + 1)) ** 0.5
        return super().step(closure)


def load_across_devices(optimizer: torch.optim.Optimizer) -> None:
    """Let ``optimizer`` load the state of one that ran on another device."""
    optimizer.register_load_state_dict_pre_hook(_keep_own_options)
    optimizer.register_load_state_dict_post_hook(_match_memory_layouts)


def _keep_own_options(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Take the state and the rate of a checkpoint; how steps are computed is this device's own matter."""
    groups = []
    for own, loaded in zip(optimizer.param_groups, state["param_groups"], strict=True):
        number = float(loaded["lr"])
        rate = torch.full_like(own["lr"], number) if isinstance(own["lr"], Tensor) else number
        groups.append(loaded | {"lr": rate} | {name: own[name] for name in ("capturable", "fused", "foreach")})
    return state | {"param_groups": groups}


def _match_memory_layouts(optimizer: torch.optim.Optimizer) -> None:
    """Lay each parameter's state out in memory as the parameter is.

    The fused kernels go through memory from end to end: with another layout they would pair the wrong numbers.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)
