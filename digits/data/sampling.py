"""Which images go into which split, and into which batch."""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler


class BatchSampler(Sampler[Tensor]):
    """Yields the indices of each global batch, int32 (batch_size,).

    With a ``seed`` they are shuffled, differently in each epoch and the same in each run, and an incomplete last batch
    is dropped, as Keras's ``steps_per_epoch`` does. Without one they come in order, and an incomplete last batch is
    padded with -1: batches of a single size are compiled only once, and can be sharded equally.

    Args:
        size: number of images.
        batch_size: of these in a batch.
        seed: of the order; None: as they are.
        extra: how many of the images, the last ones, are oversampled: an epoch goes once through the others, and each
            of its batches ends with ``extra_in_batch`` of these, none of them twice.
        extra_in_batch: at most ``extra``, and less than ``batch_size``.
    """

    def __init__(
        self, size: int, batch_size: int, seed: int | None = None, extra: int = 0, extra_in_batch: int = 0
    ) -> None:
        self.size = size
        self.batch_size = batch_size
        self.seed = seed
        self.extra = extra
        self.extra_in_batch = extra_in_batch
        self.epoch = 0
        self._done = 0  # how many are left out, once

    def skip(self, batches: int) -> None:
        """Begin the next pass behind so many batches, as a run does that is resumed within an epoch."""
        self._done = batches

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch, so a resumed run shuffles as an uninterrupted one would."""
        self.epoch = epoch

    def __len__(self) -> int:
        if self.seed is None:
            return -(-self.size // self.batch_size)
        return (self.size - self.extra) // (self.batch_size - self.extra_in_batch)

    def __iter__(self) -> Iterator[Tensor]:
        if self.seed is None:
            order = torch.full((len(self) * self.batch_size,), -1, dtype=torch.int32)
            order[: self.size] = torch.arange(self.size)
        else:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.size - self.extra, generator=generator).int()
            if self.extra_in_batch:
                order = self._with_extra(order, generator)
        done, self._done = self._done, 0
        yield from order.split(self.batch_size)[done : len(self)]

    def _with_extra(self, order: Tensor, generator: torch.Generator) -> Tensor:
        """The batches of ``order``, each with its part of what is oversampled, in a row."""
        drawn = [torch.randperm(self.extra, generator=generator)[: self.extra_in_batch] for _ in range(len(self))]
        extra = self.size - self.extra + torch.stack(drawn).int()
        order = order[: len(self) * (self.batch_size - self.extra_in_batch)]
        return torch.cat([order.view(len(self), -1), extra], dim=1).flatten()


def stratified_split(labels: Tensor, val_size: int, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the ``val_size`` validation images; each class keeps its share in both."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    by_class = order[labels[order].argsort(stable=True)]
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[torch.arange(val_size) * len(labels) // max(val_size, 1)] = True  # evenly spaced over the classes
    return by_class[~held_out].sort().values, by_class[held_out].sort().values


def split_each_class(labels: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Indices of what is kept and of the ``share`` of each class that is held out, rounded; each class keeps one."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        of_class = order[labels[order] == label]
        held_out[of_class[: min(round(share * len(of_class)), len(of_class) - 1)]] = True
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()
