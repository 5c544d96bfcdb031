"""Settings in words: what a value may be, by its type and its limits, and what is wrong with one."""

import difflib
from collections.abc import Iterable, Iterator
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

MIN_LIKENESS = 0.7  # of two names, as difflib measures it: "sed" and "seed" have 0.86, "kernel" and "keep" 0.6


def allowed(field: FieldInfo) -> str:
    """What a value of ``field`` may be: "a whole number from 1 or null"."""
    words = list(_allowed(field.annotation, field.metadata)) or ["a value of another kind"]
    return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section of the configuration that ``field`` holds, or may hold; None for a single value."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def fields_of(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Each setting in ``section`` and in the sections in it, as (data.batch_size, its field)."""
    for name, field in section.model_fields.items():
        if (inner := section_of(field)) is None:
            yield prefix + name, field
        else:
            yield from fields_of(inner, f"{prefix}{name}.")


def explain(config: type[BaseModel], problem: Any) -> str:
    """One line on what is wrong: the key, the value and what is allowed.

    Args:
        config: the type that was to be validated.
        problem: one of the ``errors()`` of pydantic's ``ValidationError``.
    """
    section: type[BaseModel] | None = config
    path: list[str] = []
    said = ""
    for step in problem["loc"]:
        if section is None or step not in section.model_fields:
            break
        field = section.model_fields[step]
        path.append(step)
        said, section = allowed(field), section_of(field)
    key = ".".join(path)
    if problem["type"] == "extra_forbidden" and section is not None:
        key, value = ".".join(map(str, problem["loc"])), problem["input"]
        while isinstance(value, dict) and len(value) == 1:  # train.max_epochs=3, where there is no section train
            ((name, value),) = value.items()
            key += f".{name}"
        hint = f"did you mean {close}? " if (close := _closest(config, key)) else ""
        return f"{key}={value!r}: no such setting; {hint}allowed here: {', '.join(section.model_fields)}"
    if problem["type"] == "missing":
        return f"{key}: a value is needed: {said}"
    if problem["type"] == "value_error":
        return f"{key}.{problem['ctx']['error']}"
    return f"{key}={problem['input']!r}: allowed is {said}"


def setting_that_takes(config: type[BaseModel], section: str, value: str) -> str | None:
    """The setting in the ``section`` of ``config`` that may be the word ``value``: for gpu trainer.accelerator."""
    if section not in config.model_fields or (inner := section_of(config.model_fields[section])) is None:
        return None
    fields = fields_of(inner, f"{section}.")
    return next((key for key, field in fields if value in _allowed(field.annotation, ()) and value != "null"), None)


def one_line(text: str, most: int = 1000) -> str:
    """``text`` without what moves a terminal's cursor, in place of which its codes stand, and its middle if long."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return shown if len(shown) <= most else f"{shown[: most // 2]} ... {shown[-most // 4 :]}"


def _closest(config: type[BaseModel], key: str) -> str | None:
    """The key that was probably meant: one of the same name in another section, or one whose name is spelled alike."""
    section, _, name = key.rpartition(".")
    known: dict[str, list[str]] = {}
    for other, _ in fields_of(config):
        above, _, last = other.rpartition(".")
        known.setdefault(last, []).append(other)
        if above.count("."):  # a section within one, as recipe.augmentation
            known.setdefault(above.rpartition(".")[2], []).append(above)
    alike = [name] if name in known else difflib.get_close_matches(name, known, 1, MIN_LIKENESS)
    found = known[alike[0]] if alike else []
    return next((one for one in found if one.rpartition(".")[0] == section), next(iter(found), None))


def _allowed(kind: Any, limits: Iterable[Any]) -> Iterator[str]:
    limits = list(limits)
    if said := [limit for limit in limits if isinstance(limit, str)]:  # where the type alone does not say it
        yield said[-1]
    elif get_origin(kind) is Annotated:
        kind, *more = get_args(kind)
        yield from _allowed(kind, [part for item in more for part in getattr(item, "metadata", [item])])
    elif get_origin(kind) is Literal:
        yield from map(str, get_args(kind))
    elif kind is bool:
        yield from ("true", "false")
    elif kind is NoneType:
        yield "null"
    elif kind in (int, float):
        yield _number(kind, limits)
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        yield f"a section of {', '.join(kind.model_fields)}"
    elif kind is str:
        yield "a text"
    else:  # a union
        for part in get_args(kind):
            yield from _allowed(part, ())


def _number(kind: type, limits: list[Any]) -> str:
    words = "a whole number" if kind is int else "a number"
    for limit in limits:
        if (least := getattr(limit, "ge", None)) is not None:
            words += f" from {least:,}"
        if (below := getattr(limit, "gt", None)) is not None:
            words += f" above {below:,}"
        if (most := getattr(limit, "le", None)) is not None:
            words += f" to {most:,}"
        if (above := getattr(limit, "lt", None)) is not None:
            words += f" to {above - 1:,}" if kind is int else f" to under {above:,}"
    return words
