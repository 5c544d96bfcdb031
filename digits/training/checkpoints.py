"""Checkpoints: what a run writes to be resumed from, and what a resumed run checks and takes over."""

import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from digits.errors import DigitsError
from digits.exchange.checkpoint import load_checkpoint, not_ours
from digits.training.classifier import DigitClassifier

FIXED = ("optimizer", "schedule", "learning_rate", "weight_decay", "warmup")  # by the state in a checkpoint


def checkpoint_callbacks(folder: Path, monitor: bool, resumed: str | None) -> list[L.Callback]:
    """Callbacks that write `last.ckpt` to ``folder``, and with ``monitor`` `best.ckpt`; ``resumed`` is `ckpt_path`."""
    # at the end of the epoch, when History has added its row
    common: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False, "save_on_train_epoch_end": True}
    # nothing is saved within an epoch, not even on Ctrl-C: a run resumed from there would end differently
    interrupt = DeferredInterrupt()
    last = LastCheckpoint(interrupt, **common)
    return [BestCheckpoint(resumed, interrupt, **common), last] if monitor else [last]


class DeferredInterrupt:
    """Makes Ctrl-C wait until an epoch's checkpoints are written, as half a file cannot be resumed from."""

    def __init__(self) -> None:
        self._handler: Any = None
        self._pressed = False

    def defer(self) -> None:
        """From now on Ctrl-C is only noted; outside the main thread, which alone handles signals, nothing changes."""
        if self._handler is None and threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._note)

    def restore(self) -> None:
        """From now on Ctrl-C works again; one that was noted works now."""
        if self._handler is None:
            return
        signal.signal(signal.SIGINT, self._handler)
        self._handler, pressed, self._pressed = None, self._pressed, False
        if pressed:
            signal.raise_signal(signal.SIGINT)

    def _note(self, *_: Any) -> None:
        self._pressed = True


def require_checkpoint(path: Path) -> None:
    """Raise DigitsError if there is no file at ``path``, which is what `ckpt_path` names."""
    if not path.is_file():
        raise DigitsError(f"ckpt_path={path}: no such file; checkpoints are in runs/<name>/<time>/checkpoints/")


def check_checkpoint(path: Path, classifier: DigitClassifier) -> None:
    """Refuse a file that cannot be resumed from, before anything is trained.

    Raises:
        DigitsError: it is no checkpoint of this project, or one of an older version, another network or recipe.
    """
    checkpoint = load_checkpoint(path, "ckpt_path=")
    try:
        state, recipe = checkpoint["state_dict"], checkpoint["hyper_parameters"]["recipe"]
        _ = [recipe[key] for key in (*FIXED, "ema_decay")], checkpoint["optimizer_states"], checkpoint["loops"]
    except (KeyError, TypeError) as error:
        raise not_ours(path, "ckpt_path=") from error
    for name, tensor in classifier.state_dict().items():
        if name not in state or state[name].shape != tensor.shape:
            found = tuple(state[name].shape) if name in state else "nothing"
            raise DigitsError(
                f"ckpt_path={path}: a checkpoint of another network: {name} is {found}, here {tuple(tensor.shape)}"
            )
    for key in FIXED:
        if recipe[key] != classifier.recipe[key]:
            raise DigitsError(f"ckpt_path={path}: was trained with recipe.{key}={recipe[key]}; resume with the same")
    if bool(recipe["ema_decay"]) != bool(classifier.recipe["ema_decay"]):
        raise DigitsError(
            f"ckpt_path={path}: was trained with recipe.ema_decay={recipe['ema_decay']}; "
            "resume with averages if it has some, and else without"
        )


class RNGState(L.Callback):
    """Keeps the state of the random generators in the checkpoint, so that a resumed run draws the same numbers.

    The state of XLA's own generator is not kept: see :class:`digits.xla.lightning.MarkStep`.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """The states of the CPU's generator and of each GPU's."""
        gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"cpu": torch.get_rng_state(), "gpus": gpus}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep them until training begins, as Lightning itself draws random numbers before that."""
        self._loaded = state_dict

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the generators to the states of the checkpoint."""
        if not self._loaded:
            return
        torch.set_rng_state(self._loaded["cpu"].cpu())
        torch.empty((), dtype=torch.int64).random_()  # as the data loader does once, before the first epoch
        if len(self._loaded["gpus"]) == torch.cuda.device_count():  # else this is another machine
            torch.cuda.set_rng_state_all([state.cpu() for state in self._loaded["gpus"]])
        self._loaded = {}


class BestCheckpoint(ModelCheckpoint):
    """Writes `best.ckpt`, the checkpoint of the best validation epoch.

    A resumed run copies the one of the earlier run into its own folder, if it lies beside the checkpoint ``resumed``.
    """

    def __init__(self, resumed: str | None, interrupt: DeferredInterrupt, **options: Any) -> None:
        super().__init__(filename="best", monitor="val/sparse_accuracy", mode="max", **options)
        self._resumed = resumed
        self._interrupt = interrupt

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write it if this epoch is the best; Ctrl-C waits until `last.ckpt` is written too."""
        self._interrupt.defer()
        super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the best score and its file; without the file, begin anew."""
        before = Path(self._resumed or "").with_name("best.ckpt")
        if not before.is_file() or state_dict["best_model_score"] is None:
            return
        assert self.dirpath is not None
        own = Path(self.dirpath) / before.name
        own.parent.mkdir(parents=True, exist_ok=True)
        if before.resolve() != own.resolve():
            shutil.copyfile(before, own)
        score = state_dict["best_model_score"]
        places = {"dirpath": str(self.dirpath), "best_model_path": str(own), "kth_best_model_path": str(own)}
        super().load_state_dict(state_dict | places | {"best_k_models": {str(own): score}})


class LastCheckpoint(ModelCheckpoint):
    """Writes `last.ckpt`, which a run is resumed from, after each epoch."""

    def __init__(self, interrupt: DeferredInterrupt, **options: Any) -> None:
        super().__init__(filename="last", **options)
        self._interrupt = interrupt

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write it; then Ctrl-C works again."""
        self._interrupt.defer()
        super().on_train_epoch_end(trainer, pl_module)
        self._interrupt.restore()
