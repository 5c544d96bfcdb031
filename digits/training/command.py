"""`python train.py OVERRIDES`, which is `digits train OVERRIDES`: one run or a sweep, as Hydra's command line asks."""

import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from digits.errors import DigitsError
from digits.settings.command_line import CONF, check_command_line, check_settings, message_of

log = logging.getLogger("digits")


def main(arguments: list[str], program: str) -> None:
    """Check ``arguments`` as a whole, then hand them to Hydra; ``program`` is what a line about an error begins with.

    Raises:
        SystemExit: with status 2 after a wrong command line, 1 after a run that failed, 130 after Ctrl-C.
    """
    sys.argv = [program, *arguments]  # where Hydra reads them
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises, and does not print, what it meets
    # Read when torch is imported: for what is larger it then asks Linux for pages of 2 MB in place of 4 KB. Evaluation
    # after training is a quarter faster with them and training a twentieth, as fewer addresses are looked up.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    logging.raiseExceptions = False  # a line that cannot be printed is no reason for a traceback; the file has it too
    try:
        check_command_line(arguments)
        run()
    except DigitsError as error:
        _fail(str(error), error.exit_status)
    except HydraException as error:
        _fail(message_of(error), 2)
    except BrokenPipeError:  # who reads the output has seen enough: `python train.py --help | head -1`
        _print_no_more()
        sys.exit(141)  # as of a program that SIGPIPE ends
    except (OSError, ValueError) as error:
        if not isinstance(error, OSError):
            if not isinstance(error.__cause__, OSError):
                raise
            error = error.__cause__  # logging's, of a log that cannot be written
        setting = "hydra.sweep.dir" if {"-m", "--multirun"} & set(arguments) else "hydra.run.dir"
        _fail(f"the run folder cannot be made or written: {error}; name another with {setting}=...", 1)
    except KeyboardInterrupt:  # not while it trained, of which Lightning takes care
        _fail("interrupted", 130)


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def run(settings: DictConfig) -> float:
    """One run, alone or as one of a sweep; returns what a sweeper maximises, the validation accuracy."""
    from lightning.pytorch.utilities import rank_zero_only

    from digits.report.tables import print_run, write_json  # with torch and Lightning: `--help` need not wait for them
    from digits.training.run import train

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
        _print_no_more()
        if not isinstance(error, BrokenPipeError):
            _fail(f"cannot be printed: {error}; all is in {run_dir / 'summary.json'}", 1)
    if summary["status"] == "interrupted":
        sys.exit(130)
    accuracy = summary["val/sparse_accuracy"]
    return float("nan") if accuracy is None else accuracy


def _print_no_more() -> None:
    """Or Python complains when it flushes stdout at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, status: int) -> NoReturn:
    print(f"{sys.argv[0]}: {message}", file=sys.stderr)
    sys.exit(status)


class ProgramFormatter(logging.Formatter):
    """Puts the program's name before an error; `conf/train.yaml` names it for what goes to stderr."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of ``record``."""
        return f"{sys.argv[0]}: {super().format(record)}"
