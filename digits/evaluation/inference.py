"""Logits of many images by one network, and their probabilities by an ensemble."""

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from digits.network import Network, to_input
from digits.network.fast import accelerate


@torch.inference_mode()
def predict_logits(network: Network, images: Tensor, batch_size: int = 125, progress: str | None = None) -> Tensor:
    """Logits float32 (N, 10) of uint8 ``images`` (N, 28, 28), computed in float32 on the network's device.

    ``progress`` is the name of a progress bar, which is shown on a terminal only; None for no bar.
    """
    network.eval()
    device = next(network.parameters()).device
    forward = accelerate(network, device)
    batches = tqdm(images.split(batch_size), progress, leave=False, disable=None if progress else True)
    return torch.cat([forward(to_input(batch.to(device))).float().cpu() for batch in batches])


def ensemble_probabilities(networks: Sequence[Network], images: Tensor, progress: str | None = None) -> Tensor:
    """Mean of the networks' probabilities, each at its own temperature, float32 (N, 10), of uint8 (N, 28, 28)."""
    probabilities = [network.softmax(predict_logits(network, images, progress=progress)) for network in networks]
    return torch.stack(probabilities).mean(0)
