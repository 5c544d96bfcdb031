"""Files that are written whole or not at all, whenever the process is killed, and files of strangers that are read."""

import contextlib
import json
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from digits.errors import DigitsError


def write_atomically(path: Path, content: bytes | memoryview, keep: Path | None = None) -> None:
    """Write ``content`` to ``path``: whoever reads it, at any moment, finds the old file or the new one, both whole.

    It is written beside ``path``, as only within one file system a rename is atomic, and forced to the disk before it
    takes the name. ``keep`` is where the old file goes; without it, it is gone.

    Raises:
        OSError: with the path in it; the old file is as it was.
    """
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            path.replace(keep)
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if error.strerror and error.filename in (None, str(temporary)):  # a full disk names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with contextlib.suppress(OSError):  # that of the block above says more
            temporary.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """A name in the same folder for what is to become ``path``; :func:`remove_unfinished` knows it."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def move_files(source: Path, target: Path, first: str) -> None:
    """Move the files below ``source`` to the same places below ``target``, each atomically and ``first`` first.

    They are forced to the disk before, so that none takes its name half-written.
    """
    files = sorted((path for path in source.rglob("*") if path.is_file()), key=lambda path: path.name != first)
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    for path in files:
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    sync_folder(target)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left half-written in ``folder`` and below it."""
    for path in list(folder.rglob(".*.tmp")):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path, setting: str = "hydra.run.dir") -> Iterator[None]:
    """While it is entered, no other process can enter it for the same folder; a killed one has left it.

    Raises:
        DigitsError: another process has entered it; the ``setting`` that names another folder is named.
    """
    lock = FileLock(folder / ".lock", is_singleton=True)  # so that this process may enter it twice
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise DigitsError(
            f"{folder}: another run is being written there; wait for its end, or name another folder with {setting}=..."
        ) from None
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            with contextlib.suppress(OSError):  # the folder may have vanished
                Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def sync_folder(folder: Path) -> None:
    """Force the names of the files in ``folder`` to the disk, where the system can."""
    if os.name == "nt":
        return  # Windows opens no folders
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems refuse it
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ---- files of strangers


def check_regular(path: Path, limit: int) -> None:
    """Refuse what would block, never end or fill the memory when it is read.

    Raises:
        DigitsError: ``path`` is a pipe, a device or the like, or has more than ``limit`` bytes.
        OSError: there is nothing, or it may not be looked at.
    """
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise DigitsError(f"{path}: is a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise DigitsError(f"{path}: is no regular file")
    if status.st_size > limit:
        raise DigitsError(f"{path}: has {status.st_size:,} bytes; of such a file at most {limit:,} are read")


def read_bounded(path: Path, limit: int) -> bytes:
    """The content of the regular file ``path``, ``limit`` bytes at most; raises as :func:`check_regular`."""
    check_regular(path, limit)
    with path.open("rb") as file:
        return file.read(limit)


def read_json(path: Path, limit: int) -> Any:
    """What the JSON file ``path`` of at most ``limit`` bytes holds.

    Raises:
        ValueError: it is no JSON in UTF-8, or is nested too deep.
        DigitsError, OSError: as :func:`check_regular`.
    """
    return parse_json(read_bounded(path, limit))


def parse_json(content: bytes) -> Any:
    """What ``content`` holds; raises ValueError if it is no JSON in UTF-8, or is nested too deep."""
    try:
        return json.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("is nested too deep") from None


def member(folder: Path, name: str) -> Path:
    """``folder / name``, where no symbolic link is on the way: a folder of a stranger's could show any file by one.

    The links that the hub's client makes in its own cache are followed: from `snapshots/REVISION/` to `blobs/`.

    Raises:
        DigitsError: there is a link.
    """
    path, top = folder / name, Path(os.path.realpath(folder))
    target = Path(os.path.realpath(path))
    if target != top / name and target.parent != top.parent.parent / "blobs":
        raise DigitsError(f"{path}: is a symbolic link, or lies behind one; links in a model's folder are not followed")
    return path
