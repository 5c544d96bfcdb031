"""Scores of predictions: errors with a confidence interval, likelihood, calibration error, and known label errors."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from scipy.stats import binomtest
from torch import Tensor
from torchmetrics.functional.classification import multiclass_calibration_error

from digits.data.mnist import DIGIT_NAMES, WRONGLY_LABELLED
from digits.report.tables import per_digit


def score(
    probabilities: Tensor,
    labels: Tensor,
    mnist_test: bool,
    predicted: Tensor | None = None,
    classes: Sequence[str] = DIGIT_NAMES,
) -> dict[str, Any]:
    """Score ``probabilities`` (N, 10) on ``labels``, int64 (N,); the keys are those of `summary.json`.

    Args:
        probabilities: each row adds up to 1.
        labels: the true digits.
        mnist_test: whether the images are MNIST's test split, some labels of which are known to be wrong.
        predicted: predicted digits, int64 (N,), -1 where not exactly one was read; by default the most probable ones.
        classes: what the labels are called; given back under ``classes`` if they are not digits.

    Returns:
        ``test/sparse_accuracy``; ``test/errors`` and ``test/errors_95``, the 95 % interval of Wilson 1927;
        ``test/nll``, the mean negative log-likelihood; ``test/ece``, the expected calibration error in 15 bins;
        ``test/wrong``, the misclassified images, where ``read`` is None if not exactly one digit was read;
        ``per_digit``.
    """
    probabilities, labels = probabilities.float(), labels.long()
    confidence, most_probable = probabilities.max(1)
    predicted = most_probable if predicted is None else predicted
    wrong = (predicted != labels).nonzero().flatten()
    interval = binomtest(len(wrong), len(labels)).proportion_ci(method="wilson")
    mistakes = [
        {
            "index": int(i),
            "label": int(labels[i]),
            "read": int(predicted[i]) if predicted[i] >= 0 else None,
            "confidence": round(float(confidence[i]), 4),
        }
        for i in wrong
    ]
    if mnist_test:
        for mistake in mistakes:
            mistake["label_is_wrong"] = mistake["index"] in WRONGLY_LABELLED
    ece = multiclass_calibration_error(probabilities, labels, num_classes=probabilities.shape[1], n_bins=15)
    names = {} if tuple(classes) == DIGIT_NAMES else {"classes": list(classes)}
    return names | {
        "test_images": len(labels),
        "test/sparse_accuracy": 1 - len(wrong) / len(labels),
        "test/errors": len(wrong),
        "test/errors_95": [round(float(end) * len(labels), 1) for end in interval],
        "test/nll": float(F.nll_loss(probabilities.clamp(min=1e-12).log(), labels)),
        "test/ece": float(ece),
        "test/wrong": mistakes,
        "per_digit": per_digit(labels.numpy(), predicted.numpy()),
    }
