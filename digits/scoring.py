"""How good probabilities are: errors and their interval, calibration, and which labels are themselves wrong."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error
from tqdm import tqdm

from digits.data.source import WRONGLY_LABELLED
from digits.network import DeepDigits, to_input
from digits.report.tables import per_digit


@torch.inference_mode()
def logits_of(network: DeepDigits, images: Tensor, batch_size: int = 125, progress: str | None = None) -> Tensor:
    """Logits float32 (N, 10) of uint8 ``images`` (N, 28, 28), computed in float32 where the network is.

    ``progress`` names a bar, which is shown on a terminal only.
    """
    network.eval()
    device = next(network.parameters()).device
    batches = tqdm(images.split(batch_size), progress, leave=False, disable=None if progress else True)
    return torch.cat([network(to_input(batch.to(device))).float().cpu() for batch in batches])


def mean_probabilities(networks: Sequence[DeepDigits], images: Tensor, progress: str | None = None) -> Tensor:
    """Mean of the networks' probabilities, each at its own temperature, float32 (N, 10), of uint8 (N, 28, 28)."""
    shares = [(logits_of(network, images, progress=progress) / network.temperature).softmax(1) for network in networks]
    return torch.stack(shares).mean(0)


def fit_temperature(logits: Tensor, labels: Tensor) -> float:
    """The number that ``logits`` (N, 10) are best divided by: least mean negative log-likelihood of ``labels`` (N,).

    Guo et al. 2017, "On Calibration of Modern Neural Networks". Looked for from 1/4 to 4: a few images that are all
    read rightly would ask for 0.
    """

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(logits.double() / math.exp(log_temperature), labels))

    return round(math.exp(minimize_scalar(loss, bounds=(-math.log(4), math.log(4)), method="bounded").x), 4)


def calibrated(network: nn.Module, settings: dict[str, Any], images: Tensor, labels: Tensor) -> DeepDigits:
    """A copy of ``network`` on the CPU, at the temperature that suits held-out ``images`` best.

    Args:
        network: a :class:`~digits.network.DeepDigits` on any device.
        settings: its arguments; their temperature stays where no image is held out.
        images: uint8 (N, 28, 28), or none.
        labels: int64 (N,).
    """
    state = {name: value.float().cpu() for name, value in network.state_dict().items()}
    copy = DeepDigits(**settings)
    copy.load_state_dict(state)
    if len(images):
        temperature = fit_temperature(logits_of(copy, images.cpu()), labels.cpu())
        copy = DeepDigits(**settings | {"temperature": temperature})  # anew: config.json has what it was made with
        copy.load_state_dict(state)
    return copy.eval()


def score(probabilities: Tensor, labels: Tensor, mnist_test: bool, predicted: Tensor | None = None) -> dict[str, Any]:
    """What ``probabilities`` (N, 10) are worth on ``labels`` int64 (N,), under the names of `summary.json`.

    Args:
        probabilities: each row adds up to 1.
        labels: the true digits.
        mnist_test: the images are MNIST's test split, of which some labels are known to be wrong.
        predicted: what was read, int64 (N,), -1 where it was not one digit; by default the likeliest digits.

    Returns:
        ``test/sparse_accuracy``; ``test/errors`` and ``test/errors_95``, the interval of Wilson 1927 for so many
        images; ``test/nll``, the mean negative log-likelihood; ``test/ece``, the expected calibration error in 15 bins;
        ``test/wrong``, the images that are read wrongly, ``read`` None where it was not one digit; ``per_digit``.
    """
    probabilities, labels = probabilities.float(), labels.long()
    confidence, likeliest = probabilities.max(1)
    predicted = likeliest if predicted is None else predicted
    wrong = (predicted != labels).nonzero().flatten()
    interval = binomtest(len(wrong), len(labels)).proportion_ci(method="wilson")
    mistakes = [
        {
            "index": int(i),
            "label": int(labels[i]),
            "read": int(predicted[i]) if predicted[i] >= 0 else None,
            "confidence": round(float(confidence[i]), 4),
        }
        for i in wrong
    ]
    if mnist_test:
        for mistake in mistakes:
            mistake["label_is_wrong"] = mistake["index"] in WRONGLY_LABELLED
    ece = multiclass_calibration_error(probabilities, labels, num_classes=probabilities.shape[1], n_bins=15)
    return {
        "test_images": len(labels),
        "test/sparse_accuracy": 1 - len(wrong) / len(labels),
        "test/errors": len(wrong),
        "test/errors_95": [round(float(end) * len(labels), 1) for end in interval],
        "test/nll": float(F.nll_loss(probabilities.clamp(min=1e-12).log(), labels)),
        "test/ece": float(ece),
        "test/wrong": mistakes,
        "per_digit": per_digit(labels.numpy(), predicted.numpy()),
    }
