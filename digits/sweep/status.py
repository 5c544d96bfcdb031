"""Whether a process is still at work: what it writes when it begins, and what another process makes of that."""

import contextlib
import json
import os
import socket
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from digits.files import write_atomically

FILE = "status.json"
SIGN_OF_LIFE = 60.0  # seconds between two of them
SILENCE = 600.0  # seconds without one, after which a process of another machine counts as gone


def this_process() -> dict[str, Any]:
    """What identifies this process later: ``host``, ``pid`` and, as numbers are used again, when it ``started``."""
    started = psutil.Process().create_time()
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": round(started, 2)}


def is_alive(process: dict[str, Any], sign_of_life: float) -> bool:
    """Whether the ``process``, as :func:`this_process` has it, still runs.

    Of another machine only its last ``sign_of_life`` is known, in seconds since 1970.
    """
    if process.get("host") != socket.gethostname():
        return time.time() - sign_of_life < SILENCE
    try:
        found = psutil.Process(process["pid"])
        same = abs(found.create_time() - process["started"]) < 1
        return same and found.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


class JobStatus:
    """While it is entered, `status.json` in ``folder`` says who works there, and is touched once a minute."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._ended = threading.Event()

    def __enter__(self) -> "JobStatus":
        self._write("running")
        threading.Thread(target=self._touch, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):  # a full disk, or the folder has vanished: the run has said it
            self._write("ended")

    def _write(self, state: str) -> None:
        content = {"state": state, "begun": round(time.time(), 2)} | this_process()
        write_atomically(self.path, json.dumps(content, indent=2).encode() + b"\n")

    def _touch(self) -> None:
        while not self._ended.wait(SIGN_OF_LIFE):
            with contextlib.suppress(OSError):
                os.utime(self.path)


class Status:
    """What `status.json` of a job says: ``process``, whether it ``works`` now, and since when it has."""

    def __init__(self, folder: Path) -> None:
        self.process: dict[str, Any] = {}
        self.begun = 0.0
        self.works = self.broke_off = False
        path = folder / FILE
        try:
            self.process = json.loads(path.read_text("utf-8"))
            sign_of_life = path.stat().st_mtime
        except (OSError, ValueError):  # written whole or not at all: there is none
            return
        self.begun = float(self.process.get("begun", 0))
        at_work = self.process.get("state") == "running"
        self.works = at_work and is_alive(self.process, sign_of_life)
        self.broke_off = at_work and not self.works
