"""Evaluation on CPUs gives what the plain network gives."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from digits.network import BatchNorm, DeepDigits
from digits.network.fast import accelerate
from digits.network.fast import cpu_inference as cpu

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def numbers(dtype: torch.dtype) -> torch.Tensor:
    """(16, 4, 8, 6), channels last, some equal, among them zeros of both signs, infinities and the least numbers."""
    x = torch.randn(16, 4, 8, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    tiny = torch.finfo(dtype).tiny
    x.view(-1)[:8] = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), tiny, -tiny, tiny / 2, -tiny / 2])
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_pooling_of_what_is_not_negative_is_that_of_torch(dtype: torch.dtype, layout: torch.memory_format):
    x = F.relu(numbers(dtype)).contiguous(memory_format=layout)
    pooled = cpu.max_pool(x)
    assert torch.equal(pooled, F.max_pool2d(x, 2))
    assert pooled.is_contiguous(memory_format=layout)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_convolution_with_relu_is_the_one_after_the_other(dtype: torch.dtype):
    layer = nn.Conv2d(4, 32, 3).to(dtype)
    x = numbers(dtype).nan_to_num(0, 0, 0)
    with torch.no_grad():
        torch.testing.assert_close(cpu.conv_relu((layer.weight, layer.bias), x), F.relu(layer(x)))


def test_it_is_in_bfloat16_under_autocast():
    layer = nn.Conv2d(4, 32, 3)
    x = numbers(torch.float32).nan_to_num(0, 0, 0)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, expected = cpu.conv_relu((layer.weight, layer.bias), x), F.relu(layer(x))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("precision", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("factors", ["of both signs", "positive"])
@pytest.mark.parametrize("frozen", [False, True])
def test_logits_are_those_of_the_network_as_it_is_written(precision: torch.dtype, factors: str, frozen: bool):
    torch.manual_seed(0)
    network = DeepDigits().double()
    for norm in (layer for layer in network.modules() if isinstance(layer, BatchNorm)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        if factors == "positive":
            norm.weight.data.abs_()
    images = torch.rand(16, 1, 28, 28, dtype=torch.double)
    network(images)  # running statistics of its own
    network.eval()
    exact = network(images)
    if precision != torch.float64:
        network, images = network.float(), images.float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        written, found = network(images), accelerate(network, "cpu", frozen=frozen)(images)
    unsure = max((written - exact).abs().mean(), 100 * torch.finfo(torch.float64).eps)
    assert (found - exact).abs().mean() < 2 * unsure
