"""Digits that are drawn to be trained on."""

import cv2
import numpy as np
import torch

from digits.data.mnist import load_mnist5k
from digits.data.synthetic import FORMS, synthetic_digits

REAL = load_mnist5k()


def synthetic(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    return synthetic_digits(count, REAL.train_images, REAL.train_labels, seed)


def test_each_digit_is_drawn_equally_often():
    images, labels = synthetic(200, seed=0)
    assert images.dtype == torch.uint8 and images.shape == (200, 28, 28)
    assert labels.dtype == torch.int64 and labels.bincount().tolist() == [20] * 10


def test_a_seed_draws_the_same_digits_again_and_another_one_others():
    assert torch.equal(synthetic(20, seed=1)[0], synthetic(20, seed=1)[0])
    assert not torch.equal(synthetic(20, seed=1)[0], synthetic(20, seed=2)[0])


def test_no_two_of_a_digit_are_alike():
    images, labels = synthetic(500, seed=0)
    assert len(images[labels == 3].flatten(1).unique(dim=0)) == 50


def test_they_lie_as_mnists_digits_do():
    images = synthetic(100, seed=0)[0].numpy()
    for image in images:
        assert max(cv2.boundingRect(image)[2:]) == 20
        y, x = (image.sum(axis) @ np.arange(28) / image.sum() for axis in (1, 0))
        assert abs(y - 14) <= 0.5 and abs(x - 14) <= 0.5


def test_none_may_be_asked_for():
    images, labels = synthetic(0, seed=0)
    assert images.shape == (0, 28, 28) and labels.shape == (0,)


def test_the_strokes_of_every_form_stay_in_their_box():
    for forms in FORMS:
        for form in forms:
            points = np.array([point for stroke in form for point in stroke])
            assert points.min() >= 0 and points.max() <= 1
