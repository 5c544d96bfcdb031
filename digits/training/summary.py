"""What a run was and what came of it, in one dictionary: what `summary.json` begins with."""

import importlib.metadata
import shutil
import subprocess
from pathlib import Path
from typing import Any

import lightning as L
import torch

from digits import __version__
from digits.data.module import DigitDataModule
from digits.settings.schema import Config
from digits.training.classifier import DigitClassifier
from digits.training.history import History


def summarize(
    config: Config,
    trainer: L.Trainer,
    data: DigitDataModule,
    classifier: DigitClassifier,
    history: History,
    tested_epoch: int,
) -> dict[str, Any]:
    """The part of `summary.json` that is known of every run, also of one that Ctrl-C has ended.

    Args:
        config: as the run was composed.
        trainer: after the training, and after the test if there was one.
        data: what was trained and tested on.
        classifier: what was trained.
        history: the epochs; speeds are in images a second.
        tested_epoch: from 1; the one whose validation figures are given.
    """
    assert data.digits is not None
    steady = history.rows[1:] or history.rows  # the first epoch warms up; a run of one has no other
    images = sum(row["images_per_second"] * row["train_seconds"] for row in steady)
    seconds = sum(row["train_seconds"] for row in steady)
    last = history.rows[-1] if history.rows else {}
    tested = next((row for row in history.rows if row["epoch"] == tested_epoch), last)
    entropies = [row["val/cross_entropy"] for row in history.rows if "val/cross_entropy" in row]
    metrics = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("test/")}
    return {
        "experiment": config.name,
        "dataset": data.digits.name,
        "train_images": len(data.train) - data.drawn_images - data.own_images,
        "own_images": data.own_images or None,
        "drawn_images": data.drawn_images or None,
        "val_images": len(data.val),
        "test_images": len(data.test),
        "parameters": classifier.network.count_parameters(),
        "model": config.model.name,
        "weights": config.model.weights,
        "seed": config.seed,
        "epochs": len(history.rows),
        "accelerator": trainer.accelerator.name(),
        "processes": trainer.world_size if trainer.world_size > 1 else None,
        "precision": str(trainer.precision),
        "evaluation_precision": str(getattr(trainer.precision_plugin, "evaluation", trainer.precision)),
        "compiled": classifier.compiled,
        "val/sparse_accuracy": tested.get("val/sparse_accuracy"),
        "val/loss": tested.get("val/loss"),
        "val/cross_entropy": tested.get("val/cross_entropy"),
        "val/best_cross_entropy": min(entropies, default=None),
        **{key: value for key, value in last.items() if key.startswith("train/")},
        **metrics,
        "images_per_second": round(images / seconds, 1) if seconds else None,
        "digits": __version__,
        "torch": torch.__version__,
        "lightning": importlib.metadata.version("lightning"),
        "git_commit": _git_commit(),
    }


def _git_commit() -> str | None:
    root, git = Path(__file__).resolve().parents[2], shutil.which("git")
    if git is None or not (root / ".git").exists():
        return None
    answer = subprocess.run([git, "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None
