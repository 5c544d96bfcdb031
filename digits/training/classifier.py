"""The LightningModule: what is minimized, what is measured, and how the weights move."""

from typing import Any, cast

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from digits import __version__
from digits.backend import Backend
from digits.data.augmentation import Augmentation
from digits.data.module import PADDING, Batch
from digits.network import build_network, to_input
from digits.training.metrics import LossAndAccuracy
from digits.training.optimizer import KerasAdam, load_across_devices
from digits.training.step_limit import steps_allowed


def to_target(labels: Tensor) -> Tensor:
    """Probabilities float32 (N, 10) to learn for ``labels``, int64 (N,): 1 for the class, or 1/10 each for no digit."""
    classes = torch.arange(10, device=labels.device)
    return torch.where(labels[:, None] < 0, 0.1, (labels[:, None] == classes).float())


class DigitClassifier(L.LightningModule):
    """A network with its loss (cross-entropy + L2), its sparse accuracy, its optimizer and its schedule.

    Args:
        model: settings of the network, as `conf/model/` has them.
        recipe: how it is trained, as `conf/recipe/` has it: ``optimizer`` ("adam" or "adamw"), ``learning_rate``,
            ``weight_decay``, ``schedule`` ("constant" or "one_cycle"), ``warmup``, ``label_smoothing``,
            ``augmentation``.
        backend: the device that it will be trained on; a CPU by default.
        compiled: train by what torch.compile makes of parts of the network; with DeepDigits only.
    """

    def __init__(
        self, model: dict[str, Any], recipe: dict[str, Any], backend: Backend | None = None, compiled: bool = False
    ) -> None:
        super().__init__()
        self.save_hyperparameters("model", "recipe")
        self.recipe = recipe
        self.backend = backend or Backend()
        self.compiled = compiled
        self.network = build_network(model)
        # the layout that the CPU's convolutions are fastest in
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.fit_network = self.backend.accelerate(self.network, training=True, compiled=compiled)
        self.eval_network = self.backend.accelerate(self.network)
        options = recipe["augmentation"]
        self.augmentation = Augmentation(**options, resample=self.backend.resample) if options else nn.Identity()
        self.metrics = nn.ModuleDict({split: LossAndAccuracy() for split in ("fit", "val", "test")})
        self.test_logits: list[Tensor] = []  # of each test batch, for the report
        self._penalty: Tensor | None = None  # of the weights that are being evaluated

    def forward(self, images: Tensor) -> Tensor:
        """Logits float32 (N, 10) of uint8 images (N, 28, 28), by the plain network."""
        return self.network(to_input(images)).float()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch, augmented where the recipe says so."""
        logits = self.fit_network(self.augmentation(to_input(batch["image"]))).float()
        loss = F.cross_entropy(logits, to_target(batch["label"]), label_smoothing=self.recipe["label_smoothing"])
        loss = loss + self.network.l2_penalty()
        self._metric("fit").update(loss.detach(), logits.detach(), batch["label"])
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score one batch of what the data module validates on."""
        self._score("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score one batch of the test split, and keep its logits."""
        logits = cast(Tensor, self.all_gather(self._score("test", batch)))  # of all processes, in the images' order
        self.test_logits.append(logits.reshape(-1, logits.shape[-1]))

    def _score(self, split: str, batch: Batch) -> Tensor:
        logits = self.eval_network(to_input(batch["image"])).float()
        if self._penalty is None or self.backend.compiles_steps:  # where it is part of the one program
            self._penalty = self.network.l2_penalty()
        cross_entropy = F.cross_entropy(logits, batch["label"], ignore_index=PADDING)
        self._metric(split).update(cross_entropy + self._penalty, logits, batch["label"], cross_entropy)
        return logits

    def on_validation_epoch_start(self) -> None:
        """Forget the penalty of earlier weights."""
        self._penalty = None

    def on_test_epoch_start(self) -> None:
        """Forget the penalty of earlier weights, and the logits of an earlier test."""
        self._penalty, self.test_logits = None, []

    def on_validation_epoch_end(self) -> None:
        """Log the validation's loss and accuracy, and the loss without its L2 term, which compares settings of it."""
        self.log_split("val", self.trainer.datamodule.validates_on)  # type: ignore[attr-defined]

    def on_test_epoch_end(self) -> None:
        """Log the test's loss and accuracy."""
        self.log_split("test", "test")

    def log_split(self, split: str, prefix: str) -> None:
        """Report ``<prefix>/loss`` and ``…/sparse_accuracy`` of what ``split`` has seen, and begin anew.

        Of validation images also ``val/cross_entropy``, which is the loss without the L2 term.

        To Lightning's callbacks, that is; from the history they go into TensorBoard's event file.
        """
        loss, accuracy, cross_entropy = self.measured(split)
        self.log(f"{prefix}/loss", loss, batch_size=1, logger=False)
        self.log(f"{prefix}/sparse_accuracy", accuracy, batch_size=1, logger=False)
        if prefix == "val":
            self.log("val/cross_entropy", cross_entropy, batch_size=1, logger=False)
        self._metric(split).reset()

    def measured(self, split: str) -> Tensor:
        """Mean loss, sparse accuracy and cross-entropy of what ``split`` has seen; float32 (3,) on the host."""
        return self._metric(split).compute().cpu()

    def _metric(self, split: str) -> LossAndAccuracy:
        return cast(LossAndAccuracy, self.metrics[split])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam as Keras has it, or AdamW that decays kernels only; a constant or a one-cycle rate."""
        rate, clips = self.recipe["learning_rate"], self._trainer is not None and bool(self._trainer.gradient_clip_val)
        options = self.backend.optimizer_options(clips)
        if self.recipe["optimizer"] == "adam":
            optimizer: torch.optim.Optimizer = KerasAdam(self.parameters(), rate, **options)
        else:
            kernels = self.network.kernels()
            others = [p for p in self.parameters() if all(p is not kernel for kernel in kernels)]
            groups: list[dict[str, Any]] = [{"params": kernels}, {"params": others, "weight_decay": 0.0}]
            optimizer = torch.optim.AdamW(groups, rate, weight_decay=self.recipe["weight_decay"], **options)
        for group in optimizer.param_groups:
            group["lr"] = self.backend.variable(rate)
        load_across_devices(optimizer)
        if self.recipe["schedule"] == "constant":
            return optimizer
        steps, warmup = self._planned_steps(), self.recipe["warmup"]
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=rate,
            total_steps=steps,
            pct_start=warmup if warmup * steps > 1 else 0.0,  # torch divides by the steps after the first
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _planned_steps(self) -> int:
        return int(min(steps_allowed(self.trainer), self.trainer.estimated_stepping_batches))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note the version, and within an epoch what has been measured of it."""
        checkpoint["digits"] = __version__
        if self._trainer is not None and not self.trainer.is_last_batch:
            with self._metric("fit").sync_context():  # over all processes
                measured: dict[str, Any] = self._metric("fit").metric_state
                checkpoint["measured"] = {name: value.cpu() for name, value in measured.items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with what has been measured of the epoch."""
        for name, value in checkpoint.get("measured", {}).items():
            setattr(self._metric("fit"), name, value)
