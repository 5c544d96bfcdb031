"""What a run needs, put together: device, data, classifier and Lightning's Trainer with the project's callbacks."""

import logging
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from digits.backend import Backend
from digits.data.module import EVAL_BATCH_SIZE, DigitDataModule, build_data
from digits.errors import ConfigError, DigitsError
from digits.network import DeepDigits, Network
from digits.network.fast.memory import keep_freed_memory
from digits.reading.folder import read_own_pictures
from digits.settings.schema import Config, RecipeConfig
from digits.settings.targets import build_object, load_class
from digits.training.checkpoints import AtomicCheckpointIO, Checkpoints, RNGState
from digits.training.classifier import DigitClassifier
from digits.training.ema import EMA
from digits.training.history import History
from digits.training.interruption import Interruption
from digits.training.loggers import EpochFigures, build_logger
from digits.training.placement import PROFILERS, place
from digits.training.pretrained import load_pretrained
from digits.training.progress import Progress
from digits.training.pruning import Pruning
from digits.training.step_limit import StepLimit, steps_allowed

log = logging.getLogger("digits")
MIN_IMAGES_TO_COMPILE = 1_000_000  # compiling takes as long as it saves on some 200,000 images (docs/recipe.md)
# Lightning's banners and advertisements, and its warnings of what is no fault here
for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
    logging.getLogger(name).setLevel(logging.WARNING)
for message in (
    "You're resuming from a checkpoint that ended before",  # whose batches Checkpoints leaves out
    ".*smaller than the logging interval",  # in an epoch of few batches
    "It is recommended to use `self.log",  # over several processes, for what is computed over all of them already
    "Experiment logs directory",  # of a resumed run, whose rows the CSVLogger is given again
    ".*treespec, LeafSpec",  # how Lightning 2.6 checks types is deprecated in newer versions of torch
):
    warnings.filterwarnings("ignore", message=message, module="lightning")


def set_up(
    config: Config,
    run_dir: Path,
    data: DigitDataModule | None = None,
    interruption: Interruption | None = None,
    once: bool = False,
    is_hopeless: Callable[[int, float], bool] | None = None,
) -> tuple[L.Trainer, DigitClassifier, DigitDataModule, History]:
    """Everything up to ``trainer.fit(classifier, data)``, seeded.

    Args:
        config: the run's settings.
        run_dir: what is written goes there.
        data: in place of what ``config`` names.
        interruption: what the training asks after each step whether to stop.
        once: use the images of the job before again, if the settings say that they are the same.
        is_hopeless: of a search, what is asked after each epoch whether to end the trial.

    Raises:
        DigitsError: the data or the device cannot be used.
        ConfigError: Lightning does not accept the combination of settings.
    """
    keep_freed_memory()  # a fifth faster on the CPU
    backend, placement = place(config)  # first, as a missing device is known at once
    L.seed_everything(config.seed, verbose=False)
    # where whole steps are compiled there is one program, for one batch size
    eval_batch_size = None if backend.compiles_steps else EVAL_BATCH_SIZE
    pretrained = load_pretrained(config.model)
    pictures = read_own_pictures(Path(config.data.pictures)) if data is None and config.data.pictures else None
    data = data or build_data(dict(config.data), once=once, seed=config.seed, eval_batch_size=eval_batch_size)
    data.parts = backend.processes
    data.setup()
    if pictures is not None:
        data.add_pictures(*pictures)
    if batches := config.trainer.overfit_batches:
        data.overfit(batches)
    history = History(run_dir)
    readers: list[L.Callback] = [history, EpochFigures(history), RNGState(backend)]
    if is_hopeless is not None:
        readers.append(Pruning(history, is_hopeless))
    if config.trainer.enable_progress_bar:
        readers.append(Progress(history))
    if config.trainer.enable_checkpointing and not config.trainer.fast_dev_run:
        folder, interruption = run_dir / "checkpoints", interruption or Interruption()
        readers.append(Checkpoints(folder, config.checkpoint_every, interruption, backend))
    trainer = build_trainer(config, data, backend, placement, readers, run_dir)
    compiled = compiles(config, backend.device_type, images_to_train(trainer, data), backend.processes)
    classifier = DigitClassifier(config.model.model_dump(), config.recipe.model_dump(), backend, compiled)
    if pretrained is not None:
        classifier.network.load_state_dict(pretrained.state_dict())
    return trainer, classifier, data, history


def build_trainer(
    config: Config,
    data: DigitDataModule,
    backend: Backend,
    placement: dict[str, Any],
    readers: list[L.Callback],
    run_dir: Path,
) -> L.Trainer:
    """Lightning's Trainer as the configuration has it, on the device of ``placement``, with the project's callbacks.

    ``readers`` are those that come last, as they take no part in a step.

    Raises:
        ConfigError: Lightning does not accept the combination of settings.
    """
    settings = {"callbacks": [], "plugins": []} | config.trainer.model_dump() | placement
    settings["plugins"] += [AtomicCheckpointIO()]
    steps_per_epoch = math.ceil(data.batches / settings["accumulate_grad_batches"])
    max_steps = settings.pop("max_steps")
    del settings["overfit_batches"]  # the data module's, as Lightning would have other batches
    if settings["max_epochs"] is None:
        settings["max_epochs"] = recipe_epochs(config.recipe, steps_per_epoch) if max_steps == -1 else -1
    settings["log_every_n_steps"] = max(min(settings["log_every_n_steps"], steps_per_epoch), 1)  # a small set has few
    callbacks: list[L.Callback] = settings.pop("first_callbacks", [])
    callbacks += [EMA(config.recipe.ema_decay, backend)] if config.recipe.ema_decay else []
    callbacks += settings.pop("callbacks")
    callbacks += [build_object(f"callbacks.{number}", each) for number, each in enumerate(config.callbacks)]
    if max_steps != -1:
        callbacks.append(StepLimit(max_steps))
    callbacks += readers
    settings["logger"] = build_logger(config.logger, run_dir)
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


def batches_per_epoch(trainer: L.Trainer, data: DigitDataModule) -> int:
    """How many batches are trained on in an epoch."""
    limit = trainer.limit_train_batches
    return min(data.batches, limit) if isinstance(limit, int) else int(data.batches * limit)


def images_to_train(trainer: L.Trainer, data: DigitDataModule) -> float:
    """How many images all steps of a run take together, one that is taken twice counted twice; inf without an end."""
    batches = batches_per_epoch(trainer, data)
    ends: list[float] = [batches * trainer.max_epochs] if trainer.max_epochs not in (None, -1) else []
    ends += [steps_allowed(trainer) * trainer.accumulate_grad_batches]
    return min(ends, default=math.inf) * data.batch_size


def compiles(config: Config, device_type: str, images: float, processes: int = 1) -> bool:
    """Whether a run that trains on so many ``images`` in all is to use torch.compile, as ``config.compile`` says.

    Raises:
        ConfigError: it is asked for on another device than one CPU, or with another network than DeepDigits.
        DigitsError: it is asked for and does not work.
    """
    wanted, one_cpu = config.compile, device_type == "cpu" and processes == 1
    if wanted is True and not one_cpu:
        other = f"{processes} processes" if processes > 1 else config.trainer.accelerator
        raise ConfigError(f"compile=true: goes with trainer.accelerator=cpu only, not with {other}")
    if not wanted or not one_cpu or (wanted == "auto" and images < MIN_IMAGES_TO_COMPILE):
        return False
    if not issubclass(load_class("model", config.model.name, Network), DeepDigits):
        if wanted == "auto":
            return False
        raise ConfigError(f"compile=true: goes with model=deepdigits only, not with model={config.model.name}")
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
