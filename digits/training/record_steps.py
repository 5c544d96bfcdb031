"""Record the steps of a run: `python -m digits.training.record_steps FOLDER BATCH [CONFIG_DIR ...] < config.json`.


A process of its own, as torch_xla chooses its devices once: PJRT_DEVICE=CPU CPU_NUM_DEVICES=2.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from digits.settings.schema import Config, DataConfig, check
from digits.settings.targets import add_config_dir
from digits.training.setup import set_up
from digits.xla.recorder import BlankDigits, record


def record_steps(config: Config, folder: Path, batch_size: int) -> dict[str, Any]:
    """Write the train step and the test step that ``config`` describes into ``folder``; see :func:`record`."""
    with tempfile.TemporaryDirectory() as run_dir:
        data = BlankDigits(**{name: getattr(config.data, name) for name in DataConfig.model_fields})
        trainer, classifier, *_ = set_up(config, Path(run_dir), data)
        return record(trainer, classifier, data, folder, batch_size)


if __name__ == "__main__":
    for config_dir in sys.argv[3:]:
        add_config_dir(config_dir)
    print(json.dumps(record_steps(check(json.load(sys.stdin)), Path(sys.argv[1]), int(sys.argv[2]))))
