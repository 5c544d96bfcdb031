"""Kill a training again and again, go on in the same folder, and compare what comes out with an unbroken one.

    python benchmarks/faults.py                  50 kills; six minutes on two cores
    make faults                                  the same

Each run is killed some times by SIGKILL: at a random moment, while a checkpoint is written, within an epoch, while the
model is written; half of the kills in runs that lie on another file system than the temporary folder (--other). At the
end every run must have the same bits as the unbroken one, the same figures, and no file that the unbroken one has not.
"""

import argparse
import csv
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from digits.training.command import main as train_py
from digits.training.ema import EMA

# Three epochs of 20 steps, with a checkpoint within an epoch each 0.6 s
SETTINGS = (
    "data=mnist5k",
    "data.batch_size=16",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
    "trainer.max_epochs=3",
    "trainer.limit_train_batches=20",
    "logger=none",
    "checkpoint_every=0.01",
)
KEPT = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "averaging_state")  # of a checkpoint
TIMES = ("images_per_second", "train_seconds")
Moment = Callable[[Path, random.Random], bool]  # asked again and again: whether to kill now


def at_random(run_dir: Path, chance: random.Random) -> bool:
    """Some time in the first seconds, which are the start, the training and what comes after it."""
    time.sleep(chance.uniform(0, 8))
    return True


def while_a_checkpoint_is_written(run_dir: Path, chance: random.Random) -> bool:
    """As soon as there is a temporary file, or a moment later."""
    if not any((run_dir / "checkpoints").glob(".*.tmp")):
        return False
    time.sleep(chance.uniform(0, 0.15))
    return True


def within_an_epoch(run_dir: Path, chance: random.Random) -> bool:
    """Some steps after a checkpoint that was written within an epoch."""
    last = run_dir / "checkpoints" / "last.ckpt"
    if not last.exists() or time.time() - last.stat().st_ctime > 0.05:
        return False
    time.sleep(chance.uniform(0.05, 0.6))
    return True


def while_the_model_is_written(run_dir: Path, chance: random.Random) -> bool:
    """As soon as the test has begun to leave its traces, or a moment later."""
    if not (run_dir / "plots").exists():
        return False
    time.sleep(chance.uniform(0, 2.5))
    return True


MOMENTS: tuple[Moment, ...] = (
    within_an_epoch,
    at_random,
    while_a_checkpoint_is_written,
    within_an_epoch,
    while_the_model_is_written,
    while_a_checkpoint_is_written,
)


def main() -> None:
    """Run the benchmark as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="(default: 50)")
    parser.add_argument("--kills-a-run", type=int, default=5, metavar="N", help="(default: 5)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--other", type=Path, default=Path("/dev/shm"), help="another file system (default: /dev/shm)")
    options = parser.parse_args()
    faults = torment(options.kills, options.kills_a_run, options.seed, options.other, print)
    sys.exit(f"faults.py: {len(faults)} runs ended in another way:\n" + "\n".join(faults) if faults else 0)


def torment(
    kills: int,
    kills_a_run: int,
    seed: int,
    other: Path | None,
    say: Callable[[str], Any] = lambda line: None,
    settings: Sequence[str] = (),
) -> list[str]:
    """Kill runs, a few times each, until ``kills`` have been done; returns what differs from an unbroken run.

    Args:
        kills: how many in all; a run that comes to its end before one is not counted.
        kills_a_run: how many of the same run.
        seed: of the moments.
        other: a folder on another file system than the temporary one, for every second run.
        say: is told what is done.
        settings: of the runs, after ``SETTINGS``.
    """
    chance = random.Random(seed)
    faults: list[str] = []
    with tempfile.TemporaryDirectory() as here, tempfile.TemporaryDirectory(dir=other) as there:
        temporary = Path(here) / "tmp"
        temporary.mkdir()
        whole = Path(here) / "whole"
        if finish(whole, temporary, settings) != 0:
            return [f"the unbroken run failed: {(whole.parent / 'whole.out').read_text()}"]
        done = number = 0
        kills_in = {there: 0, here: 0}
        while done < kills:
            number += 1
            place = min(kills_in, key=lambda folder: kills_in[folder])
            run_dir = Path(place) / f"run{number}"
            for _ in range(min(kills_a_run, kills - done)):
                moment = MOMENTS[done % len(MOMENTS)]
                if not kill(run_dir, temporary, settings, moment, chance):
                    break  # it has come to its end
                done += 1
                kills_in[place] += 1
                say(f"kill {done}: {run_dir} {moment.__name__}")
            if (status := finish(run_dir, temporary, settings)) != 0:
                said = run_dir.with_suffix(".out").read_text()[-500:]
                return [*faults, f"{run_dir}: status {status}: {said}"]  # the next ones would hardly end better
            found = differences(run_dir, whole) + [f"{path}: left over" for path in temporary.iterdir()]
            faults += found
            say(f"{run_dir}: {found or 'as the unbroken one'}")
    return faults


def start(run_dir: Path, temporary: Path, settings: Sequence[str]) -> Any:
    """A process that trains in ``run_dir``, or goes on there; its output goes to a file beside it."""
    # a fresh process that has imported the libraries: a kill costs seconds less than with a whole start of Python
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["digits.training.run"])
    process = context.Process(target=_train, args=(run_dir, temporary, settings))
    process.start()
    return process


def _train(run_dir: Path, temporary: Path, settings: Sequence[str]) -> None:
    with run_dir.with_suffix(".out").open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["TMPDIR"] = str(temporary)
    tempfile.tempdir = None  # asked for anew
    os.chdir(temporary.parent)
    EMA.statistics_images = 256  # or most of the time would go there
    train_py([*SETTINGS, *settings, f"hydra.run.dir={run_dir}"], "train.py")


def kill(run_dir: Path, temporary: Path, settings: Sequence[str], moment: Moment, chance: random.Random) -> bool:
    """Start it and kill it at ``moment``; False if it had ended by itself."""
    process = start(run_dir, temporary, settings)
    while process.is_alive() and not moment(run_dir, chance):
        time.sleep(0.001)
    alive = process.is_alive()
    process.kill()
    process.join()
    return bool(alive)


def finish(run_dir: Path, temporary: Path, settings: Sequence[str]) -> int | None:
    """Start it and wait for its end; returns its exit status."""
    process = start(run_dir, temporary, settings)
    process.join()
    return process.exitcode


def differences(run_dir: Path, whole: Path) -> list[str]:
    """What is not as in the unbroken run, a line each."""
    found = []
    checkpoints = [torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (run_dir, whole)]
    found += [f"{run_dir}: {key}" for key in KEPT if not same(checkpoints[0][key], checkpoints[1][key])]
    if not same(*(load_file(run / "model" / "model.safetensors") for run in (run_dir, whole))):
        found.append(f"{run_dir}: model.safetensors")
    tables = [list(csv.DictReader((run / "metrics.csv").open())) for run in (run_dir, whole)]
    rows = [[{key: value for key, value in row.items() if key not in TIMES} for row in table] for table in tables]
    if rows[0] != rows[1]:
        found.append(f"{run_dir}: metrics.csv")
    files = [{str(path.relative_to(run)) for path in run.rglob("*")} for run in (run_dir, whole)]
    previous = {"checkpoints/previous.ckpt"}  # a run that was resumed late has written one checkpoint only
    return found + [f"{run_dir}/{path}: not alike" for path in (files[0] ^ files[1]) - previous]


def same(one: Any, other: Any) -> bool:
    """Whether two nested structures are equal, their tensors to the bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


if __name__ == "__main__":
    main()
