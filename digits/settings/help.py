"""What `python train.py --help` says: each setting with its value, what is allowed and what it means."""

import shutil
import textwrap
from collections.abc import Iterator
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import BaseModel

from digits.settings.schema import config_for
from digits.settings.targets import CONF, names
from digits.settings.trainer import TrainerConfig
from digits.settings.wording import allowed, section_of

MAX_WIDTH = 100  # characters: longer lines are hard to read
HEAD = """\
usage: {program} [KEY=VALUE ...] [OPTION ...]

Train the network, score it on the test split, and write model, figures and plots into runs/NAME/TIME.
"""
GROUPS = "Groups: GROUP=NAME takes a file of settings, conf/GROUP/NAME.yaml."
SETTINGS = """\
Settings: each is shown as KEY=DEFAULT (what is allowed), with what it does. `{program} experiment=best --help` shows \
the values of an experiment."""
OPTIONS = {
    "-m": "a sweep: train with each combination of values that are given as KEY=A,B; `digits sweep FOLDER` says what "
    "it has found",
    "--cfg job": "print the composed settings and train nothing",
    "--info defaults": "print which files they were composed of",
    "--config-dir FOLDER": "take files of groups, and the modules they name, from there too",
    "--hydra-help": "the other options of Hydra, which composes the settings",
    "hydra.run.dir=FOLDER": "the run's folder; the same command again goes on where it was stopped",
    "hydra.sweep.dir=FOLDER": "the folder of a sweep; the same command again skips what is completed",
    "hydra/sweeper=search": "with -m: search between two values that are given as KEY='interval(A,B)'",
    "hydra/launcher=joblib": "with -m: several jobs side by side, hydra.launcher.n_jobs=N; or submitit_slurm",
}
EXAMPLES = """\
Examples:
  {program} data=mnist5k trainer.max_epochs=2
  {program} experiment=best seed=1 hydra.run.dir=runs/mine
  {program} -m model.dense_dropout=0.3,0.5 model.l2=1e-4,1e-3
  {program} -m experiment=search
"""


def help_text(program: str, settings: DictConfig, width: int | None = None) -> str:
    """The whole text.

    Args:
        program: what is typed to call it: `python train.py` or `digits train`.
        settings: as composed; their values are shown.
        width: of a line, in characters; None: as wide as the terminal, or 80 where there is none.
    """
    width = max(min(width or shutil.get_terminal_size().columns, MAX_WIDTH), 40)
    values: Any = OmegaConf.to_container(settings, resolve=True)
    groups = {folder.name: names(folder.name) for folder in CONF.glob("*/") if names(folder.name)}
    lines = [_fill(paragraph, width) for paragraph in HEAD.format(program=program).splitlines()]
    lines += ["", _fill(GROUPS, width)]
    lines += [_fill(f"  {name:<12}{', '.join(files)}", width, 14) for name, files in sorted(groups.items())]
    lines += ["", _fill(SETTINGS.format(program=program), width)]
    lines += _section(config_for(values), values, "", width)
    lines += ["", "Options:"]
    lines += [_fill(f"  {option:<24}{text}", width, 26) for option, text in OPTIONS.items()]
    return "\n".join([*lines, "", EXAMPLES.format(program=program).rstrip()])


def _section(section: type[BaseModel], values: dict[str, Any], prefix: str, width: int) -> Iterator[str]:
    """The lines of a section: each setting that has a description, the names of the others, the sections in it."""
    undescribed = []
    for name, field in section.model_fields.items():
        inner, value, key = section_of(field), values.get(name, field.get_default()), prefix + name
        if inner is not None and value is not None:
            yield f"\n{_fill(f'{key}: {field.description}', width)}"
            yield from _section(inner, value, f"{key}.", width)
        elif field.description or section is not TrainerConfig:  # else of a class of the user's own
            yield _fill(f"  {key}={_show(value)}  ({allowed(field)})", width, 6)
            if field.description:
                yield _fill(f"      {field.description}", width, 6)
        else:
            undescribed.append(f"{key}={_show(value)}")
    if undescribed:
        yield _fill(f"  Also, as Lightning has them: {', '.join(undescribed)}", width, 6)


def _show(value: Any) -> str:
    """``value`` as it is written on the command line; of an object its class."""
    if isinstance(value, dict):
        value = value.get("_target_")
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def _fill(text: str, width: int, indent: int = 0) -> str:
    return textwrap.fill(text, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)
