"""The other processes of a run, where its first one starts them itself: begun, watched, and ended with it."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import lightning as L
import torch
import torch.distributed as dist

from digits.errors import DigitsError, one_line
from digits.report.tables import write_json
from digits.settings.schema import Config
from digits.settings.targets import config_dirs
from digits.training.distributed.environment import OwnProcesses
from digits.training.distributed.strategy import GlobalBatchDDP

log = logging.getLogger("digits")
WORKER = "digits.training.worker"  # the module that each other process runs
RENDEZVOUS = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")  # environment variables
GRACE = 15.0  # seconds that the first process has to notice by itself that another one has died
WORDS = 5.0  # seconds for the system to say how a process has ended that does not answer
NO_ANSWER = "another process does not answer"
GOES_ON = "the same command goes on from the last checkpoint"


class _Child:
    """Another process of the run. Its standard input stays open: when that ends, the first process is gone."""

    def __init__(self, rank: int, message: dict[str, Any], environment: dict[str, str]) -> None:
        self.rank = rank
        self.errors: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # closed by end()
        self.process = subprocess.Popen(
            [sys.executable, "-m", WORKER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=environment | {"LOCAL_RANK": str(rank)},
            start_new_session=True,  # Ctrl-C is for the first process, which tells the others when to stop
        )
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has died already, which is noticed later
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()

    def wait_until_ready(self) -> bool:
        """Wait until it has read its data and found its device; False if it has died before that."""
        assert self.process.stdout is not None
        return bool(self.process.stdout.readline())

    def death(self) -> str | None:
        """How it has died, in words; None if it has not."""
        status = self.process.poll()
        if status in (None, 0):
            return None
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip().splitlines() or [f"exit status {status}"]
        return f"ended: {one_line(said[-1])}"

    def end(self, seconds: float) -> None:
        """Wait so long for its end, then kill it."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for file in (self.process.stdin, self.process.stdout, self.errors):
            with contextlib.suppress(OSError):
                file.close()  # type: ignore[union-attr]


@contextlib.contextmanager
def other_processes(trainer: L.Trainer, config: Config, prunes: bool = False) -> Iterator[None]:
    """While it is entered, this process trains together with the others; the first one of a machine's own starts them.

    Args:
        trainer: with any other strategy than :class:`GlobalBatchDDP` nothing is done.
        config: the composed settings, which the others are given as they are.
        prunes: whether the training may be ended as hopeless.

    Raises:
        DigitsError: one of them has died; the line names it.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, GlobalBatchDDP):
        yield
        return
    before, threads = {name: os.environ.get(name) for name in RENDEZVOUS}, torch.get_num_threads()
    children: list[_Child] = []
    if isinstance(strategy.cluster_environment, OwnProcesses) and strategy.local_rank == 0:
        children = _start(strategy, config, prunes)
    over, patience = threading.Event(), 0.0
    watcher = threading.Thread(target=_end_if_stuck, args=(children, Path(trainer.default_root_dir), over), daemon=True)
    watcher.start()
    try:
        if not all(child.wait_until_ready() for child in children):
            raise DigitsError(_who_died(children) or "another process has ended before the training began")
        strategy.setup_environment()  # meets the others
        yield
        patience = GRACE
    except RuntimeError as error:  # what torch raises where another process does not answer, among others
        lost = isinstance(error, dist.DistError) or "gloo" in str(error)
        if (died := _who_died(children, WORDS if lost else 0)) is None and not lost:
            raise
        raise DigitsError(died or f"{NO_ANSWER}: {one_line(error)}; {GOES_ON}") from error
    finally:
        over.set()
        watcher.join()
        for child in children:
            child.end(patience)
        if dist.is_initialized():
            dist.destroy_process_group()
        torch.set_num_threads(threads)
        for name, value in before.items():  # Lightning has set some of them
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})


def _start(strategy: GlobalBatchDDP, config: Config, prunes: bool) -> list[_Child]:
    count, environment = strategy.num_processes, strategy.cluster_environment
    assert environment is not None
    threads = max(torch.get_num_threads() // count, 1)
    if strategy.root_device.type == "cpu":
        torch.set_num_threads(threads)
    shared = os.environ | {
        "MASTER_ADDR": environment.main_address,
        "MASTER_PORT": str(environment.main_port),
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(path for path in [str(Path.cwd()), *sys.path] if path),  # as here
    }
    folders = [str(folder) for folder in config_dirs()[1:]]  # without the package's own
    message = {"settings": config.model_dump(mode="json"), "config_dirs": folders, "prunes": prunes}
    return [_Child(rank, message, shared) for rank in range(1, count)]


def _who_died(children: list[_Child], seconds: float = WORDS) -> str | None:
    """The process that has died, and how; it is waited for, as its connection may be gone before it is."""
    end = time.monotonic() + seconds
    while children:
        died = [
            f"rank {child.rank} (process {child.process.pid}) {how}" for child in children if (how := child.death())
        ]
        if died:  # the others have ended as it did not answer
            return f"{min(died, key=lambda words: NO_ANSWER in words)}; {GOES_ON}"
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    return None


def _end_if_stuck(children: list[_Child], run_dir: Path, over: threading.Event) -> None:
    """End this process if another one has died and it has not noticed, as NCCL waits for minutes."""
    while not over.wait(0.5):
        if any(child.death() for child in children) and not over.wait(GRACE):
            line = _who_died(children) or ""
            log.error(line)
            with contextlib.suppress(OSError):
                write_json(run_dir / "summary.json", {"status": "failed", "error": line, "run_dir": str(run_dir)})
            os._exit(1)
