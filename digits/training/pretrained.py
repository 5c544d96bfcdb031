"""Trained weights that a training goes on from, and what it has made better and worse than they were."""

from typing import Any

from torch import Tensor

from digits.data.module import DigitDataModule
from digits.errors import DigitsError
from digits.evaluation.inference import predict_logits
from digits.exchange.model_folder import load_model
from digits.network import Network, build_network
from digits.settings.schema import ModelConfig

PACKAGE = "package"  # what `model.weights` calls those that the package carries


def load_pretrained(model: ModelConfig) -> Network | None:
    """The trained network that ``model.weights`` names, on the CPU; None where training begins with new weights.

    Raises:
        DigitsError: it cannot be had, or its layers are not those of ``model``.
    """
    if model.weights is None:
        return None
    where = f"model.weights={model.weights}"
    try:
        network = load_model(None if model.weights == PACKAGE else model.weights)
    except DigitsError as error:
        raise DigitsError(f"model.weights: {error}") from error
    if network.config_name != model.name:
        raise DigitsError(f"{where}: are of model={network.config_name}, not of model={model.name}; name that one")
    try:
        build_network(model.model_dump()).load_state_dict(network.state_dict())
    except RuntimeError as error:  # torch's, of tensors with other names or shapes
        reason = " ".join(str(error).split())[:150]
        raise DigitsError(f"{where}: are of a network with other settings: {reason}") from error
    return network


def before_and_after(before: Network, after: Network, data: DigitDataModule) -> list[dict[str, Any]]:
    """How many images that were held out the network misread ``before`` the training and ``after`` it.

    Returns:
        A row for the own pictures, if there are some, and one for the validation images, each with ``what``,
        ``images``, ``errors_before`` and ``errors_after``.
    """
    splits = {"own pictures, held out": data.own_held_out, "validation images": data.val}

    def errors(network: Network, images: Tensor, labels: Tensor) -> int:
        return int((predict_logits(network, images).argmax(1) != labels).sum())

    return [
        {
            "what": what,
            "images": len(split),
            "errors_before": errors(before, split.images, split.labels),
            "errors_after": errors(after, split.images, split.labels),
        }
        for what, split in splits.items()
        if split is not None and len(split)
    ]
