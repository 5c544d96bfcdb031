"""Training on CPUs: a dropout that is as good as torch's, and else the plain network."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from digits.network import BatchNorm, DeepDigits
from digits.network.fast import accelerate
from digits.network.fast.cpu_training import apply_layers

SHARES = [tenth / 10 for tenth in range(10)]


def normals(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def dropped(x: Tensor, p: float, training: bool = True) -> Tensor:
    """``x`` after a dropout layer as the fast form applies it."""
    return apply_layers([nn.Dropout(p).train(training)], x)


def test_without_dropout_it_is_the_plain_network():
    torch.manual_seed(0)
    network = DeepDigits(conv_dropout=0, dense_dropout=0)
    images = torch.rand(8, 1, 28, 28)
    assert torch.equal(accelerate(network, "cpu", training=True)(images), network(images))


def test_batch_statistics_can_be_measured_in_evaluation_mode():
    torch.manual_seed(0)
    network, images = DeepDigits().eval(), torch.rand(16, 1, 28, 28)
    for norm in (layer for layer in network.modules() if isinstance(layer, BatchNorm)):
        norm.train()
    other = copy.deepcopy(network)
    with torch.no_grad():
        accelerate(network, "cpu", training=True)(images)
        other(images)
    assert network.features[2].running_mean.abs().max() > 0
    for one, two in zip(network.buffers(), other.buffers(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("p", SHARES)
def test_dropout_zeroes_its_share(p):
    torch.manual_seed(0)
    n = 1_000_000
    zeroed = (dropped(torch.ones(n), p) == 0).double().mean().item()
    assert zeroed == pytest.approx(p, abs=5 * math.sqrt(p * (1 - p) / n) + 1e-5)


@pytest.mark.parametrize("p", SHARES)
def test_dropout_scales_what_stays_so_that_the_mean_stays(p):
    torch.manual_seed(0)
    out = dropped(torch.ones(1_000_000), p)
    torch.testing.assert_close(out[out > 0].unique(), torch.tensor([1 / (1 - p)]))
    assert out.double().mean().item() == pytest.approx(1, abs=5e-3 * math.sqrt(p / (1 - p)) + 1e-5)  # 5 sigma


def test_dropout_decides_on_each_activation_by_itself():
    torch.manual_seed(0)
    zeroed = (dropped(torch.ones(1_000_000), 0.5) == 0).view(-1, 4).double()  # four share one random draw
    both = zeroed.T @ zeroed / len(zeroed)
    assert torch.allclose(both, torch.full((4, 4), 0.25).fill_diagonal_(0.5).double(), atol=5e-3)


@pytest.mark.parametrize("p", SHARES)
def test_dropout_is_inactive_in_evaluation(p):
    x = normals(5, 7)
    assert torch.equal(dropped(x, p, training=False), x)


@pytest.mark.parametrize("p", SHARES[1:])
def test_dropout_is_given_by_the_seed(p):
    x = torch.ones(10_000)
    torch.manual_seed(1)
    first, second = dropped(x, p), dropped(x, p)
    torch.manual_seed(1)
    assert torch.equal(dropped(x, p), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("p", SHARES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def test_dropout_keeps_shape_and_memory_layout(p, layout):
    x = normals(3, 5, 7, 9).to(memory_format=layout)
    out = dropped(x, p)
    assert (out.shape, out.stride()) == (x.shape, x.stride())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_keeps_the_dtype(dtype):
    assert dropped(torch.ones(10, dtype=dtype), 0.25).dtype == dtype


@pytest.mark.parametrize("n", range(1, 6))
def test_dropout_takes_any_number_of_activations(n):
    assert dropped(torch.ones(n), 0.5).shape == (n,)  # also those that do not fill draws of four


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def test_dropout_zeroes_the_gradient_where_it_zeroed_the_activation(layout):
    x = normals(2, 3, 8, 8).abs().add(1).to(memory_format=layout).requires_grad_()
    out = dropped(x, 0.25)
    out.sum().backward()
    torch.testing.assert_close(x.grad, (out != 0).float() / 0.75)
