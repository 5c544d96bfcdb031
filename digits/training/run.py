"""One run: fitted, tested, calibrated, scored, and written into its folder."""

import contextlib
import functools
import logging
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from digits.data.module import DigitDataModule
from digits.errors import ConfigError, DigitsError
from digits.evaluation.calibration import calibrate
from digits.evaluation.scoring import score
from digits.exchange.checkpoint import load_checkpoint
from digits.exchange.model_folder import check_target, save_model
from digits.files import locked, remove_unfinished
from digits.network import Network
from digits.report import plots
from digits.report.tables import read_summary, write_json
from digits.settings.schema import Config
from digits.sweep.job import SweepJob
from digits.training.checkpoint_check import check_checkpoint
from digits.training.checkpoints import Checkpoints
from digits.training.classifier import DigitClassifier
from digits.training.distributed.launch import other_processes
from digits.training.history import History
from digits.training.interruption import Interrupted, Interruption
from digits.training.loggers import close, log_run
from digits.training.pretrained import before_and_after, load_pretrained
from digits.training.pruning import Pruned, Pruning
from digits.training.run_folder import LAST, begin, checkpoints_to_resume, is_complete
from digits.training.run_log import log_result, log_settings, warnings_logged
from digits.training.setup import set_up
from digits.training.summary import summarize

log = logging.getLogger("digits")


def train(
    config: Config,
    run_dir: Path,
    overrides: Sequence[str] | None = None,
    command: str | None = None,
    job: SweepJob | None = None,
) -> dict[str, Any]:
    """Train, test and report as ``config`` says; everything that is written goes into ``run_dir``.

    If this run was stopped there, it goes on; if it is complete, nothing is done.

    Args:
        config: the settings.
        run_dir: created if it does not exist.
        overrides: what `train.py` was called with, if it was: they go into the summary.
        command: what goes on with this run, for the summary of one that is stopped.
        job: if it is one of a sweep.

    Returns:
        The summary, as `summary.json` holds it. Its ``status`` is "completed", "interrupted" after a signal, whose
        name is then under ``signal``, or "pruned".

    Raises:
        DigitsError: the folder, the data, the device or the checkpoint cannot be used.
        Interrupted: a signal has come before anything was begun.
    """
    created = not run_dir.exists()
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with warnings_logged(), Interruption() as interruption, locked(run_dir):
            called = {"overrides": overrides, "resume_command": command}
            summary = _train(config, run_dir, interruption, called, job)
    finally:
        if created:
            with contextlib.suppress(OSError):  # not empty: something was begun
                run_dir.rmdir()
    return summary


def _train(
    config: Config, run_dir: Path, interruption: Interruption, called: dict[str, Any], job: SweepJob | None
) -> dict[str, Any]:
    start = time.perf_counter()
    candidates = checkpoints_to_resume(config, run_dir)
    if is_complete(config, run_dir):
        log.info("%s: this run is complete; resume=false starts it afresh", run_dir)
        return read_summary(run_dir) or {}
    remove_unfinished(run_dir)
    try:
        resumed = _first_whole(candidates)
    except DigitsError as error:
        if config.ckpt_path is None:  # which would be another way out
            raise DigitsError(f"{error}; resume=false starts afresh") from error
        raise
    trial = job.trial if job is not None else None
    is_hopeless = trial.is_hopeless if trial is not None else None
    parts = trainer, classifier, data, history = set_up(
        config, run_dir, None, interruption, job is not None, is_hopeless
    )
    if resumed is not None:
        check_checkpoint(resumed, trainer, classifier, data)
        log.info("going on from %s", resumed)
    check_target(run_dir / "model")
    begin(config, run_dir, fresh=resumed is None or not resumed.resolve().is_relative_to(run_dir.resolve()))
    log_settings(config)
    common = called | {"run_dir": str(run_dir)}
    try:
        try:
            with other_processes(trainer, config, trial is not None):
                tested_epoch = fit_and_test(config, *parts, resumed, interruption)
            summary = summarize(config, trainer, data, classifier, history, tested_epoch)
            network, results, draw = report(config, trainer, classifier, data, history, run_dir)
            summary |= {"status": "completed"} | common | results
        except Interrupted as stop:
            summary = summarize(config, trainer, data, classifier, history, len(history.rows))
            summary |= {"status": "interrupted", "signal": str(stop)} | common
        except Pruned:
            summary = summarize(config, trainer, data, classifier, history, len(history.rows))
            summary |= {"status": "pruned"} | common
        last = run_dir / "checkpoints" / LAST
        summary["last_checkpoint"] = str(last) if last.exists() else None
        completed, keeps_model, draws = summary["status"] == "completed", False, False
        if completed and trainer.is_global_zero:
            keeps_model, draws = what_is_kept(config, data, summary, job)
            if draws:
                draw()
        summary["seconds"] = round(time.perf_counter() - start, 1)
        if trainer.is_global_zero:
            if completed and not trainer.fast_dev_run:  # type: ignore[attr-defined]
                if keeps_model:
                    save_model(run_dir / "model", network, summary, run_dir / "plots")
                log_run(trainer, config, summary, run_dir / "plots" / "mistakes.png")
            if completed and config.keep == "none" and job is None:
                shutil.rmtree(run_dir / "checkpoints", ignore_errors=True)
            write_json(run_dir / "summary.json", summary)  # last: what it says is complete, is
            log_result(summary)
    except Exception as error:
        if isinstance(error, OSError) and error.filename is None:  # as of a disk that is full
            error = OSError(error.errno, error.strerror, str(run_dir))
        with contextlib.suppress(OSError):
            if run_dir.is_dir():  # it may have vanished
                write_json(run_dir / "summary.json", {"status": "failed", "error": str(error)} | common)
        raise error
    finally:
        close(trainer, failed=sys.exc_info()[0] is not None)
    return summary


def fit_and_test(
    config: Config,
    trainer: L.Trainer,
    classifier: DigitClassifier,
    data: DigitDataModule,
    history: History,
    resumed: Path | None,
    interruption: Interruption,
) -> int:
    """Fit and test, together with the other processes if there are some; returns which epoch (from 1) was tested.

    Raises:
        Interrupted: a signal has come; what was trained is in the checkpoint.
    """
    resumed = trainer.strategy.broadcast(resumed)  # by the first process, which alone looks for it
    saves = next((callback for callback in trainer.callbacks if isinstance(callback, Checkpoints)), None)  # type: ignore[attr-defined]
    interruption.deferred = saves is not None
    _call(trainer.fit, classifier, data, ckpt_path=resumed, weights_only=True)
    interruption.deferred = False
    interruption.raise_if_asked()
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, Pruning):
            callback.raise_if_pruned()
    tested_epoch = len(history.rows)
    best = trainer.strategy.broadcast(saves.best_path if saves is not None else None)
    if best is not None and selects_best_epoch(config):
        checkpoint = trainer.strategy.load_checkpoint(best)
        classifier.load_state_dict(checkpoint["state_dict"])
        tested_epoch = checkpoint["epoch"] + 1
    if not all(tensor.isfinite().all() for tensor in classifier.network.state_dict().values()):
        raise DigitsError("the weights are not finite; lower recipe.learning_rate")
    _call(trainer.test, classifier, data, verbose=False)
    return tested_epoch


def report(
    config: Config,
    trainer: L.Trainer,
    classifier: DigitClassifier,
    data: DigitDataModule,
    history: History,
    run_dir: Path,
) -> tuple[Network, dict[str, Any], Callable[[], None]]:
    """Calibrate and score the test; returns the network, its figures, and what draws the plots."""
    with trainer.strategy.precision_plugin.test_step_context():  # as the test was; in bfloat16 also four times as fast
        network, probabilities = calibrate_and_predict(classifier, data)
    images, labels = data.test.images[: len(probabilities)], data.test.labels[: len(probabilities)]
    assert data.digits is not None
    name = data.digits.name
    shown = (images.numpy(), labels.numpy(), probabilities.numpy())
    note = why_validation_differs(config, network)
    draw = functools.partial(
        plots.draw_all, run_dir / "plots", name, history.rows, *shown, note=note, classes=data.digits.classes
    )
    results = score(probabilities, labels, mnist_test=name == "mnist", classes=data.digits.classes)
    results["temperature"] = network.temperature
    if (pretrained := load_pretrained(config.model)) is not None:
        results["before_after"] = before_and_after(pretrained, network, data)
    return network, results, draw


def what_is_kept(
    config: Config, data: DigitDataModule, summary: dict[str, Any], job: SweepJob | None
) -> tuple[bool, bool]:
    """Whether the model is written, and whether plots are drawn.

    With keep=auto a job of a sweep writes its model, as its setting may turn out to be the best with its next seed;
    plots, which take longer, are drawn if it is the best already. What is not kept in the end, the sweep removes.
    """
    if config.keep != "auto":
        return config.keep == "all", config.keep == "all"
    return True, job is None or not len(data.val) or job.is_best_so_far(summary)


def why_validation_differs(config: Config, network: Network) -> str:
    """The sentence below the curves that says what training has and validation has not, and the other way round."""
    used = {
        "dropout": any(isinstance(layer, _DropoutNd) and layer.p for layer in network.modules()),
        "augmentation": config.recipe.augmentation,
        "label smoothing": config.recipe.label_smoothing,
    }
    *names, last = [name for name, value in used.items() if value] or [""]
    what = f"{', '.join(names)} and {last}" if names else last
    split = "the test split" if config.data.test_each_epoch else "validation"
    reasons = [f"{what} {'are' if names else 'is'} active in training only"] if what else []
    reasons += [f"{split} uses averaged weights"] if config.recipe.ema_decay else []
    return f"Why {split} can look better than training: {', and '.join(reasons)}." if reasons else ""


def selects_best_epoch(config: Config) -> bool:
    """Whether the best validation epoch is tested, and not the last one.

    A schedule that ends leads to its last weights, and which epoch reads one of 5,000 images more is chance; at a
    constant rate every epoch is as good a place to stop as any other.
    """
    return config.recipe.schedule == "constant"


def calibrate_and_predict(classifier: DigitClassifier, data: DigitDataModule) -> tuple[Network, Tensor]:
    """The network at the temperature that fits the validation images, and its probabilities (N, 10) of the test.

    N is less than the size of the test split where only a part of it was tested.
    """
    network = calibrate(classifier.network, data.val.images, data.val.labels)
    logits = torch.cat(classifier.test_logits).cpu()[: len(data.test)]  # without what filled up the last batch
    return network, network.softmax(logits)


def _first_whole(candidates: Sequence[Path]) -> Path | None:
    """The first of the checkpoints that is not damaged; each that is passed over is said in one line.

    Raises:
        DigitsError: all are damaged.
    """
    for number, path in enumerate(candidates, start=1):
        try:
            load_checkpoint(path, "ckpt_path=")
        except DigitsError as error:
            if number == len(candidates):
                raise
            log.warning("%s; going on from the one before it, %s", error, candidates[number].name)
        else:
            return path
    return None


def _call(function: Any, *args: Any, **kwargs: Any) -> None:
    """Call a method of the trainer.

    Raises:
        ConfigError: Lightning does not accept a setting, which it sees only now.
    """
    try:
        function(*args, **kwargs)
    except MisconfigurationException as error:
        raise ConfigError(f"trainer: {' '.join(str(error).split())}") from error
