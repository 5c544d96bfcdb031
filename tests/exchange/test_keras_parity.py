"""DeepDigits computes what the original computes: the network, its loss and its training against Keras 3 itself.

Adam's first steps are as long for a tiny gradient as for a large one, so two trainings in float32 soon part by
rounding alone: Keras's with one thread and with two differ by 5e-3 in a weight after ten steps. Ten steps are
therefore compared in float64, where they agree to 1e-9; float32, as training has it, for one step.
"""

import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"  # both are read once, when keras is imported
os.environ["KERAS_TORCH_DEVICE"] = "cpu"

import keras
import lightning as L
import numpy as np
import pytest
import torch
from conftest import configure
from keras import layers
from keras.src.backend.common import dtypes
from torch import Tensor
from torch.utils.data import DataLoader

from digits.data.mnist import load_mnist5k
from digits.network import DeepDigits, to_input
from digits.training.classifier import DigitClassifier
from digits.training.optimizer import KerasAdam
from digits.xla import keep_lightning_from_looking

pytestmark = pytest.mark.filterwarnings("ignore:You defined a `validation_step`")
LEARNING_RATE = 1e-3


def keras_model(conv_dropout: float = 0.25, dense_dropout: float = 0.5) -> keras.Model:
    """DeepDigits_AI in Keras."""
    relu: dict[str, Any] = {"activation": "relu"}
    l2: dict[str, Any] = {"kernel_regularizer": keras.regularizers.l2(0.001)}
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, **relu),
            layers.BatchNormalization(),
            layers.Conv2D(64, 3, **relu),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Dropout(conv_dropout),
            layers.Conv2D(128, 3, **relu),
            layers.BatchNormalization(),
            layers.Conv2D(256, 3, **relu, **l2),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Dropout(conv_dropout),
            layers.Flatten(),
            layers.Dense(512, **relu, **l2),
            layers.BatchNormalization(),
            layers.Dropout(dense_dropout),
            layers.Dense(256, **relu, **l2),
            layers.BatchNormalization(),
            layers.Dropout(dense_dropout),
            layers.Dense(10, activation="softmax"),
        ]
    )


def weights_of(model: keras.Model) -> dict[str, Tensor]:
    """Keras's weights, copied, as a state dict of DeepDigits: both list them layer by layer in the same order."""

    def torch_layout(weight: Tensor) -> Tensor:
        if weight.ndim == 4:
            return weight.permute(3, 2, 0, 1)  # HWIO -> OIHW
        return weight.T if weight.ndim == 2 else weight

    values = [torch_layout(weight.value.detach()).clone() for weight in model.weights]
    return dict(zip(DeepDigits().state_dict(), values, strict=True))


def random_batch_norms(model: keras.Model) -> None:
    """Give every batch normalisation scales, offsets and statistics that are not those of the start."""
    draw = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            n = layer.gamma.shape[0]
            uniform, normal = draw.uniform(0.5, 1.5, (2, n)), draw.normal(0, 0.2, (2, n))
            layer.set_weights([uniform[0], normal[0], normal[1], uniform[1]])  # gamma, beta, mean, variance


@dataclass
class Training:
    """What is compared of a training."""

    losses: list[float] = field(default_factory=list)  # of each step, L2 included
    accuracies: list[float] = field(default_factory=list)
    states: list[dict[str, Tensor]] = field(default_factory=list)  # the network's, after each step
    metrics: dict[str, float] = field(default_factory=dict)  # of the epoch, as Lightning logs them

    def weights(self, steps: int) -> Tensor:
        return self._joined(steps, running=False)

    def statistics(self, steps: int) -> Tensor:
        return self._joined(steps, running=True)

    def _joined(self, steps: int, running: bool) -> Tensor:
        state = self.states[steps - 1]
        return torch.cat([value.flatten() for name, value in state.items() if ("running" in name) == running])


def train_keras(model: keras.Model, batches: list[dict[str, Tensor]]) -> Training:
    model.compile(
        keras.optimizers.Adam(),
        "sparse_categorical_crossentropy",
        metrics=["sparse_categorical_accuracy"],
        jit_compile=False,
    )
    training = Training()
    for batch in batches:
        pixels = batch["image"].numpy().astype(keras.config.floatx()) / 255
        model.reset_metrics()  # or it returns the mean over all steps so far
        loss, accuracy = model.train_on_batch(pixels[..., None], batch["label"].numpy())
        training.losses.append(float(loss))
        training.accuracies.append(float(accuracy))
        training.states.append(weights_of(model))
    return training


class Record(L.Callback):
    """Fills a :class:`Training`."""

    def __init__(self) -> None:
        self.training = Training()

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.training.losses.append(float(outputs["loss"]))
        self.training.states.append({name: t.clone() for name, t in pl_module.network.state_dict().items()})

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        pl_module.log_split("fit", "train")
        self.training.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}


def train_ours(start: dict[str, Tensor], batches: list[dict[str, Tensor]], precision: Any, folder: Path) -> Training:
    """Lightning's training of ``experiment=deepdigits`` without dropout, from the weights ``start``."""
    config = configure("experiment=deepdigits", "model.conv_dropout=0.0", "model.dense_dropout=0.0")
    classifier = DigitClassifier(config.model.model_dump(), config.recipe.model_dump())
    classifier.to(start["head.8.bias"].dtype)
    classifier.network.load_state_dict(start)
    classifier.network.to(memory_format=torch.channels_last)
    record = Record()
    keep_lightning_from_looking()
    trainer = L.Trainer(
        accelerator="cpu",
        precision=precision,
        max_epochs=1,
        callbacks=[record],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(classifier, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return record.training


def real_batches(count: int, size: int) -> list[dict[str, Tensor]]:
    digits = load_mnist5k()
    images, labels = digits.train_images[: count * size].split(size), digits.train_labels[: count * size].split(size)
    return [{"image": image, "label": label} for image, label in zip(images, labels, strict=True)]


def both(batches: list[dict[str, Tensor]], precision: Any, folder: Path) -> tuple[Training, Training]:
    """Keras's training and ours, from the same weights on the same batches."""
    keras.utils.set_random_seed(0)
    model = keras_model(conv_dropout=0.0, dense_dropout=0.0)
    start = weights_of(model)
    return train_keras(model, batches), train_ours(start, batches, precision, folder)


@pytest.fixture(scope="module")
def ten_steps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Training, Training]]:
    """Ten steps in float64."""
    floatx, policy = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(dtypes.BIT64_TO_BIT32_DTYPE, "float64", "float64")  # Keras narrows BatchNorm's input to float32
        patch.setattr(Tensor, "float", Tensor.double)  # and the classifier its pixels and logits
        yield both(real_batches(10, 32), "64-true", tmp_path_factory.mktemp("float64"))
    keras.config.set_floatx(floatx)
    keras.config.set_dtype_policy(policy)


@pytest.fixture(scope="module")
def one_step(tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, Training]:
    """One step in float32."""
    return both(real_batches(1, 64), "32-true", tmp_path_factory.mktemp("float32"))


# ---- the network


def test_keras_counts_the_same_parameters():
    model, network = keras_model(), DeepDigits()
    assert model.count_params() == network.count_parameters()
    assert sum(weight.value.numel() for weight in model.trainable_weights) == sum(
        p.numel() for p in network.parameters()
    )


def test_logits_in_evaluation_are_those_of_keras():
    keras.utils.set_random_seed(0)
    model, network = keras_model(), DeepDigits().eval()
    random_batch_norms(model)
    network.load_state_dict(weights_of(model))
    x = to_input(load_mnist5k().test_images[:64])
    model.layers[-1].activation = keras.activations.linear  # logits in place of probabilities
    with torch.no_grad():
        expected = model(x.permute(0, 2, 3, 1), training=False)
        torch.testing.assert_close(network(x), expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.1  # or 1e-5 would mean nothing


def test_l2_penalty_is_that_of_keras():
    keras.utils.set_random_seed(0)
    model, network = keras_model(), DeepDigits(l2=0.001)
    network.load_state_dict(weights_of(model))
    torch.testing.assert_close(network.l2_penalty(), sum(model.losses), rtol=1e-6, atol=0)


def test_kernels_start_in_the_distribution_of_keras():
    keras.utils.set_random_seed(0)
    torch.manual_seed(1)
    for (name, ours), theirs in zip(DeepDigits().state_dict().items(), weights_of(keras_model()).values(), strict=True):
        if ours.ndim == 1:  # biases and batch normalisation start at constants
            assert torch.equal(ours, theirs), name
            continue
        ours, theirs = ours.flatten().sort().values, theirs.flatten().sort().values
        below = torch.searchsorted(theirs, ours) / len(theirs)  # two-sample Kolmogorov and Smirnov
        furthest = (below - torch.linspace(0, 1, len(ours))).abs().max()
        assert furthest < 1.95 * (2 / len(ours)) ** 0.5, name  # exceeded by one seed of a thousand
        torch.testing.assert_close(ours[[0, -1]], theirs[[0, -1]], rtol=0.05, atol=0)  # the bounds


# ---- Adam


@pytest.mark.parametrize("fused", [False, True])
def test_adam_is_that_of_keras_for_small_gradients_too(fused):
    sizes = torch.logspace(-10, 0, 11)
    gradients = torch.randn(20, 11, generator=torch.Generator().manual_seed(0)) * sizes
    ours, theirs = torch.nn.Parameter(torch.zeros(11)), keras.Variable(np.zeros(11, np.float32))
    our_adam, their_adam = KerasAdam([ours], LEARNING_RATE, fused=fused), keras.optimizers.Adam()
    for gradient in gradients:
        ours.grad = gradient.clone()
        our_adam.step()
        their_adam.apply([gradient], [theirs])
        torch.testing.assert_close(ours.detach(), theirs.value.detach(), rtol=1e-4, atol=1e-8)


def test_adam_goes_on_where_its_state_dict_was_taken():
    def step(parameter: torch.nn.Parameter, adam: KerasAdam) -> None:
        parameter.grad = torch.full((3,), 1e-7)  # of the size of epsilon, which changes with the steps
        adam.step()

    whole = torch.nn.Parameter(torch.zeros(3))
    adam = KerasAdam([whole], LEARNING_RATE)
    for _ in range(5):
        step(whole, adam)
    resumed = torch.nn.Parameter(whole.detach().clone())
    other = KerasAdam([resumed], LEARNING_RATE)
    other.load_state_dict(copy.deepcopy(adam.state_dict()))  # a checkpoint; as it is, both would share their moments
    step(whole, adam)
    step(resumed, other)
    assert torch.equal(whole, resumed)


# ---- training, in float64


@pytest.mark.parametrize("steps", [1, 10])
def test_losses_are_those_of_keras(ten_steps, steps):
    theirs, ours = ten_steps
    assert ours.losses[:steps] == pytest.approx(theirs.losses[:steps], abs=1e-9, rel=0)


@pytest.mark.parametrize("steps", [1, 10])
def test_batch_norm_statistics_are_those_of_keras(ten_steps, steps):
    theirs, ours = ten_steps
    torch.testing.assert_close(ours.statistics(steps), theirs.statistics(steps), atol=1e-9, rtol=0)


@pytest.mark.parametrize("steps", [1, 10])
def test_weights_are_those_of_keras(ten_steps, steps):
    theirs, ours = ten_steps
    torch.testing.assert_close(ours.weights(steps), theirs.weights(steps), atol=1e-9, rtol=0)


def test_ten_steps_move_the_weights(ten_steps):
    theirs, _ = ten_steps
    assert (
        theirs.weights(10) - theirs.weights(1)
    ).abs().mean() > LEARNING_RATE  # a thousand times and more what is allowed above


def test_epoch_metrics_are_those_of_keras(ten_steps):
    theirs, ours = ten_steps
    assert ours.metrics["train/loss"] == pytest.approx(np.mean(theirs.losses), abs=1e-6)
    assert ours.metrics["train/sparse_accuracy"] == pytest.approx(np.mean(theirs.accuracies), abs=1e-6)


# ---- training, in float32


def test_loss_is_that_of_keras_in_float32(one_step):
    theirs, ours = one_step
    assert ours.losses[0] == pytest.approx(theirs.losses[0], abs=1e-4, rel=0)


def test_batch_norm_statistics_are_those_of_keras_in_float32(one_step):
    theirs, ours = one_step
    torch.testing.assert_close(ours.statistics(1), theirs.statistics(1), atol=1e-5, rtol=0)


def test_weights_are_those_of_keras_in_float32(one_step):
    theirs, ours = one_step
    apart = (ours.weights(1) - theirs.weights(1)).abs()
    # Where rounding turns a gradient's sign, Adam goes its whole step the other way; everywhere else they agree.
    assert apart.max() < 2.01 * LEARNING_RATE
    assert (apart > 1e-4).double().mean() < 0.01
