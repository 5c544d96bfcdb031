"""Train DeepDigits: `python train.py`, with Hydra overrides such as `trainer.accelerator=tpu seed=1`."""

import contextlib
import logging
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from digits.errors import DigitsError
from digits.memory import use_huge_pages
from digits.overrides import check_command_line, check_settings, message_of

log = logging.getLogger("digits")
CONF = Path(__file__).resolve().parent / "conf"


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def run(settings: DictConfig) -> float:
    """One run, alone or as one of a sweep; returns what a sweeper maximises, the validation accuracy."""
    from lightning.pytorch.utilities import rank_zero_only

    from digits.report.tables import print_run, write_json  # with torch and Lightning: `--help` need not wait for them
    from digits.training import train

    hydra_config = HydraConfig.get()
    run_dir = Path(hydra_config.runtime.output_dir)
    try:
        config = check_settings(settings)
        OmegaConf.save(settings, run_dir / "config.yaml", resolve=True)
        summary = train(config, run_dir, list(hydra_config.overrides.task))
    except Exception as error:
        expected = isinstance(error, DigitsError | OSError)
        log.error(str(error), exc_info=not expected)
        with contextlib.suppress(OSError):  # a full disk, perhaps: the line above has said it
            write_json(run_dir / "summary.json", {"status": "failed", "error": str(error), "run_dir": str(run_dir)})
        if hydra_config.mode == RunMode.MULTIRUN:
            return float("nan")  # the other jobs go on; a sweeper takes it for a failed trial
        sys.exit(getattr(error, "exit_status", 1))
    rank_zero_only(print_run)(summary)  # of several hosts the first
    if summary["status"] == "interrupted":
        sys.exit(130)
    accuracy = summary["val/sparse_accuracy"]
    return float("nan") if accuracy is None else accuracy


def main() -> None:
    """Check the command line as a whole, then hand it to Hydra."""
    try:
        check_command_line(sys.argv[1:], CONF)
    except DigitsError as error:
        print(f"train.py: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises, and does not print, what it meets
    use_huge_pages()
    try:
        run()
    except HydraException as error:
        print(f"train.py: {message_of(error)}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        setting = "hydra.sweep.dir" if {"-m", "--multirun"} & set(sys.argv) else "hydra.run.dir"
        print(f"train.py: the run folder cannot be made: {error}; name another with {setting}=...", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:  # not while it trained, of which Lightning takes care
        print("train.py: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
