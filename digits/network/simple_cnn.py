"""The three networks of An et al. 2020, "An Ensemble of Simple Convolutional Neural Network Models for MNIST".

arXiv:2008.10400; the authors' code is at github.com/ansh941/MnistSimpleCNN.
"""

from itertools import pairwise

from torch import Tensor, nn

from digits.network.base import Network
from digits.network.layers import ChannelsLastFlatten

CHANNELS = {3: range(32, 177, 16), 5: range(32, 161, 32), 7: range(48, 193, 48)}  # of each layer, by its kernel


class SimpleCNN(Network):
    """Convolutions without padding and without pooling, each with batch normalization before ReLU; one dense layer.

    Args:
        kernel: 3 for M3 (10 convolutions; 1,126,280 parameters), 5 for M5 (5; 1,129,160), 7 for M7 (4; 2,292,952).
    """

    config_name = "simple_cnn"

    def __init__(self, kernel: int = 5) -> None:
        super().__init__()
        self.kernel = kernel
        layers: list[nn.Module] = []
        for before, after in pairwise([1, *CHANNELS[kernel]]):
            layers += [nn.Conv2d(before, after, kernel, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        side = 28 - len(CHANNELS[kernel]) * (kernel - 1)
        self.features = nn.Sequential(*layers, ChannelsLastFlatten())
        self.head = nn.Sequential(nn.Linear(side * side * after, 10, bias=False), nn.BatchNorm1d(10))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 10) of ``images`` (N, 1, 28, 28), float in [0, 1] (pixel / 255, 1 = ink)."""
        return self.head(self.features(images.to(next(self.parameters()).dtype) * 2 - 1))
