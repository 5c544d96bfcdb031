"""Zip files of strangers, opened without more memory than they have bytes."""

import contextlib
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from digits.files import check_regular

MAX_LIST_BYTES = 1 << 20  # of the list of a zip's members, some 100 for each; zipfile reads it at once


class _ShortReads(io.BufferedReader):
    """Until it is ``listed``, refuses the long read by which zipfile would take a list of millions of members."""

    listed = False

    def read(self, size: int | None = -1) -> bytes:
        rest = os.fstat(self.fileno()).st_size - self.tell() if size is None or size < 0 else size
        if not self.listed and rest > MAX_LIST_BYTES:
            raise zipfile.BadZipFile("it has too many members")
        return super().read(size)


@contextlib.contextmanager
def open_zip(path: Path, limit: int) -> Iterator[zipfile.ZipFile]:
    """The zip file ``path``, of ``limit`` bytes at most.

    Raises:
        DigitsError: it is no regular file, or is larger.
        Exception: anything that zipfile raises on a damaged one; BadZipFile where members overlap or are too many.
    """
    check_regular(path, limit)
    with _ShortReads(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        file.listed = True
        if sum(info.compress_size for info in archive.infolist()) > path.stat().st_size:
            raise zipfile.BadZipFile("its members overlap")
        yield archive
