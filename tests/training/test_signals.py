"""Signals end a run where nothing is lost, and the command that it prints goes on with it."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import ROOT, SMALL

from digits.training.command import resume_command
from digits.training.interruption import Interrupted, Interruption

LONG = (*SMALL, "trainer.max_epochs=50", "logger=none", "hydra.run.dir=run")
Start = Callable[..., "subprocess.Popen[str]"]


def default_signals() -> None:
    """A shell's background jobs ignore SIGINT, and what they start does."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `python train.py` in a process of its own."""
    started = []

    def starting(*arguments: str) -> "subprocess.Popen[str]":
        command = [sys.executable, str(ROOT / "train.py"), *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=tmp_path, preexec_fn=default_signals, **pipes))
        return started[-1]

    yield starting
    for process in started:
        process.kill()
        process.communicate()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("name", "status"),
    [("SIGTERM", 143), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in (("SIGHUP", 129), ("SIGINT", 130)))],
)
def test_a_signal_ends_a_run_within_seconds_and_the_printed_command_goes_on(
    name: str, status: int, start: Start, tmp_path: Path
):
    process = start(*LONG, "checkpoint_every=0.02")
    wait_for(tmp_path / "run" / "checkpoints" / "last.ckpt")
    process.send_signal(getattr(signal, name))
    sent = time.monotonic()
    stdout, stderr = process.communicate(timeout=60)
    assert time.monotonic() - sent < 20  # with Python's own end, on a machine that does other things too
    assert (process.returncode, stderr) == (status, "")
    lines = stdout.splitlines()
    command = shlex.split(lines[lines.index("Go on with:") + 1])
    command = command[command.index("python") :]  # before it stand the variables that the tests are run with
    assert command[:2] == ["python", "train.py"] and command[-1] == f"hydra.run.dir={tmp_path / 'run'}"
    if name == "SIGTERM":
        last = tmp_path / "run" / "checkpoints" / "last.ckpt"
        steps = torch.load(last, weights_only=True)["global_step"]
        last.rename(last.with_name("previous.ckpt"))  # so that the next one is seen
        start(*command[2:])
        wait_for(last)
        assert torch.load(last, weights_only=True)["global_step"] > steps > 0


@pytest.mark.parametrize("seconds", [0, *(pytest.param(n / 5, marks=pytest.mark.slow) for n in range(1, 12))])
def test_a_signal_while_it_starts_up_is_one_line_and_leaves_nothing(seconds: float, start: Start, tmp_path: Path):
    process = start(*LONG)
    wait_for(tmp_path / "run" / ".hydra")
    time.sleep(seconds)  # it imports: some libraries swallow what is raised then, others abort
    process.send_signal(signal.SIGTERM)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (143, "", "train.py: interrupted by SIGTERM\n")
    assert not list(tmp_path.iterdir())


def test_a_signal_that_a_library_swallows_while_it_is_imported_is_not_lost():
    with Interruption():
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            Interruption().__enter__()


def test_a_second_signal_ends_it_at_once(tmp_path: Path):
    code = """
import os, signal, time
from digits.training.interruption import Interruption
with Interruption() as interruption:
    interruption.deferred = True
    os.kill(os.getpid(), signal.SIGTERM)
    assert interruption.asked
    os.kill(os.getpid(), signal.SIGHUP)
    print("still there")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=default_signals)
    assert (result.returncode, result.stdout) == (129, "")


def test_a_signal_that_was_to_be_ignored_is(tmp_path: Path):
    code = """
import os, signal
signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
from digits.training.interruption import Interruption
with Interruption() as interruption:
    os.kill(os.getpid(), signal.SIGHUP)
    print(interruption.asked)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"


def test_the_command_keeps_options_and_environment_and_drops_the_sweep(monkeypatch: pytest.MonkeyPatch):
    for name in ("PJRT_DEVICE", "CPU_NUM_DEVICES", "DIGITS_DATA_DIR", "OMP_NUM_THREADS", "XLA_FLAGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DIGITS_DATA_DIR", "/my data")
    arguments = ["-m", "-cn", "mine", "--config-dir", "/c d", "seed=1,2", "hydra.sweep.dir=x", "hydra.verbose=true"]
    command = resume_command("digits train", arguments, ["seed=2", "resume=false"], Path("/runs/1"))
    assert command == (
        "DIGITS_DATA_DIR='/my data' digits train --config-name=mine '--config-dir=/c d' seed=2 hydra.verbose=true "
        "hydra.run.dir=/runs/1"
    )


@pytest.mark.parametrize("folder", ["/runs/1", "/runs/lr=0.1", "/my runs", "/it's", '/a "b"', "/(a),$b"])
def test_the_command_reaches_hydra_with_the_folder_of_the_run(folder: str):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    *_, override = shlex.split(resume_command("train.py", [], [], Path(folder)))
    parsed = OverridesParser.create().parse_override(override)
    assert [parsed.key_or_group, parsed.value()] == ["hydra.run.dir", folder]


def test_a_killed_run_goes_on_to_the_bits_of_an_unbroken_one(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    from faults import torment

    other = Path("/dev/shm") if os.path.isdir("/dev/shm") else None  # noqa: PTH112
    small = ("trainer.max_epochs=2", "trainer.limit_train_batches=10", "data.val_size=64")
    assert torment(kills=5, kills_a_run=3, seed=1, other=other, settings=small) == []
