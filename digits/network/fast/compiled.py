"""Training on a CPU with ReLU, batch statistics and pooling compiled, so that each passes over memory once.

With torch's own kernels a step passes over the activations some fifteen times, which takes longer than the
convolutions. Only these pieces are given to torch.compile: of the whole network it would leave most to torch's kernels.
"""

import logging
from typing import Any

import torch
import torch._dynamo.config
import torch._inductor.config
import torch.nn.functional as F
from torch import Tensor

from digits.network.deepdigits import DeepDigits
from digits.network.fast import cpu_training
from digits.network.fast.cpu_training import apply_layers
from digits.network.fast.folded import conv, scale_and_shift

torch._dynamo.config.recompile_limit = 64  # two shapes a batch size; by default a sweep of five would be too many
torch._inductor.config.cpp.vec_isa_ok = True  # each set of instructions is tried out otherwise, a second or two each
logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns where CUDA is and no GPU


def available() -> bool:
    """Whether torch.compile works here, which takes a C++ compiler and Python's headers; some seconds."""
    try:
        torch.compile(torch.square)(torch.ones(64))
    except RuntimeError:  # what torch's compiler raises, whatever goes wrong
        return False
    return True


def forward(network: DeepDigits, images: Tensor) -> Tensor:
    """Logits (N, 10) of ``images`` (N, 1, 28, 28), as `network(images)` gives them in training."""
    layers: list[Any] = list(network.features)
    conv1, _, norm1, conv2, _, norm2, _, drop2, conv3, _, norm3, conv4, _, norm4, _, drop4, flatten = layers
    if (norm2.weight < 0).any() or (norm4.weight < 0).any():  # normalizing after pooling would pick the least of four
        return cpu_training.forward(network, images)
    x, *statistics = _ReLU.apply(conv1(images.to(conv1.weight.dtype)))
    x, *statistics = _ReLUMaxPool.apply(conv(conv2, x, *scale_and_shift(norm1, *statistics)))
    x = apply_layers([drop2], _multiply_add(x, *scale_and_shift(norm2, *statistics)))
    x, *statistics = _ReLU.apply(conv3(x))
    x, *statistics = _ReLUMaxPool.apply(conv(conv4, x, *scale_and_shift(norm3, *statistics)))
    x = _multiply_add(x, *scale_and_shift(norm4, *statistics))
    return apply_layers([drop4, flatten, *network.head], x)


class _ReLU(torch.autograd.Function):
    """``relu(x)`` of ``x`` (N, C, H, W), its mean (C,) and its biased variance (C,)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, sums, squares = _relu(_channels_last(x))
        mean, var = _mean_and_variance(sums, squares, y)
        ctx.save_for_backward(y, mean)
        return _channels_first(y), mean, var

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, by_mean: Tensor, by_var: Tensor) -> Tensor:
        y, mean = ctx.saved_tensors
        return _channels_first(_relu_gradient(_channels_last(gradient), y, *_line(y, mean, by_mean, by_var)))


class _ReLUMaxPool(torch.autograd.Function):
    """``max_pool2d(relu(x), 2)`` of ``x`` (N, C, H, W), and mean and biased variance (C,) of ``relu(x)``."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = _channels_last(x)
        pooled, sums, squares = _relu_max_pool(x)
        mean, var = _mean_and_variance(sums, squares, x)
        ctx.save_for_backward(x, mean)
        return _channels_first(pooled), mean, var

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, by_mean: Tensor, by_var: Tensor) -> Tensor:
        x, mean = ctx.saved_tensors
        line = _line(x, mean, by_mean, by_var)
        return _channels_first(_relu_max_pool_gradient(_channels_last(gradient), x, *line))


def _channels_last(x: Tensor) -> Tensor:
    return x.permute(0, 2, 3, 1).contiguous()


def _channels_first(x: Tensor) -> Tensor:
    return x.permute(0, 3, 1, 2)


def _mean_and_variance(sums: Tensor, squares: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    n = x.numel() // x.shape[-1]
    mean = sums.sum(0) / n
    return mean, (squares.sum(0) / n - mean.square()).clamp(min=0)


def _line(x: Tensor, mean: Tensor, by_mean: Tensor, by_var: Tensor) -> tuple[Tensor, Tensor]:
    """Slope and constant (C,) of the gradient that comes to ``x`` through its mean and variance, which is linear."""
    n = x.numel() // x.shape[-1]
    slope = by_var * (2 / n)
    return slope, by_mean / n - slope * mean


def _multiply_add(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``x * scale + shift`` of ``x`` (N, C, H, W) and (C,) twice, in one pass also backwards."""
    return F.batch_norm(x, torch.zeros_like(scale), torch.ones_like(scale), scale, shift, eps=0.0)


def _sums(x: Tensor) -> tuple[Tensor, Tensor]:
    """Of each image (H, W, C) and channel the sum and the sum of squares, float32 or wider (N, C)."""
    x = x.flatten(1, 2)
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x.sum(1), x.square().sum(1)


# ---- what is compiled: functions of activations (N, H, W, C), anew for each shape, as fixed lengths make faster loops


@torch.compile(dynamic=False)
def _relu(x: Tensor) -> tuple[Tensor, ...]:
    y = x.relu()
    return y, *_sums(y)


@torch.compile(dynamic=False)
def _relu_gradient(gradient: Tensor, y: Tensor, slope: Tensor, constant: Tensor) -> Tensor:
    return torch.where(y > 0, gradient + slope * y + constant, 0).to(y.dtype)


@torch.compile(dynamic=False)
def _relu_max_pool(x: Tensor) -> tuple[Tensor, ...]:
    y = x.relu()
    rows = torch.maximum(y[:, ::2], y[:, 1::2])
    return torch.maximum(rows[:, :, ::2], rows[:, :, 1::2]), *_sums(y)


@torch.compile(dynamic=False)
def _relu_max_pool_gradient(gradient: Tensor, x: Tensor, slope: Tensor, constant: Tensor) -> Tensor:
    n, h, w, c = x.shape
    y = x.relu().view(n, h // 2, 2, w // 2, 2, c)
    first = torch.arange(2) == 0  # of equal ones the first gets it all
    beside = y.flip(4)
    greatest = torch.maximum(y, beside)
    below = greatest.flip(2)
    chosen = (y > beside) | ((y == beside) & first[:, None])
    chosen &= (greatest > below) | ((greatest == below) & first[:, None, None, None])
    gradient = torch.where(chosen, gradient[:, :, None, :, None], 0)
    return torch.where(y > 0, gradient + slope * y + constant, 0).to(x.dtype).view(x.shape)
