"""`python train.py OVERRIDES`, which is `digits train OVERRIDES`: one run or a sweep, as Hydra's command line asks."""

import contextlib
import logging
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from digits.errors import ConfigError, DigitsError
from digits.settings.command_line import check_command_line, check_settings, configure, settings_for_help
from digits.settings.help import help_text
from digits.settings.refusals import message_of
from digits.settings.targets import CONF, add_config_dir
from digits.settings.wording import one_line
from digits.sweep.job import OBJECTIVE, SweepJob, in_child
from digits.training.interruption import Interrupted, Interruption
from digits.training.start import StartCheck

log = logging.getLogger("digits")
CONFIG_OPTIONS = ("config-path", "config-name", "config-dir")  # of Hydra; they say which configuration it is
LAUNCHERS = {"TORCHELASTIC_RUN_ID", "SLURM_NTASKS"}  # environment variables of torchrun and of srun
NO_SWEEP = "-m: a sweep starts its jobs' processes itself; call it without torchrun or srun, with trainer.devices=N"
ENVIRONMENT = (  # what decides, beside the settings, where and on what a run is computed
    "DIGITS_DATA_DIR",
    "PJRT_DEVICE",
    "CPU_NUM_DEVICES",
    "TPU_VISIBLE_CHIPS",
    "XLA_FLAGS",
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
)


def main(arguments: list[str], program: str) -> None:
    """Check ``arguments`` as a whole, then hand them to Hydra; ``program`` is what a line about an error begins with.

    Raises:
        SystemExit: with status 2 after a wrong command line, 1 after a run that failed, 128 and its number after a
            signal (130 after Ctrl-C).
    """
    sys.argv = [program, *arguments]  # where Hydra reads them
    _Task.begun = False
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra raises, and does not print, what it meets
    # Read when torch is imported: for what is larger it then asks Linux for pages of 2 MB in place of 4 KB. Evaluation
    # after training is a quarter faster with them and training a twentieth, as fewer addresses are looked up.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    logging.raiseExceptions = False  # a line that cannot be printed is no reason for a traceback; the file has it too
    try:
        with Interruption(_end_start):
            check_command_line(arguments)
            if (started := _launcher()) is not None:
                if {"-m", "--multirun"} & {*arguments}:
                    raise ConfigError(NO_SWEEP)
                if started.global_rank():
                    _work_along(arguments)
                    return
            if (settings := settings_for_help(arguments)) is not None:
                print(help_text(program_words(program), settings), flush=True)
                return
            try:
                run()
            finally:
                if StartCheck.current is not None:
                    StartCheck.current.close()
    except DigitsError as error:
        _fail(str(error), error.exit_status)
    except (HydraException, OmegaConfBaseException) as error:
        _fail(message_of(error), 2)
    except BrokenPipeError:  # who reads the output has seen enough: `python train.py --help | head -1`
        _print_no_more()
        sys.exit(141)  # as of a program that SIGPIPE ends
    except Exception as error:
        # a log that cannot be written is a ValueError of logging
        cause = error.__cause__ if isinstance(error, ValueError) and isinstance(error.__cause__, OSError) else error
        if isinstance(cause, OSError):
            if StartCheck.current is not None and not StartCheck.current.concerns(cause):
                _fail(str(cause), 1)
            setting = "hydra.sweep.dir" if {"-m", "--multirun"} & set(arguments) else "hydra.run.dir"
            _fail(f"the run folder cannot be made or written: {cause}; name another with {setting}=...", 1)
        if _Task.begun:
            raise
        _fail(message_of(error, arguments), 2)  # a setting of Hydra itself, as it has not come to ours
    except Interrupted as stop:  # not while it trained, of which the run itself takes care
        _fail(f"interrupted by {stop}", stop.exit_status)


def _end_start(number: int) -> None:
    """End a single run that a signal of this ``number`` meets before it trains, where it is.

    Mostly that is in the middle of an import, where what is raised may be swallowed, leave a library half imported, or
    abort the process.
    """
    if StartCheck.current is None or LAUNCHERS & os.environ.keys():
        return
    with contextlib.suppress(OSError):  # the line is more important
        StartCheck.current.close()
    with contextlib.suppress(OSError, RuntimeError):  # a closed pipe, or the signal came in the middle of a print
        print(f"{sys.argv[0]}: interrupted by {Interrupted(number)}", file=sys.stderr, flush=True)
        sys.stdout.flush()
    os._exit(128 + number)


def _launcher() -> Any:
    """What has started this process as one of several, a ClusterEnvironment of Lightning's; None if nothing has."""
    if not LAUNCHERS & os.environ.keys():
        return None
    from digits.training.distributed.environment import launcher  # with Lightning: `--help` need not wait for it

    return launcher()


def _work_along(arguments: list[str]) -> None:
    """Take part in a run that torchrun or Slurm has started, in whose folder its first process writes alone."""
    options = get_args_parser().parse_args(arguments)
    if options.cfg or options.info or options.help or options.hydra_help or options.shell_completion:
        return  # the first process prints that
    from digits.training.worker import work  # as above

    work(configure(options.overrides))


class _Task:
    """Whether Hydra has called :func:`run` in this process."""

    begun = False


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")
def run(settings: DictConfig) -> float:
    """One run, alone or as one of a sweep; returns what a search minimises, the cross-entropy of the best epoch."""
    _Task.begun = True
    hydra_config = HydraConfig.get()
    run_dir = Path(hydra_config.runtime.output_dir)
    if hydra_config.mode == RunMode.MULTIRUN:
        return _run_job(settings, hydra_config, run_dir)
    from lightning.pytorch.utilities import rank_zero_only

    from digits.report.next_steps import print_next_steps
    from digits.report.tables import print_run  # with torch and Lightning: `--help` need not wait for them

    summary = _train(settings, hydra_config, run_dir, None)
    try:
        rank_zero_only(print_run)(summary)  # of several hosts the first
        rank_zero_only(print_next_steps)(summary)
        sys.stdout.flush()
    except OSError as error:  # the reader of a pipe has gone, or a disk is full
        _print_no_more()
        if not isinstance(error, BrokenPipeError):
            _fail(f"cannot be printed: {error}; all is in {run_dir / 'summary.json'}", 1)
    if summary["status"] == "interrupted":
        sys.exit(128 + signal.Signals[summary["signal"]])
    return float(summary.get(OBJECTIVE) or "nan")


def _run_job(settings: DictConfig, hydra_config: Any, run_dir: Path) -> float:
    job = SweepJob.of(Path(hydra_config.sweep.dir), run_dir, hydra_config.job.num)
    if job.is_own_process:  # a launcher's, which knows nothing of the command line
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the sweep too, which ends its jobs by SIGTERM
        sys.argv = job.command
        if folder := get_args_parser().parse_args(job.command[1:]).config_dir:
            add_config_dir(folder)

    def work() -> None:
        with job.working():
            _train(settings, hydra_config, run_dir, job)

    if job.is_own_process and "joblib" in hydra_config.launcher._target_ and hasattr(os, "fork"):
        if (status := in_child(work, job.parent)) < 0:
            log.error("%s: killed by %s", run_dir.name, signal.Signals(-status).name)
    else:
        work()
    return job.objective()


def _train(settings: DictConfig, hydra_config: Any, run_dir: Path, job: SweepJob | None) -> dict[str, Any]:
    """Train; of a job of a sweep an error is written into its folder, as the other jobs go on.

    Raises:
        SystemExit: of a single run that has failed, and of any that has been interrupted, by a signal's number.
    """
    from digits.report.tables import write_json
    from digits.training.run import train

    overrides = list(hydra_config.overrides.task)
    summary: dict[str, Any] = {"status": "failed", "run_dir": str(run_dir)}
    try:
        command = resume_command(sys.argv[0], sys.argv[1:], overrides, run_dir)
        summary = train(check_settings(settings), run_dir, overrides, command, job)
    except Exception as error:
        expected = isinstance(error, DigitsError | OSError)
        log.error(str(error), exc_info=not expected)
        if job is None:
            sys.exit(getattr(error, "exit_status", 1))
        if not (run_dir / "summary.json").exists():  # if the run has not begun
            with contextlib.suppress(OSError):  # a full disk, perhaps: the line above has said it
                write_json(run_dir / "summary.json", summary | {"error": str(error)})
    if job is not None and summary["status"] == "interrupted":
        sys.exit(128 + signal.Signals[summary["signal"]])
    return summary


def resume_command(program: str, arguments: Sequence[str], overrides: Sequence[str], run_dir: Path) -> str:
    """The command that goes on with the run in ``run_dir``, quoted as the shell and Hydra's grammar need it.

    Args:
        program: `train.py` or `digits train`.
        arguments: what it was called with; its options and what it set of Hydra itself are kept, a sweep is not.
        overrides: those of the run, which in a sweep are not the command's.
        run_dir: the run's folder.
    """
    options = get_args_parser().parse_args(list(arguments))
    kept = [f"--{name}={value}" for name in CONFIG_OPTIONS if (value := getattr(options, name.replace("-", "_")))]
    of_hydra = [text for text in options.overrides if text.lstrip("+~").startswith("hydra")]
    of_hydra = [text for text in of_hydra if not re.match(r"\+*hydra(\.(run|sweep|sweeper|launcher|mode)\b|/)", text)]
    own = [text for text in overrides if text.lstrip("+").partition("=")[0] != "resume"]  # false would begin anew
    folder = str(run_dir)
    if not re.fullmatch(r"[A-Za-z0-9_./-]+", folder):
        folder = '"' + folder.replace('"', '\\"') + '"'
    environment = [f"{name}={shlex.quote(os.environ[name])}" for name in ENVIRONMENT if name in os.environ]
    python = program_words(program).split()
    return " ".join([*environment, shlex.join([*python, *kept, *own, *of_hydra, f"hydra.run.dir={folder}"])])


def program_words(program: str) -> str:
    """What is typed to call ``program``: `python train.py` or `digits train`."""
    return f"python {program}" if program.endswith(".py") else program


def _print_no_more() -> None:
    """Or Python complains when it flushes stdout at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, status: int) -> NoReturn:
    if (started := _launcher()) is None or started.local_rank() == 0:  # the others on this machine say the same
        print(f"{sys.argv[0]}: {one_line(message)}", file=sys.stderr)
    sys.exit(status)


class ProgramFormatter(logging.Formatter):
    """Puts the program's name before an error; `conf/train.yaml` names it for what goes to stderr."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of ``record``."""
        return f"{sys.argv[0]}: {super().format(record)}"
