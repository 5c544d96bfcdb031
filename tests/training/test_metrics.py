"""Mean loss and sparse accuracy, counted batch by batch."""

import torch
import torch.nn.functional as F
from torchmetrics.classification import MulticlassAccuracy

from digits.data.module import PADDING
from digits.training.metrics import LossAndAccuracy


def drawn(images: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(images, 10, generator=generator), torch.randint(0, 10, (images,), generator=generator)


def test_it_agrees_with_torchmetrics_over_batches_of_different_sizes():
    metric, reference = LossAndAccuracy(), MulticlassAccuracy(10, average="micro")
    logits, labels = drawn(100)
    for part in (slice(0, 70), slice(70, 100)):
        entropy = F.cross_entropy(logits[part], labels[part])
        metric.update(entropy + 2, logits[part], labels[part], entropy)
        reference.update(logits[part], labels[part])
    loss, accuracy, cross_entropy = metric.compute()
    torch.testing.assert_close(cross_entropy, F.cross_entropy(logits, labels))
    torch.testing.assert_close(loss, cross_entropy + 2)
    torch.testing.assert_close(accuracy, reference.compute())


def test_what_fills_up_a_batch_does_not_count():
    metric, filled = LossAndAccuracy(), LossAndAccuracy()
    logits, labels = drawn(20)
    metric.update(F.cross_entropy(logits[:15], labels[:15]), logits[:15], labels[:15])
    labels[15:] = PADDING
    filled.update(F.cross_entropy(logits, labels, ignore_index=PADDING), logits, labels)
    assert torch.equal(filled.compute(), metric.compute())


def test_a_new_epoch_begins_with_nothing():
    metric = LossAndAccuracy()
    logits, labels = drawn(20)
    metric.update(torch.tensor(9.0), logits.neg(), labels, torch.tensor(8.0))
    metric.reset()
    metric.update(torch.tensor(1.0), F.one_hot(labels, 10).float(), labels)
    assert metric.compute().tolist() == [1.0, 1.0, 0.0]
