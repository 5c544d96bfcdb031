"""The convolutional network: images in, logits out."""

from torch import Tensor

from digits.network.deepdigits import WEIGHTS, BatchNorm, DeepDigits

__all__ = ["WEIGHTS", "BatchNorm", "DeepDigits", "to_input"]


def to_input(images: Tensor) -> Tensor:
    """uint8 pixels (N, 28, 28), 255 = ink, to what the network takes: float32 (N, 1, 28, 28) in [0, 1]."""
    return images.unsqueeze(1).float() / 255
