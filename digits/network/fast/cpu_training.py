"""Training on a CPU: the plain layers with a cheaper dropout."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from digits.network.deepdigits import DeepDigits

BFLOAT16_ONE = 0x3F80  # the bits of 1.0


def forward(network: DeepDigits, images: Tensor) -> Tensor:
    """Logits (N, 10) of ``images`` (N, 1, 28, 28), as `network(images)` gives them."""
    return apply_layers([*network.features, *network.head], images.to(next(network.parameters()).dtype))


def apply_layers(layers: Iterable[nn.Module], x: Tensor) -> Tensor:
    """``x`` passed through ``layers`` one after the other, with :func:`dropout` in the place of torch's."""
    for layer in layers:
        x = dropout(x, layer.p) if isinstance(layer, nn.Dropout) and layer.training and layer.p else layer(x)
    return x


def dropout(x: Tensor, p: float) -> Tensor:
    """Zero a share ``p`` of the activations and scale the others by ``1 / (1 - p)``.

    torch draws one random double for each activation on a CPU, a tenth of a training step. Here 16 random bits decide,
    so one draw of 64 serves four activations, and ``p`` is exact to 1 / 65,536.

    Returns:
        Same shape, dtype and memory layout as ``x``, which must be dense.
    """
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    threshold = min(round(p * 2**16), 2**16 - 1) - 2**15  # within int16
    keep = bits.ge_(threshold)  # 1 or 0
    if x.dtype == torch.bfloat16:
        keep = keep.mul_(BFLOAT16_ONE).view(x.dtype)  # converting it would cost more than all the rest
    return x * keep.as_strided(x.shape, x.stride()) * (1 / (1 - p))
