"""Record the steps of a run: `python -m digits.training.record_steps FOLDER BATCH [CONFIG_DIR ...] < config.json`.

A process of its own, as torch_xla chooses its devices once: PJRT_DEVICE=CPU CPU_NUM_DEVICES=2.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from digits.settings.schema import DataConfig, check
from digits.settings.targets import add_config_dir
from digits.training.setup import set_up
from digits.xla.recorder import OneBatch, flops_per_image, record


def record_steps(settings: dict[str, Any], folder: Path, batch_size: int) -> dict[str, Any]:
    """Write the test step, the train step and the program of many train steps that ``settings`` describe; see `record`.

    Returns:
        The precision, the operators that fell back to the host, and the FLOP per image of a train and of a test step.
    """
    for steps in sorted({1, settings["steps_per_execution"]}):
        config = check(settings | {"steps_per_execution": steps})
        with tempfile.TemporaryDirectory() as run_dir:
            data = OneBatch(**{name: getattr(config.data, name) for name in DataConfig.model_fields})
            trainer, classifier, *_ = set_up(config, Path(run_dir), data)
            data.batch_size = batch_size  # which may be more than there are images
            found = record(trainer, classifier, data, folder)
    return found | {"flops": flops_per_image(classifier.network.settings())}


if __name__ == "__main__":
    for config_dir in sys.argv[3:]:
        add_config_dir(config_dir)
    print(json.dumps(record_steps(json.load(sys.stdin), Path(sys.argv[1]), int(sys.argv[2]))))
