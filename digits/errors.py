"""What goes wrong in a way the user can mend."""

import logging
import re

MAX_SHOWN = 2_000  # characters of an error: a name that a file gives may have millions


class DigitsError(Exception):
    """One line that says what is wrong, where, and what to do; the entry points show it without a traceback.

    What it quotes may come from anybody's file, so as text it has no control characters, which a terminal would obey.
    """

    exit_status = 1

    def __str__(self) -> str:
        text = super().__str__()
        return printable(text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} ...")


class ConfigError(DigitsError):
    """A setting that cannot be used: an unknown key, a wrong type, a value out of range."""

    exit_status = 2


class BelowError(logging.Filter):
    """Passes what is not an error: errors go to stderr, everything else to stdout."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to pass ``record``."""
        return record.levelno < logging.ERROR


def printable(text: object) -> str:
    """``text`` without colours, and with a space for each control character."""
    uncoloured = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", str(text))
    return "".join(character if character.isprintable() else " " for character in uncoloured)


def one_line(text: object) -> str:
    """As :func:`printable`, and with single spaces."""
    return " ".join(printable(text).split())
