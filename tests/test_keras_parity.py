"""DeepDigits computes what the original computes: the network, its loss and its training against Keras 3 itself."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"  # read once, when keras is imported
os.environ["KERAS_TORCH_DEVICE"] = "cpu"

import keras
import lightning as L
import pytest
import torch
from hydra import compose, initialize_config_dir
from keras import layers
from torch import Tensor
from torch.utils.data import DataLoader

from digits.classifier import DigitClassifier, KerasAdam
from digits.data.source import load_mnist5k
from digits.network import DeepDigits, to_input
from digits.overrides import check_settings

CONF = Path(__file__).resolve().parents[1] / "conf"
STEPS, BATCH = 10, 64


def keras_model(dropout: float) -> keras.Model:
    """DeepDigits_AI as its author wrote it, but for the dropout's share."""
    l2 = {"kernel_regularizer": keras.regularizers.l2(0.001)}
    relu = {"activation": "relu"}
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, **relu),
            layers.BatchNormalization(),
            layers.Conv2D(64, 3, **relu),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Dropout(dropout),
            layers.Conv2D(128, 3, **relu),
            layers.BatchNormalization(),
            layers.Conv2D(256, 3, **relu, **l2),
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.Dropout(dropout),
            layers.Flatten(),
            layers.Dense(512, **relu, **l2),
            layers.BatchNormalization(),
            layers.Dropout(dropout),
            layers.Dense(256, **relu, **l2),
            layers.BatchNormalization(),
            layers.Dropout(dropout),
            layers.Dense(10, activation="softmax"),
        ]
    )


def weights_of(model: keras.Model) -> dict[str, Tensor]:
    """Keras's weights, copied, as a state dict of DeepDigits: both list them layer by layer, in the same order."""

    def torch_layout(weight: Tensor) -> Tensor:
        if weight.ndim == 4:
            return weight.permute(3, 2, 0, 1)  # HWIO -> OIHW
        return weight.T if weight.ndim == 2 else weight

    values = [torch_layout(weight.value.detach()).clone() for weight in model.weights]
    return dict(zip(DeepDigits().state_dict(), values, strict=True))


def is_running(name: str) -> bool:
    return name.endswith(("running_mean", "running_var"))


@pytest.fixture(scope="module")
def images() -> Tensor:
    """uint8 (STEPS * BATCH, 28, 28)."""
    return load_mnist5k().train_images[: STEPS * BATCH]


@pytest.fixture(scope="module")
def labels() -> Tensor:
    return load_mnist5k().train_labels[: STEPS * BATCH]


@dataclass
class Training:
    """What is seen of a training: each step's loss and share of right answers, the weights after some steps."""

    losses: list[float]
    accuracies: list[float]
    weights: dict[int, dict[str, Tensor]]
    epoch: dict[str, float]


def train_keras(model: keras.Model, images: Tensor, labels: Tensor) -> Training:
    model.compile(
        optimizer=keras.optimizers.Adam(),
        loss="sparse_categorical_crossentropy",
        metrics=["sparse_categorical_accuracy"],
        jit_compile=False,
    )
    seen = Training([], [], {}, {})
    x, y = (images.float() / 255).unsqueeze(-1).numpy(), labels.numpy()
    for step in range(STEPS):
        batch = slice(step * BATCH, (step + 1) * BATCH)
        model.reset_metrics()  # or it returns the mean over all steps so far
        loss, accuracy = model.train_on_batch(x[batch], y[batch])
        seen.losses.append(float(loss))
        seen.accuracies.append(float(accuracy))
        seen.weights[step + 1] = weights_of(model)
    return seen


class Spy(L.Callback):
    """Notes what :class:`Training` holds."""

    def __init__(self) -> None:
        self.seen = Training([], [], {}, {})

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        self.seen.losses.append(float(outputs["loss"]))
        state = {name: tensor.clone() for name, tensor in pl_module.network.state_dict().items()}
        self.seen.weights[trainer.global_step] = state

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.seen.epoch = {name: float(value) for name, value in trainer.callback_metrics.items()}


def train_ours(start: dict[str, Tensor], images: Tensor, labels: Tensor, folder: Path) -> Training:
    """The classifier of ``experiment=deepdigits`` without dropout, from the weights ``start``, under Lightning."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        overrides = ["experiment=deepdigits", "model.conv_dropout=0.0", "model.dense_dropout=0.0"]
        config = check_settings(compose("train", overrides))
    classifier = DigitClassifier(config.model.model_dump(), config.recipe.model_dump())
    classifier.network.load_state_dict(start)
    classifier.network.to(memory_format=torch.channels_last)
    batches = [{"image": x, "label": y} for x, y in zip(images.split(BATCH), labels.split(BATCH), strict=True)]
    spy = Spy()
    trainer = L.Trainer(
        accelerator="cpu",
        precision="32-true",
        max_epochs=1,
        callbacks=[spy],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(classifier, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return spy.seen


@pytest.fixture(scope="module")
def trainings(
    images: Tensor, labels: Tensor, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Training, Training]:
    """Keras's training and ours, from the same weights on the same batches."""
    keras.utils.set_random_seed(0)
    model = keras_model(dropout=0.0)
    start = weights_of(model)
    return train_keras(model, images, labels), train_ours(start, images, labels, tmp_path_factory.mktemp("fit"))
