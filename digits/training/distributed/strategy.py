"""Lightning's DDP, by which each process takes its part of every global batch."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor

from digits.data.module import Batch


@contextlib.contextmanager
def silent_gloo() -> Iterator[None]:
    """While it is entered, nothing is printed: Gloo, in C++, tells the standard output whenever processes meet."""
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


class GlobalBatchDDP(DDPStrategy):
    """Gradients are averaged over equal parts of the batch, which gives those of the whole.

    What lies in files is read by the first process alone, which sends it to the others: they may be on another machine.

    Args:
        environment: says which of the processes this one is, and where the first one listens.
        seed: of the run; each process draws dropout and augmentation of its own from it.
    """

    def __init__(self, environment: ClusterEnvironment, seed: int) -> None:
        # batch statistics are the same everywhere, so no buffers need to be sent before each step
        super().__init__(cluster_environment=environment, broadcast_buffers=False)
        self.seed = seed

    def setup_distributed(self) -> None:
        """Meet the other processes, in silence."""
        with silent_gloo():
            super().setup_distributed()

    def setup(self, trainer: Any) -> None:
        """Let the random generators of the processes, which have been equal for the weights, go different ways."""
        super().setup(trainer)
        torch.manual_seed(self.seed + 1_000_003 * self.global_rank)

    def process_dataloader(self, dataloader: Any) -> Any:
        """Let the dataset, which is already on the device, send its part of a batch's indices."""
        dataloader.dataset.send = self.send
        return dataloader

    def send(self, indices: Tensor) -> Tensor:
        """What of a global batch's indices (N,) is this process's, on its device."""
        return indices.chunk(self.world_size)[self.global_rank].to(self.root_device)

    def batch_to_device(self, batch: Batch, device: torch.device | None = None, dataloader_idx: int = 0) -> Batch:
        """``batch``, which is there."""
        return batch

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """What the first process reads; of an epoch's measurements so far it alone goes on with the sum."""
        content = super().load_checkpoint(checkpoint_path, weights_only) if self.is_global_zero else {}
        content = self.broadcast(content)
        return content if self.is_global_zero else content | {"measured": {}}
