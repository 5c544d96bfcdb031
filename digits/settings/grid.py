"""The jobs of a sweep: all combinations of several values, each value checked once and no job composed for it."""

import functools
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hydra.core.override_parser.types import IntervalSweep, Override, OverrideType, QuotedString, Transformer

from digits.errors import ConfigError
from digits.settings.compare import FREE, deciding, flat
from digits.settings.refusals import GROUPS, MAX_VALUES
from digits.settings.schema import Config

Compose = Callable[[list[str]], dict[str, Any]]  # overrides to the plain settings that they make
Check = Callable[[dict[str, Any]], Config]


class Job(NamedTuple):
    """One combination: its overrides as Hydra takes them, and the settings that decide its result, by their names."""

    overrides: tuple[str, ...]
    settings: dict[str, Any]


@dataclass
class Axis:
    """A key and its values, of an interval both ends; ``changes`` are the settings that each, checked, comes to."""

    override: Override
    changes: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        override = self.override
        self.key = override.key_or_group
        self.is_group = is_group(self.key)
        self.values: list[Any] = [None]  # as the parser has them
        if not override.is_sweep_override():
            self.texts = [override.get_value_element_as_str()]
        elif isinstance(interval := override.value(), IntervalSweep):
            self.values = [interval.start, interval.end]
            self.texts = [*map(str, self.values)]
        else:
            self.values = [*override.sweep_iterator(transformer=Transformer.identity)]
            self.texts = [*override.sweep_string_iterator()]
        if not self.texts:
            raise ConfigError(f"{override.input_line}: no value")

    @property
    def is_hydras(self) -> bool:
        """Whether it is a setting of Hydra itself, which is no job's."""
        return self.key.startswith("hydra")

    def word(self, number: int) -> str:
        """The override with its ``number``-th value, as a job is given it."""
        return f"{self.override.get_key_element()}={self.texts[number]}"

    def forced(self, number: int) -> str:
        """The override with its ``number``-th value, as the check composes it."""
        return f"{prefix_of(self.override)}{self.word(number)}"


def is_group(key: str) -> bool:
    """Whether ``key`` names a group of files, or one of Hydra's own settings, and not a setting of the run."""
    return key in GROUPS or "/" in key or key.startswith("hydra")


def prefix_of(override: Override) -> str:
    """`++` for a plain setting: Hydra then lets an unknown key pass, and the check names it and what is allowed."""
    return "++" if override.type == OverrideType.CHANGE and not is_group(override.key_or_group) else ""


class Grid:
    """What overrides with several values ask for; all of it is checked here.

    The settings are composed once for each combination of groups, and each other value is tried alone, beside the
    first ones of the other keys; so 1,000 seeds take less than a second.

    Args:
        overrides: parsed; of a key that is there twice the last one counts, as with Hydra.
        compose: what makes plain settings of overrides.
        check: what makes a configuration of them.

    Raises:
        ConfigError: a key has no value, or one that is refused.
    """

    def __init__(self, overrides: list[Override], compose: Compose, check: Check) -> None:
        last = {override.get_key_element(): override for override in overrides}
        self.axes = [Axis(override) for override in last.values() if not override.is_delete()]
        if (jobs := math.prod(len(axis.texts) for axis in self.axes)) > MAX_VALUES:
            raise ConfigError(f"a sweep of {jobs:,} jobs: at most {MAX_VALUES:,} are planned")
        self.removed = [str(override.input_line) for override in last.values() if override.is_delete()]
        self.groups = [axis for axis in self.axes if axis.is_group]
        plain = [axis for axis in self.axes if not axis.is_group]
        first = [axis.forced(0) for axis in plain]
        self.bases: dict[tuple[int, ...], dict[str, Any]] = {}
        for numbers in itertools.product(*(range(len(axis.texts)) for axis in self.groups)):
            chosen = [axis.forced(number) for axis, number in zip(self.groups, numbers, strict=True)]
            config = check(compose([*chosen, *first, *self.removed]))
            self.bases[numbers] = deciding(config)
        for axis in plain:
            if len(axis.texts) > 1:
                if axis.key in FREE:
                    raise ConfigError(
                        f"{axis.override.input_line}: no result depends on it, so it is nothing to sweep over"
                    )
                others = [each.forced(0) for each in self.axes if each is not axis]
                axis.changes = _changes(axis, [*others, *self.removed], compose, check)

    def jobs(self) -> list[Job]:
        """All combinations in the order of their values, those that differ by the seed alone side by side."""
        ordered = sorted(self.axes, key=lambda axis: axis.key == "seed")  # the last one turns fastest
        jobs: dict[str, Job] = {}
        for numbers in itertools.product(*(range(len(axis.texts)) for axis in ordered)):
            number = {axis.key: i for axis, i in zip(ordered, numbers, strict=True)}
            settings = dict(self.bases[tuple(number[axis.key] for axis in self.groups)])
            for axis in ordered:
                if axis.changes:
                    below = f"{axis.key}."
                    settings = {k: v for k, v in settings.items() if k != axis.key and not k.startswith(below)}
                    settings |= axis.changes[number[axis.key]]
            words = [axis.word(number[axis.key]) for axis in self.axes if not axis.is_hydras]
            jobs.setdefault(repr(sorted(settings.items())), Job((*self.removed, *words), settings))
        return [*jobs.values()]


def _changes(axis: Axis, others: list[str], compose: Compose, check: Check) -> list[dict[str, Any]]:
    """What each value of ``axis`` comes to, beside ``others``; raises ConfigError for one that is refused."""
    settings = compose([*others, axis.forced(0)])
    changes = []
    changed: Any
    for number, value in enumerate(axis.values):
        plain = _plain(value)
        if plain is not None and (parent := _parent(settings, axis.key)) is not None:
            parent[axis.key.rpartition(".")[2]] = plain
            config = check(settings)
        else:  # a list, a dictionary, an interpolation: what Hydra makes of them
            config = check(compose([*others, axis.forced(number)]))
        changed = functools.reduce(_item, axis.key.split("."), config)
        if not isinstance(changed, bool | int | float | str):
            changed = functools.reduce(_item, axis.key.split("."), config.model_dump(mode="json"))
        changes.append(flat({axis.key: changed}))
    return changes


def _item(section: Any, name: str) -> Any:
    if isinstance(section, list):
        return section[int(name)]
    return section[name] if isinstance(section, dict) else getattr(section, name)


def _plain(value: Any) -> Any:
    """A number, a truth value or a text of the command line; None for what only Hydra can read."""
    text = value.text if isinstance(value, QuotedString) else value
    return text if isinstance(text, bool | int | float) or (isinstance(text, str) and "$" not in text) else None


def _parent(settings: dict[str, Any], key: str) -> dict[str, Any] | None:
    section: Any = settings
    for name in key.split(".")[:-1]:
        section = section.get(name) if isinstance(section, dict) else None
    return section if isinstance(section, dict) else None
