"""The classes that files of settings name by `_target_`: found by the name of the file, and what they take."""

import functools
import importlib
import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from digits.errors import ConfigError, DigitsError
from digits.settings.wording import explain, one_line

_package = Path(__file__).resolve().parent.parent
# Hydra's files. The wheel carries them inside of the package; in a checkout they lie beside it.
CONF = _package / "conf" if (_package / "conf").is_dir() else _package.parent / "conf"
_folders = [CONF]
Base = TypeVar("Base")
Section = TypeVar("Section", bound=BaseModel)


def add_config_dir(folder: str | Path) -> None:
    """Take files of groups, and the modules that they name, from ``folder`` too; `--config-dir` calls this.

    Raises:
        ConfigError: there is no such folder.
    """
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise ConfigError(f"--config-dir {folder}: no such folder")
    if path not in _folders:
        _folders.append(path)
        sys.path.append(str(path))  # last, so that no module of it takes the place of another


def config_dirs() -> list[Path]:
    """Where files of groups are looked for, the package's own first."""
    return [*_folders]


def names(group: str) -> list[str]:
    """The names of the files of ``group``, such as "model"."""
    return sorted({file.stem for folder in _folders for file in (folder / group).glob("*.yaml")})


def load_class(group: str, name: str, base: type[Base]) -> type[Base]:
    """The class that `GROUP/NAME.yaml` names by `_target_`, a subclass of ``base``.

    Raises:
        ConfigError: there is no such file, or no such class.
    """
    return _import(target_of(group, name), f"{group}/{name}.yaml: _target_", base)


def check_object(key: str, settings: Mapping[str, Any], base: type) -> None:
    """Check that ``settings`` name a class by `_target_`, a subclass of ``base``, and what it takes.

    Raises:
        ConfigError: there is no such class, or an argument is unknown, missing or of a wrong type.
    """
    found: Any = _import(settings.get("_target_"), f"{key}._target_", base)
    section = section_for(_Arguments, found, given=frozenset({"save_dir"} - settings.keys()))
    try:
        section.model_validate({name: value for name, value in settings.items() if name != "_target_"})
    except ValidationError as error:
        raise ConfigError(f"{key}.{explain(section, error.errors()[0])}") from None


def accepts(settings: Mapping[str, Any], argument: str) -> bool:
    """Whether the class that ``settings`` name takes an ``argument``."""
    return argument in inspect.signature(_import(settings["_target_"], "_target_", object)).parameters


def overridden(settings: Mapping[str, Any], methods: Sequence[str]) -> list[str]:
    """Which of the ``methods`` of a base class the class that ``settings`` name has in a form of its own."""
    found = _import(settings["_target_"], "_target_", object)
    bases = {name: [kind for kind in found.__mro__ if name in vars(kind)] for name in methods}
    return [name for name, kinds in bases.items() if len(kinds) > 1]


def build_object(key: str, settings: Mapping[str, Any]) -> Any:
    """An object of the class that ``settings`` name, of what else is in them; raises as :func:`construct`."""
    found = _import(settings["_target_"], f"{key}._target_", object)
    return construct(key, found, {name: value for name, value in settings.items() if name != "_target_"})


def construct(key: str, target: type[Base], arguments: Mapping[str, Any]) -> Base:
    """``target(**arguments)``.

    Raises:
        DigitsError: it refuses an argument, or a package that it needs is not installed; the line begins with ``key``.
    """
    try:
        return target(**arguments)
    except DigitsError:
        raise
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise DigitsError(f"{key}: {target.__name__} needs a package that is not installed: {reason}") from error
    except Exception as error:  # it may be another's code, which may raise anything
        raise DigitsError(f"{key}: {target.__name__}: {' '.join(str(error).split())}") from error


@functools.cache
def section_for(base: type[Section], target: type, given: frozenset[str] = frozenset()) -> type[Section]:
    """``base`` and a field for each further argument of the constructor of ``target``, of its type and default.

    Arguments that are ``given`` to it otherwise are left out. A base that is not strict leaves what goes into
    `**kwargs` to the class.
    """
    constructor: Any = target.__init__  # type: ignore[misc]
    try:
        hints = get_type_hints(constructor, include_extras=True)
    except NameError:  # types that the module imports for type checkers only
        hints = {}
    fields: dict[str, Any] = {}
    extra = "forbid"
    for name, parameter in [*inspect.signature(constructor).parameters.items()][1:]:
        if parameter.kind is parameter.VAR_KEYWORD and not base.model_config.get("strict"):
            extra = "allow"
        if name in {*base.model_fields, *given} or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (hints.get(name, Any), default)
    return create_model(base.__name__, __base__=base, __cls_kwargs__={"extra": extra}, **fields)


@functools.cache  # a sweep's check asks for the same files at each of its values
def _content(path: Path, changed: int) -> dict[str, Any]:
    return yaml.safe_load(path.read_text("utf-8")) or {}


class _Arguments(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())


def _import(target: Any, where: str, base: type[Base]) -> type[Base]:
    """The class ``target``, "module.Class", a subclass of ``base``; raises ConfigError, which begins with ``where``."""
    if not isinstance(target, str) or "." not in target:
        raise ConfigError(f"{where}: a class is needed, as module.Class; here it is {target!r}")
    module, _, attribute = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # importing runs the module, which may raise anything
        raise ConfigError(f"{where}: {target} cannot be imported: {' '.join(str(error).split())}") from error
    if not isinstance(found, type) or not issubclass(found, base):
        raise ConfigError(f"{where}: {target} is no subclass of {base.__module__}.{base.__name__}")
    return found


def target_of(group: str, name: str) -> Any:
    """The `_target_` in `GROUP/NAME.yaml`, or in the file of the group that it begins with.

    Raises:
        ConfigError: there is no such file, or it is damaged.
    """
    paths = [folder / group / f"{name}.yaml" for folder in _folders]
    # a word, so no path out of the group, and no longer than a file's name can be
    path = next(filter(Path.is_file, paths), None) if re.fullmatch(r"\w[\w-]{0,99}", name) else None
    if path is None:
        raise ConfigError(
            f"{group}={one_line(name, 100)}: no such file of the group; there are {', '.join(names(group))}; "
            f"--config-dir FOLDER takes those of FOLDER/{group}/ too"
        )
    try:
        content = _content(path, path.stat().st_mtime_ns)
        inherited = [entry for entry in content.get("defaults", []) if isinstance(entry, str) and entry != "_self_"]
    except (yaml.YAMLError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise ConfigError(f"{path}: {' '.join(str(error).split())}") from error
    if "_target_" not in content and inherited:
        return target_of(group, inherited[-1])
    return content.get("_target_")
