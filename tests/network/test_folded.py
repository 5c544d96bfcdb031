"""The network with its batch normalisations folded in is the same network."""

import copy

import pytest
import torch
from torch import nn

from digits.network import BatchNorm, DeepDigits
from digits.network.fast import folded


@pytest.fixture
def network() -> DeepDigits:
    """With normalisations whose factors are of both signs."""
    torch.manual_seed(0)
    network = DeepDigits(conv_dropout=0, dense_dropout=0).double()
    for norm in (layer for layer in network.modules() if isinstance(layer, BatchNorm)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
    return network


def images() -> torch.Tensor:
    return torch.rand(16, 1, 28, 28, dtype=torch.double, generator=torch.Generator().manual_seed(1))


def test_logits_gradients_and_statistics_are_those_of_the_plain_network(network: DeepDigits):
    other = copy.deepcopy(network)
    expected, found = network(images()), folded.forward(other, images())
    torch.testing.assert_close(found, expected)
    probe = torch.randn_like(expected)
    (expected * probe).sum().backward()
    (found * probe).sum().backward()
    for (name, one), two in zip(network.named_parameters(), other.parameters(), strict=True):
        assert one.grad is not None
        torch.testing.assert_close(two.grad, one.grad, rtol=1e-9, atol=1e-9 * float(one.grad.abs().max()), msg=name)
    for one, two in zip(network.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(two, one)


def test_in_evaluation_the_running_statistics_are_used_and_left_alone(network: DeepDigits):
    network(images())
    network.eval()
    before = [buffer.clone() for buffer in network.buffers()]
    torch.testing.assert_close(folded.forward(network, images()), network(images()))
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), before, strict=True))


def test_in_bfloat16_it_is_as_near_to_float64_as_the_plain_network(network: DeepDigits):
    other = copy.deepcopy(network)
    exact = network(images())
    network.float(), other.float()
    with torch.autocast("cpu", torch.bfloat16):
        plain = (network(images().float()) - exact).abs().mean()
        fold = (folded.forward(other, images().float()) - exact).abs().mean()
    assert fold < 2 * plain


@pytest.mark.parametrize("sign", [1, -1])
def test_the_gradient_of_a_signed_relu_is_that_of_autograd(sign: int):
    x = torch.tensor([-2.0, -1e-38, 0.0, 2e-38, 3.0], requires_grad=True)
    folded.relu(x, sign).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0, 0, 0, sign, sign]
