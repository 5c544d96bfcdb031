"""What a run needs, put together: device, data, classifier and Lightning's Trainer with the project's callbacks."""

import logging
import math
import warnings
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from digits.backend import Backend
from digits.data.module import EVAL_BATCH_SIZE, DigitDataModule
from digits.errors import ConfigError, DigitsError
from digits.network.fast.memory import keep_freed_memory
from digits.settings.schema import Config, RecipeConfig
from digits.training.checkpoints import RNGState, checkpoint_callbacks
from digits.training.classifier import DigitClassifier
from digits.training.ema import EMA
from digits.training.history import History
from digits.training.placement import PROFILERS, place
from digits.training.progress import Progress

log = logging.getLogger("digits")
MIN_IMAGES_TO_COMPILE = 1_000_000  # compiling takes as long as it saves on some 200,000 images (docs/recipe.md)
# Lightning's banners and advertisements, and its warnings of what is no fault here
for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.WARNING)
for message in (
    "The dirpath has changed",  # a resumed run has a folder of its own
    ".*could not find the monitored key",  # in an epoch without validation
    ".*smaller than the logging interval",  # in an epoch of few batches
    ".*treespec, LeafSpec",  # how Lightning 2.6 checks types is deprecated in newer versions of torch
):
    warnings.filterwarnings("ignore", message=message, module="lightning")


def set_up(
    config: Config, run_dir: Path, data: DigitDataModule | None = None
) -> tuple[L.Trainer, DigitClassifier, DigitDataModule, History]:
    """Everything up to ``trainer.fit(classifier, data)``, seeded; ``data`` in place of what ``config`` names.

    Raises:
        DigitsError: the data or the device cannot be used.
        ConfigError: Lightning does not accept the combination of settings.
    """
    backend, placement = place(config)  # first, as a missing device is known at once
    keep_freed_memory()  # a fifth faster on the CPU
    L.seed_everything(config.seed, verbose=False)
    # where whole steps are compiled there is one program, for one batch size
    eval_batch_size = None if backend.compiles_steps else EVAL_BATCH_SIZE
    data = data or DigitDataModule(**dict(config.data), seed=config.seed, eval_batch_size=eval_batch_size)
    data.setup()
    history = History(run_dir)
    trainer = build_trainer(config, data, backend, placement, history, run_dir)
    compiled = compiles(config, backend.device_type, images_to_train(trainer, data))
    classifier = DigitClassifier(config.model.model_dump(), config.recipe.model_dump(), backend, compiled)
    return trainer, classifier, data, history


def build_trainer(
    config: Config, data: DigitDataModule, backend: Backend, placement: dict[str, Any], history: History, run_dir: Path
) -> L.Trainer:
    """Lightning's Trainer as the configuration has it, on the device of ``placement``, with the project's callbacks.

    Raises:
        ConfigError: Lightning does not accept the combination of settings.
    """
    settings = {"callbacks": []} | config.trainer.model_dump() | placement
    steps_per_epoch = math.ceil(len(data.train) // data.batch_size / settings["accumulate_grad_batches"])
    if settings["max_epochs"] is None and settings["max_steps"] == -1:
        settings["max_epochs"] = recipe_epochs(config.recipe, steps_per_epoch)
    settings["log_every_n_steps"] = max(min(settings["log_every_n_steps"], steps_per_epoch), 1)  # a small set has few
    # first the callbacks that take part in a step, then those that read it
    callbacks: list[L.Callback] = [EMA(config.recipe.ema_decay, backend)] if config.recipe.ema_decay else []
    callbacks += [*settings.pop("callbacks"), history, RNGState()]
    if settings["enable_progress_bar"]:
        callbacks.append(Progress(history))
    if settings["enable_checkpointing"]:
        callbacks += checkpoint_callbacks(run_dir / "checkpoints", data.validates_on == "val", config.ckpt_path)
    if settings["logger"]:
        settings["logger"] = TensorBoardLogger(run_dir, name="", version="", default_hp_metric=False)
    if settings["profiler"] in PROFILERS:  # with its report in the run's folder
        settings["profiler"] = PROFILERS[settings["profiler"]](dirpath=run_dir, filename="profile")
    if data.validates_on is None:
        settings["limit_val_batches"] = 0
    try:
        return L.Trainer(**settings, callbacks=callbacks, default_root_dir=run_dir)
    except (MisconfigurationException, ValueError, TypeError) as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error


def recipe_epochs(recipe: RecipeConfig, steps_per_epoch: int) -> int:
    """The recipe's epochs, or as many as make its least number of steps where the training set is small."""
    return max(recipe.epochs, math.ceil(recipe.min_steps / max(steps_per_epoch, 1)))


def images_to_train(trainer: L.Trainer, data: DigitDataModule) -> float:
    """How many images all steps of a run take together, one that is taken twice counted twice; inf without an end."""
    batches, limit = len(data.train) // data.batch_size, trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    ends = [batches * trainer.max_epochs] if trainer.max_epochs not in (None, -1) else []
    ends += [trainer.max_steps * trainer.accumulate_grad_batches] if trainer.max_steps != -1 else []
    return min(ends, default=math.inf) * data.batch_size


def compiles(config: Config, device_type: str, images: float) -> bool:
    """Whether a run that trains on so many ``images`` in all is to use torch.compile, as ``config.compile`` says.

    Raises:
        ConfigError: it is asked for on another device than a CPU.
        DigitsError: it is asked for and does not work.
    """
    wanted = config.compile
    if wanted is True and device_type != "cpu":
        raise ConfigError(
            f"compile=true: goes with trainer.accelerator=cpu only, not with {config.trainer.accelerator}"
        )
    if not wanted or device_type != "cpu" or (wanted == "auto" and images < MIN_IMAGES_TO_COMPILE):
        return False
    from digits.network.fast import compiled  # with torch's compiler, which is slow to import

    log.info("compiling, which takes half a minute the first time")
    if compiled.available():
        return True
    if wanted == "auto":
        log.info("torch.compile does not work here: training goes on without; a C++ compiler makes it faster")
        return False
    raise DigitsError(
        "compile=true: torch.compile does not work here; install g++ and python3-dev, or use compile=false"
    )
