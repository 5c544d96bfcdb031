"""Augmentation: resampling as torch defines it, and how far it may turn, scale, shear and translate a digit."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from digits.data.augmentation import Augmentation, resample, resample_by_matmul
from digits.data.mnist import load_mnist5k
from digits.network import to_input

STILL = {"degrees": 0.0, "scale": 0.0, "shear": 0.0, "translate": 0.0}


@pytest.fixture(scope="module")
def digits() -> Tensor:
    return to_input(load_mnist5k().train_images[:64])


def ellipse(n: int) -> Tensor:
    """``n`` times a soft blob in the middle, wider than high: its moments say where it went."""
    y, x = torch.meshgrid(torch.arange(28) - 13.5, torch.arange(28) - 13.5, indexing="ij")
    return (-(x**2) / 18 - y**2 / 6).exp().expand(n, 1, 28, 28)


def centre(images: Tensor) -> tuple[Tensor, Tensor]:
    """Centre of mass (x, y) of each image, in pixels from the middle."""
    ink, places = images.squeeze(1), torch.arange(28) - 13.5
    mass = ink.sum((1, 2))
    return ink.sum(1) @ places / mass, ink.sum(2) @ places / mass


def spread(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Second moments (xx, xy, yy) of each image about its centre, in square pixels."""
    x0, y0 = centre(images)
    weights = images.squeeze(1) / images.sum((1, 2, 3))[:, None, None]
    places = torch.arange(28) - 13.5
    x, y = (places - x0[:, None])[:, None, :], (places - y0[:, None])[:, :, None]
    return (weights * x * x).sum((1, 2)), (weights * x * y).sum((1, 2)), (weights * y * y).sum((1, 2))


def places(matrices: Tensor, images: Tensor) -> Tensor:
    """Where affine ``matrices`` (N, 2, 3) send each pixel: (N, 2, H, W)."""
    return F.affine_grid(matrices, list(images.shape), align_corners=False).permute(0, 3, 1, 2)


def still(images: Tensor) -> Tensor:
    return torch.eye(2, 3).expand(len(images), 2, 3)


# ---- resample: the way for XLA is held against torch's own, which is the way everywhere else


@pytest.mark.parametrize("size", [0.05, 0.3, 1.0], ids=["mild", "strong", "wild"])
def test_the_way_for_xla_is_torch_grid_sample(digits, size):
    generator = torch.Generator().manual_seed(0)
    there = places(still(digits) + size * torch.randn(len(digits), 2, 3, generator=generator), digits)
    torch.testing.assert_close(resample_by_matmul(digits, there), resample(digits, there), atol=1e-5, rtol=0)


def test_the_way_for_xla_takes_images_that_are_not_square(digits):
    images = digits[:, :, 3:23]
    there = places(torch.tensor([[0.9, 0.2, 0.1], [-0.3, 1.1, -0.2]]).expand(len(images), 2, 3), images)
    torch.testing.assert_close(resample_by_matmul(images, there), resample(images, there), atol=1e-5, rtol=0)


@pytest.mark.parametrize("way", [resample, resample_by_matmul])
def test_the_identity_returns_the_images(digits, way):
    torch.testing.assert_close(way(digits, places(still(digits), digits)), digits, atol=1e-5, rtol=0)


@pytest.mark.parametrize("way", [resample, resample_by_matmul])
def test_what_comes_from_outside_is_zero(digits, way):
    matrices = torch.tensor([[1.0, 0.0, 3.0], [0.0, 1.0, 0.0]]).expand(len(digits), 2, 3)  # beyond the right edge
    assert (way(digits, places(matrices, digits)) == 0).all()


def test_autocast_does_not_round_where_pixels_go(digits):
    augmentation = Augmentation(degrees=10, scale=0.1, shear=0.1, translate=1.5)
    torch.manual_seed(0)
    exact = augmentation(digits)
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(augmentation(digits), exact)


def test_another_default_dtype_than_the_images_changes_nothing(digits):
    augmentation = Augmentation(**STILL)
    torch.set_default_dtype(torch.float64)  # as Lightning does for trainer.precision=64-true
    try:
        augmented = augmentation(digits)
    finally:
        torch.set_default_dtype(torch.float32)
    assert augmented.dtype == torch.float32
    torch.testing.assert_close(augmented, digits, atol=1e-5, rtol=0)


# ---- Augmentation


def test_augmentation_is_inactive_in_evaluation(digits):
    assert torch.equal(Augmentation(degrees=30, scale=0.3, shear=0.3, translate=5).eval()(digits), digits)


def test_augmentation_of_nothing_returns_the_images(digits):
    torch.testing.assert_close(Augmentation(**STILL)(digits), digits, atol=1e-5, rtol=0)


def test_the_same_seed_gives_the_same_augmentation(digits):
    augmentation = Augmentation(degrees=10, scale=0.1, shear=0.1, translate=1.5)
    torch.manual_seed(3)
    first, second = augmentation(digits), augmentation(digits)
    torch.manual_seed(3)
    assert torch.equal(augmentation(digits), first)
    assert not torch.equal(first, second)


def test_each_image_of_a_batch_is_augmented_differently(digits):
    torch.manual_seed(0)
    augmented = Augmentation(degrees=10, scale=0.1, shear=0.1, translate=1.5)(digits[:1].expand(64, -1, -1, -1))
    assert len(augmented.flatten(1).unique(dim=0)) == 64


def test_ink_stays_in_its_range(digits):
    torch.manual_seed(0)
    augmented = Augmentation(degrees=10, scale=0.1, shear=0.1, translate=1.5)(digits)
    assert augmented.shape == digits.shape
    assert 0 <= augmented.min() < augmented.max() <= 1 + 1e-5


def test_translation_moves_the_centre_by_up_to_its_pixels_in_each_direction():
    torch.manual_seed(0)
    for moved in centre(Augmentation(**STILL | {"translate": 3.0})(ellipse(500))):
        assert -3.01 < moved.min() < -2.9
        assert 2.9 < moved.max() < 3.01
        assert abs(moved.mean()) < 0.4  # 5 sigma of the mean of 500


def test_translation_leaves_form_and_mass():
    torch.manual_seed(0)
    augmented = Augmentation(**STILL | {"translate": 2.0})(ellipse(100))
    assert torch.allclose(augmented.sum((1, 2, 3)), ellipse(1).sum(), rtol=1e-3)
    for moment, still in zip(spread(augmented), spread(ellipse(1)), strict=True):
        assert torch.allclose(moment, still, atol=0.3)  # between two pixels bilinear sampling blurs by up to 1/4


def test_rotation_turns_by_up_to_its_degrees_both_ways():
    torch.manual_seed(0)
    xx, xy, yy = spread(Augmentation(**STILL | {"degrees": 20.0})(ellipse(500)))
    angles = torch.atan2(2 * xy, xx - yy) / 2 * 180 / math.pi  # of the blob's long axis
    assert -20.3 < angles.min() < -19
    assert 19 < angles.max() < 20.3
    assert abs(angles.mean()) < 2.6  # 5 sigma of the mean of 500


def test_rotation_turns_about_the_middle():
    torch.manual_seed(0)
    for moved in centre(Augmentation(**STILL | {"degrees": 20.0})(ellipse(100))):
        assert moved.abs().max() < 0.01


def test_scale_changes_each_side_by_up_to_its_share():
    torch.manual_seed(0)
    still_xx, _, still_yy = spread(ellipse(1))
    xx, _, yy = spread(Augmentation(**STILL | {"scale": 0.2})(ellipse(500)))
    for factor in ((xx / still_xx).sqrt(), (yy / still_yy).sqrt()):
        assert 0.79 < factor.min() < 0.84
        assert 1.18 < factor.max() < 1.24  # bilinear sampling blurs, which widens by up to 3 % more


def test_scale_draws_width_and_height_apart():
    torch.manual_seed(0)
    xx, _, yy = spread(Augmentation(**STILL | {"scale": 0.2})(ellipse(500)))
    assert abs(torch.corrcoef(torch.stack([xx, yy]))[0, 1]) < 0.2


def test_shear_moves_x_by_up_to_its_share_of_y():
    torch.manual_seed(0)
    _, xy, yy = spread(Augmentation(**STILL | {"shear": 0.3})(ellipse(500)))
    slope = xy / yy  # of x over y: the blob itself has none
    assert -0.31 < slope.min() < -0.27
    assert 0.27 < slope.max() < 0.31


def test_shear_leaves_the_rows_where_they_are():
    torch.manual_seed(0)
    augmented = Augmentation(**STILL | {"shear": 0.3})(ellipse(100))
    torch.testing.assert_close(augmented.sum(3), ellipse(100).sum(3), atol=1e-3, rtol=1e-3)


def test_stroke_width_makes_some_digits_bolder_and_some_thinner_and_keeps_their_place(digits):
    torch.manual_seed(0)
    augmented = Augmentation(**STILL | {"stroke_width": 0.5})(ellipse(200))
    ink = augmented.sum((1, 2, 3)) / ellipse(1).sum()
    assert ink.min() < 0.9 and ink.max() > 1.1
    assert abs(float(ink.mean()) - 1) < 0.1
    middle, still = (
        image.sum(0) @ torch.arange(28.0) / image.sum() for image in (augmented.mean(0)[0], ellipse(1)[0, 0])
    )
    torch.testing.assert_close(middle, still, atol=0.05, rtol=0)
