"""Floats compared by their bits give what comparing floats gives."""

import pytest
import torch
import torch.nn.functional as F

from digits import whole_numbers

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def numbers(dtype: torch.dtype) -> torch.Tensor:
    """(16, 4, 8, 6), channels last, some equal, among them zeros of both signs, infinities and the least numbers."""
    x = torch.randn(16, 4, 8, 6, generator=torch.Generator().manual_seed(0)).to(dtype)
    tiny = torch.finfo(dtype).tiny
    x.view(-1)[:8] = torch.tensor([0.0, -0.0, float("inf"), -float("inf"), tiny, -tiny, tiny / 2, -tiny / 2])
    return x.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", DTYPES)
def test_relu_is_that_of_torch_and_in_place(dtype: torch.dtype):
    x = numbers(dtype)
    expected = F.relu(x)
    assert whole_numbers.relu_(x) is x
    assert torch.equal(x, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_pooling_after_relu_is_that_of_torch(dtype: torch.dtype, layout: torch.memory_format):
    x = numbers(dtype).contiguous(memory_format=layout)
    expected = F.max_pool2d(F.relu(x), 2)
    pooled = whole_numbers.relu_max_pool(x)
    assert torch.equal(pooled, expected)
    assert pooled.is_contiguous(memory_format=layout)
