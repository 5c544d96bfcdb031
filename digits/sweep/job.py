"""A job of a sweep, as its own process sees it: its number, its trial, what it keeps, and whose end is its own."""

import contextlib
import functools
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digits.report.tables import read_summary
from digits.sweep.folder import Record, is_best_so_far
from digits.sweep.status import JobStatus, is_alive, this_process
from digits.sweep.trial import Trial

log = logging.getLogger("digits")
OBJECTIVE = "val/best_cross_entropy"  # what a search minimises
PATIENCE = 30.0  # seconds that a job has to write its checkpoint once the sweep is gone


@dataclass
class SweepJob:
    """Job ``number`` of ``total`` in ``run_dir``, of the sweep in ``folder``, which the process ``parent`` runs."""

    folder: Path
    run_dir: Path
    number: int
    total: int
    parent: dict[str, Any]
    command: list[str]  # of the sweep

    @classmethod
    def of(cls, folder: Path, run_dir: Path, number: int) -> "SweepJob":
        """The job in ``run_dir`` as the sweep's record has it; of a sweep without one, of another's sweeper, alone."""
        record = Record.of(folder)
        total, parent = (record.jobs, record.process) if record else (0, {})
        command = [record.program, *record.arguments] if record else sys.argv
        if Trial.of(run_dir) is not None:  # of which one that is taken up again keeps its folder, but not its number
            number = int(run_dir.name)
        return cls(folder, run_dir, number + 1, max(total, number + 1), parent, command)

    @property
    def is_own_process(self) -> bool:
        """Whether the sweep runs in another process than this one."""
        return bool(self.parent) and self.parent.get("pid") != os.getpid()

    @property
    def trial(self) -> Trial | None:
        """Of a search, what this job is a trial of."""
        return Trial.of(self.run_dir)

    def is_best_so_far(self, summary: dict[str, Any]) -> bool:
        """Whether its setting leads the sweep, ``summary`` being its result."""
        return is_best_so_far(self.folder, self.run_dir, summary)

    @contextlib.contextmanager
    def working(self) -> Iterator[None]:
        """While it is entered, the job gives signs of life, its lines carry its number, and it ends with its sweep."""

        def numbered(record: logging.LogRecord) -> bool:
            record.msg, record.args = f"[job {self.number}/{self.total}] {record.getMessage()}", ()
            return True

        log.addFilter(numbered)
        try:
            with JobStatus(self.run_dir), self._ending_with_parent():
                yield
        finally:
            log.removeFilter(numbered)

    def objective(self) -> float:
        """What its summary says; NaN if it has not completed."""
        value = (read_summary(self.run_dir) or {}).get(OBJECTIVE)
        return float("nan") if value is None else float(value)

    @contextlib.contextmanager
    def _ending_with_parent(self) -> Iterator[None]:
        """On one machine: an orphan would train on unseen, beside the one that the next command starts."""
        over = threading.Event()
        here = self.parent.get("host") == this_process()["host"] and "SLURM_JOB_ID" not in os.environ
        if self.is_own_process and here:
            before = os.getppid()

            def watch() -> None:
                while not over.wait(1):
                    if os.getppid() != before or not is_alive(self.parent, time.time()):
                        os.kill(os.getpid(), signal.SIGTERM)  # which ends it with a checkpoint
                        over.wait(PATIENCE) or os._exit(143)

            threading.Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            over.set()


_has_child = threading.Event()  # of a worker: its job runs


@functools.cache  # once in a process
def _end_worker_with(parent: str) -> None:
    """End this process, a worker between two jobs, once the process ``parent`` is gone, which would give it more."""

    def watch() -> None:
        while is_alive(json.loads(parent), time.time()) or _has_child.is_set():
            time.sleep(1)
        os._exit(143)

    threading.Thread(target=watch, daemon=True).start()


def in_child(function: Callable[[], Any], parent: dict[str, Any]) -> int:
    """Call ``function`` in a process of its own; returns its exit status, negative for the number of a signal.

    A worker of joblib that is killed takes those of all other jobs with it; such a child takes nobody. A worker ends
    when the process ``parent`` has.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    _end_worker_with(json.dumps(parent))
    _has_child.set()
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        _has_child.clear()
        return status
    status = 1
    try:
        function()
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else 1
    finally:
        logging.shutdown()
        with contextlib.suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)
