"""What goes wrong in a way the user can mend."""

import logging


class DigitsError(Exception):
    """One line that says what is wrong, where, and what to do; the entry points show it without a traceback."""

    exit_status = 1


class ConfigError(DigitsError):
    """A setting that cannot be used: an unknown key, a wrong type, a value out of range."""

    exit_status = 2


class BelowError(logging.Filter):
    """Passes what is not an error: errors go to stderr, everything else to stdout."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to pass ``record``."""
        return record.levelno < logging.ERROR
