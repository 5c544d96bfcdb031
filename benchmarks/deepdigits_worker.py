"""The DeepDigits side of `vs_keras.py`, which runs it as a process of its own."""

import importlib.metadata
import json
import sys
import time
from pathlib import Path
from typing import Any

from keras_worker import WorkerProtocol

PRECISIONS = {"float32": "32-true", "bfloat16": "bf16-mixed"}


def work(job: dict[str, Any]) -> None:
    """Train as `digits.training.run` does, but without end, each epoch and each evaluation only when told to."""
    protocol = WorkerProtocol()  # first, as it takes over the standard output
    import lightning as L
    import torch
    from hydra import compose, initialize_config_dir

    from digits.network import DeepDigits
    from digits.settings.command_line import check_settings
    from digits.settings.targets import CONF
    from digits.training.setup import set_up

    class Clock(L.Callback):
        """Waits for a turn before each epoch and each evaluation, and reports its time afterwards."""

        def on_train_epoch_start(self, *_: Any) -> None:
            protocol.wait_for_turn()

        def on_train_batch_start(self, *_: Any) -> None:
            protocol.batch_started()

        def on_train_batch_end(self, *_: Any) -> None:
            protocol.batch_finished()

        def on_validation_start(self, *_: Any) -> None:  # comes after the last batch of the epoch
            protocol.report(job["steps"] * job["batch_size"])
            protocol.wait_for_turn()

        def on_validation_batch_start(self, *_: Any) -> None:
            protocol.batch_started()

        def on_validation_batch_end(self, *_: Any) -> None:
            protocol.batch_finished()

        def on_validation_end(self, *_: Any) -> None:
            protocol.report(len(data.test))

    overrides = [
        f"data={job['data']}",
        "experiment=deepdigits",
        f"data.batch_size={job['batch_size']}",
        "trainer.accelerator=cpu",
        f"trainer.precision={PRECISIONS[job['precision']]}",
        f"trainer.limit_train_batches={job['steps']}",
        "trainer.max_epochs=1000000",
        "trainer.enable_checkpointing=false",  # checkpoints would be written during the other side's turn
        "logger=none",
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        settings = compose("train", overrides)
    settings.data.data_dir = job["data_dir"]  # not as an override, in which Hydra would need the path quoted
    config = check_settings(settings)
    torch.set_num_threads(job["threads"])
    trainer, classifier, data, _ = set_up(config, Path(job["run_dir"]))
    trainer.callbacks.append(Clock())  # type: ignore[attr-defined]
    versions = f"DeepDigits on Lightning {importlib.metadata.version('lightning')} and torch {torch.__version__}"
    protocol.send(
        parameters=classifier.network.count_parameters(),
        version=versions,
        flops=count_flops(DeepDigits()),  # an uncompiled one, as the counter needs to see torch's operators
        peak=measure_peak(torch.float32 if job["precision"] == "float32" else torch.bfloat16),
    )
    trainer.fit(classifier, data)


def count_flops(network: Any) -> dict[str, float]:
    """Floating-point operations per image, in training ("train") and in evaluation ("evaluate")."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    flops = {}
    images = torch.zeros(2, 1, 28, 28)
    with FlopCounterMode(display=False) as counter:
        network(images).sum().backward()
    flops["train"] = counter.get_total_flops() / len(images)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(images)
    flops["evaluate"] = counter.get_total_flops() / len(images)
    network.zero_grad()
    return flops


def measure_peak(dtype: Any, size: int = 2048) -> float:
    """FLOP per second of a large matrix product: the best of ten runs by torch's BLAS and ten as a convolution."""
    import torch
    import torch.nn.functional as F

    a, b = torch.randn(2, size, size).to(dtype)
    # the same product as a convolution in channels last, which oneDNN computes
    pixels = a.view(1, size // 32, 32, size).permute(0, 3, 1, 2)
    kernel = b.T.reshape(size, size, 1, 1)
    times = []
    with torch.inference_mode():
        for product in (lambda: a @ b, lambda: F.conv2d(pixels, kernel)):
            for _ in range(10):
                start = time.perf_counter()
                product()
                times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times)


if __name__ == "__main__":
    work(json.loads(sys.argv[1]))
