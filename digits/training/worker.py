"""A process of a run that is not its first: it trains and tests along, and writes nothing.

As `python -m digits.training.worker` it is started by the first one, which sends the composed settings.
"""

import contextlib
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from digits.errors import DigitsError
from digits.settings.schema import Config, check
from digits.settings.targets import add_config_dir
from digits.training.distributed.launch import other_processes
from digits.training.interruption import Interrupted, Interruption
from digits.training.pruning import Pruned
from digits.training.run import fit_and_test
from digits.training.setup import set_up

SILENT = {"enable_progress_bar": False, "profiler": None, "enable_model_summary": False}


def work(config: Config, prunes: bool = False, ready: Callable[[], None] = lambda: None) -> None:
    """Take part in the run that ``config`` describes.

    Args:
        config: as the first process has it.
        prunes: whether that may end the run as hopeless.
        ready: is called once the data are read and the device is found.

    Raises:
        DigitsError: the data or the device cannot be used, or another process does not answer.
        Interrupted: a signal has come to one of the processes.
    """
    trainer = config.trainer.model_copy(update=SILENT)
    config = config.model_copy(update={"trainer": trainer, "logger": {"_target_": None}})
    never = (lambda epoch, loss: False) if prunes else None
    with Interruption() as interruption, contextlib.suppress(Pruned):
        parts = set_up(config, Path.cwd(), interruption=interruption, is_hopeless=never)
        ready()
        with other_processes(parts[0], config):
            fit_and_test(config, *parts, None, interruption)


def _end_with_first() -> None:
    """End this process when its standard input, which the first one holds open, has ended."""
    sys.stdin.read()
    os._exit(1)


def main() -> None:
    """Read the settings, a line of JSON, from the standard input, and work."""
    message = json.loads(sys.stdin.readline())
    first, sys.stdout = sys.stdout, Path(os.devnull).open("w")  # noqa: SIM115  # nobody reads more than one line

    def ready() -> None:
        print("ready", file=first, flush=True)

    threading.Thread(target=_end_with_first, daemon=True).start()
    try:
        for folder in message["config_dirs"]:
            add_config_dir(folder)
        work(check(message["settings"]), message["prunes"], ready)
    except DigitsError as error:
        sys.exit(str(error))
    except Interrupted:
        pass
    os._exit(0)  # at once: what torch does on exit would wait for processes that have ended already


if __name__ == "__main__":
    main()
