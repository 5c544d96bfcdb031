"""What our sweepers do around their jobs: own the folder, launch, say how long the rest takes, report."""

import contextlib
import gc
import logging
import os
import shlex
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType

from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from digits.errors import ConfigError
from digits.files import write_atomically
from digits.report.tables import duration
from digits.settings.command_line import plan
from digits.settings.grid import Grid
from digits.sweep.folder import Record, owned, remove_large
from digits.sweep.jobs import ENDED, RUNNING, TEST_ACCURACY, VAL_ACCURACY, Job, read_jobs
from digits.sweep.report import NOT_RANKED, report
from digits.sweep.status import Status, this_process

PATIENCE = 60.0  # seconds that jobs in other processes have to write their checkpoints


class ResumingSweeper(Sweeper):
    """Runs jobs that it names and finds again by their settings, and ends with the report, whatever ends it."""

    def __init__(self, params: Mapping[str, str] | None = None) -> None:
        pass  # the check of the command line has read them

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep the ``config``, and make the launcher that it names."""
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        self.prepare(config, launcher)

    def prepare(self, config: DictConfig, launcher: Launcher) -> None:
        """Sweep as ``config`` says, by ``launcher``."""
        self.settings, self.folder, self.engine = config, Path(config.hydra.sweep.dir), launcher
        self.in_this_process = type(self.engine).__name__ == "BasicLauncher"
        self.total = 0
        self._launched: set[str] = set()
        self._told: set[str] = set()
        self._begun, self._ended = time.time(), 0

    def sweep(self, arguments: list[str]) -> None:
        """Run the jobs that ``arguments``, those of the command line, ask for.

        Raises:
            SystemExit: with status 1, if a job is neither completed nor pruned.
            ConfigError: the sweep's folder holds another sweep.
            DigitsError: another process works there.
        """
        raise NotImplementedError

    def planned(self, arguments: Sequence[str]) -> Grid:
        """What the command line and `hydra.sweeper.params` ask for, checked."""
        hydras = [str(word) for word in self.settings.hydra.overrides.hydra if word != "hydra.mode=MULTIRUN"]
        return plan(hydras, arguments)

    @contextlib.contextmanager
    def reporting(self, record: Record, exclusive: bool = True) -> Iterator[None]:
        """While it is entered, the folder is this sweep's; at the end, also after a signal, comes the report."""
        with owned(self.folder, record, exclusive):
            write_atomically(self.folder / "multirun.yaml", OmegaConf.to_yaml(self.settings).encode())
            if self.settings.data.get("val_size") == 0:
                print(NOT_RANKED, flush=True)
            stop: BaseException | None = None
            try:
                yield
            except ConfigError:  # nothing has begun
                raise
            except BaseException as error:  # shown below, behind the report
                stop = error
            self._end_running()
            remove_large(self.folder, self.settings.keep)
        missing = report([self.folder]) if read_jobs([self.folder]) else record.jobs
        if missing:
            print("The same command goes on with it:")
            print(f"  {command_of(record, self.folder)}", flush=True)
        if stop is not None:
            raise stop
        if missing:
            raise SystemExit(1)

    def launch(self, jobs: Sequence[tuple[int, Path, Sequence[str]]]) -> None:
        """Run ``jobs``, each its number from 0, its folder and its overrides; by most launchers all at once."""
        if self.in_this_process:
            logging.getLogger("hydra._internal.core_plugins.basic_launcher").setLevel(logging.WARNING)
            for job in jobs:
                print(f"[job {job[0] + 1}/{self.total}] {job[1].name}", flush=True)
                self._launch([job])
                gc.collect()  # Lightning's objects hold each other, and the network and its optimizer with them
                self.look([job])
            return
        if type(self.engine).__name__ != "SlurmLauncher":  # whose jobs have machines of their own
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // min(len(jobs), self._workers(len(jobs))))))
        over = threading.Event()

        def watch() -> None:
            while not over.wait(2):
                self.look(jobs)

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            with self._jobs_end_first():
                self._launch(jobs)
        finally:
            over.set()
            watching.join()
            self._wait()
            self.look(jobs)

    def look(self, jobs: Sequence[tuple[int, Path, Sequence[str]]]) -> None:
        """Print a line for each of ``jobs`` that has ended, and remove what need not be kept."""
        numbers = {folder.name: number for number, folder, _ in jobs}
        new = [job for job in read_jobs([self.folder]) if job.name in numbers and job.state in ENDED]
        new = [job for job in new if job.name not in self._told and Status(job.folder).begun > self._begun]
        for job in new:
            self._told.add(job.name)
            self._ended += 1
            self.total = max(self.total, numbers[job.name] + 1)
            print(f"[job {numbers[job.name] + 1}/{self.total}] {_ended(job)}{self._rest()}", flush=True)
        if new:
            remove_large(self.folder, self.settings.keep)

    def _rest(self) -> str:
        left = self.total - len([job for job in read_jobs([self.folder]) if job.state in ENDED])
        seconds = (time.time() - self._begun) / self._ended * left
        return f"; the rest, {left}, takes about {duration(seconds)}" if left > 0 else ""

    def _launch(self, jobs: Sequence[tuple[int, Path, Sequence[str]]]) -> None:
        self._launched |= {folder.name for _, folder, _ in jobs}
        named = [[*words, f"hydra.sweep.subdir={folder.name}"] for _, folder, words in jobs]
        self.engine.launch(named, initial_job_idx=jobs[0][0])

    @contextlib.contextmanager
    def _jobs_end_first(self) -> Iterator[None]:
        """While it is entered, a signal ends the jobs in other processes, and only then the launcher.

        That would kill them, and what they had trained since their last checkpoint would be lost.
        """
        numbers = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        before = {number: signal.getsignal(number) for number in numbers}

        def end(number: int, frame: FrameType | None) -> None:
            for each, handler in before.items():
                signal.signal(each, handler)  # a second signal is not waited for
            self._end_running()
            signal.raise_signal(number)

        for number, handler in before.items():
            if callable(handler):
                signal.signal(number, end)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _workers(self, jobs: int) -> int:
        """How many of the ``jobs`` run at a time; by a launcher that does not say, all."""
        given = OmegaConf.select(self.settings, "hydra.launcher.n_jobs", default=jobs)
        return _cores() if given == -1 else given

    def _running(self) -> list[Job]:
        jobs = [job for job in read_jobs([self.folder]) if job.name in self._launched]
        return [job for job in jobs if job.state == RUNNING]

    def _wait(self) -> None:
        """For jobs in other processes, which go on when a launcher has failed for another job's sake."""
        while self._running():
            time.sleep(1)

    def _end_running(self) -> None:
        """End the jobs in other processes of this machine, and wait until they have written their checkpoints."""
        here, deadline = this_process(), time.monotonic() + PATIENCE
        for job in self._running():
            process = Status(job.folder).process
            if process.get("host") == here["host"] and process.get("pid") != here["pid"]:
                with contextlib.suppress(OSError):
                    os.kill(process["pid"], signal.SIGTERM)
        while time.monotonic() < deadline and any(
            Status(job.folder).process.get("host") == here["host"] for job in self._running()
        ):
            time.sleep(0.5)


def command_of(record: Record, folder: Path) -> str:
    """The sweep's command, with its folder."""
    words = [word for word in record.arguments if not word.startswith("hydra.sweep.dir=")]
    return f"{record.called} {shlex.join([*words, f'hydra.sweep.dir={folder}'])}"


def _ended(job: Job) -> str:
    accuracy, test, seconds = (job.figure(key) for key in (VAL_ACCURACY, TEST_ACCURACY, "seconds"))
    parts = [job.state]
    parts += [f"validation {accuracy:.2%}"] if accuracy is not None else []
    parts += [f"test {test:.2%}"] if test is not None else []
    parts += [duration(seconds)] if seconds is not None else []
    return ", ".join(parts)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
