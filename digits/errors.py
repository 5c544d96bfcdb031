"""What goes wrong in a way the user can mend."""


class DigitsError(Exception):
    """One line that says what is wrong, where, and what to do; the entry points show it without a traceback."""

    exit_status = 1


class ConfigError(DigitsError):
    """A setting that cannot be used: an unknown key, a wrong type, a value out of range."""

    exit_status = 2
