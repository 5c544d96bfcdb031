"""A network of another kind, which is trained first, reads MNIST better than DeepDigits, and is learnt from."""

from collections.abc import Callable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from digits.network import BatchNorm, ChannelsLastFlatten, weight_layers


class Teacher(nn.Module):
    """Five convolutions of 5 x 5 pixels and a linear layer: no padding, pooling or dropout; 1,127,860 parameters.

    M5 of An et al. 2020, arXiv:2008.10400. It is a part of the training only: no model folder has it.
    """

    channels = (1, 32, 64, 96, 128, 160)
    forward_in_training: Callable[["Teacher", Tensor], Tensor] | None = None  # a faster way to the same logits

    def __init__(self) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for inputs, outputs in pairwise(self.channels):
            blocks += [nn.Conv2d(inputs, outputs, kernel_size=5, bias=False), BatchNorm(outputs), nn.ReLU()]
        self.features = nn.Sequential(*blocks, ChannelsLastFlatten())
        self.dense = nn.Linear(8 * 8 * self.channels[-1], 10, bias=False)
        self.norm = BatchNorm(10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 10) of ``images`` (N, 1, 28, 28), float in [0, 1] (pixel / 255, 1 = ink)."""
        images = 2 * images.to(self.dense.weight.dtype) - 1
        if images.device.type != "xla":
            images = images.contiguous(memory_format=torch.channels_last)
        if self.training and self.forward_in_training is not None:
            return self.forward_in_training(self, images)
        return self.norm(self.dense(self.features(images)))

    def weight_layers(self) -> list[nn.Conv2d | nn.Linear]:
        """The six layers with a kernel."""
        return weight_layers(self)

    def l2_penalty(self) -> Tensor:
        """Nothing: the original's L2 is of DeepDigits' kernels."""
        return torch.zeros((), device=self.dense.weight.device)


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of ``logits`` with the ``teacher``'s, (N, 10) each, both softened by ``temperature`` > 0; a scalar.

    Times the square of the temperature, so that gradients keep their size (Hinton et al. 2015, arXiv:1503.02531).
    """
    return temperature**2 * F.cross_entropy(logits / temperature, (teacher / temperature).softmax(1))
