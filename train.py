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
from omegaconf import DictConfig

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
        summary = train(check_settings(settings), run_dir, list(hydra_config.overrides.task))
    except Exception as error:
        expected = isinstance(error, DigitsError | OSError)
        log.error(str(error), exc_info=not expected)
        failure = {"status": "failed", "error": str(error), "run_dir": str(run_dir)}
        if not (run_dir / "summary.json").exists():  # that of an earlier run here, which this one did not get to touch
            with contextlib.suppress(OSError):  # a full disk, perhaps: the line above has said it
                write_json(run_dir / "summary.json", failure)
        if hydra_config.mode == RunMode.MULTIRUN:
            return float("nan")  # the other jobs go on; a sweeper takes it for a failed trial
        sys.exit(getattr(error, "exit_status", 1))
    try:
        rank_zero_only(print_run)(summary)  # of several hosts the first
        sys.stdout.flush()
    except OSError as error:  # the reader of a pipe has gone, or a disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it flushes it at exit
        if not isinstance(error, BrokenPipeError):
            print(f"train.py: cannot be printed: {error}; all is in {run_dir / 'summary.json'}", file=sys.stderr)
            sys.exit(1)
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
    logging.raiseExceptions = False  # a line that cannot be printed is no reason for a traceback; the file has it too
    use_huge_pages()
    try:
        run()
    except HydraException as error:
        print(f"train.py: {message_of(error)}", file=sys.stderr)
        sys.exit(2)
    except (OSError, ValueError) as error:
        if not isinstance(error, OSError):
            if not isinstance(error.__cause__, OSError):
                raise
            error = error.__cause__  # logging's, of a log that cannot be written
        setting = "hydra.sweep.dir" if {"-m", "--multirun"} & set(sys.argv) else "hydra.run.dir"
        print(
            f"train.py: the run folder cannot be made or written: {error}; name another with {setting}=...",
            file=sys.stderr,
        )
        sys.exit(1)
    except KeyboardInterrupt:  # not while it trained, of which Lightning takes care
        print("train.py: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
