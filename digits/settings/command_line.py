"""Check a whole command line, sweeps included, before Hydra makes a folder and before a device starts."""

import argparse
import contextlib
import functools
import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from digits.errors import ConfigError
from digits.settings.grid import Axis, Grid, prefix_of
from digits.settings.refusals import check_size, check_values, message_of, refusing
from digits.settings.schema import Config, check
from digits.settings.targets import add_config_dir, config_dirs
from digits.settings.wording import one_line

# `conf/train.yaml` names it; here, and not in a file, as it has no settings of its own
_GRID = {"_target_": "hydra_plugins.deepdigits.GridSweeper", "params": None}
ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=_GRID, provider="deepdigits")


def check_command_line(arguments: list[str]) -> None:
    """Compose and check the configuration of every job that ``arguments`` ask for.

    A sweep's values are checked one by one, each with the first value of the others.

    Raises:
        ConfigError: an override that Hydra cannot parse or place, or a setting that
            :func:`~digits.settings.schema.check` refuses; one line that names the key and what is allowed.
    """
    options = _options(arguments)
    if options.config_dir:
        add_config_dir(options.config_dir)
    if options.help or options.hydra_help or options.info or options.shell_completion:
        return
    if _is_of_another(options):
        return  # its jobs are checked when they start
    with refusing(options.overrides):
        if options.multirun:
            parsed = _parse(options.overrides)
            hydras = [override.key_or_group.startswith("hydra") for override in parsed]
            words = options.overrides
            plan(
                *([word for word, is_his in zip(words, hydras, strict=True) if is_his == his] for his in (True, False))
            )
        else:
            configure(options.overrides)
            if options.cfg and options.package:
                _check_package(options)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    """Hydra's options and the overrides in ``arguments``; raises ConfigError for what goes with nothing else there."""

    def refuse(message: str) -> NoReturn:
        raise ConfigError(message)

    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]  # argparse prints its usage too
    options, unknown = parser.parse_known_args([*arguments])
    if unknown:
        if unknown[0].startswith("-"):
            raise ConfigError(f"{unknown[0]}: no such option; --help lists them")
        raise ConfigError(f"{unknown[0]}: overrides stand together; put -m before or behind all of them")
    for word in options.overrides:
        check_size(word)
    modes = {"run": options.run, "multirun": options.multirun, "cfg": options.cfg, "info": options.info}
    asked = [f"--{name}" for name, value in modes.items() if value]
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)}: do not go together")
    if options.resolve and not options.cfg:
        raise ConfigError("--resolve: goes with --cfg only")
    if options.experimental_rerun:  # Hydra would run whatever is pickled in that file
        raise ConfigError("--experimental-rerun: is not supported; the same command again goes on with a run")
    if options.shell_completion and "COMP_LINE" not in os.environ and options.overrides[:1] == ["query=bash"]:
        raise ConfigError("-sc query=bash: is for the shell to call; -sc install=bash prints how")
    return options


def _check_package(options: argparse.Namespace) -> None:
    """Raise ConfigError if there is no section of the name that `--cfg` is to print alone."""
    with _hydra():
        overrides = [_forced(override) for override in _parse(options.overrides)]
        if OmegaConf.select(compose("train", overrides, return_hydra_config=True), options.package) is None:
            raise ConfigError(f"--package {options.package}: no such section of the settings")


def settings_for_help(arguments: list[str]) -> DictConfig | None:
    """What ``arguments`` compose, of a sweep the first job, if they ask for help and it is on the project's settings.

    Raises:
        ConfigError: as above, but whether the values are allowed is not checked.
    """
    options = _options(arguments)
    if not options.help or options.hydra_help or _is_of_another(options):
        return None
    with refusing(options.overrides), _hydra():
        overrides = _parse(options.overrides, GlobalHydra.instance().config_loader())
        words = [Axis(override).forced(0) if options.multirun else _forced(override) for override in overrides]
        return compose("train", [override.removeprefix("++") for override in words])


def plan(hydras: Sequence[str], overrides: Sequence[str]) -> Grid:
    """What `python train.py -m` with overrides of Hydra's settings and of ours asks for, checked.

    Raises:
        ConfigError: as above.
    """
    with refusing([*hydras, *overrides]):
        return _plan((*hydras, *overrides), tuple(config_dirs()))


@functools.lru_cache(maxsize=1)  # the check of the command line asks for it, then the sweeper
def _plan(overrides: tuple[str, ...], folders: tuple[Path, ...]) -> Grid:
    with _hydra():
        loader = GlobalHydra.instance().config_loader()
        parsed = _parse(overrides, loader)
        own = [override for override in parsed if not override.is_sweep_override()]
        sweeper = compose("train", [*map(_forced, own)], return_hydra_config=True).hydra.sweeper
        named = {override.key_or_group for override in parsed}
        given = sweeper.get("params") or {}
        if not isinstance(given, Mapping):
            raise ConfigError(f"hydra.sweeper.params={given}: allowed are keys with their values, {{KEY: VALUES}}")
        params = [f"{key}={value}" for key, value in given.items() if key not in named]
        parsed = [*_parse(params, loader), *parsed]
        for override in parsed:
            if sweeper.get("_target_") == _GRID["_target_"] and isinstance(override.value(), IntervalSweep):
                raise ConfigError(f"{override.input_line}: an interval is for a search; add hydra/sweeper=search")
        return Grid(parsed, _composed, check)


def configure(overrides: list[str]) -> Config:
    """The configuration that `python train.py OVERRIDES` would run; raises ConfigError as above."""
    with refusing(overrides):
        parsed = _parse(overrides)
        with _hydra():
            return check_settings(compose("train", [_forced(override) for override in parsed]))


@contextlib.contextmanager
def _hydra() -> Iterator[None]:
    """Within it `compose` finds the project's files, and those of the folders that were added."""
    package, *others = config_dirs()
    search_path = create_config_search_path(str(package))
    for folder in others:
        search_path.prepend("command-line", f"file://{folder}", SearchPathQuery(provider="schema"))
    with initialize_config_dir(str(package), version_base="1.3"):  # and afterwards Hydra is as it was
        GlobalHydra.instance().clear()
        Hydra.create_main_hydra2("train", search_path)
        yield


def _is_of_another(options: argparse.Namespace) -> bool:
    """Whether another configuration than the project's is asked for."""
    return bool(options.config_path or options.config_name)


def _parse(overrides: Sequence[str], loader: ConfigLoader | None = None) -> list[Override]:
    parser = OverridesParser.create(config_loader=loader)
    for text in overrides:
        check_size(text)
        try:
            check_values(parser.parse_override(text))
        except HydraException as error:
            key, equals, value = text.partition("=")
            if not equals or not re.search(r"[\s=/]", value):
                said = message_of(error)
                raise ConfigError(said if text in said else f"{one_line(text, 100)}: {said}") from error
            quoted = shlex.quote(f'{key}="{value.strip(chr(34))}"')
            raise ConfigError(
                f"{text}: Hydra gives some characters a meaning of their own; a path with them is quoted twice, for "
                f"the shell and for Hydra: {quoted}"
            ) from error
    return parser.parse_overrides([*overrides])


def check_settings(settings: DictConfig) -> Config:
    """The composed ``settings`` as a :class:`~digits.settings.schema.Config`; raises ConfigError."""
    with refusing([]):
        return check(_resolved(settings))


def _composed(overrides: list[str]) -> dict[str, Any]:
    return _resolved(compose("train", overrides))


def _resolved(settings: DictConfig) -> dict[str, Any]:
    return OmegaConf.to_container(settings, resolve=True, throw_on_missing=True)  # type: ignore[return-value]


def _forced(override: Override) -> str:
    return prefix_of(override) + (override.input_line or "")
