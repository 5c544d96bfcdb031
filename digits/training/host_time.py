"""What a training step costs the host: `python -m digits.training.host_time [CONFIG_DIR ...] < config.json`.

A process of its own, as torch_xla chooses its devices once: PJRT_DEVICE=CPU CPU_NUM_DEVICES=2. It prints a JSON object:
measured milliseconds of a step by steps in a program, for 1 and for what the settings say.
"""

import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from digits.settings.schema import DataConfig, check
from digits.settings.targets import add_config_dir
from digits.training.setup import set_up
from digits.xla.host_clock import Enough, HostClock
from digits.xla.lightning import MarkStep
from digits.xla.many_steps import ManyStepsStrategy
from digits.xla.recorder import BlankDigits

BATCH_SIZE = 8  # of a step, on which the host's time does not depend
PROGRAMS = 12  # are sent off
MOST_STEPS = 500  # in one of them, so that an epoch has enough


def host_milliseconds(settings: dict[str, Any], steps: int) -> float:
    """Median milliseconds of the host for a training step as ``settings`` describe it, ``steps`` being one program.

    The trainer, its callbacks and the step are the project's own. Of a program's steps one is computed, as XLA is slow
    on a CPU; the host does the same for all.
    """
    steps = min(steps, MOST_STEPS)
    changed = {"accelerator": "tpu", "enable_checkpointing": False, "enable_progress_bar": False, "max_steps": -1}
    changed |= {"limit_train_batches": None, "limit_val_batches": 0, "max_epochs": 1, "accumulate_grad_batches": 1}
    config = check(
        settings
        | {"trainer": settings["trainer"] | changed, "data": settings["data"] | {"batch_size": BATCH_SIZE}}
        | {"steps_per_execution": steps, "logger": {"_target_": None}}
    )
    clock = HostClock(PROGRAMS)
    with tempfile.TemporaryDirectory() as run_dir:
        data = BlankDigits(**{name: getattr(config.data, name) for name in DataConfig.model_fields})
        trainer, classifier, *_ = set_up(config, Path(run_dir), data)
        if isinstance(trainer.strategy, ManyStepsStrategy):
            trainer.strategy.most_rounds = 1
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        mark = next(number for number, callback in enumerate(callbacks) if isinstance(callback, MarkStep))
        callbacks.insert(mark + 1, clock)
        with contextlib.suppress(Enough):
            trainer.fit(classifier, data)
    return clock.median() / steps


if __name__ == "__main__":
    for config_dir in sys.argv[1:]:
        add_config_dir(config_dir)
    settings = json.load(sys.stdin)
    print(json.dumps({n: host_milliseconds(settings, n) for n in sorted({1, settings["steps_per_execution"]})}))
