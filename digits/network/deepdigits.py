"""DeepDigits, the CNN of DeepDigits_AI, to the last default of its Keras original."""

import contextlib
from pathlib import Path
from typing import Any, Self, cast

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from digits.errors import DigitsError
from digits.files import member, read_json
from digits.network.base import Network
from digits.network.layers import BatchNorm, ChannelsLastFlatten
from digits.network.weights import load_weights, read_safetensors

WEIGHTS = Path(__file__).parents[1] / "weights"  # the pretrained weights that come with the package
MAX_CONFIG_BYTES = 100_000  # of a config.json, which has some 100
HUB: dict[str, Any] = {"library_name": "deepdigits", "license": "apache-2.0", "pipeline_tag": "image-classification"}


class DeepDigits(Network, PyTorchModelHubMixin, tags=["mnist", "handwritten-digits"], **HUB):
    """Four convolutions and three dense layers, ReLU before batch normalization; 2,624,394 parameters.

    Args:
        conv_dropout: share of activations dropped after each pooling, 0 <= p < 1.
        dense_dropout: share of activations dropped after each hidden dense layer, 0 <= p < 1.
        l2: weight of the sum of squares of three kernels in the loss (conv 256, dense 512, dense 256), >= 0.
        temperature: divides the logits before the softmax, > 0 (Guo et al. 2017); it has no part in training.
    """

    config_name = "deepdigits"

    def __init__(
        self, conv_dropout: float = 0.25, dense_dropout: float = 0.5, l2: float = 0.001, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.conv_dropout, self.dense_dropout, self.l2, self.temperature = conv_dropout, dense_dropout, l2, temperature
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 32, 3), nn.ReLU(), BatchNorm(32)),
            *(nn.Conv2d(32, 64, 3), nn.ReLU(), BatchNorm(64), nn.MaxPool2d(2), nn.Dropout(conv_dropout)),
            *(nn.Conv2d(64, 128, 3), nn.ReLU(), BatchNorm(128)),
            *(nn.Conv2d(128, 256, 3), nn.ReLU(), BatchNorm(256), nn.MaxPool2d(2), nn.Dropout(conv_dropout)),
            ChannelsLastFlatten(),
        )
        self.head = nn.Sequential(
            *(nn.Linear(4 * 4 * 256, 512), nn.ReLU(), BatchNorm(512), nn.Dropout(dense_dropout)),
            *(nn.Linear(512, 256), nn.ReLU(), BatchNorm(256), nn.Dropout(dense_dropout)),
            nn.Linear(256, 10),
        )
        for layer in self.weight_layers():  # Keras's defaults
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 10) of ``images`` (N, 1, 28, 28), float in [0, 1] (pixel / 255, 1 = ink)."""
        return self.head(self.features(images.to(next(self.parameters()).dtype)))

    def l2_penalty(self) -> Tensor:
        """``l2 * sum(w ** 2)`` over the kernels that Keras regularizes: a scalar that is added to the loss."""
        kernels = [layer.weight for layer in self.weight_layers()[3:6]]
        if self.l2 == 0:
            return kernels[0].new_zeros(())
        return self.l2 * torch.stack([kernel.square().sum() for kernel in kernels]).sum()

    def weight_layers(self) -> list[nn.Conv2d | nn.Linear]:
        """The seven layers with a kernel and a bias, in the order in which images pass them."""
        return [layer for layer in self.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path = WEIGHTS, **options: Any) -> Self:
        """A trained network in evaluation mode: the package's own, a model folder, or one of the Hugging Face hub.

        Raises:
            DigitsError: its files are damaged, or hold what no network has.
        """
        if (folder := Path(pretrained_model_name_or_path)).is_dir() and (folder / "config.json").exists():
            try:  # the hub's client reads it without asking what it is
                read_json(member(folder, "config.json"), MAX_CONFIG_BYTES)
            except ValueError as error:
                raise DigitsError(f"{folder}: its config.json is damaged: {error}") from error
        with contextlib.redirect_stdout(None):  # huggingface_hub prints that it loads
            return super().from_pretrained(pretrained_model_name_or_path, **{"strict": True} | options)

    @classmethod
    def _load_as_safetensor(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        """As the hub's client calls it, whose own takes any values."""
        load_weights(model, read_safetensors(Path(model_file), model))
        return model.to(map_location)

    @classmethod
    def _load_as_pickle(cls, model: Any, model_file: str, map_location: str, strict: bool) -> Any:
        raise DigitsError(f"{model_file}: is no safetensors, and no other weights are taken from the hub")
