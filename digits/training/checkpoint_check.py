"""Whether a checkpoint is whole and fits the run that is to go on from it: known before anything is trained."""

import math
import re
from pathlib import Path
from typing import Annotated, Any

import lightning as L
import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor

from digits.data.module import DigitDataModule
from digits.errors import DigitsError
from digits.exchange.checkpoint import load_checkpoint, not_ours
from digits.training.classifier import DigitClassifier
from digits.training.setup import batches_per_epoch
from digits.training.step_limit import steps_allowed

FIXED = ("optimizer", "schedule", "learning_rate", "weight_decay", "warmup")  # by the state in a checkpoint


def _version(text: str) -> str:
    if not re.match(r"\d+\.\d+", text):
        raise ValueError("no version")
    return text


def _finite(tensor: Tensor) -> Tensor:
    if not tensor.isfinite().all():
        raise ValueError("some values are NaN or infinite")
    return tensor


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True, allow_inf_nan=False)


Count = Annotated[int, Field(ge=0)]
Version = Annotated[str, AfterValidator(_version)]
Finite = Annotated[Tensor, AfterValidator(_finite)]
Tensors = dict[str, Finite]


class _History(_Part):
    rows: list[dict[str, float]]
    images: Count
    seconds: Annotated[float, Field(ge=0)]


class _RNGState(_Part):
    cpu: Tensor
    gpus: list[Tensor]


class _EMA(_Part):
    latest_update_step: Count
    measured: Count


class _Checkpoints(_Part):
    best_epoch: Count | None
    best_score: Annotated[float, Field(allow_inf_nan=True)]  # minus infinity without a validation


class _Callbacks(_Part):
    history: _History = Field(alias="History")
    rng_state: _RNGState = Field(alias="RNGState")
    ema: _EMA | None = Field(None, alias="EMA")
    checkpoints: _Checkpoints | None = Field(None, alias="Checkpoints")


class _Moments(_Part):
    step: Finite
    exp_avg: Finite
    exp_avg_sq: Finite


class _Group(_Part):
    lr: Annotated[float, Field(ge=0)] | Finite
    betas: tuple[float, float] | list[float]
    eps: float | Finite
    weight_decay: float
    params: list[int]


class _Optimizer(_Part):
    state: dict[int, _Moments]
    param_groups: list[_Group]


class _Schedule(_Part):
    total_steps: Count
    last_epoch: Count
    base_lrs: list[float | Finite]


class _HyperParameters(_Part):
    model: dict[str, Any]
    recipe: dict[str, Any]


class _Contents(_Part):
    epoch: Count
    global_step: Count
    lightning: Version = Field(alias="pytorch-lightning_version")
    digits: Version
    state_dict: Tensors
    current_model_state: Tensors | None = None
    averaging_state: Tensors | None = None
    loops: dict[str, dict[str, Any]]
    callbacks: _Callbacks
    optimizer_states: Annotated[list[_Optimizer], Field(min_length=1, max_length=1)]
    lr_schedulers: list[_Schedule]
    hyper_parameters: _HyperParameters


def check_checkpoint(path: Path, trainer: L.Trainer, classifier: DigitClassifier, data: DigitDataModule) -> None:
    """Refuse a file that ``trainer`` cannot resume from, or could only in another way than it was trained.

    Raises:
        DigitsError: it is no checkpoint of this project, a damaged one, one of an older version, of another network,
            recipe or data, or one that has been trained for longer than this run.
    """
    loaded = load_checkpoint(path, "ckpt_path=")
    try:
        contents = _Contents.model_validate(loaded)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise not_ours(path, "ckpt_path=", f"{where}: {problem['msg']}") from error
    _check_network(path, contents, classifier)
    _check_recipe(path, contents, classifier)
    fault = _fault_of_optimizer(contents, classifier) or _fault_of_progress(contents, trainer)
    if fault:
        raise not_ours(path, "ckpt_path=", fault)
    kind = type(data).__qualname__  # under which Lightning keeps the state
    trained_on = loaded.get(kind)
    if not isinstance(trained_on, dict):
        raise not_ours(
            path, "ckpt_path=", f"{kind}: which data it was trained on is missing, or they are of another class"
        )
    for name, here in data.state_dict().items():
        if not _same(before := trained_on.get(name), here):
            raise DigitsError(f"ckpt_path={path}: was trained with {name}={before}, not {here}: use the same")
    _check_length(path, contents, trainer, data)


def _same(found: Any, expected: Any) -> bool:
    """Whether what a file has is the plain value ``expected``; a tensor, of which each number is compared, is not."""
    return not isinstance(found, Tensor) and bool(found == expected)


def _check_network(path: Path, contents: _Contents, classifier: DigitClassifier) -> None:
    for state in (contents.state_dict, contents.current_model_state):
        for name, tensor in classifier.network.state_dict(prefix="network.").items():
            if state is None:
                continue
            if name not in state or state[name].shape != tensor.shape:
                found = tuple(state[name].shape) if name in state else "nothing"
                raise DigitsError(
                    f"ckpt_path={path}: a checkpoint of another network: {name} is {found}, here {tuple(tensor.shape)}"
                )


def _check_recipe(path: Path, contents: _Contents, classifier: DigitClassifier) -> None:
    recipe, here = contents.hyper_parameters.recipe, classifier.recipe
    for key in (*FIXED, "ema_decay"):
        if key not in recipe or isinstance(recipe[key], Tensor):
            raise not_ours(path, "ckpt_path=", f"hyper_parameters.recipe.{key} is missing, or no plain value")
    for key in FIXED:
        if recipe[key] != here[key]:
            raise DigitsError(f"ckpt_path={path}: was trained with recipe.{key}={recipe[key]}; resume with the same")
    if bool(recipe["ema_decay"]) != bool(here["ema_decay"]):
        raise DigitsError(
            f"ckpt_path={path}: was trained with recipe.ema_decay={recipe['ema_decay']}; "
            "resume with averages if it has some, and else without"
        )
    if here["ema_decay"] and None in (contents.current_model_state, contents.averaging_state, contents.callbacks.ema):
        raise not_ours(path, "ckpt_path=", "the averages of the weights are missing")
    if (here["schedule"] == "one_cycle") != bool(contents.lr_schedulers):
        raise not_ours(path, "ckpt_path=", "lr_schedulers: not that of the recipe's schedule")


def _fault_of_optimizer(contents: _Contents, classifier: DigitClassifier) -> str:
    (optimizer,) = contents.optimizer_states
    shapes = sorted(tuple(parameter.shape) for parameter in classifier.parameters())
    if sorted(index for group in optimizer.param_groups for index in group.params) != list(range(len(shapes))):
        return "optimizer_states: not one of these parameters"
    if contents.global_step == 0:
        return ""
    for name in ("exp_avg", "exp_avg_sq"):
        if sorted(tuple(getattr(moments, name).shape) for moments in optimizer.state.values()) != shapes:
            return f"optimizer_states: {name} is not of the parameters' shapes"
    return ""


def _fault_of_progress(contents: _Contents, trainer: L.Trainer) -> str:
    """Lightning would take over what it finds, count on from there, and leave at 0 what it does not find."""
    if fault := _unlike(contents.loops.get("fit_loop"), trainer.fit_loop.state_dict(), "loops.fit_loop"):
        return fault
    loop = contents.loops["fit_loop"]
    epochs = loop["epoch_progress"]["current"]
    steps = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"]["completed"]
    if contents.epoch != epochs["completed"] or contents.global_step != steps:
        return f"epoch {contents.epoch} and global_step {contents.global_step} are not those of loops"
    if [row.get("epoch") for row in contents.callbacks.history.rows] != list(range(1, epochs["processed"] + 1)):
        return f"callbacks.History.rows: not one for each of {epochs['processed']:,} epochs"
    try:
        torch.Generator().set_state(contents.callbacks.rng_state.cpu)
    except (RuntimeError, TypeError) as error:
        return f"callbacks.RNGState.cpu: {str(error).splitlines()[0]}"
    return ""


def _unlike(found: Any, expected: Any, where: str) -> str:
    """What keeps ``found`` from having the keys and types of ``expected``, with whole numbers from 0; else nothing."""
    if type(found) is not type(expected):
        return f"{where}: is {type(found).__name__}, not {type(expected).__name__}"
    if isinstance(expected, dict):
        for key, value in expected.items():
            if key not in found:
                return f"{where}.{key}: is missing"
            if fault := _unlike(found[key], value, f"{where}.{key}"):
                return fault
    if type(expected) is int and found < 0:
        return f"{where}: is {found}"
    return ""


def _check_length(path: Path, contents: _Contents, trainer: L.Trainer, data: DigitDataModule) -> None:
    epochs, limit = len(contents.callbacks.history.rows), trainer.max_epochs
    if limit is not None and 0 <= limit < epochs:
        raise DigitsError(f"ckpt_path={path}: was trained for {epochs} epochs, more than trainer.max_epochs={limit}")
    if contents.global_step > steps_allowed(trainer):
        raise DigitsError(
            f"ckpt_path={path}: was trained for {contents.global_step:,} steps, more than "
            f"trainer.max_steps={steps_allowed(trainer)}"
        )
    if contents.lr_schedulers and limit is not None:
        epoch = math.ceil(batches_per_epoch(trainer, data) / trainer.accumulate_grad_batches)
        steps = math.inf if limit == -1 else epoch * limit
        planned, here = contents.lr_schedulers[0].total_steps, int(min(steps, steps_allowed(trainer)))
        if planned != here:
            raise DigitsError(
                f"ckpt_path={path}: its one-cycle schedule is for {planned:,} steps, this run's for {here:,}; "
                "resume with the same data, data.batch_size and trainer.max_epochs"
            )
