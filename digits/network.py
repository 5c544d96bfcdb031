"""DeepDigits, the convolutional network: images in, logits out.

The architecture and every default are those of DeepDigits_AI, a Keras model: ReLU before batch normalisation,
Glorot-uniform kernels, zero biases, Keras's momentum and epsilon.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from digits import cpu, folded


class BatchNorm(nn.Module):
    """Batch normalisation over dimension 1, as Keras computes it.

    Keras's momentum 0.99 is torch's 0.01, its epsilon is 1e-3, and its running variance takes in the biased variance
    of the batch (torch: the unbiased one). Statistics keep the module's dtype, float32, whatever that of the input.
    """

    momentum: Any = 0.01  # a number, or on XLA, where it changes, a tensor (1,)
    eps = 1e-3

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(features))
        self.bias = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_var", torch.ones(features))

    def scale_and_shift(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        """What numbers of this ``mean`` and biased ``var`` (C,) are multiplied by, and what is then added, (C,) each.

        The running statistics move in training mode only.
        """
        if self.training:
            with torch.no_grad():
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
                self.running_var.lerp_(var.to(self.running_var.dtype), self.momentum)
        scale = self.weight * (var + self.eps).rsqrt()
        return scale, self.bias - mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` (N, C, ...); the running statistics move in training mode only."""
        if x.device.type == "xla":
            scale, shift = folded.normalisation(self, x)
            return (x * scale + shift).to(x.dtype)
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        mean, var = self.running_mean.clone(), self.running_var.clone()  # autograd keeps what batch_norm is given
        out = F.batch_norm(x, mean, var, self.weight, self.bias, True, self.momentum, self.eps)
        n = x.numel() / x.shape[1]
        with torch.no_grad():  # var took in n / (n - 1) times the biased variance: take the surplus out again
            self.running_var.copy_(var.lerp((1 - self.momentum) * self.running_var, 1 / n))
            self.running_mean.copy_(mean)
        return out


class Dropout(nn.Module):
    """Dropout: zero a share ``p`` of the activations in training and scale the others by ``1 / (1 - p)``.

    On the CPU torch draws one random double for each activation, a tenth of a training step; here 16 random bits
    decide, four activations for each draw (``p`` is kept to 1 / 65,536).
    """

    bfloat16_one = 0x3F80  # the bits of 1.0

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Same shape, dtype and memory layout as ``x``, which must be dense."""
        if not self.training or self.p == 0:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.p)
        bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        threshold = min(round(self.p * 2**16), 2**16 - 1) - 2**15  # within int16
        keep = bits.ge_(threshold)  # 1 or 0
        if x.dtype == torch.bfloat16:
            keep = keep.mul_(self.bfloat16_one).view(x.dtype)  # a conversion would cost more than all the rest
        return x * keep.as_strided(x.shape, x.stride()) * (1 / (1 - self.p))


def _conv(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, kernel_size=3), nn.ReLU(), BatchNorm(outputs)]


def _dense(inputs: int, outputs: int, dropout: float) -> list[nn.Module]:
    return [nn.Linear(inputs, outputs), nn.ReLU(), BatchNorm(outputs), Dropout(dropout)]


class ChannelsLastFlatten(nn.Module):
    """Flatten (N, C, H, W) in Keras's order (H, W, C), which is also how channels-last tensors lie in memory."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, H * W * C)."""
        return x.permute(0, 2, 3, 1).flatten(1)


WEIGHTS = Path(__file__).with_name("weights")  # what the package carries


class DeepDigits(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="deepdigits",
    license="apache-2.0",
    pipeline_tag="image-classification",
    tags=["mnist", "handwritten-digits"],
):
    """The CNN of DeepDigits_AI: four convolutions, two dense layers, ten logits; 2,624,394 parameters.

    Args:
        conv_dropout: share of activations dropped after each pooling, 0 <= p < 1.
        dense_dropout: share of activations dropped after each dense layer, 0 <= p < 1.
        l2: weight of the sum of squares of three kernels in the loss (conv 256, dense 512, dense 256), >= 0.
        temperature: what :meth:`probabilities` divides the logits by, > 0 (Guo et al. 2017); no part of the training.
    """

    classes = 10
    forward_in_training: Callable[["DeepDigits", Tensor], Tensor] | None = None  # a faster way to the same logits

    def __init__(
        self, conv_dropout: float = 0.25, dense_dropout: float = 0.5, l2: float = 0.001, temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.l2 = l2
        self.temperature = temperature
        self.features = nn.Sequential(
            *_conv(1, 32),
            *_conv(32, 64),
            nn.MaxPool2d(2),
            Dropout(conv_dropout),
            *_conv(64, 128),
            *_conv(128, 256),
            nn.MaxPool2d(2),
            Dropout(conv_dropout),
            ChannelsLastFlatten(),
        )
        self.head = nn.Sequential(
            *_dense(4 * 4 * 256, 512, dense_dropout),
            *_dense(512, 256, dense_dropout),
            nn.Linear(256, self.classes),
        )
        for layer in self.weight_layers():  # Keras's defaults
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(cast(Tensor, layer.bias))

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, 10) of ``images`` (N, 1, 28, 28), float in [0, 1] (pixel / 255, 1 = ink)."""
        images = images.to(next(self.parameters()).dtype)  # float64 where trainer.precision is "64-true"
        if images.device.type == "xla":
            return folded.forward(self, images)
        images = images.contiguous(memory_format=torch.channels_last)
        if self.training and self.forward_in_training is not None:
            return self.forward_in_training(self, images)
        if self._only_evaluates_on_cpu(images):
            return cpu.forward(self, images)
        return self.head(self.features(images))

    def _only_evaluates_on_cpu(self, images: Tensor) -> bool:
        if images.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_exporting():
            return False
        return not any(layer.training for layer in self.modules())  # statistics are measured in evaluation mode too

    def probabilities(self, images: Tensor) -> Tensor:
        """Of the ten digits, float32 (N, 10), for ``images`` as :meth:`forward` takes them; call ``eval()`` before."""
        return (self(images).float() / self.temperature).softmax(1)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path = WEIGHTS, **options: Any) -> Self:
        """A trained network in evaluation mode: by default the package's own, which needs no network connection.

        ``pretrained_model_name_or_path`` is a model's folder or its name on the Hugging Face hub; ``options`` as
        :class:`huggingface_hub.PyTorchModelHubMixin` takes them.
        """
        with contextlib.redirect_stdout(None):  # huggingface_hub prints that it loads
            return super().from_pretrained(pretrained_model_name_or_path, **{"strict": True} | options)

    def l2_penalty(self) -> Tensor:
        """``l2 * sum(w ** 2)`` over the kernels that Keras regularises; a scalar, to be added to the loss."""
        if self.l2 == 0:
            return torch.zeros((), device=self.weight_layers()[0].weight.device)
        kernels = [layer.weight for layer in self.weight_layers()[3:6]]
        return self.l2 * torch.stack([kernel.square().sum() for kernel in kernels]).sum()

    def weight_layers(self) -> list[nn.Conv2d | nn.Linear]:
        """The seven layers with a kernel and a bias, in the order in which images pass them."""
        return [layer for layer in self.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]

    def arguments(self) -> dict[str, float]:
        """What to call :class:`DeepDigits` with to get another network of these settings."""
        conv_dropout, _, dense_dropout, _ = [module.p for module in self.modules() if isinstance(module, Dropout)]
        return {
            "conv_dropout": conv_dropout,
            "dense_dropout": dense_dropout,
            "l2": self.l2,
            "temperature": self.temperature,
        }

    def count_parameters(self) -> int:
        """Parameters as Keras counts them: trainable ones and the running statistics of batch normalisation."""
        return sum(tensor.numel() for tensor in [*self.parameters(), *self.buffers()])


def to_input(images: Tensor) -> Tensor:
    """uint8 pixels (N, 28, 28), 255 = ink, to what the network takes: float32 (N, 1, 28, 28) in [0, 1]."""
    return images.unsqueeze(1).float() / 255


def native_bfloat16(accelerator: str) -> bool:
    """Whether "cpu" or a GPU computes in bfloat16 itself; where that is emulated it takes many times float32's time."""
    if accelerator == "cpu":
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
