"""A fit and a test, watched: `python rehearsal.py [--double] FOLDER OVERRIDES...` prints what was seen as JSON.

With --double weights, averages and metrics are float64, so that rounding does not hide what differs.

A process of its own, as torch_xla chooses its devices once: PJRT_DEVICE=CPU CPU_NUM_DEVICES=8.
"""

import functools
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import lightning as L
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for what the tests share
from conftest import configure

from digits.training.ema import EMA
from digits.training.setup import set_up

SMALL = ("data=mnist5k", "trainer.precision=32-true", "trainer.limit_val_batches=2", "trainer.limit_test_batches=2")


@functools.cache
def rehearse(
    devices: int | None, *overrides: str, folder: str | None = None, double: bool = False, fails: bool = False
) -> dict[str, Any]:
    """What this program saw on so many virtual devices, or without torch_xla where that is None; its stderr, too.

    With ``fails`` the program is expected to.
    """
    accelerator = "cpu" if devices is None else "tpu"
    environment = os.environ | {"PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": str(devices)}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)  # which other libraries set when they are imported
    with tempfile.TemporaryDirectory() as scratch:
        options = [*(["--double"] if double else []), folder or scratch, f"trainer.accelerator={accelerator}"]
        command = [sys.executable, __file__, *options, *overrides]
        result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (result.returncode != 0) is fails, result.stderr
    seen = {} if fails else json.loads(result.stdout.splitlines()[-1])
    return seen | {"stderr": result.stderr}


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


def count_compilations(strategy: Any) -> list[int]:
    """How many programs are compiled for each execution of many steps, noted as they come."""
    compiled: list[int] = []
    call, execute = strategy.call, strategy.execute

    def call_and_note() -> None:
        call()  # sends the steps' numbers, and before that dispatches what comes between two epochs
        compiled.append(-counters()["compiled"])

    def execute_and_count() -> None:
        before = len(compiled)
        execute()
        if len(compiled) > before:
            compiled[-1] += counters()["compiled"]

    strategy.call, strategy.execute = call_and_note, execute_and_count
    return compiled


class Watch(L.Callback):
    """Notes the loss of each step, and the counters after each step and each epoch."""

    def __init__(self) -> None:
        self.losses: list[Any] = []
        self.steps: list[dict[str, int]] = []
        self.epochs: list[dict[str, int]] = []
        self.shardings: dict[str, str] = {}

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.losses.append(outputs.get("loss", torch.nan))  # of a step that is only noted there is none
        self.steps.append(counters())
        if "image" in batch and batch["label"].device.type == "xla":
            xla = sys.modules["torch_xla"]
            self.shardings = {name: xla._XLAC._get_xla_sharding_spec(tensor) for name, tensor in batch.items()}

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.epochs.append(counters())


def make_double(classifier: Any) -> None:
    """Turn what a step changes into float64, and the shares of averages; the rate stays float32."""
    classifier.network.double()
    for metric in classifier.metrics.values():
        metric.set_dtype(torch.float64)
    variable, rate = classifier.backend.variable, classifier.recipe["learning_rate"]
    classifier.backend.variable = lambda value: variable(value) if value == rate else variable(value).double()


if __name__ == "__main__":
    double = sys.argv[1] == "--double"
    folder, *overrides = sys.argv[1 + double :]
    config = configure(*overrides)
    trainer, classifier, data, history = set_up(config, Path(folder))
    EMA.statistics_images = 16 if double else 128  # XLA is slow on a CPU
    if double:
        make_double(classifier)
    if config.trainer.accelerator == "tpu":
        import torch_xla.debug.metrics  # noqa: F401
    watch = Watch()
    trainer.callbacks.append(watch)
    executions = count_compilations(trainer.strategy) if hasattr(trainer.strategy, "execute") else []
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
        "executions": executions,
        "shardings": watch.shardings,
        "rows": history.rows,
        "test": {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("test/")},
        "tested": len(logits),
        "correct": int((logits.argmax(1) == data.test.labels.cpu()[: len(logits)]).sum()),
    }
    print(json.dumps(seen))
