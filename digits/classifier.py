"""The LightningModule: what is minimised, what is measured, and how the weights move."""

from typing import Any, cast

import lightning as L
import torch
import torch.nn.functional as F
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from digits.data.module import Batch
from digits.data.warp import RandomWarp
from digits.errors import DigitsError
from digits.metrics import PADDING, LossAndAccuracy
from digits.network import DeepDigits, to_input


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
            steps: Any = state["step"] if state else 0
            if not group["capturable"]:
                steps = float(steps)  # where a number is taken; on XLA it would be another program in each step
            group["eps"] = self.keras_eps / (1 - group["betas"][1] ** (steps + 1)) ** 0.5
        return super().step(closure)


def _keep_own_options(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """Of a checkpoint take the state and the rate; how steps are computed is this device's own matter."""
    groups = []
    for own, loaded in zip(optimizer.param_groups, state["param_groups"], strict=True):
        number = float(loaded["lr"])
        rate = torch.full_like(own["lr"], number) if isinstance(own["lr"], Tensor) else number
        groups.append(loaded | {"lr": rate} | {name: own[name] for name in ("capturable", "fused", "foreach")})
    return state | {"param_groups": groups}


def _take_layouts(optimizer: torch.optim.Optimizer) -> None:
    """Lay each parameter's state out as the parameter is, which another device may not have done.

    The fused kernels go through memory from end to end: with another layout they would pair the wrong numbers.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if value.shape == parameter.shape:
                state[name] = torch.empty_like(parameter, requires_grad=False).copy_(value)


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
        self.metrics = nn.ModuleDict({split: LossAndAccuracy() for split in ("fit", "val", "test")})
        self.test_logits: list[Tensor] = []  # of each test batch, for the report
        self._penalty: Tensor | None = None  # of the weights that are being evaluated

    def forward(self, images: Tensor) -> Tensor:
        """Logits float32 (N, 10) of uint8 images (N, 28, 28)."""
        return self.network(to_input(images)).float()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch, warped where the recipe says so."""
        logits = self.network(self.warp(to_input(batch["image"]))).float()
        loss = F.cross_entropy(logits, batch["label"], label_smoothing=self.recipe["label_smoothing"])
        loss = loss + self.network.l2_penalty()
        self._metric("fit").update(loss.detach(), logits.detach(), batch["label"])
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Score one batch of what the data module validates on."""
        self._score("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Score one batch of the test split, and keep its logits."""
        self.test_logits.append(self._score("test", batch))

    def _score(self, split: str, batch: Batch) -> Tensor:
        logits = self(batch["image"])
        if self._penalty is None or self.device.type == "xla":  # where it is a part of the one program
            self._penalty = self.network.l2_penalty()
        loss = F.cross_entropy(logits, batch["label"], ignore_index=PADDING) + self._penalty
        self._metric(split).update(loss, logits, batch["label"])
        return logits

    def on_validation_epoch_start(self) -> None:
        """Forget the penalty of earlier weights."""
        self._penalty = None

    def on_test_epoch_start(self) -> None:
        """Forget the penalty of earlier weights, and the logits of an earlier test."""
        self._penalty, self.test_logits = None, []

    def on_validation_epoch_end(self) -> None:
        """Log the validation's loss and accuracy."""
        self.log_split("val", self.trainer.datamodule.validates_on)  # type: ignore[attr-defined]

    def on_test_epoch_end(self) -> None:
        """Log the test's loss and accuracy."""
        self.log_split("test", "test")

    def log_split(self, split: str, prefix: str) -> None:
        """Log ``<prefix>/loss`` and ``<prefix>/sparse_accuracy`` of what ``split`` has seen, and begin anew."""
        loss, accuracy = self.measured(split)
        self.log(f"{prefix}/loss", loss, batch_size=1)
        self.log(f"{prefix}/sparse_accuracy", accuracy, batch_size=1)
        self._metric(split).reset()

    def measured(self, split: str) -> Tensor:
        """Mean loss and sparse accuracy of what ``split`` has seen; float32 (2,) on the host, which waits for it."""
        return self._metric(split).compute().cpu()

    def _metric(self, split: str) -> LossAndAccuracy:
        return cast(LossAndAccuracy, self.metrics[split])

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Adam as Keras has it, or AdamW that decays kernels only; a constant or a one-cycle rate."""
        rate, on_xla = self.recipe["learning_rate"], self.device.type == "xla"
        fused = self.device.type in ("cpu", "cuda") and not self._clips()  # Lightning clips no fused optimizer's
        options: dict[str, Any] = {"capturable": on_xla, "fused": fused}
        if self.recipe["optimizer"] == "adam":
            optimizer: torch.optim.Optimizer = KerasAdam(self.parameters(), rate, **options)
        else:
            kernels = [layer.weight for layer in self.network.weight_layers()]
            others = [p for p in self.parameters() if all(p is not kernel for kernel in kernels)]
            groups: list[dict[str, Any]] = [{"params": kernels}, {"params": others, "weight_decay": 0.0}]
            optimizer = torch.optim.AdamW(groups, rate, weight_decay=self.recipe["weight_decay"], **options)
        if on_xla:  # a rate that is a number would be part of the compiled program
            for group in optimizer.param_groups:
                group["lr"] = torch.tensor(rate, device=self.device)
        optimizer.register_load_state_dict_pre_hook(_keep_own_options)
        optimizer.register_load_state_dict_post_hook(_take_layouts)
        if self.recipe["schedule"] == "constant":
            return optimizer
        steps, warmup = int(self.trainer.estimated_stepping_batches), self.recipe["warmup"]
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=rate,
            total_steps=steps,
            pct_start=warmup if warmup * steps > 1 else 0.0,  # torch divides by the steps after the first
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _clips(self) -> bool:
        return self._trainer is not None and bool(self._trainer.gradient_clip_val)

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
