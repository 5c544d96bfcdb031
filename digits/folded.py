"""DeepDigits with its batch normalisations folded into their neighbours: the same maths in fewer passes over memory.

On an accelerator a training step of this network is bound by reading and writing its first activations, not by its
products. Normalising is ``x * scale + shift`` with two numbers a channel. Before a convolution without padding these
go into its kernel and bias, and before a pooling they are applied to what the pooling leaves, a quarter. Autograd
follows: the gradients of scale and shift come from those of the kernel, not from the activations.
"""

from typing import TYPE_CHECKING, Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from digits.network import BatchNorm, DeepDigits


class _SignedReLU(torch.autograd.Function):
    """``sign * max(x, 0)`` with a sign of 1 or -1, and a gradient that is read off the result.

    It is written without a comparison: XLA would keep its outcome in memory, beside the result.
    """

    huge = 3e38  # times the least normal number of float32 and bfloat16 it is above 1

    @staticmethod
    def forward(ctx: Any, x: Tensor, sign: Tensor | int) -> Tensor:
        y = F.relu(x) * sign
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (y,) = ctx.saved_tensors
        return gradient * (y * _SignedReLU.huge).clamp(-1, 1), None


def relu(x: Tensor, sign: Tensor | int = 1) -> Tensor:
    """``sign * max(x, 0)`` of ``x`` (N, C, H, W); a tensor of signs is (C, 1, 1)."""
    return cast(Tensor, _SignedReLU.apply(x, sign))


def kernel_and_bias(layer: nn.Conv2d, scale: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Of the convolution that gives ``layer(x * scale + shift)``, (C,) twice, where ``layer`` does not pad."""
    bias = cast(Tensor, layer.bias) + (layer.weight.sum((2, 3)) * shift).sum(1)
    dtype = layer.weight.dtype
    return (layer.weight * scale[:, None, None]).to(dtype), bias.to(dtype)


def conv(layer: nn.Conv2d, x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """``layer(x * scale + shift)`` of ``x`` (N, C, H, W) and (C,) twice, where ``layer`` does not pad."""
    return F.conv2d(x, *kernel_and_bias(layer, scale, shift))


def normalisation(norm: "BatchNorm", x: Tensor, sign: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """What ``norm`` multiplies ``x`` (N, C, ...), or with ``sign`` (C,) ``x * sign``, by and then adds, (C,) each."""
    if not norm.training:
        return norm.scale_and_shift(norm.running_mean, norm.running_var)
    dims = [dim for dim in range(x.dim()) if dim != 1]
    x = x.to(norm.weight.dtype)
    mean = x.mean(dims)
    mean = mean if sign is None else mean * sign
    return norm.scale_and_shift(mean, (x.square().mean(dims) - mean.square()).clamp(min=0))


def relu_max_pool(norm: "BatchNorm", x: Tensor) -> Tensor:
    """``max_pool2d(norm(relu(x)), 2)`` of ``x`` (N, C, H, W).

    Of four numbers a positive factor leaves the same one the greatest; a negative one makes it the least, which the
    sign in front takes care of.
    """
    sign = torch.where(norm.weight < 0, -1.0, 1.0)
    x = relu(x, sign.to(x.dtype)[:, None, None])
    scale, shift = normalisation(norm, x, sign)
    return (F.max_pool2d(x, 2) * (scale * sign)[:, None, None] + shift[:, None, None]).to(x.dtype)


def forward(network: "DeepDigits", images: Tensor) -> Tensor:
    """Logits (N, 10) of ``images`` (N, 1, 28, 28), as ``network.head(network.features(images))`` gives them."""
    layers: list[Any] = list(network.features)
    conv1, _, norm1, conv2, _, norm2, _, drop2, conv3, _, norm3, conv4, _, norm4, _, drop4, flatten = layers
    x = relu(conv1(images))
    x = conv(conv2, x, *normalisation(norm1, x))
    x = drop2(relu_max_pool(norm2, x))
    x = relu(conv3(x))
    x = conv(conv4, x, *normalisation(norm3, x))
    x = drop4(relu_max_pool(norm4, x))
    return network.head(flatten(x))
