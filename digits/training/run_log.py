"""What `train.log` has beside the lines of the terminal: the settings, Python's warnings, the table of the result."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any, TextIO

from omegaconf import OmegaConf
from rich.console import Console

from digits.report.tables import print_run
from digits.settings.schema import Config

log = logging.getLogger("digits")


def log_settings(config: Config) -> None:
    """Write all settings of the run to the log files, as YAML."""
    _log_to_file(f"settings\n{OmegaConf.to_yaml(OmegaConf.create(config.model_dump(mode='json'))).strip()}")


def log_result(summary: dict[str, Any]) -> None:
    """Write the table that the terminal shows at the end to the log files, as plain text."""
    table = io.StringIO()
    print_run(summary, Console(file=table, width=80, force_terminal=False))
    _log_to_file("result\n" + "\n".join(line.rstrip() for line in table.getvalue().strip().splitlines()))


def _log_to_file(text: str, level: int = logging.INFO) -> None:
    """Write ``text`` to the log files alone: the terminal has no room for it, or shows it in its own way."""
    record = log.makeRecord(log.name, level, __file__, 0, text, (), None)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(record)


@contextlib.contextmanager
def warnings_logged() -> Iterator[None]:
    """While it is entered, Python's warnings go into the log files too; they are shown as before."""
    show = warnings.showwarning

    def show_and_log(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        show(message, category, filename, lineno, file, line)
        _log_to_file(f"{category.__name__}: {message} ({filename}:{lineno})", logging.WARNING)

    warnings.showwarning = show_and_log
    try:
        yield
    finally:
        warnings.showwarning = show
