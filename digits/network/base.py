"""What all networks have, whatever their layers are: logits made probabilities, and settings to be built anew from."""

import inspect
from typing import Any

from torch import Tensor, nn

from digits.errors import DigitsError


class Network(nn.Module):
    """A network that reads one digit: a subclass has a constructor and `forward`.

    `forward` takes images (N, 1, 28, 28), float in [0, 1] (pixel / 255, 1 = ink), and returns logits (N, 10). The
    constructor takes plain values with types and defaults, and keeps each as an attribute of the same name, as
    scikit-learn's estimators do; their types are what the settings of `model` are checked by.
    """

    config_name: str = ""  # of its file in `conf/model/`; build_network sets it
    temperature: float = 1.0  # divides the logits before the softmax, > 0 (Guo et al. 2017); no part in training

    def probabilities(self, images: Tensor) -> Tensor:
        """Probabilities of the ten digits, float32 (N, 10), for ``images`` as above; call ``eval()`` before."""
        return self.softmax(self(images))

    def softmax(self, logits: Tensor) -> Tensor:
        """Probabilities, float32 (N, 10), of ``logits`` (N, 10) at the network's temperature."""
        return (logits.float() / self.temperature).softmax(1)

    def l2_penalty(self) -> Tensor:
        """A scalar that is added to the loss; zero where a network has none of its own."""
        return next(self.parameters()).new_zeros(())

    def kernels(self) -> list[nn.Parameter]:
        """The weights that a decay applies to: all parameters but biases and the scales of normalizations."""
        return [parameter for parameter in self.parameters() if parameter.dim() > 1]

    def settings(self) -> dict[str, Any]:
        """What :func:`~digits.network.build_network` makes another such network of; raises DigitsError if not kept."""
        names = [*inspect.signature(type(self).__init__).parameters][1:]
        try:
            arguments = {name: getattr(self, name) for name in names}
        except AttributeError as error:
            raise DigitsError(f"model={self.config_name}: {error}, which its constructor takes; keep it") from error
        return {"name": self.config_name} | arguments | {"temperature": self.temperature}

    def count_parameters(self) -> int:
        """Parameters as Keras counts them: trainable ones and the running statistics of batch normalization."""
        return sum(tensor.numel() for tensor in [*self.parameters(), *self.buffers()] if tensor.is_floating_point())
