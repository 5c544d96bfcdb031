"""Checkpoints: what a run writes to be resumed from, when, and how."""

import contextlib
import io
import os
import shutil
import time
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint

from digits.backend import Backend
from digits.errors import DigitsError
from digits.exchange.checkpoint import load_checkpoint
from digits.files import sync_folder, temporary_beside, write_atomically
from digits.training.interruption import Interruption
from digits.training.run_folder import BEST, LAST, PREVIOUS

MIN_SECONDS = 20.0  # between the checkpoints of two epochs: where epochs are short, not all of them are worth the time


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all, wherever it lies; Lightning's own goes by way of the temporary folder.

    Raises:
        DigitsError: the weights or their averages are NaN or infinite: there is nothing to go on from.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path``, which may also be a buffer in memory."""
        for what, key in (("averages of the weights", "state_dict"), ("weights", "current_model_state")):
            for tensor in checkpoint.get(key, {}).values():
                if not tensor.isfinite().all():
                    raise DigitsError(
                        f"step {checkpoint['global_step']}: the {what} are not finite; lower recipe.learning_rate"
                    )
        if isinstance(path, io.BytesIO):
            torch.save(checkpoint, path)
            return
        content = io.BytesIO()
        torch.save(checkpoint, content)
        write_atomically(Path(path), content.getbuffer())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """What is in ``path``, on the CPU, read as :func:`~digits.exchange.checkpoint.load_checkpoint` does."""
        return load_checkpoint(Path(path))


class Checkpoints(Checkpoint):
    """Writes `last.ckpt`, which a run is resumed from, keeps the one before it, and `best.ckpt` of the best epoch.

    One is written at the end of an epoch, if the one before is older than 20 seconds or no epoch follows; within an
    epoch each ``minutes``, when a signal has come, and where `trainer.max_steps` or `trainer.max_time` ends the run.
    The best epoch is the one that reads most validation images; only a whole one can be.

    Args:
        folder: where to; created.
        minutes: None for never within an epoch.
        interruption: is asked after each step.
        backend: of several processes the first one writes; they all have to do so at the same step. Those that cannot
            agree on it, whose clocks differ, do so after each epoch, and never within one.
    """

    def __init__(
        self,
        folder: Path,
        minutes: float | None,
        interruption: Interruption,
        backend: Backend,
    ) -> None:
        self.folder = folder
        self.best_epoch: int | None = None  # from 0
        by_clock = backend.processes == 1 or not backend.compiles_steps
        self._interval = float("inf") if minutes is None or not by_clock else minutes * 60
        self._pause = min(MIN_SECONDS, self._interval) if by_clock else 0.0  # at least, between the ends of epochs
        self._interruption = interruption
        self._backend = backend
        self._best_score = float("-inf")
        self._best_content: io.BytesIO | None = None  # of `best.ckpt`, where it has not been written yet
        self._written = time.monotonic()
        self._step = 0
        self._validated = False

    @property
    def best_path(self) -> Path | None:
        """The checkpoint of the best epoch, if there is one."""
        path = self.folder / BEST
        return path if self.best_epoch is not None and path.is_file() else None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock; of an epoch that is resumed in its middle, leave out the batches that have been taken."""
        self._written, self._step = time.monotonic(), trainer.global_step
        if trainer.is_global_zero:
            self.folder.mkdir(exist_ok=True)
        self._interruption.listen()
        done = 0 if trainer.is_last_batch else trainer.fit_loop.batch_idx + 1
        if done:
            trainer.train_dataloader.sampler.skip(done)  # type: ignore[union-attr]

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Write `last.ckpt` if it is time, and stop here if a signal has come; after the last batch both wait."""
        accumulates, self._step = trainer.global_step == self._step, trainer.global_step
        if accumulates or trainer.is_last_batch:
            return  # no checkpoint holds gradients that are being accumulated; the end of the epoch comes at once
        self._validated = False
        ends = trainer.should_stop and trainer.fit_loop._can_stop_early  # after min_epochs and min_steps, as Lightning
        due, asked = self._agreed(self._interval)
        if due or asked or ends:
            self._write(trainer, self._content(trainer))
        if asked:
            self._interruption.raise_if_asked()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note that this epoch was validated; Lightning goes on to report the figures of an earlier one."""
        self._validated = True

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what is due, and stop here if a signal has come."""
        if not trainer.is_last_batch:
            return  # a part of an epoch, which was written after its last step, to be gone on with from there
        score = trainer.callback_metrics.get("val/sparse_accuracy") if self._validated else None
        is_best = score is not None and float(score) > self._best_score
        if score is not None and is_best:
            self._best_score, self.best_epoch, self._best_content = float(score), trainer.current_epoch, None
        due, asked = self._agreed(self._pause)
        due = due or asked or trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        if due or is_best:
            content = self._content(trainer)
            if due:
                self._write(trainer, content)
            else:
                self._best_content = content
            if due and is_best and trainer.is_global_zero:
                _link(self.folder / LAST, self.folder / BEST)
        self._validated = False
        if asked:
            self._interruption.raise_if_asked()

    def state_dict(self) -> dict[str, Any]:
        """Which epoch was the best, and its accuracy."""
        return {"best_epoch": self.best_epoch, "best_score": self._best_score}

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take over the best epoch and its file; without the file, begin anew."""
        state = checkpoint["callbacks"].get(self.state_key)
        if trainer.ckpt_path is None or state is None or state["best_epoch"] is None:
            return
        # a process that was killed between the two may not have made the one the other
        is_best, resumed = state["best_epoch"] == checkpoint["epoch"], Path(trainer.ckpt_path)
        source, own = resumed if is_best else resumed.with_name(BEST), self.folder / BEST
        if not trainer.strategy.broadcast(source.is_file()):  # as the first process sees it
            return
        if trainer.is_global_zero:
            self.folder.mkdir(parents=True, exist_ok=True)
            if source.resolve() != own.resolve():
                _link(source, own)
        self.best_epoch, self._best_score = state["best_epoch"], state["best_score"]

    def _content(self, trainer: L.Trainer) -> io.BytesIO:
        content = io.BytesIO()
        trainer.save_checkpoint(content)  # type: ignore[arg-type]  # which AtomicCheckpointIO takes too
        return content

    def _agreed(self, pause: float) -> tuple[bool, bool]:
        """Whether ``pause`` seconds have passed since the last checkpoint, and whether a signal has come.

        Both on any of the processes; what comes to one of them after it has been asked is for the next step.
        """
        due, signal = self._backend.agree(time.monotonic() - self._written >= pause, self._interruption.number)
        if signal:
            self._interruption.ask(signal)
        return bool(due), bool(signal)

    def _write(self, trainer: L.Trainer, content: io.BytesIO) -> None:
        if trainer.is_global_zero:
            if self._best_content is not None:
                write_atomically(self.folder / BEST, self._best_content.getbuffer())
            write_atomically(self.folder / LAST, content.getbuffer(), keep=self.folder / PREVIOUS)
        self._best_content = None
        self._written = time.monotonic()


def _link(source: Path, target: Path) -> None:
    """Make ``target`` the same file as ``source``, atomically, or a copy where the file system has no links."""
    temporary = temporary_beside(target)
    try:
        try:
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)
        temporary.replace(target)
        sync_folder(target.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


class RNGState(L.Callback):
    """Keeps the state of the random generators in the checkpoint, so that a resumed run draws the same numbers."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self._loaded: dict[str, Any] = {}

    def state_dict(self) -> dict[str, Any]:
        """The states of the host's generator and of the device's."""
        return self.backend.random_state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep them until training begins, as Lightning itself draws random numbers before that."""
        self._loaded = state_dict

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Set the generators to the states of the checkpoint."""
        if not self._loaded:
            return
        self.backend.restore_random_state(self._loaded)
        if trainer.is_last_batch:  # of an epoch that was finished
            torch.empty((), dtype=torch.int64).random_()  # as the data loader does once, before an epoch
        self._loaded = {}
