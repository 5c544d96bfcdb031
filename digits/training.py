"""One run: data, network and Trainer put together, fitted, tested and reported."""

import logging
import math
import signal
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.profilers import AdvancedProfiler, PyTorchProfiler, SimpleProfiler
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import OmegaConf

from digits import xla
from digits.callbacks import History, Progress, RisingAverage
from digits.checkpoints import RandomDraws, check_checkpoint, checkpoints
from digits.classifier import DigitClassifier
from digits.config import Config, RecipeConfig
from digits.data.module import DigitDataModule
from digits.errors import ConfigError, DigitsError
from digits.exchange.model_folder import check_target, save_model
from digits.memory import keep_freed_memory
from digits.network import native_bfloat16
from digits.report import plots, tables
from digits.report.summary import summarize
from digits.scoring import calibrated, score

log = logging.getLogger("digits")
for name in ("lightning", "lightning.pytorch", "lightning.fabric"):  # banners and advertisements
    logging.getLogger(name).setLevel(logging.WARNING)
PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}
PAYS_TO_COMPILE = 1_000_000  # images: compiling takes as long as is saved by some 200,000 (docs/recipe.md)
# each run has a folder of its own, a resumed one too
warnings.filterwarnings("ignore", message="The dirpath has changed", module="lightning")
# nor is anything wrong in an epoch without validation, or in one of few batches
warnings.filterwarnings("ignore", message=r".*could not find the monitored key", module="lightning")
warnings.filterwarnings("ignore", message=r".*smaller than the logging interval", module="lightning")


def train(config: Config, run_dir: Path, overrides: Sequence[str] | None = None) -> dict[str, Any]:
    """Train, test and report as ``config`` says; everything that is written goes into ``run_dir``.

    ``overrides`` are what `train.py` was called with, if it was: they go into the summary.

    Returns:
        The summary, as `summary.json` holds it. Its ``status`` is "completed", or "interrupted" after Ctrl-C.

    Raises:
        DigitsError: the data, the device or the checkpoint cannot be used.
    """
    start = time.perf_counter()
    run_dir.mkdir(parents=True, exist_ok=True)
    if config.ckpt_path is not None and not Path(config.ckpt_path).is_file():
        where = "checkpoints are in runs/<name>/<time>/checkpoints/"
        raise DigitsError(f"ckpt_path={config.ckpt_path}: no such file; {where}")
    trainer, classifier, data, history = set_up(config, run_dir)
    if config.ckpt_path is not None:
        check_checkpoint(Path(config.ckpt_path), classifier)
    check_target(run_dir / "model")
    # from here on what an earlier run may have left in the folder is no longer true of it
    (run_dir / "summary.json").unlink(missing_ok=True)
    OmegaConf.save(OmegaConf.create(config.model_dump(mode="json")), run_dir / "config.yaml")

    completed = _uninterrupted(trainer, trainer.fit, classifier, data, ckpt_path=config.ckpt_path, weights_only=True)
    tested_epoch = len(history.rows)
    if completed:
        best = [callback.best_model_path for callback in _model_checkpoints(trainer) if callback.monitor]
        if any(best) and validation_chooses(config):
            checkpoint = torch.load(best[0], weights_only=True)
            classifier.load_state_dict(checkpoint["state_dict"])
            tested_epoch = checkpoint["epoch"] + 1
        completed = _uninterrupted(trainer, trainer.test, classifier, data, verbose=False)

    summary = summarize(config, trainer, data, classifier, history, tested_epoch)
    summary |= {"status": "completed" if completed else "interrupted", "run_dir": str(run_dir)}
    summary["overrides"] = overrides
    if completed:
        network = calibrated(classifier.network, config.model.model_dump(), data.val.images, data.val.labels)
        logits = torch.cat(classifier.test_logits).cpu()[: len(data.test)]  # without what filled up the last batch
        images, labels = data.test.images[: len(logits)], data.test.labels[: len(logits)]  # as far as it was tested
        probabilities = (logits / network.temperature).softmax(1)
        summary |= score(probabilities, labels, mnist_test=summary["dataset"] == "mnist")
        summary["temperature"] = network.temperature
        if trainer.is_global_zero:
            dataset, folder = summary["dataset"], run_dir / "plots"
            plots.draw_all(folder, dataset, history.rows, images.numpy(), labels.numpy(), probabilities.numpy())
    last = run_dir / "checkpoints" / "last.ckpt"
    summary["last_checkpoint"] = str(last) if last.exists() else None
    summary["seconds"] = round(time.perf_counter() - start, 1)
    if trainer.is_global_zero:
        tables.write_json(run_dir / "summary.json", summary)
        if completed and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            save_model(run_dir / "model", network, summary, run_dir / "plots")
    return summary


def validation_chooses(config: Config) -> bool:
    """Whether the best validation epoch is tested, and not the last one.

    A schedule that ends leads to its last weights, and which epoch reads one of 5,000 images more is chance; at a
    constant rate every epoch is as good a place to stop as any other.
    """
    return config.recipe.schedule == "constant"


def set_up(
    config: Config, run_dir: Path, data: DigitDataModule | None = None
) -> tuple[L.Trainer, DigitClassifier, DigitDataModule, History]:
    """What a run needs, put together and seeded, up to ``trainer.fit(classifier, data)``.

    Raises:
        DigitsError: the data or the device cannot be used.
    """
    placement = place(config)  # first, as a missing device is known at once
    keep_freed_memory()  # a fifth faster on the CPU
    L.seed_everything(config.seed, verbose=False)
    data = data or DigitDataModule(**dict(config.data), seed=config.seed)
    data.setup()
    classifier = DigitClassifier(config.model.model_dump(), config.recipe.model_dump())
    # the layout that the CPU's convolutions are fastest in
    classifier.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    history = History(run_dir)
    trainer = build_trainer(config, data, placement, history, run_dir)
    if compiles(config, placement["accelerator"], images_to_train(trainer, data)):
        from digits import compiled

        classifier.network.forward_in_training = compiled.forward
    return trainer, classifier, data, history


def images_to_train(trainer: L.Trainer, data: DigitDataModule) -> float:
    """How many images all steps of a run take together, one that is taken twice counted twice; inf without an end."""
    batches, limit = len(data.train) // data.batch_size, trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    ends = [batches * trainer.max_epochs] if trainer.max_epochs not in (None, -1) else []
    ends += [trainer.max_steps * trainer.accumulate_grad_batches] if trainer.max_steps != -1 else []
    return min(ends, default=math.inf) * data.batch_size


def compiles(config: Config, accelerator: Any, images: float) -> bool:
    """Whether to train by what torch.compile makes, as ``config.compile`` says, of so many ``images`` in all epochs.

    Raises:
        ConfigError: it is asked for on another device than a CPU.
        DigitsError: it is asked for and does not work.
    """
    wanted = config.compile
    if wanted is True and accelerator != "cpu":
        raise ConfigError(
            f"compile=true: goes with trainer.accelerator=cpu only, not with {config.trainer.accelerator}"
        )
    if not wanted or accelerator != "cpu" or (wanted == "auto" and images < PAYS_TO_COMPILE):
        return False
    from digits import compiled  # with torch's compiler, which is long to import

    log.info("compiling, which takes half a minute the first time")
    if compiled.available():
        return True
    if wanted == "auto":
        log.info("torch.compile does not work here: training goes on without; a C++ compiler makes it faster")
        return False
    raise DigitsError(
        "compile=true: torch.compile does not work here; install g++ and python3-dev, or use compile=false"
    )


def build_trainer(
    config: Config, data: DigitDataModule, placement: dict[str, Any], history: History, run_dir: Path
) -> L.Trainer:
    """Lightning's Trainer as the configuration has it, placed as :func:`place` says, with the project's callbacks.

    Raises:
        ConfigError: Lightning does not accept the combination of settings.
    """
    settings = {"callbacks": []} | config.trainer.model_dump() | placement
    steps_per_epoch = math.ceil(len(data.train) // data.batch_size / settings["accumulate_grad_batches"])
    if settings["max_epochs"] is None and settings["max_steps"] == -1:
        settings["max_epochs"] = recipe_epochs(config.recipe, steps_per_epoch)
    settings["log_every_n_steps"] = max(min(settings["log_every_n_steps"], steps_per_epoch), 1)  # a small set has few
    # first what has a part in a step, then what reads it
    callbacks: list[L.Callback] = [RisingAverage(config.recipe.average_decay)] if config.recipe.average_decay else []
    callbacks += [*settings.pop("callbacks"), history, RandomDraws()]
    if settings["enable_progress_bar"]:
        callbacks.append(Progress(history))
    if settings["enable_checkpointing"]:
        callbacks += checkpoints(run_dir / "checkpoints", data.validates_on == "val", config.ckpt_path)
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


def place(config: Config) -> dict[str, Any]:
    """The Trainer's arguments that say where and in which precision to compute, with every "auto" resolved.

    Raises:
        DigitsError: the device that is asked for is not there.
    """
    accelerator: str = config.trainer.accelerator
    devices, precision = config.trainer.devices, config.trainer.precision
    if accelerator == "auto":
        accelerator = "tpu" if xla.tpu_present() else "gpu" if torch.cuda.is_available() else "cpu"
    xla.keep_lightning_from_looking()
    if accelerator == "tpu":
        xla.require_device()
        if config.trainer.strategy != "auto":
            raise ConfigError(f"trainer.strategy={config.trainer.strategy}: with trainer.accelerator=tpu only auto")
        from digits.xla.lightning import trainer_arguments  # the only place where training meets torch_xla

        profiler, batch_size = config.trainer.profiler, config.data.batch_size
        return trainer_arguments(precision, devices, profiler, batch_size, config.seed)
    if config.trainer.profiler == "xla":
        raise ConfigError(f"trainer.profiler=xla: goes with trainer.accelerator=tpu; with {accelerator} use pytorch")
    if accelerator in ("gpu", "cuda") and not (torch.cuda.is_available() or torch.backends.mps.is_available()):
        raise DigitsError(
            f"trainer.accelerator={accelerator}: torch {torch.__version__} finds no GPU here; "
            "check the driver, or use trainer.accelerator=cpu"
        )
    if accelerator == "mps" and not torch.backends.mps.is_available():
        raise DigitsError("trainer.accelerator=mps: this is no Mac with Metal; use trainer.accelerator=cpu")
    if precision == "auto":
        precision = "bf16-mixed" if native_bfloat16(accelerator) else "32-true"
    return {"accelerator": accelerator, "devices": 1 if devices == "auto" else devices, "precision": precision}


def _model_checkpoints(trainer: L.Trainer) -> list[ModelCheckpoint]:
    return [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]


def _uninterrupted(trainer: L.Trainer, function: Any, *args: Any, **kwargs: Any) -> bool:
    """Call a method of the trainer; False where Ctrl-C ended it.

    Raises:
        ConfigError: Lightning does not accept a setting, which it sees only now.
    """
    handler = signal.getsignal(signal.SIGINT)
    try:
        function(*args, **kwargs)
    except SystemExit:  # Lightning saves and closes everything on Ctrl-C, ignores further ones, and exits
        if not trainer.interrupted:
            raise
    except MisconfigurationException as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
    finally:
        signal.signal(signal.SIGINT, handler)
    return not trainer.interrupted
