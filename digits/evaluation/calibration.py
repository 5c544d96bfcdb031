"""Temperature scaling, so that a prediction with probability p is right in a share p of cases (Guo et al. 2017)."""

import math

import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

from digits.evaluation.inference import predict_logits
from digits.network import Network, build_network


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The temperature, a divisor of ``logits`` (N, 10), that minimizes the negative log-likelihood of ``labels`` (N,).

    Guo et al. 2017, "On Calibration of Modern Neural Networks". The search is limited to 1/4 to 4, as a few images that
    are all classified correctly would give 0.
    """

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits.double() / math.exp(log_temperature), labels))

    return round(math.exp(minimize_scalar(loss, bounds=(-math.log(4), math.log(4)), method="bounded").x), 4)


def calibrate(network: Network, images: Tensor, labels: Tensor) -> Network:
    """A copy of ``network`` on the CPU, at the temperature that fits the held-out ``images`` best.

    Args:
        network: on any device; its temperature is kept if there are no held-out images.
        images: uint8 (N, 28, 28); N may be 0.
        labels: int64 (N,).
    """
    copy = build_network(network.settings())
    copy.load_state_dict({name: value.float().cpu() for name, value in network.state_dict().items()})
    if len(images):
        copy.temperature = fit_temperature(predict_logits(copy, images.cpu()), labels.cpu())
    return copy.eval()
