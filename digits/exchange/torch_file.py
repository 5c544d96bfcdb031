"""Files of torch.save taken apart: first what they say they hold, then the tensors that are wanted.

torch.load does not do. With `weights_only` it runs nothing of the file's, but believes the sizes that the file states:
it takes memory for tensors of any size, and reads past the end of a record that is shorter than stated.
"""

import math
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

MAX_PICKLE_BYTES = 2_000_000  # 20 kB is usual, and a run of 13,000 epochs has as much
MAX_VALUES = 1_000_000  # in such a file; those of runs have some 5,000
MAX_DEPTH = 32
SHARING = 4  # tensors may be views of the same numbers: all together of at most so many times the file's bytes
DTYPES = {
    "torch DoubleStorage": torch.float64,
    "torch FloatStorage": torch.float32,
    "torch HalfStorage": torch.float16,
    "torch BFloat16Storage": torch.bfloat16,
    "torch LongStorage": torch.int64,
    "torch IntStorage": torch.int32,
    "torch ShortStorage": torch.int16,
    "torch CharStorage": torch.int8,
    "torch ByteStorage": torch.uint8,
    "torch BoolStorage": torch.bool,
    "torch ComplexFloatStorage": torch.complex64,
    "torch ComplexDoubleStorage": torch.complex128,
}
TENSOR, PARAMETER = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"
ORDERED, SETS = "collections OrderedDict", ("__builtin__ set", "builtins set")
PLAIN = (str, int, float, bool, type(None))


@dataclass(frozen=True)
class _Name:
    """A module and a name in it, which are compared with those above, and never imported."""

    text: str


@dataclass(frozen=True)
class _Storage:
    dtype: torch.dtype
    key: str
    numel: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is still in the file: its layout, which has been compared with the size of its record."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    key: str

    @property
    def nbytes(self) -> int:
        """Bytes that it takes in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


class TorchFile:
    """What an open archive of torch.save holds.

    Attributes:
        content: plain values, and :class:`StoredTensor` in the place of tensors.

    Raises:
        ValueError, LookupError, TypeError, BadZipFile: the file is damaged, or holds what no file of this project does.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        (pickle,) = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
        self._root = pickle.removesuffix("data.pkl")
        records = archive.infolist()
        stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
        if not stored or any(record.file_size != record.compress_size for record in records):
            raise ValueError("it is compressed, which torch.save does not do")
        if archive.getinfo(pickle).file_size > MAX_PICKLE_BYTES:
            raise ValueError(f"its {pickle} is too long")
        order = f"{self._root}byteorder"
        if order in archive.namelist() and archive.read(order) != b"little":
            raise ValueError("it was written on a machine of another byte order")
        self.content = self._unpickle(archive.read(pickle))
        self._check_values(SHARING * sum(record.file_size for record in records))
        self._storages: dict[str, Tensor] = {}

    def read(self, part: Any) -> Any:
        """``part``, of the content, with its tensors, on the CPU; raises BadZipFile where a checksum is wrong."""
        if isinstance(part, StoredTensor):
            flat = self._bytes(part.key).view(part.dtype)
            return flat.as_strided(part.shape, part.stride, part.offset)
        if isinstance(part, dict):
            found = type(part)((key, self.read(value)) for key, value in part.items())
            if isinstance(part, OrderedDict):
                vars(found).update(vars(part))  # the versions of the modules
            return found
        if isinstance(part, list | tuple):
            return type(part)(self.read(value) for value in part)
        return part

    def _bytes(self, key: str) -> Tensor:
        if key not in self._storages:
            content = self._archive.read(f"{self._root}data/{key}")
            storage = torch.empty(len(content), dtype=torch.uint8)
            memoryview(storage.numpy())[:] = content  # type: ignore[arg-type]
            self._storages[key] = storage
        return self._storages[key]

    def _unpickle(self, data: bytes) -> Any:
        """The object that ``data`` describes, by the few operations that files of torch.save are made of."""
        stack: list[Any] = []
        marks: list[int] = []
        memo: dict[int, Any] = {}

        def pop(count: int) -> list[Any]:
            if len(stack) < count:
                raise ValueError("it is damaged: a value is missing")
            taken = stack[len(stack) - count :]
            del stack[len(stack) - count :]
            return taken

        def pop_to_mark() -> list[Any]:
            return pop(len(stack) - marks.pop())

        for opcode, argument, _ in pickletools.genops(data):
            match opcode.name:
                case "BINPUT" | "LONG_BINPUT":
                    memo[_int(argument)] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[_int(argument)])
                case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                    stack.append(argument)
                case "MARK":
                    marks.append(len(stack))
                case "TUPLE":
                    stack.append(tuple(pop_to_mark()))
                case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                    stack.append(tuple(pop(int(name[-1]) if name[-1].isdigit() else 0)))
                case "NONE" | "NEWTRUE" | "NEWFALSE" as name:
                    stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
                case "EMPTY_LIST":
                    stack.append([])
                case "EMPTY_DICT":
                    stack.append({})
                case "APPEND" | "APPENDS" as name:
                    values = pop(1) if name == "APPEND" else pop_to_mark()
                    _expect(stack[-1], list).extend(values)
                case "SETITEM" | "SETITEMS" as name:
                    values = pop(2) if name == "SETITEM" else pop_to_mark()
                    keys = [_expect(key, *PLAIN) for key in values[::2]]
                    _expect(stack[-1], dict, OrderedDict).update(zip(keys, values[1::2], strict=True))
                case "GLOBAL":
                    stack.append(_Name(str(argument)))
                case "REDUCE":
                    called, arguments = pop(2)
                    stack.append(_made(_expect(called, _Name).text, _expect(arguments, tuple)))
                case "BINPERSID":
                    stack.append(self._storage(*_expect(pop(1)[0], tuple)))
                case "BUILD":  # the versions of modules, which a state dict carries
                    (state,) = pop(1)
                    vars(_expect(stack[-1], OrderedDict))["_metadata"] = _expect(state, dict)["_metadata"]
                case "PROTO":
                    pass
                case "STOP":
                    return stack.pop()
                case name:
                    raise ValueError(f"it has {name}, which no file of this project has")
        raise ValueError("it is cut short")

    def _storage(self, kind: Any, name: Any, key: Any, location: Any, numel: Any) -> _Storage:
        storage = _Storage(DTYPES[_expect(name, _Name).text], _expect(key, str), _int(numel))
        record = self._archive.getinfo(f"{self._root}data/{key}")
        if kind != "storage" or record.file_size != storage.numel * storage.dtype.itemsize:
            raise ValueError(f"it is damaged: record {key} is not as long as it should be")
        return storage

    def _check_values(self, most_bytes: int) -> None:
        """Count what the content is when written out: it may name the same list many times, or lie within itself."""
        values = nbytes = 0
        level = [self.content]
        for _ in range(MAX_DEPTH):
            values += len(level)
            nbytes += sum(value.nbytes for value in level if isinstance(value, StoredTensor))
            if values > MAX_VALUES or nbytes > most_bytes:
                raise ValueError("it would fill the memory")
            level = [*islice((inner for value in level for inner in _inside(value)), MAX_VALUES + 1)]
        if level:
            raise ValueError("it is nested too deep, or without an end")


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list | tuple | set):
        yield from value
    elif not isinstance(value, (*PLAIN, StoredTensor)):
        name = value.text if isinstance(value, _Name) else type(value).__name__
        raise ValueError(f"it holds {name}, which is not read")


def _made(name: str, arguments: tuple[Any, ...]) -> Any:
    """What a call of ``name`` would return, without one."""
    if name == TENSOR:
        storage, offset, shape, stride = arguments[:4]
        return _stored_tensor(_expect(storage, _Storage), _int(offset), _expect(shape, tuple), _expect(stride, tuple))
    if name == PARAMETER:
        return _expect(arguments[0], StoredTensor)
    if name == ORDERED and not arguments:
        return OrderedDict()
    if name in SETS:
        return {_expect(value, *PLAIN) for value in _expect(arguments[0], list)}
    raise ValueError(f"it holds {name}, which is not read")


def _stored_tensor(storage: _Storage, offset: int, shape: tuple[Any, ...], stride: tuple[Any, ...]) -> StoredTensor:
    shape, stride = tuple(map(_int, shape)), tuple(map(_int, stride))
    numel = math.prod(shape)
    last = offset + sum((side - 1) * step for side, step in zip(shape, stride, strict=True)) if numel else 0
    if len(shape) > 8 or numel > storage.numel or (numel and last >= storage.numel):
        raise ValueError(f"it is damaged: a tensor of the shape {shape} is larger than its record")
    return StoredTensor(storage.dtype, shape, stride, offset if numel else 0, storage.key)


def _expect(value: Any, *kinds: type) -> Any:
    if type(value) not in kinds:
        raise ValueError(f"it is damaged: {type(value).__name__} in the place of {kinds[0].__name__}")
    return value


def _int(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ValueError("it is damaged: a number of elements is none")
    return value
