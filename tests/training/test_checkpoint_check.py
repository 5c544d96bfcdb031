"""A damaged or foreign checkpoint is refused in one line, before anything is trained."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FINISHED, configure

from digits.errors import DigitsError
from digits.training.checkpoint_check import check_checkpoint
from digits.training.setup import set_up

SETTINGS = (*FINISHED, "logger=none")


@pytest.fixture(scope="module")
def checkpoint(finished: Path) -> dict:
    return torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    trainer, classifier, data, _ = set_up(configure(*SETTINGS), tmp_path_factory.mktemp("run"))
    return trainer, classifier, data


def refusal(content: dict, run: tuple, tmp_path: Path) -> str:
    torch.save(content, tmp_path / "a.ckpt")
    with pytest.raises(DigitsError) as error:
        check_checkpoint(tmp_path / "a.ckpt", *run)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"ckpt_path={tmp_path}/a.ckpt: ")
    return str(error.value)


def test_one_that_is_whole_passes(checkpoint: dict, run: tuple, tmp_path: Path):
    torch.save(checkpoint, tmp_path / "a.ckpt")
    check_checkpoint(tmp_path / "a.ckpt", *run)


TOP = (
    *("epoch", "global_step", "pytorch-lightning_version", "state_dict", "loops", "callbacks", "optimizer_states"),
    *("lr_schedulers", "hyper_parameters", "MNISTDataModule", "digits", "current_model_state", "averaging_state"),
)


@pytest.mark.parametrize("key", TOP)
def test_each_part_is_needed(key: str, checkpoint: dict, run: tuple, tmp_path: Path):
    assert "not a checkpoint" in refusal({k: v for k, v in checkpoint.items() if k != key}, run, tmp_path)


@pytest.mark.parametrize("key", TOP)
def test_each_part_is_of_its_type(key: str, checkpoint: dict, run: tuple, tmp_path: Path):
    assert "not a checkpoint" in refusal(checkpoint | {key: ["junk"]}, run, tmp_path)


def change(path: str, value: Any) -> Callable[[dict], None]:
    """Sets what lies at ``path``, whose steps are separated by slashes; DELETED removes it."""

    def changing(content: Any) -> None:
        *steps, name = [int(step) if step.isdigit() else step for step in path.split("/")]
        for step in steps:
            content = content[step]
        if value == "DELETED":
            del content[name]
        else:
            content[name] = value

    return changing


NAN = torch.full((10,), float("nan"))
LOOP = "loops/fit_loop"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("pytorch-lightning_version", "junk", "pytorch-lightning_version"),
        ("digits", "", "digits"),
        ("MNISTDataModule/data.outliers", torch.zeros(3), "data.outliers"),
        ("hyper_parameters/recipe/warmup", torch.zeros(3), "recipe.warmup"),
        ("epoch", "2", "epoch"),
        ("epoch", 10**9, "epoch 1000000000 and global_step 171 are not those of loops"),
        ("epoch", -1, "epoch"),
        ("global_step", 1.5, "global_step"),
        ("global_step", 7, "global_step 7 are not those of loops"),
        ("state_dict/network.head.8.bias", NAN, "state_dict.network.head.8.bias: Value error, some values are NaN"),
        ("state_dict/network.head.8.bias", [0.0] * 10, "state_dict.network.head.8.bias"),
        ("state_dict/network.head.8.bias", torch.zeros(11), "network.head.8.bias is (11,), here (10,)"),
        ("state_dict/network.head.8.bias", "DELETED", "network.head.8.bias is nothing"),
        ("current_model_state/network.head.8.bias", NAN, "current_model_state.network.head.8.bias"),
        ("current_model_state/network.head.8.bias", torch.zeros(11), "a checkpoint of another network"),
        ("optimizer_states", [], "optimizer_states"),
        ("optimizer_states/0/state", {}, "optimizer_states: exp_avg is not of the parameters' shapes"),
        ("optimizer_states/0/state/3/exp_avg", torch.zeros(3), "exp_avg is not of the parameters' shapes"),
        ("optimizer_states/0/state/3/exp_avg_sq", "DELETED", "optimizer_states.0.state.3.exp_avg_sq"),
        ("optimizer_states/0/state/25/exp_avg", NAN, "optimizer_states.0.state.25.exp_avg"),
        ("optimizer_states/0/param_groups", "DELETED", "optimizer_states.0.param_groups"),
        ("optimizer_states/0/param_groups/0/params", [0], "not one of these parameters"),
        ("optimizer_states/0/param_groups/0/lr", float("nan"), "optimizer_states.0.param_groups.0.lr"),
        ("lr_schedulers", [], "lr_schedulers"),
        ("lr_schedulers/0/total_steps", "many", "lr_schedulers.0.total_steps"),
        ("loops/fit_loop", {}, "loops.fit_loop"),
        (f"{LOOP}/epoch_progress/current/completed", "DELETED", "loops.fit_loop.epoch_progress.current.completed"),
        (f"{LOOP}/epoch_loop.batch_progress/current/ready", "3", "is str, not int"),
        (f"{LOOP}/epoch_loop.batch_progress/total/ready", -3, "is -3"),
        ("callbacks/History", "DELETED", "callbacks.History"),
        ("callbacks/History/rows", [], "callbacks.History.rows: not one for each of 3 epochs"),
        ("callbacks/History/rows/0", {"epoch": "one"}, "callbacks.History.rows.0.epoch"),
        ("callbacks/RNGState/cpu", torch.zeros(3, dtype=torch.uint8), "callbacks.RNGState.cpu"),
        ("callbacks/RNGState", "DELETED", "callbacks.RNGState"),
        ("callbacks/Checkpoints/best_score", "high", "callbacks.Checkpoints.best_score"),
        ("callbacks/EMA", "DELETED", "the averages of the weights are missing"),
        ("callbacks/EMA/latest_update_step", "x", "callbacks.EMA.latest_update_step"),
        ("hyper_parameters/recipe/warmup", "DELETED", "hyper_parameters.recipe.warmup is missing"),
        ("MNISTDataModule/seed", 9, "was trained with seed=9, not 0: use the same"),
        ("MNISTDataModule", {}, "was trained with dataset=None, not mnist-5k"),
    ],
)
def test_what_is_damaged_is_named(path: str, value: Any, said: str, checkpoint: dict, run: tuple, tmp_path: Path):
    damaged = copy.deepcopy(checkpoint)
    change(path, value)(damaged)
    assert said in refusal(damaged, run, tmp_path)
