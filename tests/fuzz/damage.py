"""Real inputs, damaged: bytes that are changed, values of which a part is another, and JSON of any kind."""

import struct
from typing import Any

from hypothesis import strategies as st

NUMBERS = [0, 1, 127, 128, 255, 65_535, 2**31 - 1, 2**31, 2**32 - 1, 99_999_999]
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, -1, 2**63, 10**400, 0.5, -0.0, 1e-320, 1e38, 1e308, float("nan"), float("inf"), -float("inf")]),
    st.sampled_from(["", "x", "\x1b[31m", "\u202e", "../../x", "os.system", "torch.nn.Linear", "\ud800", "9" * 5_000]),
    st.integers(),
    st.text(max_size=5),
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))

_change = st.tuples(
    st.sampled_from(["set", "set", "flip", "number", "number", "insert", "remove", "cut", "repeat"]),
    st.integers(0, 2**20),
    st.booleans(),  # whether at the beginning, where headers are
    st.integers(0, 255),
    st.sampled_from(NUMBERS),
)


def damaged(content: bytes) -> st.SearchStrategy[bytes]:
    """``content`` with up to four changes, or none."""
    return st.lists(_change, max_size=4).map(lambda changes: _changed(content, changes))


def _changed(content: bytes, changes: list[Any]) -> bytes:
    for kind, place, early, byte, number in changes:
        at = place % max(1, min(len(content), 256) if early else len(content))
        before, after = content[:at], content[at:]
        match kind:
            case "set":
                content = before + bytes([byte]) + after[1:]
            case "flip":
                content = before + bytes([after[0] ^ (1 << byte % 8)] if after else []) + after[1:]
            case "number":
                content = before + struct.pack(">I" if byte % 2 else "<I", number % 2**32) + after[4:]
            case "insert":
                content = before + bytes([byte]) * (number % 300) + after
            case "remove":
                content = before + after[byte + 1 :]
            case "cut":
                content = before
            case "repeat":
                content = before + after[:byte] * 2 + after[byte:]
    return content


def altered(value: Any, junk: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """``value``, of dictionaries and lists, of which up to three parts are removed or replaced."""
    steps = st.lists(st.tuples(st.integers(0, 2**16), st.booleans(), junk), min_size=1, max_size=3)
    return steps.map(lambda changes: _altered(value, changes))


def _altered(value: Any, changes: list[Any]) -> Any:
    for number, remove, junk in changes:
        paths = [*_paths(value)]
        value = _with(value, paths[number % len(paths)], remove, junk)
    return value


def _paths(value: Any, above: tuple[Any, ...] = ()) -> Any:
    yield above
    if isinstance(value, dict):
        for key in value:
            yield from _paths(value[key], (*above, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value[:5]):
            yield from _paths(inner, (*above, number))


def _with(value: Any, path: tuple[Any, ...], remove: bool, junk: Any) -> Any:
    if not path:
        return junk
    first, *rest = path
    copied = value.copy()
    if remove and not rest:
        del copied[first]
    else:
        copied[first] = _with(value[first], tuple(rest), remove, junk)
    return copied
