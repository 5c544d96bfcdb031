"""What is measured of a split: the mean loss, the sparse accuracy and the mean cross-entropy."""

import torch
from torch import Tensor
from torchmetrics import Metric

from digits.data.module import PADDING


class LossAndAccuracy(Metric):
    """Mean loss, sparse accuracy (the share of the images whose largest logit is that of the label), cross-entropy.

    Images labelled ``PADDING`` do not count. (torchmetrics' own accuracy takes them out by their positions, which gives
    each batch another shape: XLA would compile anew.) They come as one tensor, so that reading them waits once.
    """

    full_state_update = False

    loss: Tensor
    cross_entropy: Tensor
    correct: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        # one element, not a scalar: XLA makes a constant of a scalar that is 0, and compiles anew when it is not
        self.add_state("loss", torch.zeros(1), dist_reduce_fx="sum")
        self.add_state("cross_entropy", torch.zeros(1), dist_reduce_fx="sum")
        self.add_state("correct", torch.zeros(1, dtype=torch.int32), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(1, dtype=torch.int32), dist_reduce_fx="sum")

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor, cross_entropy: Tensor | None = None) -> None:
        """Count one batch: its mean ``loss`` (a scalar), ``logits`` (N, classes) and ``labels`` int64 (N,).

        ``cross_entropy`` is the part of the loss without any penalty, a scalar; None where nobody asks for it.
        """
        images = (labels != PADDING).sum(dtype=torch.int32)
        self.loss = self.loss + self._sum(loss, images)
        if cross_entropy is not None:
            self.cross_entropy = self.cross_entropy + self._sum(cross_entropy, images)
        self.correct = self.correct + (logits.argmax(1) == labels).sum(dtype=torch.int32)
        self.total = self.total + images

    @staticmethod
    def _sum(mean: Tensor, images: Tensor) -> Tensor:
        return torch.where(images > 0, mean * images, 0)  # of nothing but padding the mean is NaN

    def compute(self) -> Tensor:
        """Mean loss, sparse accuracy and mean cross-entropy, float32 (3,), of what all processes have seen."""
        return self.means()

    def means(self) -> Tensor:
        """The same of what this process has seen."""
        return torch.cat([self.loss, self.correct, self.cross_entropy]) / self.total
