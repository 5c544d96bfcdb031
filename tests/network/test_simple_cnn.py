"""The networks of An et al. 2020: as published, and as the rest of the project meets them."""

from pathlib import Path

import pytest
import torch
from conftest import configure
from torch import nn

from digits.data.mnist import load_mnist5k
from digits.evaluation.inference import predict_logits
from digits.exchange.model_folder import load_model, save_model
from digits.network import to_input
from digits.network.simple_cnn import SimpleCNN
from digits.training.ema import EMA
from digits.training.setup import compiles, set_up


@pytest.mark.parametrize(
    ("kernel", "channels", "side", "parameters"),
    [
        (3, [32, 48, 64, 80, 96, 112, 128, 144, 160, 176], 8, 1_124_180),
        (5, [32, 64, 96, 128, 160], 8, 1_128_180),
        (7, [48, 96, 144, 192], 4, 2_291_972),
    ],
)
def test_it_is_the_published_network(kernel: int, channels: list[int], side: int, parameters: int):
    network = SimpleCNN(kernel)
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == channels
    assert all(layer.kernel_size == (kernel, kernel) and layer.bias is None for layer in convolutions)
    assert network.head[0].in_features == side * side * channels[-1]
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_each_convolution_is_normalized_before_relu():
    kinds = [type(layer) for layer in SimpleCNN(7).features]
    assert kinds[:-1] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 4


def test_images_are_centred_around_zero():
    network, seen = SimpleCNN(7).eval(), []
    network.features[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    network(to_input(load_mnist5k().test_images[:4]))
    assert (seen[0].min(), seen[0].max()) == (-1, 1)


def test_a_saved_network_reads_the_same(tmp_path: Path):
    torch.manual_seed(0)
    network = SimpleCNN(7).eval()
    network.temperature = 0.7
    save_model(tmp_path / "model", network)
    loaded, images = load_model(tmp_path / "model"), load_mnist5k().test_images[:50]
    assert loaded.settings() == {"name": "simple_cnn", "kernel": 7, "temperature": 0.7}
    assert torch.equal(predict_logits(loaded, images), predict_logits(network, images))


def test_its_statistics_are_measured_for_the_averaged_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(EMA, "statistics_images", 64)
    short = ("trainer.max_steps=2", "trainer.enable_checkpointing=false", "logger=none", "trainer.accelerator=cpu")
    config = configure("experiment=record", "model.kernel=7", "data=mnist5k", "data.batch_size=64", *short)
    trainer, classifier, data, _ = set_up(config, tmp_path)
    trainer.fit(classifier, data)
    norm = classifier.network.features[1]
    assert norm.momentum == 0.1 and norm.running_var.isfinite().all()
    images = to_input(data.train.images[:64])
    mean = classifier.network.features[0](images * 2 - 1).mean((0, 2, 3))
    assert (norm.running_mean - mean).abs().max() < 0.2  # of other 64 images; with two steps of 0.1 it were a fifth


def test_it_is_not_compiled_where_that_is_left_open():
    assert not compiles(configure("experiment=record", "compile=auto"), "cpu", images=1e9)
