"""Batch normalization by the statistics of the global batch, of which each process has an equal part."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_reduce
from torch.nn.modules.batchnorm import _BatchNorm

from digits.network import BatchNorm
from digits.network.fast.folded import scale_and_shift


def global_statistics(x: Tensor) -> tuple[Tensor, Tensor, int]:
    """Mean and biased variance (C,) of ``x`` (N, C, ...) over the parts of all processes, and of how many values.

    Gradients flow back to all parts.
    """
    dims = [dim for dim in range(x.dim()) if dim != 1]
    processes = dist.get_world_size()
    moments = all_reduce(torch.stack([x.mean(dims), x.square().mean(dims)])) / processes
    mean, square = moments.unbind()
    return mean, (square - mean.square()).clamp(min=0), x.numel() // x.shape[1] * processes


def _normalized(x: Tensor, scale: Tensor, shift: Tensor, dtype: torch.dtype) -> Tensor:
    shape = (-1, *[1] * (x.dim() - 2))
    return (x * scale.view(shape) + shift.view(shape)).to(dtype)


class GlobalBatchNorm(BatchNorm):
    """The project's, as Keras has it."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalize ``x`` (N, C, ...), this process's part of the batch."""
        if not self.training:
            return super().forward(x)
        values = x.to(self.weight.dtype)
        mean, var, _ = global_statistics(values)
        return _normalized(values, *scale_and_shift(self, mean, var), x.dtype)


class GlobalTorchBatchNorm(_BatchNorm):
    """torch's, of any number of dimensions; its running variance takes in the unbiased one of the batch."""

    def _check_input_dim(self, input: Tensor) -> None:
        """Any will do: it was checked for the layer that this one takes the place of."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize ``input`` (N, C, ...), this process's part of the batch."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return super().forward(input)
        values = input.to(self.running_mean.dtype)
        mean, var, n = global_statistics(values)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        share: Any = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum  # type: ignore[arg-type]
        with torch.no_grad():
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(var * n / max(n - 1, 1), share)
        scale = (var + self.eps).rsqrt() * (1 if self.weight is None else self.weight)
        shift = (0 if self.bias is None else self.bias) - mean * scale
        return _normalized(values, scale, shift, input.dtype)


def share_statistics(network: nn.Module) -> None:
    """Let all batch normalizations of ``network`` be by global statistics from now on; its state stays as it is."""
    for module in network.modules():
        if type(module) is BatchNorm:
            module.__class__ = GlobalBatchNorm
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            module.__class__ = GlobalTorchBatchNorm  # type: ignore[assignment]
