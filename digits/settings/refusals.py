"""What cannot be composed, in one line: whatever Hydra, OmegaConf and the parser of their grammar raise about it."""

import contextlib
import re
from collections.abc import Iterator, Sequence

from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, QuotedString, RangeSweep, Sweep
from hydra.errors import HydraException, MissingConfigException
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from digits.errors import ConfigError, DigitsError
from digits.settings.schema import Config
from digits.settings.targets import names
from digits.settings.wording import one_line, setting_that_takes

GROUPS = {"data", "model", "recipe", "trainer", "logger", "experiment"}  # of `conf/`; hydra's have a slash
# Far above what a setting needs, and below what the parser needs all of Python's stack, or seconds, for.
MAX_DEPTH = 12
MAX_CHARACTERS = 20_000
MAX_VALUES = 10_000  # of a key in a sweep, and jobs


@contextlib.contextmanager
def refusing(words: Sequence[str]) -> Iterator[None]:
    """Within it ``words``, those of a command line, are composed; raises ConfigError for whatever is raised."""
    try:
        yield
    except DigitsError:
        raise
    except Exception as error:  # a value of a kind that Hydra does not expect meets an assertion or a TypeError there
        raise ConfigError(message_of(error, words)) from error


def message_of(error: Exception, words: Sequence[str] = ()) -> str:
    """What is wrong with ``words``, of which ``error`` was raised, on one line and without Hydra's search path."""
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: a value is needed"
    if isinstance(error, MissingConfigException) and "/" in (error.missing_cfg_file or ""):
        return _no_such_file(str(error.missing_cfg_file), error.options or ())
    text = str(error) or str(error.__cause__ or "")
    if text.startswith("Error merging override") and error.__cause__ is not None:
        text += f": {error.__cause__}"
    # what it is about, where the text does not say it
    for about in (getattr(error, "override", None), getattr(error, "full_key", None)):
        if isinstance(about, str) and about not in text.partition("\n")[0]:
            text = f"{about}: {text}"
    text = re.split(r"\n\s*Config search path|\n\s*full_key|\n\s*See https?:", text)[0]
    text = re.sub(r"\.?\nTo", ". To", text)  # the check has put ++ before the key
    text = one_line(re.sub(r"(^|['\s])\+\+(?=[^=])", r"\1", " ".join(text.split())))
    if isinstance(error, HydraException | OmegaConfBaseException) and text:
        return text
    typed = ", ".join(one_line(word, 100) for word in words)
    return f"{'one of ' * (len(words) > 1)}{typed}: Hydra cannot take it: {type(error).__name__}: {text}".rstrip(": ")


def check_size(word: str) -> None:
    """Raise ConfigError for an override that is longer, or nested deeper, than Hydra's parser can bear."""
    if not word.strip():
        raise ConfigError("an empty word stands among the overrides; KEY=VALUE is one")
    if len(word) > MAX_CHARACTERS:
        raise ConfigError(f"{one_line(word, 100)}: longer than {MAX_CHARACTERS:,} characters")
    depth = 0
    for bracket in re.findall(r"[\[\](){}]", word):
        depth = depth + 1 if bracket in "[({" else max(depth - 1, 0)
        if depth > MAX_DEPTH:
            raise ConfigError(f"{one_line(word, 100)}: brackets are nested more than {MAX_DEPTH} deep")


def check_values(override: Override) -> None:
    """Raise ConfigError for no key, a group that is given no name, or a range of too many values."""
    value, key = override.value(), override.key_or_group
    if not key:
        raise ConfigError(f"{override.input_line}: names no setting; KEY=VALUE is one")
    if isinstance(value, RangeSweep):
        start, stop, step = float(value.start or 0), float(value.stop or 0), float(value.step)
        if not step or (stop - start) / step > MAX_VALUES:
            raise ConfigError(f"{override.input_line}: more than {MAX_VALUES:,} values")
    if (key in GROUPS or key == "hydra" or "/" in key) and not override.is_delete():
        for each in value.list if isinstance(value, ChoiceSweep) else [value]:
            for name in each if isinstance(each, list) else [each]:
                if not isinstance(name, str | QuotedString | Sweep | Glob):
                    known = f": {', '.join(names(key))}" if key in GROUPS else ""
                    raise ConfigError(f"{override.input_line}: {key} is a group, which takes the name of a file{known}")


def _no_such_file(file: str, options: Sequence[str]) -> str:
    group, _, name = file.rpartition("/") if file.startswith("hydra/") else file.partition("/")
    name = name.lstrip("/")
    meant = setting_that_takes(Config, group, name)
    hint = f"did you mean {meant}={name}? " if meant else ""
    return one_line(f"{group}={name}: no such file of the group; {hint}there are {', '.join(options)}")
