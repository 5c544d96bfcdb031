"""What a run leaves to go on from, and what a resumed one takes of it."""

import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from digits.classifier import DigitClassifier
from digits.errors import DigitsError


def checkpoints(folder: Path, monitor: bool, resumed: str | None) -> list[L.Callback]:
    """What writes `last.ckpt` into ``folder``, and with ``monitor`` `best.ckpt`; ``resumed`` is `ckpt_path`."""
    # on_train_epoch_end: after History has added the epoch's row
    common: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False, "save_on_train_epoch_end": True}
    # none is saved within an epoch, not even on Ctrl-C: from there no run could go on as it would have
    ctrl_c = CtrlC()
    last = LastCheckpoint(ctrl_c, **common)
    return [BestCheckpoint(resumed, ctrl_c, **common), last] if monitor else [last]


class CtrlC:
    """Makes Ctrl-C wait while an epoch's checkpoints are written: of half a file no run could go on."""

    def __init__(self) -> None:
        self._handler: Any = None
        self._pressed = False

    def wait(self) -> None:
        """From now on Ctrl-C is only noted; where it is not for this thread to handle it, nothing changes."""
        if self._handler is None and threading.current_thread() is threading.main_thread():
            self._handler = signal.signal(signal.SIGINT, self._note)

    def count(self) -> None:
        """From now on Ctrl-C counts again, one that was noted too."""
        if self._handler is None:
            return
        signal.signal(signal.SIGINT, self._handler)
        self._handler, pressed, self._pressed = None, self._pressed, False
        if pressed:
            signal.raise_signal(signal.SIGINT)

    def _note(self, *_: Any) -> None:
        self._pressed = True


def check_checkpoint(path: Path, classifier: DigitClassifier) -> None:
    """Refuse a file that cannot be resumed from, before anything is trained.

    Raises:
        DigitsError: it is no checkpoint of this project, or one of another network or recipe.
    """
    # the checkpoint settles these
    settled = ("optimizer", "schedule", "learning_rate", "weight_decay", "warmup")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        state, recipe = checkpoint["state_dict"], checkpoint["hyper_parameters"]["recipe"]
        _ = [recipe[key] for key in (*settled, "average_decay")], checkpoint["optimizer_states"], checkpoint["loops"]
    except OSError as error:
        raise DigitsError(f"ckpt_path={path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch.load raises whatever a wrong file leads it to
        raise DigitsError(f"ckpt_path={path}: not a checkpoint of this project, or a damaged one") from error
    for name, tensor in classifier.state_dict().items():
        if name not in state or state[name].shape != tensor.shape:
            found = tuple(state[name].shape) if name in state else "nothing"
            raise DigitsError(
                f"ckpt_path={path}: a checkpoint of another network: {name} is {found}, here {tuple(tensor.shape)}"
            )
    for key in settled:
        if recipe[key] != classifier.recipe[key]:
            raise DigitsError(f"ckpt_path={path}: was trained with recipe.{key}={recipe[key]}; resume with the same")
    if bool(recipe["average_decay"]) != bool(classifier.recipe["average_decay"]):
        raise DigitsError(
            f"ckpt_path={path}: was trained with recipe.average_decay={recipe['average_decay']}; "
            "resume with averages if it has some, and else without"
        )


class RandomDraws(L.Callback):
    """Keeps the state of the random generators in the checkpoint: a resumed run draws on where the other stopped.

    That of XLA's own is not kept: see :class:`digits.xla.lightning.StepGraph`.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """Of the CPU, and of the GPUs that there are."""
        gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        return {"cpu": torch.get_rng_state(), "gpus": gpus}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep it until the training begins: until then Lightning draws too."""
        self._loaded = state_dict

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Go on from there."""
        if not self._loaded:
            return
        torch.set_rng_state(self._loaded["cpu"].cpu())
        torch.empty((), dtype=torch.int64).random_()  # as an iterator of the loader does, made before a first epoch
        if len(self._loaded["gpus"]) == torch.cuda.device_count():  # else the run goes on on another machine
            torch.cuda.set_rng_state_all([state.cpu() for state in self._loaded["gpus"]])
        self._loaded = {}


class BestCheckpoint(ModelCheckpoint):
    """The weights of the best validation epoch.

    A resumed run takes those of the run before into its own folder, if they lie beside the checkpoint ``resumed``.
    """

    def __init__(self, resumed: str | None, ctrl_c: CtrlC, **options: Any) -> None:
        super().__init__(filename="best", monitor="val/sparse_accuracy", mode="max", **options)
        self._resumed = resumed
        self._ctrl_c = ctrl_c

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write it; Ctrl-C waits until the last one is written too."""
        self._ctrl_c.wait()
        super().on_train_epoch_end(trainer, pl_module)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Begin anew where there is no file to go with the score."""
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
    """What to go on from, after each epoch."""

    def __init__(self, ctrl_c: CtrlC, **options: Any) -> None:
        super().__init__(filename="last", **options)
        self._ctrl_c = ctrl_c

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write it; then Ctrl-C counts again."""
        self._ctrl_c.wait()
        super().on_train_epoch_end(trainer, pl_module)
        self._ctrl_c.count()
