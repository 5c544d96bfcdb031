"""The LightningModule: what is minimised, what is measured, and how the weights move."""

import math
from collections.abc import Callable
from typing import Any, cast

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric, Metric
from torchmetrics.classification import MulticlassAccuracy

from digits.data.module import Batch
from digits.data.warp import RandomWarp
from digits.errors import DigitsError
from digits.network import DeepDigits, to_input


def _each_split(make: Callable[[], Metric]) -> nn.ModuleDict:
    return nn.ModuleDict({f"{split}_": make() for split in ("train", "val", "test")})  # a module has train() already


class KerasAdam(torch.optim.Adam):
    """Adam with Keras's epsilon.

    Keras adds epsilon to the root of the raw second moment, torch to that of the bias-corrected one: Kingma & Ba
    2015's "epsilon hat", of consequence in the first few hundred steps and for small gradients.
    """

    keras_eps = 1e-7

    def step(self, closure: Any = None) -> Any:
        """One step; ``closure`` computes the loss."""
        for group in self.param_groups:
            state = self.state.get(group["params"][0])
            steps = 1 + (float(state["step"]) if state else 0)
            group["eps"] = self.keras_eps / math.sqrt(1 - group["betas"][1] ** steps)
        return super().step(closure)


class DigitClassifier(L.LightningModule):
    """DeepDigits with its loss (cross-entropy + L2), its sparse accuracy, its optimizer and its schedule.

    Args:
        model: arguments of :class:`~digits.network.DeepDigits`.
        recipe: how it is trained, as `conf/recipe/` has it: ``optimizer`` ("adam" or "adamw"), ``learning_rate``,
            ``weight_decay``, ``schedule`` ("constant" or "one_cycle"), ``warmup``, ``label_smoothing``, ``warp``.
    """

    def __init__(self, model: dict[str, Any], recipe: dict[str, Any]) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.network = DeepDigits(**model)
        self.warp = RandomWarp(**recipe["warp"]) if recipe["warp"] else nn.Identity()
        self.recipe = recipe
        self.loss = _each_split(lambda: MeanMetric(nan_strategy="disable"))
        self.accuracy = _each_split(lambda: MulticlassAccuracy(10, average="micro", validate_args=False))
        self.test_logits: list[Tensor] = []  # of each test batch, for the report

    def forward(self, images: Tensor) -> Tensor:
        """Logits float32 (N, 10) of uint8 images (N, 28, 28)."""
        return self.network(to_input(images)).float()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch, warped where the recipe says so."""
        logits = self.network(self.warp(to_input(batch["image"]))).float()
        loss = F.cross_entropy(logits, batch["label"], label_smoothing=self.recipe["label_smoothing"])
        loss = loss + self.network.l2_penalty()
        self._measure("train", "train", loss, logits, batch["label"])
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score one batch of what the data module validates on."""
        self._evaluate("val", self.trainer.datamodule.validates_on, batch)  # type: ignore[attr-defined]

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score one batch of the test split, and keep its logits."""
        self.test_logits.append(self._evaluate("test", "test", batch))

    def on_test_epoch_start(self) -> None:
        """Forget the logits of an earlier test."""
        self.test_logits = []

    def _evaluate(self, split: str, prefix: str, batch: Batch) -> Tensor:
        logits = self(batch["image"])
        loss = F.cross_entropy(logits, batch["label"]) + self.network.l2_penalty()
        self._measure(split, prefix, loss, logits, batch["label"])
        return logits

    def _measure(self, split: str, prefix: str, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        mean, accuracy = (cast(Metric, metrics[f"{split}_"]) for metrics in (self.loss, self.accuracy))
        mean.update(loss.detach(), len(labels))
        accuracy.update(logits.detach(), labels)
        self.log(f"{prefix}/loss", mean, on_step=False, on_epoch=True)
        self.log(f"{prefix}/sparse_accuracy", accuracy, on_step=False, on_epoch=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam as Keras has it, or AdamW that decays kernels only; a constant or a one-cycle rate."""
        rate, fused = self.recipe["learning_rate"], self.device.type in ("cpu", "cuda")
        if self.recipe["optimizer"] == "adam":
            optimizer: torch.optim.Optimizer = KerasAdam(self.parameters(), rate, fused=fused)
        else:
            kernels = [layer.weight for layer in self.network.weight_layers()]
            others = [p for p in self.parameters() if all(p is not kernel for kernel in kernels)]
            groups: list[dict[str, Any]] = [{"params": kernels}, {"params": others, "weight_decay": 0.0}]
            optimizer = torch.optim.AdamW(groups, rate, weight_decay=self.recipe["weight_decay"], fused=fused)
        if self.recipe["schedule"] == "constant":
            return optimizer
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=rate,
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=self.recipe["warmup"],
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to go on with a one-cycle schedule that was planned for another number of steps.

        Raises:
            DigitsError: the numbers differ.
        """
        schedules = checkpoint.get("lr_schedulers")
        if self._trainer is None or not schedules:
            return
        planned, here = schedules[0]["total_steps"], int(self.trainer.estimated_stepping_batches)
        if planned != here:
            raise DigitsError(
                f"ckpt_path: its one-cycle schedule is for {planned:,} steps, this run's for {here:,}; "
                "resume with the same data, data.batch_size and trainer.max_epochs"
            )
