"""A fit and a test, watched: `python rehearsal.py FOLDER OVERRIDES...` prints what was seen as JSON.

A process of its own, as torch_xla chooses its devices once: PJRT_DEVICE=CPU CPU_NUM_DEVICES=8.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import lightning as L
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what the tests share
from conftest import configure

from digits.training.ema import EMA
from digits.training.setup import set_up

EMA.statistics_images = 128  # XLA is slow on a CPU


def counters() -> dict[str, int]:
    """Programs compiled, host operators, and bytes sent to the devices, so far."""
    met = sys.modules.get("torch_xla.debug.metrics")
    if met is None:
        return {"compiled": 0, "host": 0, "sent": 0}
    compiled, sent = met.metric_data("CompileTime"), met.metric_data("OutboundData")
    return {
        "compiled": compiled[0] if compiled else 0,
        "host": sum(met.counter_value(name) for name in met.counter_names() if name.startswith("aten::")),
        "sent": int(sent[1]) if sent else 0,
    }


class Watch(L.Callback):
    """Notes the loss of each step, and the counters after each step and each epoch."""

    def __init__(self) -> None:
        self.losses: list[Any] = []
        self.steps: list[dict[str, int]] = []
        self.epochs: list[dict[str, int]] = []
        self.shardings: dict[str, str] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(outputs["loss"])
        self.steps.append(counters())
        if batch["label"].device.type == "xla":
            xla = sys.modules["torch_xla"]
            self.shardings = {name: xla._XLAC._get_xla_sharding_spec(tensor) for name, tensor in batch.items()}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.epochs.append(counters())


if __name__ == "__main__":
    folder, *overrides = sys.argv[1:]
    config = configure(*overrides)
    trainer, classifier, data, history = set_up(config, Path(folder))
    if config.trainer.accelerator == "tpu":
        import torch_xla.debug.metrics  # noqa: F401
    watch = Watch()
    trainer.callbacks.append(watch)
    trainer.fit(classifier, data, ckpt_path=config.ckpt_path, weights_only=True)
    trainer.test(classifier, data, verbose=False)
    end = counters()
    logits = torch.cat(classifier.test_logits).cpu()[: len(data.test)]
    state = {name: tensor.cpu() for name, tensor in classifier.network.state_dict().items()}
    seen = {
        "losses": [float(loss) for loss in watch.losses],
        "statistics": {name: tensor.tolist() for name, tensor in state.items() if "running" in name},
        "weights": hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in state.values())).hexdigest(),
        "steps": watch.steps,
        "epochs": watch.epochs,
        "end": end,
        "shardings": watch.shardings,
        "rows": history.rows,
        "test": {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("test/")},
        "tested": len(logits),
        "correct": int((logits.argmax(1) == data.test.labels.cpu()[: len(logits)]).sum()),
    }
    print(json.dumps(seen))
