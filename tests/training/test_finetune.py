"""Going on from trained weights with somebody's own pictures: what is read, mixed, held out, learned and said."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from conftest import configure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from digits import Reader
from digits.data.mnist import load_mnist5k
from digits.data.module import DigitDataModule, build_data
from digits.errors import ConfigError, DigitsError
from digits.exchange.card import model_card
from digits.exchange.model_folder import load_model, save_model
from digits.network import build_network
from digits.reading.folder import read_own_pictures
from digits.settings.command_line import check_command_line
from digits.training.pretrained import load_pretrained
from digits.training.run import train
from digits.training.setup import set_up

Own = tuple[Tensor, Tensor]  # images and labels, as read_own_pictures returns them
DIGITS = load_mnist5k().test_images.numpy()  # in turn: 0, 1, ..., 9
FINETUNE = ("experiment=finetune", "data=mnist5k", "trainer.accelerator=cpu", "trainer.precision=32-true")
QUICK = ("logger=none", "data.synthetic=0", "data.outliers=0", "trainer.enable_progress_bar=false")


def digit(number: int) -> NDArray[np.uint8]:
    """One of the embedded digits as dark ink on a sheet of 160 x 160 pixels."""
    large = cv2.resize(DIGITS[number], (112, 112), interpolation=cv2.INTER_CUBIC)
    return 255 - np.pad(large, 24)


def own_four(number: int) -> NDArray[np.uint8]:
    """A sign that is no digit to anybody else: an ellipse with a cross in it, each of another form and pen."""
    picture = np.full((160, 160), 255, np.uint8)
    width, height, pen = (int(size) for size in np.random.default_rng(number).integers((34, 40, 6), (46, 52, 13)))
    cv2.ellipse(picture, (80, 80), (width, height), 0, 0, 360, 0, pen, cv2.LINE_AA)
    cv2.line(picture, (80 - width, 80), (80 + width, 80), 0, pen, cv2.LINE_AA)
    cv2.line(picture, (80, 80 - height), (80, 80 + height), 0, pen, cv2.LINE_AA)
    return picture


def write(folder: Path, each: int = 10, four: Callable[[int], NDArray[np.uint8]] = digit) -> Path:
    """``each`` pictures for each digit, in sub-folders 0 to 9; the fours are drawn by ``four``."""
    for number in range(10 * each):
        (folder / str(number % 10)).mkdir(parents=True, exist_ok=True)
        picture = (four if number % 10 == 4 else digit)(number)
        Image.fromarray(picture).save(folder / str(number % 10) / f"{number}.png")
    return folder


def mixed(own: Own, **settings: Any) -> DigitDataModule:
    """The embedded digits, and with them the pictures that were read."""
    common = {"name": "mnist5k", "data_dir": "unused", "batch_size": 128, "val_size": 333}
    data = build_data(common | settings, once=True)
    data.setup()
    data.add_pictures(*own)
    return data


def pixels(images: Tensor) -> list[bytes]:
    return [image.numpy().tobytes() for image in images]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("pictures"), four=own_four)


@pytest.fixture(scope="module")
def own(pictures: Path) -> Own:
    return read_own_pictures(pictures)


@pytest.fixture(scope="module")
def finetuned(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a real fine-tuning, if a small one."""
    run_dir = tmp_path_factory.mktemp("finetuned")
    short = ("trainer.limit_train_batches=20", "recipe.min_steps=1", "recipe.learning_rate=1e-3", "keep=none")
    small = ("data.batch_size=32", "recipe.ema_decay=0", "trainer.limit_test_batches=1")
    overrides = [*FINETUNE, *QUICK, *short, *small, f"data.pictures={pictures}"]
    train(configure(*overrides), run_dir, overrides)
    return run_dir


def summary(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "summary.json").read_text())


# ---- what comes of it


def test_a_hand_that_nobody_could_read_is_learned_and_mnist_is_not_forgotten(finetuned: Path):
    own, validation = summary(finetuned)["before_after"]
    assert (own["what"], own["images"]) == ("own pictures, held out", 20)
    assert own["errors_before"] >= 2 > own["errors_after"]
    assert (validation["what"], validation["images"]) == ("validation images", 333)
    assert validation["errors_after"] <= validation["errors_before"] + 3


def test_the_table_before_and_after_is_printed_and_in_the_log(finetuned: Path, capsys: pytest.CaptureFixture[str]):
    from digits.report.tables import print_run

    print_run(summary(finetuned))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    own = summary(finetuned)["before_after"][0]
    figures = [str(own[key]) for key in ("images", "errors_before", "errors_after")]
    assert ["own", "pictures,", "held", "out", *figures] in lines


def test_the_card_says_how_many_own_pictures_there_were_and_not_where(finetuned: Path, pictures: Path):
    card = model_card(summary(finetuned), load_model(), [])
    assert "80 own pictures" in card
    assert str(pictures) not in card


# ---- the weights to go on from


def test_the_network_begins_with_the_weights_of_the_folder_that_is_named(tmp_path: Path):
    save_model(tmp_path / "mine", build_network({"name": "deepdigits"}))
    named = (f"model.weights={tmp_path / 'mine'}", "data=mnist5k", "trainer.precision=32-true", "logger=none")
    _, classifier, _, _ = set_up(configure(*named), tmp_path / "run")
    expected = load_model(tmp_path / "mine").state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in classifier.network.state_dict().items())


def test_package_names_the_weights_that_come_along():
    found = load_pretrained(configure("model.weights=package").model)
    assert found is not None and torch.equal(found.kernels()[0], load_model().kernels()[0])
    assert load_pretrained(configure().model) is None


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("model.weights=./nowhere",), "^model.weights: nowhere: no model there"),
        (("model=simple_cnn", "model.weights=package"), "are of model=deepdigits, not of model=simple_cnn"),
    ],
)
def test_weights_that_are_not_there_or_of_another_network_are_one_line(overrides: tuple[str, ...], said: str):
    with pytest.raises(DigitsError, match=said):
        load_pretrained(configure(*overrides).model)


# ---- what is mixed, and what is held out


def test_each_batch_has_its_share_of_own_pictures_and_none_of_them_twice(own: Own):
    data = mixed(own)
    known = {*pixels(data.train.images[-data.own_images :])}
    batches = list(data.train_dataloader())
    assert len(batches) == data.batches == 3667 // 96
    for batch in batches:
        found = [image for image in pixels(batch["image"]) if image in known]
        assert (len(batch["label"]), len(found), len({*found})) == (128, 32, 32)


def test_the_others_are_gone_through_once_in_an_epoch(own: Own):
    batches = list(mixed(own, batch_size=64).train_dataloader())
    others = [image for batch in batches for image in pixels(batch["image"][:48])]
    assert len(others) == len({*others}) == 3667 // 48 * 48


def test_of_few_own_pictures_a_batch_has_each_once(own: Own, caplog: pytest.LogCaptureFixture):
    few = own[1].unique(return_inverse=True)[1].sort(stable=True).indices[::10]  # one of each digit
    data = mixed((own[0][few], own[1][few]))
    assert (data.own_images, data.own_in_batch) == (10, 10)
    assert "none is held out" in caplog.text


def test_from_hardly_any_pictures_little_can_be_learned_which_is_said(own: Own, caplog: pytest.LogCaptureFixture):
    mixed((own[0][:1], own[1][:1]), pictures_held_out=0)
    assert [record.getMessage() for record in caplog.records] == [
        "data.pictures: with only 1 to train on, little can be learned of a hand"
    ]


def test_a_share_of_each_digit_is_held_out_by_the_seed_and_never_trained_on(own: Own):
    data, again, other = (mixed(own, seed=seed).own_held_out for seed in (0, 0, 1))
    assert data and again and other
    assert data.labels.bincount(minlength=10).tolist() == [2] * 10
    assert torch.equal(data.images, again.images)
    assert not torch.equal(data.images, other.images)
    assert not {*pixels(data.images)} & {*pixels(mixed(own).train.images)}


def test_nothing_is_held_out_where_that_is_asked_for(own: Own, caplog: pytest.LogCaptureFixture):
    assert mixed(own, pictures_held_out=0).own_images == 100
    assert not caplog.text


def test_a_checkpoint_tells_other_own_pictures_apart(own: Own):
    state = mixed(own).state_dict()
    assert mixed(own).state_dict() == state
    assert mixed((own[0].flip(0), own[1])).state_dict() != state


# ---- what is read, and what is refused


def test_a_digit_that_the_network_refuses_is_taken_as_it_is_labelled(tmp_path: Path):
    (tmp_path / "4").mkdir()
    Image.fromarray(own_four(0)).save(tmp_path / "4" / "0.png")
    assert Reader().read(tmp_path / "4" / "0.png") == []
    images, labels = read_own_pictures(tmp_path)
    assert images.shape == (1, 28, 28) and labels.tolist() == [4]


def test_each_picture_that_cannot_be_used_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write(tmp_path, each=1)
    (tmp_path / "3" / "broken.png").write_text("no picture")
    Image.new("L", (90, 90), "white").save(tmp_path / "4" / "blank.png")
    Image.fromarray(np.hstack([digit(3), digit(5)])).save(tmp_path / "5" / "two.png")
    (tmp_path / "A").mkdir()
    Image.fromarray(digit(1)).save(tmp_path / "A" / "letter.png")
    with caplog.at_level(logging.WARNING):
        images, _ = read_own_pictures(tmp_path)
    assert len(images) == 10
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 4
    for line, (name, reason) in zip(
        said,
        (("broken.png", "is no picture"), ("blank.png", "no digit was found"), ("two.png", "2 digits were found"),
         ("letter.png", "in no sub-folder of a digit")),
        strict=True,
    ):  # fmt: skip
        assert line.startswith("left out: ") and name in line and reason in line


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere", "no such folder"),
        ("empty", "no pictures in sub-folders called 0 to 9"),
        ("blank", "none of the 1 pictures can be used: .*no digit was found"),
        ("letters", "its sub-folders are no digits: a, b, c"),
    ],
)
def test_a_folder_from_which_nothing_can_be_learned_is_refused(tmp_path: Path, name: str, said: str):
    (tmp_path / "empty").mkdir()
    (tmp_path / "blank" / "7").mkdir(parents=True)
    Image.new("L", (90, 90), "white").save(tmp_path / "blank" / "7" / "0.png")
    for letter in "abcdefghij":
        (tmp_path / "letters" / letter).mkdir(parents=True)
        Image.fromarray(digit(0)).save(tmp_path / "letters" / letter / "0.png")
    with pytest.raises(DigitsError, match=f"^data.pictures={tmp_path / name}: {said}"):
        read_own_pictures(tmp_path / name)


def test_that_is_known_before_anything_is_trained_or_written(tmp_path: Path):
    with pytest.raises(ConfigError, match="no such folder"):
        train(configure(*FINETUNE, *QUICK, f"data.pictures={tmp_path / 'nowhere'}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((), r"^data.pictures='': allowed is a folder or null"),
        (("data.pictures=a", "data.picture=a"), r"did you mean data.pictures\?"),
        (
            ("data.pictures=a", "data.pictures_share=1"),
            r"^data.pictures_share=1: allowed is a number from 0",
        ),
        (("data.pictures=a", "model.weights="), r"^model.weights='': allowed is a model or null"),
    ],
)
def test_a_missing_folder_and_a_mistyped_key_are_known_at_once(overrides: tuple[str, ...], said: str):
    with pytest.raises(ConfigError, match=said):
        check_command_line(["experiment=finetune", *overrides])


def test_overfitting_does_not_go_with_own_pictures(own: Own):
    with pytest.raises(ConfigError, match=r"trainer.overfit_batches=2: does not go with data.pictures"):
        mixed(own).overfit(2)
