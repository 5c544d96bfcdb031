"""DeepDigits with its batch normalizations folded into their neighbours: the same maths in fewer passes over memory.

On an accelerator a training step of this network is bound by reading and writing its first activations, not by its
products. Normalizing is ``x * scale + shift`` with two numbers a channel. Before a convolution without padding they
are folded into its kernel and bias, and before a pooling they are applied to the quarter that the pooling leaves.
Autograd follows: the gradients of scale and shift come from those of the kernel, not from the activations.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from digits.network.deepdigits import BatchNorm, DeepDigits

HUGE = 3e38  # times the least normal number of float32 and bfloat16 it is above 1


def forward(network: DeepDigits, images: Tensor) -> Tensor:
    """Logits (N, 10) of ``images`` (N, 1, 28, 28), as `network(images)` gives them, in training and in evaluation."""
    layers: list[Any] = list(network.features)
    conv1, _, norm1, conv2, _, norm2, _, drop2, conv3, _, norm3, conv4, _, norm4, _, drop4, flatten = layers
    x = relu(conv1(images.to(conv1.weight.dtype)))
    x = conv(conv2, x, *norm_scale_and_shift(norm1, x))
    x = drop2(relu_norm_max_pool(norm2, x))
    x = relu(conv3(x))
    x = conv(conv4, x, *norm_scale_and_shift(norm3, x))
    x = flatten(drop4(relu_norm_max_pool(norm4, x)))
    for layer in network.head:
        x = batch_norm(layer, x) if isinstance(layer, BatchNorm) else layer(x)
    return x


class _SignedReLU(torch.autograd.Function):
    """``sign * max(x, 0)`` with a sign of 1 or -1, and a gradient that is read off the result.

    It is written without a comparison, whose outcome XLA would keep in memory beside the result.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, sign: Tensor | int) -> Tensor:
        y = F.relu(x) * sign
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return gradient * (y * HUGE).clamp(-1, 1), None


def relu(x: Tensor, sign: Tensor | int = 1) -> Tensor:
    """``sign * max(x, 0)`` of ``x`` (N, C, H, W); a tensor of signs is (C, 1, 1)."""
    return cast(Tensor, _SignedReLU.apply(x, sign))


def scale_and_shift(norm: BatchNorm, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
    """What ``norm`` multiplies activations of this ``mean`` and biased ``var`` (C,) by and then adds, (C,) each.

    In training mode its running statistics take them in.
    """
    if norm.training:
        with torch.no_grad():
            norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), norm.momentum)
            norm.running_var.lerp_(var.to(norm.running_var.dtype), norm.momentum)
    scale = norm.weight * (var + norm.eps).rsqrt()
    return scale, norm.bias - mean * scale


def norm_scale_and_shift(norm: BatchNorm, x: Tensor, sign: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What ``norm`` multiplies ``x`` (N, C, ...), or with ``sign`` (C,) ``x * sign``, by and then adds, (C,) each."""
    if not norm.training:
        return scale_and_shift(norm, norm.running_mean, norm.running_var)
    dims = [dim for dim in range(x.dim()) if dim != 1]
    x = x.to(norm.weight.dtype)
    mean = x.mean(dims)
    mean = mean if sign is None else mean * sign
    return scale_and_shift(norm, mean, (x.square().mean(dims) - mean.square()).clamp(min=0))


def batch_norm(norm: BatchNorm, x: Tensor) -> Tensor:
    """``norm(x)`` of ``x`` (N, C)."""
    scale, shift = norm_scale_and_shift(norm, x)
    return (x * scale + shift).to(x.dtype)


def folded_weights(layer: nn.Conv2d, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Kernel and bias of the convolution that gives ``layer(x * scale + shift)``, (C,) each; it must not pad."""
    bias = cast(Tensor, layer.bias) + (layer.weight.sum((2, 3)) * shift).sum(1)
    dtype = layer.weight.dtype
    return (layer.weight * scale[:, None, None]).to(dtype), bias.to(dtype)


def conv(layer: nn.Conv2d, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``layer(x * scale + shift)`` of ``x`` (N, C, H, W) and (C,) twice; ``layer`` must not pad."""
    return F.conv2d(x, *folded_weights(layer, scale, shift))


def relu_norm_max_pool(norm: BatchNorm, x: Tensor) -> Tensor:
    """``max_pool2d(norm(relu(x)), 2)`` of ``x`` (N, C, H, W).

    Multiplying by a positive number keeps the greatest of four numbers the greatest; a negative one makes it the
    least, so the sign is applied before pooling and its absolute value after it.
    """
    sign = torch.where(norm.weight < 0, -1.0, 1.0)
    x = relu(x, sign.to(x.dtype)[:, None, None])
    scale, shift = norm_scale_and_shift(norm, x, sign)
    return (F.max_pool2d(x, 2) * (scale * sign)[:, None, None] + shift[:, None, None]).to(x.dtype)
