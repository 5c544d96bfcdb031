"""A process that reads pictures, and can be ended: what a picture does to it, it does not do to the server."""

import json
import multiprocessing
import signal
import sys
from collections.abc import Sequence
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from digits.demo.limits import SMALL_PIXELS
from digits.errors import DigitsError

MAX_ANSWER_BYTES = 10_000_000
LARGE = b"large"  # instead of an answer: the picture is one for a reader of large ones


class PictureFailedError(Exception):
    """The picture has ended the process that read it."""


class ReaderProcess:
    """Reads one picture at a time. It is started by :meth:`start`, also again after it has ended.

    Args:
        model: as :class:`digits.reading.reader.Reader` takes it.
        config_dirs: where files of networks are, beside the package's own.
        small: whether it leaves pictures of more than ``SMALL_PIXELS`` to another reader.
    """

    def __init__(self, model: str | Path | None, config_dirs: Sequence[Path], small: bool) -> None:
        self._arguments = (model, config_dirs, small)
        self._process: BaseProcess | None = None
        self._connection: Connection

    def start(self) -> None:
        """Start the process, unless it runs, and wait until it has the model.

        Raises:
            DigitsError: the model cannot be had.
        """
        if self._process is not None and self._process.is_alive():
            return
        self.end()
        context: Any = multiprocessing.get_context("spawn" if sys.platform == "win32" else "forkserver")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_read_pictures, args=(theirs, *self._arguments), daemon=True)
        self._process.start()
        theirs.close()
        try:
            failure = self._connection.recv_bytes().decode()
        except (EOFError, OSError):
            failure = "the process that reads pictures did not start"
        if failure:
            self.end()
            raise DigitsError(failure)

    def read(self, content: bytes | bytearray, why: str = "") -> bytes:
        """The answer to the picture ``content``, the bytes of its file: JSON, or ``LARGE``.

        Args:
            content: the bytes of its file.
            why: as :func:`digits.demo.answer.answer` takes it.

        Raises:
            PictureFailedError: the process has ended, by itself or by :meth:`kill`.
        """
        try:
            self._connection.send_bytes(why.encode())
            self._connection.send_bytes(content)
            return self._connection.recv_bytes(MAX_ANSWER_BYTES)
        except (EOFError, OSError) as error:
            self.end()
            raise PictureFailedError("This picture cannot be read.") from error

    def kill(self) -> None:
        """Let :meth:`read`, which another thread has called, fail."""
        if process := self._process:
            process.kill()

    def end(self) -> None:
        """End the process, whatever it does."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._process = None


def prepare() -> None:
    """Let processes be copies of one that has imported torch: made in milliseconds, and sharing its memory.

    To be called in the main thread.
    """
    if sys.platform == "win32":  # where they are started one by one
        return
    forkserver.set_forkserver_preload(["digits.demo.answer"])
    # Ctrl-C goes to all processes of a terminal; those that are started here are ended by who started them.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, handler)


def _read_pictures(connection: Connection, model: str | Path | None, config_dirs: Sequence[Path], small: bool) -> None:
    """What the process does, until the server is gone."""
    import cv2
    import torch

    from digits.demo.answer import answer, pixels_of
    from digits.reading.reader import Reader
    from digits.settings.targets import add_config_dir

    torch.set_num_threads(1)  # there are as many processes as there is work
    cv2.setNumThreads(1)
    try:
        for folder in config_dirs:
            add_config_dir(folder)
        reader = Reader(model)
    except (DigitsError, OSError) as error:
        connection.send_bytes(str(error).encode())
        return
    connection.send_bytes(b"")
    while True:
        try:
            why, content = connection.recv_bytes().decode(), connection.recv_bytes()
        except EOFError:
            return
        if small and pixels_of(content) > SMALL_PIXELS:
            connection.send_bytes(LARGE)
        else:
            connection.send_bytes(json.dumps(answer(reader, content, why)).encode())
