"""Evaluation on a CPU: the same network in fewer and cheaper passes over memory, about twice as fast.

Three of the four batch normalizations after convolutions are folded into the next convolution, and oneDNN's
convolutions apply ReLU on the way. torch's max pooling converts each bfloat16 to float32 and back. A comparison needs
neither: floats that are not negative keep their order when their bits are read as integers.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from digits.network.deepdigits import BatchNorm, DeepDigits
from digits.network.fast.folded import folded_weights, scale_and_shift

Kernel = tuple[Tensor, Tensor]  # of a convolution, and its bias
INTEGERS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}  # of the same width


def forward(network: DeepDigits, images: Tensor, kernels: list[Kernel] | None = None) -> Tensor:
    """Logits (N, 10) of ``images`` (N, 1, 28, 28), as `network(images)` gives them in evaluation mode.

    Gradients cannot be taken through it. ``kernels`` are its :func:`folded_kernels`, where they are known already.
    """
    layers: list[Any] = list(network.features)
    conv1, _, _, _, _, norm2, _, _, _, _, _, _, _, norm4, _, _, flatten = layers
    if (norm2.weight < 0).any() or (norm4.weight < 0).any():  # normalizing after pooling would pick the least of four
        return network(images)
    kernel1, kernel2, kernel3, kernel4 = folded_kernels(network) if kernels is None else kernels
    x = conv_relu(kernel1, images.to(conv1.weight.dtype))
    x = max_pool(conv_relu(kernel2, x))
    x = max_pool(conv_relu(kernel4, conv_relu(kernel3, x)))
    return network.head(flatten(norm4(x)))  # folding it into the dense layer's kernel takes longer for few images


def folded_kernels(network: DeepDigits) -> list[Kernel]:
    """The four kernels of ``network`` in evaluation mode, each with the batch normalization before it folded in."""
    layers: list[Any] = [layer for layer in network.features if isinstance(layer, nn.Conv2d | BatchNorm)]
    convolutions, norms = layers[::2], layers[1::2]
    kernels = [(convolutions[0].weight, convolutions[0].bias)]
    for convolution, norm in zip(convolutions[1:], norms, strict=False):  # the last one is before the dense layers
        kernels.append(folded_weights(convolution, *scale_and_shift(norm, norm.running_mean, norm.running_var)))
    return kernels


def conv_relu(kernel: Kernel, x: Tensor) -> Tensor:
    """``relu(conv2d(x, *kernel))`` of ``x`` (N, C, H, W)."""
    weight, bias = kernel
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else weight.dtype
    if not _has_fused_relu(dtype):
        return F.relu(F.conv2d(x, weight, bias))
    weight, bias = weight.to(dtype, memory_format=torch.channels_last), bias.to(dtype)
    # what torch's compiler replaces the two by: oneDNN's convolution with ReLU as its last step
    fused = torch.ops.mkldnn._convolution_pointwise
    return fused(x.to(dtype), weight, bias, [0, 0], [1, 1], [1, 1], 1, "relu", [], "")


def _has_fused_relu(dtype: torch.dtype) -> bool:
    """Whether oneDNN is there and convolves ``dtype`` itself, which for bfloat16 not every CPU does."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def max_pool(x: Tensor) -> Tensor:
    """``max_pool2d(x, 2)`` of ``x`` (N, C, H, W), not negative, where H and W are even."""
    if x.dtype not in INTEGERS or not x.is_contiguous(memory_format=torch.channels_last):
        return F.max_pool2d(x, 2)
    n, c, h, w = x.shape
    rows = x.view(INTEGERS[x.dtype]).permute(0, 2, 3, 1).view(n, h // 2, 2, w * c)
    columns = torch.maximum(rows[:, :, 0], rows[:, :, 1]).view(n, h // 2, w // 2, 2, c)
    return torch.maximum(columns[:, :, :, 0], columns[:, :, :, 1]).view(x.dtype).permute(0, 3, 1, 2)
