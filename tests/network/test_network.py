"""The network's specification: its size, its layers as Keras defines them, what is regularised, how it starts."""

import io
import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from digits.data.mnist import load_mnist5k
from digits.network import BatchNorm, DeepDigits, to_input
from digits.network.deepdigits import ChannelsLastFlatten


@pytest.fixture
def network() -> DeepDigits:
    torch.manual_seed(0)
    return DeepDigits()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return to_input(load_mnist5k().test_images[:16])


def normals(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


# ---- the whole network


def test_parameters_as_keras_counts_them(network):
    assert network.count_parameters() == 2_624_394


def test_trainable_parameters(network):
    assert sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad) == 2_621_898


@pytest.mark.parametrize("n", [1, 3])
def test_ten_logits_for_each_image(network, n):
    assert network.eval()(torch.rand(n, 1, 28, 28)).shape == (n, 10)


def test_logits_are_not_probabilities(network, images):
    logits = network.eval()(images)
    assert (logits < 0).any()
    assert not torch.allclose(logits.exp().sum(1), torch.ones(len(images)))


def test_relu_comes_before_every_batch_norm(network):
    layers = [*network.features, *network.head]
    before = {type(layer) for layer, following in itertools.pairwise(layers) if isinstance(following, BatchNorm)}
    assert before == {nn.ReLU}


def test_dropout_follows_each_pooling_and_each_dense_block():
    network = DeepDigits(conv_dropout=0.1, dense_dropout=0.2)
    layers = [*network.features, *network.head]
    found = [(type(a).__name__, b.p) for a, b in itertools.pairwise(layers) if isinstance(b, nn.Dropout)]
    assert found == [("MaxPool2d", 0.1), ("MaxPool2d", 0.1), ("BatchNorm", 0.2), ("BatchNorm", 0.2)]


def test_an_image_is_read_alike_in_any_batch(network, images):
    network.eval()
    one_by_one = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), one_by_one, atol=1e-5, rtol=0)


def test_memory_layout_of_the_kernels_does_not_matter(network, images):
    contiguous = network.eval()(images)
    network.to(memory_format=torch.channels_last)
    torch.testing.assert_close(network(images), contiguous, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_images_are_taken_in_the_dtype_of_the_kernels(network, images, dtype):
    expected = network.eval()(images)
    logits = network.to(dtype)(images)  # as trainer.precision=64-true does, and the reader
    assert logits.dtype == dtype
    torch.testing.assert_close(logits.float(), expected, atol=0.05, rtol=0)


def test_state_dict_round_trip(network, images):
    network(images)  # moves the running statistics away from their first values
    file = io.BytesIO()
    torch.save(network.state_dict(), file)
    file.seek(0)
    other = DeepDigits()
    other.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(other.eval()(images), network.eval()(images))


def test_flatten_takes_the_channel_last_as_keras_does():
    x = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)  # N, C, H, W
    flat = ChannelsLastFlatten()(x)
    assert flat.shape == (2, 60)
    assert flat[1, (2 * 5 + 3) * 3 + 1] == x[1, 1, 2, 3]  # (row 2 of rows of 5, column 3) of 3 channels, channel 1


def test_to_input_divides_pixels_by_255():
    pixels = torch.arange(256).repeat(4)[: 28 * 28].view(1, 28, 28).to(torch.uint8)
    x = to_input(pixels)
    assert x.shape == (1, 1, 28, 28)
    assert x.dtype == torch.float32
    assert torch.equal(x[0, 0], pixels[0].float() / 255)
    assert (x.min(), x.max()) == (0, 1)


# ---- initialisation


@pytest.mark.parametrize("layer", range(7))
def test_kernels_start_glorot_uniform(network, layer):
    weight = network.weight_layers()[layer].weight.detach()
    area = weight[0, 0].numel()  # 9 of a convolution, 1 of a dense layer
    bound = math.sqrt(6 / (area * (weight.shape[0] + weight.shape[1])))
    assert weight.abs().max() <= bound
    uniform = torch.linspace(-bound, bound, weight.numel())  # the quantiles of the distribution
    furthest = (weight.flatten().sort().values - uniform).abs().max() / (2 * bound)  # Kolmogorov and Smirnov's D
    assert furthest < 1.95 / math.sqrt(weight.numel())  # exceeded by one seed of a thousand


def test_biases_start_at_zero(network):
    assert all((layer.bias == 0).all() for layer in network.weight_layers())


def test_batch_norms_start_as_the_identity_of_the_standard_normal(network):
    for norm in (layer for layer in network.modules() if isinstance(layer, BatchNorm)):
        for tensor, start in ((norm.weight, 1), (norm.bias, 0), (norm.running_mean, 0), (norm.running_var, 1)):
            assert (tensor == start).all()


def test_the_seed_gives_the_first_weights(network):
    torch.manual_seed(0)
    again = DeepDigits().state_dict()
    torch.manual_seed(1)
    other = DeepDigits().state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in network.state_dict().items())
    assert not torch.equal(network.state_dict()["features.0.weight"], other["features.0.weight"])


# ---- L2


def test_l2_penalty_is_the_weighted_sum_of_squares_of_three_kernels():
    network = DeepDigits(l2=0.01)
    shapes = [(256, 128, 3, 3), (512, 4096), (256, 512)]
    kernels = [p.detach().double() for p in network.parameters() if tuple(p.shape) in shapes]
    expected = 0.01 * sum(float((kernel**2).sum()) for kernel in kernels)
    assert network.l2_penalty().item() == pytest.approx(expected, rel=1e-5)


def test_l2_penalty_pulls_at_these_kernels_and_at_nothing_else(network):
    network.l2_penalty().backward()
    pulled = {name: parameter for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert [tuple(p.shape) for p in pulled.values()] == [(256, 128, 3, 3), (512, 4096), (256, 512)]
    for parameter in pulled.values():
        torch.testing.assert_close(parameter.grad, 2 * 0.001 * parameter.detach())


def test_l2_penalty_can_be_switched_off():
    assert DeepDigits(l2=0.0).l2_penalty() == 0


# ---- batch normalisation


def test_batch_norm_normalises_by_the_biased_variance_of_the_batch():
    norm, x = BatchNorm(3), normals(4, 3)  # four samples: the unbiased variance is a third greater
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm.bias.copy_(torch.tensor([0.1, 0.0, -0.1]))
    standard = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-3).sqrt()
    torch.testing.assert_close(norm(x), standard * norm.weight + norm.bias)


def test_batch_norm_keeps_a_hundredth_of_the_biased_variance():
    norm, x = BatchNorm(3), 3 * normals(2, 3, 2, 2) + 5
    norm(x)
    torch.testing.assert_close(norm.running_mean, 0.01 * x.mean((0, 2, 3)))
    torch.testing.assert_close(norm.running_var, 0.99 + 0.01 * x.var((0, 2, 3), correction=0))


def test_batch_norm_running_statistics_add_up_over_batches():
    norm, mean, var = BatchNorm(3), torch.zeros(3), torch.ones(3)
    for x in normals(20, 4, 3):
        norm(x)
        mean, var = 0.99 * mean + 0.01 * x.mean(0), 0.99 * var + 0.01 * x.var(0, correction=0)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, var)


def test_batch_norm_evaluates_by_the_running_statistics_and_leaves_them():
    norm, x = BatchNorm(3).eval(), normals(4, 3)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0, 3.0]))
    norm.running_var.copy_(torch.tensor([0.5, 1.0, 2.0]))
    before = (norm.running_mean.clone(), norm.running_var.clone())
    torch.testing.assert_close(norm(x), (x - before[0]) / (before[1] + 1e-3).sqrt())
    assert torch.equal(norm.running_mean, before[0])
    assert torch.equal(norm.running_var, before[1])


def test_batch_norm_gradients_are_those_of_torch():
    ours, theirs = BatchNorm(3), nn.BatchNorm2d(3, eps=1e-3)
    x, target = normals(4, 3, 5, 5), torch.rand(4, 3, 5, 5)
    gradients = []
    for norm in (ours, theirs):
        leaf = x.clone().requires_grad_()
        (norm(leaf) - target).square().sum().backward()
        gradients.append((leaf.grad, norm.weight.grad, norm.bias.grad))
    torch.testing.assert_close(gradients[0], gradients[1])


def test_statistics_are_float32_under_bfloat16_autocast(images):
    torch.manual_seed(0)
    network = DeepDigits(conv_dropout=0, dense_dropout=0)
    activations = {}
    norms = [layer for layer in network.modules() if isinstance(layer, BatchNorm)]
    for norm in norms:
        norm.register_forward_hook(lambda norm, inputs, _: activations.update({norm: inputs[0].detach()}))
    with torch.autocast("cpu", torch.bfloat16):
        network(images)
    for norm in norms:
        x = activations[norm].transpose(0, 1).flatten(1)
        assert x.dtype == torch.bfloat16
        assert norm.running_mean.dtype == norm.running_var.dtype == torch.float32
        x = x.double()  # what is averaged has the precision of bfloat16, the average has that of float32
        torch.testing.assert_close(norm.running_mean.double(), 0.01 * x.mean(1), rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(norm.running_var.double(), 0.99 + 0.01 * x.var(1, correction=0), rtol=1e-6, atol=0)


def test_parameters_and_l2_penalty_are_float32_under_bfloat16_autocast(network, images):
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(images).float().square().mean() + network.l2_penalty()
        penalty = network.l2_penalty()
    loss.backward()
    assert penalty.dtype == torch.float32
    assert {parameter.grad.dtype for parameter in network.parameters()} == {torch.float32}
