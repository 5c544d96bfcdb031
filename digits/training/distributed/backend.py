"""The backend of one of several processes."""

from typing import Any

import torch
import torch.distributed as dist

from digits.backend import Backend
from digits.network import Network
from digits.network.fast import Forward
from digits.training.distributed.batch_norm import share_statistics
from digits.training.distributed.strategy import silent_gloo


class DDPBackend(Backend):
    """As of a single device, but for what the processes have to share or to agree on.

    Args:
        device_type: "cpu" or "cuda".
        processes: how many there are.
    """

    def __init__(self, device_type: str, processes: int) -> None:
        super().__init__(device_type)
        self.processes = processes
        self._host_group: Any = None

    def agree(self, *numbers: int) -> tuple[int, ...]:
        """The greatest of each over all processes, which all have to ask for it at the same time."""
        if self._host_group is None:  # by Gloo, as a GPU, which runs behind the host, is not to be waited for
            with silent_gloo():
                self._host_group = dist.group.WORLD if dist.get_backend() == "gloo" else dist.new_group(backend="gloo")
        tensor = torch.tensor(numbers)
        dist.all_reduce(tensor, dist.ReduceOp.MAX, self._host_group)
        return tuple(tensor.tolist())

    def random_state(self) -> dict[str, Any]:
        """The states of all processes' generators; the first one's are where a single process looks for its own."""
        gpus = [torch.cuda.get_rng_state()] if self.device_type == "cuda" else []
        states: list[Any] = [None] * self.processes
        dist.all_gather_object(states, {"cpu": torch.get_rng_state(), "gpus": gpus})
        return states[0] | {"others": states[1:]}

    def restore_random_state(self, state: dict[str, Any]) -> None:
        """Each process goes back to its own; with another number of processes to one that follows from the first's."""
        states, rank = [state, *state.get("others", [])], dist.get_rank()
        if len(states) != self.processes:
            torch.set_rng_state(state["cpu"].cpu())
            torch.manual_seed(int(torch.randint(2**62, ())) + rank)
            return
        torch.set_rng_state(states[rank]["cpu"].cpu())
        if self.device_type == "cuda" and states[rank]["gpus"]:
            torch.cuda.set_rng_state(states[rank]["gpus"][0].cpu())

    def accelerate(self, network: Network, training: bool = False, compiled: bool = False) -> Forward:
        """For training the network itself, with batch statistics over all processes."""
        if not training:
            return super().accelerate(network)
        share_statistics(network)
        return network.__call__
