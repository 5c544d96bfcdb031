"""Layers as Keras has them, where torch's differ."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchNorm(nn.Module):
    """Batch normalization over dimension 1 as Keras computes it.

    Keras's momentum 0.99 is torch's 0.01, its epsilon is 1e-3, and its running variance takes in the biased variance
    of a batch (torch: the unbiased one). Statistics stay in the module's dtype, whatever the dtype of the input.
    """

    eps = 1e-3

    def __init__(self, features: int) -> None:
        super().__init__()
        self.momentum: float | Tensor = 0.01  # a tensor (1,) where it is an input of a compiled step
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.running_mean = nn.Buffer(torch.zeros(features))
        self.running_var = nn.Buffer(torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``x`` (N, C, ...); in training mode by its own statistics, which the running ones take in."""
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        mean, var = self.running_mean.clone(), self.running_var.clone()  # autograd keeps the tensors it is given
        out = F.batch_norm(x, mean, var, self.weight, self.bias, True, cast(float, self.momentum), self.eps)
        n = x.numel() / x.shape[1]
        with torch.no_grad():  # torch took in n / (n - 1) times the biased variance: take the surplus out again
            self.running_var.copy_(var.lerp((1 - self.momentum) * self.running_var, 1 / n))
            self.running_mean.copy_(mean)
        return out


class ChannelsLastFlatten(nn.Module):
    """Flatten (N, C, H, W) in Keras's order (H, W, C), which is also how channels-last tensors lie in memory."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, H * W * C)."""
        return x.permute(0, 2, 3, 1).flatten(1)
