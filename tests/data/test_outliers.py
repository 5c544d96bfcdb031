"""What is drawn to learn doubt from, and how it is learned."""

import pytest
import torch

from digits.data.mnist import load_mnist5k
from digits.data.outliers import NO_DIGIT, draw_outliers
from digits.settings.command_line import configure
from digits.training.classifier import DigitClassifier, to_target

REAL = load_mnist5k().train_images


def test_outliers_are_images_like_mnists_without_a_label():
    images, labels = draw_outliers(100, REAL, seed=0)
    assert images.dtype == torch.uint8 and images.shape == (100, 28, 28)
    assert labels.dtype == torch.int64 and labels.unique().tolist() == [NO_DIGIT]
    assert all(image.any() for image in images)


def test_a_seed_draws_the_same_outliers_again_and_another_one_others():
    assert torch.equal(draw_outliers(20, REAL, seed=1)[0], draw_outliers(20, REAL, seed=1)[0])
    assert not torch.equal(draw_outliers(20, REAL, seed=1)[0], draw_outliers(20, REAL, seed=2)[0])


def test_no_two_outliers_are_alike():
    assert len(draw_outliers(300, REAL, seed=0)[0].flatten(1).unique(dim=0)) == 300


def test_the_target_of_a_digit_is_its_class_and_that_of_an_outlier_is_flat():
    target = to_target(torch.tensor([3, NO_DIGIT]))
    assert target[0].nonzero().tolist() == [[3]]
    assert target[1].unique().tolist() == pytest.approx([0.1])
    assert target.sum(1).tolist() == pytest.approx([1, 1])


def test_an_outlier_counts_in_the_loss_and_not_in_the_accuracy():
    config = configure(["data=mnist5k"])
    classifier = DigitClassifier(config.model.model_dump(), config.recipe.model_dump())
    label = torch.tensor([0, 1, 2, NO_DIGIT])
    first = classifier.training_step({"image": REAL[:4], "label": label}, 0)
    first.backward()
    assert classifier.metrics["fit"].total.item() == 3
    assert all(parameter.grad is not None for parameter in classifier.parameters())
