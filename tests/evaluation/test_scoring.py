"""What probabilities are worth: errors and their interval, calibration, labels that are known to be wrong."""

import math
import os
from pathlib import Path

import pytest
import torch
from conftest import needs_full_mnist

from digits.data.mnist import WRONGLY_LABELLED, load_mnist
from digits.evaluation.calibration import fit_temperature
from digits.evaluation.inference import ensemble_probabilities, predict_logits
from digits.evaluation.scoring import score
from digits.network import DeepDigits


def draws(sharpness: float, n: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits ``sharpness`` times as large as those by which the labels were drawn."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n, 10, generator=generator)
    labels = logits.softmax(1).multinomial(1, generator=generator).flatten()
    return sharpness * logits, labels


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_made_the_logits_too_sharp_or_too_flat(sharpness: float):
    assert fit_temperature(*draws(sharpness)) == pytest.approx(sharpness, rel=0.03)


def test_digits_that_are_all_read_rightly_do_not_ask_for_certainty():
    assert fit_temperature(5 * torch.eye(10), torch.arange(10)) == pytest.approx(0.25, abs=0.001)


def test_the_fitted_temperature_mends_the_calibration():
    logits, labels = draws(3.0)
    raw = score(logits.softmax(1), labels, mnist_test=False)
    mended = score((logits / fit_temperature(logits, labels)).softmax(1), labels, mnist_test=False)
    assert raw["test/ece"] > 0.1
    assert mended["test/ece"] < 0.02
    assert mended["test/nll"] < raw["test/nll"]


def test_errors_and_their_interval():
    probabilities = torch.eye(10)[torch.zeros(1000, dtype=torch.long)]
    labels = torch.zeros(1000, dtype=torch.long)
    labels[:10] = 3
    found = score(probabilities, labels, mnist_test=False)
    assert found["test/errors"] == 10
    assert found["test/sparse_accuracy"] == pytest.approx(0.99)
    assert found["test/errors_95"] == pytest.approx([5.4, 18.3], abs=0.1)  # Wilson 1927, for 10 of 1,000


def test_no_error_still_has_an_interval():
    found = score(torch.eye(10), torch.arange(10), mnist_test=False)
    assert found["test/errors"] == 0
    assert found["test/errors_95"] == pytest.approx([0, 2.8], abs=0.1)


def test_the_calibration_error_is_how_far_confidence_and_accuracy_are_apart():
    probabilities = torch.full((100, 10), 0.2 / 9)
    probabilities[:, 4] = 0.8
    labels = torch.full((100,), 4)
    labels[:50] = 5
    assert score(probabilities, labels, mnist_test=False)["test/ece"] == pytest.approx(0.3)


def test_the_negative_log_likelihood_is_finite_for_a_confident_mistake():
    found = score(torch.eye(10), (torch.arange(10) + 1) % 10, mnist_test=False)
    assert math.isfinite(found["test/nll"])
    assert found["test/nll"] > 10


def test_each_mistake_is_named_and_says_whether_its_label_is_known_to_be_wrong():
    labels = torch.zeros(1000, dtype=torch.long)
    probabilities = torch.eye(10)[labels]
    probabilities[947] = torch.eye(10)[9]
    probabilities[5] = torch.eye(10)[2]
    wrong = score(probabilities, labels, mnist_test=True)["test/wrong"]
    assert wrong == [
        {"index": 5, "label": 0, "read": 2, "confidence": 1.0, "label_is_wrong": False},
        {"index": 947, "label": 0, "read": 9, "confidence": 1.0, "label_is_wrong": True},
    ]


@needs_full_mnist
def test_the_wrongly_labelled_are_those_that_were_published():
    labels = load_mnist(Path(os.environ["DIGITS_DATA_DIR"])).test_labels[list(WRONGLY_LABELLED)]
    assert labels.tolist() == [8, 0, 9, 4, 2, 5, 6, 6, 5, 5, 0, 1, 4, 6, 5]  # "given" in mnist_mturk.json


def test_an_ensemble_is_the_mean_of_probabilities_each_at_its_own_temperature():
    torch.manual_seed(0)
    images = torch.randint(0, 256, (6, 28, 28), dtype=torch.uint8)
    one, two = DeepDigits(temperature=0.5), DeepDigits(temperature=2.0)
    expected = ((predict_logits(one, images) / 0.5).softmax(1) + (predict_logits(two, images) / 2).softmax(1)) / 2
    torch.testing.assert_close(ensemble_probabilities([one, two], images), expected)


def test_logits_do_not_depend_on_the_batches():
    images = torch.randint(0, 256, (7, 28, 28), dtype=torch.uint8)
    network = DeepDigits().eval()
    torch.testing.assert_close(
        predict_logits(network, images, batch_size=3), predict_logits(network, images), rtol=1e-4, atol=1e-5
    )
