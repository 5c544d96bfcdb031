"""The convolutional networks: images in, logits out."""

from torch import Tensor

from digits.network.base import Network
from digits.network.build import build_network
from digits.network.deepdigits import WEIGHTS, DeepDigits
from digits.network.layers import BatchNorm

__all__ = ["WEIGHTS", "BatchNorm", "DeepDigits", "Network", "build_network", "to_input"]


def to_input(images: Tensor) -> Tensor:
    """uint8 pixels (N, 28, 28), 255 = ink, to what the network takes: float32 (N, 1, 28, 28) in [0, 1]."""
    return images.unsqueeze(1).float() / 255
