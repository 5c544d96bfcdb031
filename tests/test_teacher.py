"""DeepDigits learns from another network, which is trained first."""

import csv
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import SMALL, configure

from digits.classifier import DigitClassifier
from digits.errors import DigitsError
from digits.exchange.model_folder import load_model
from digits.network import DeepDigits
from digits.teacher import Teacher, distillation
from digits.training import train

TAUGHT = "recipe.teacher={epochs:1,average_decay:0.9,temperature:2}"
TINY = (*SMALL, TAUGHT, "trainer.max_epochs=2", "trainer.limit_train_batches=3", "trainer.logger=false")


def some_logits() -> torch.Tensor:
    return 3 * torch.randn(16, 10, generator=torch.Generator().manual_seed(0))


def test_a_teacher_that_is_certain_says_what_labels_would_say():
    labels = torch.arange(16) % 10
    certain = 1000.0 * F.one_hot(labels, 10)
    torch.testing.assert_close(distillation(some_logits(), certain, 1.0), F.cross_entropy(some_logits(), labels))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_who_says_the_same_as_the_teacher_has_nothing_to_learn(temperature: float):
    logits = some_logits().requires_grad_()
    distillation(logits, some_logits() + 5, temperature).backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros(16, 10))


def test_a_small_training_makes_a_teacher_that_reads(tmp_path: Path):
    longer = ("data.batch_size=64", "trainer.limit_train_batches=40", "recipe.teacher.epochs=2", "trainer.max_epochs=3")
    train(configure(*TINY, *longer), tmp_path)
    rows = list(csv.DictReader((tmp_path / "teacher" / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[-1]["val/sparse_accuracy"]) > 0.8


def test_the_network_learns_from_its_answers_and_not_from_the_labels():
    recipe = configure(TAUGHT, "recipe.warp=null").recipe.model_dump()
    classifier = DigitClassifier({"conv_dropout": 0.0, "dense_dropout": 0.0}, recipe)
    images = torch.randint(0, 256, (16, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    losses = [classifier.training_step({"image": images, "label": torch.full((16,), label)}, 0) for label in range(2)]
    losses[0].backward()
    assert torch.equal(losses[0], losses[1])
    assert all(parameter.grad is not None for parameter in classifier.network.parameters())
    assert classifier.teacher is not None
    assert all(parameter.grad is None for parameter in classifier.teacher.parameters())


def test_the_teacher_stays_as_it_was_trained_and_is_no_part_of_the_model(tmp_path: Path):
    summary = train(configure(*TINY), tmp_path)
    assert summary["parameters"] == DeepDigits().count_parameters()
    assert summary["teacher"]["epochs"] == 1
    states = [torch.load(tmp_path / "checkpoints" / f"{name}.ckpt")["state_dict"] for name in ("best", "last")]
    teachers = [name for name in states[0] if name.startswith("teacher.")]
    assert len(teachers) == len(Teacher().state_dict())
    for name in teachers:
        assert torch.equal(states[0][name], states[1][name]), name
    assert load_model(tmp_path).state_dict().keys() == DeepDigits().state_dict().keys()
    load_model(tmp_path / "checkpoints" / "last.ckpt")


def test_a_resumed_run_ends_where_it_would_have(tmp_path: Path):
    train(configure(*TINY), tmp_path / "whole")
    stopped = tmp_path / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DigitClassifier, "on_validation_epoch_start", _interrupt_in_second_epoch)
        assert train(configure(*TINY), stopped)["status"] == "interrupted"
    train(configure(*TINY, f"ckpt_path={stopped / 'checkpoints' / 'last.ckpt'}"), tmp_path / "resumed")
    states = [
        torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for name in ("whole", "resumed")
    ]
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value), name


def _interrupt_in_second_epoch(classifier: DigitClassifier) -> None:
    if classifier.trainer.current_epoch == 1:  # stands in for Ctrl-C, whose moment could not be chosen
        raise KeyboardInterrupt


def test_it_goes_on_with_its_teacher_only(tmp_path: Path):
    train(configure(*TINY), tmp_path)
    last = f"ckpt_path={tmp_path / 'checkpoints' / 'last.ckpt'}"
    with pytest.raises(DigitsError, match=r"was trained with recipe.teacher=\{'epochs': 1"):
        train(configure(*TINY, "recipe.teacher=null", last), tmp_path / "resumed")
