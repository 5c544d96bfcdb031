"""Whether a search finds better settings than chance does, and what it loses when it is killed.

    python benchmarks/search.py                  three studies, 180 short trainings; some ten minutes on two cores
    make search                                  the same

Each study has 30 trials by TPE and 30 random ones on the embedded digits, one epoch each. The search is killed twice in
between, and gone on with by the same command. Compared are the mean objective (cross-entropy of the validation images)
of its last ten trials and that of all random ones.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from digits.sweep.trial import open_study

ROOT = Path(__file__).resolve().parents[1]
TRIALS = 30
SETTINGS = (
    "data=mnist5k",
    "data.batch_size=64",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=1",
    "logger=none",
    "model.dense_dropout=interval(0.1,0.8)",
    "model.l2=tag(log,interval(1e-6,1e-2))",
    "recipe.learning_rate=tag(log,interval(1e-4,3e-2))",
    "hydra/sweeper=search",
    f"hydra.sweeper.n_trials={TRIALS}",
    "hydra.sweeper.pruner=none",
)


class Outcome(NamedTuple):
    """Mean objectives, how many trials the search completed, and how many of them were begun twice."""

    last_ten: float
    random: float
    trials: int
    begun_again: int


def compare(folder: Path, seed: int) -> Outcome:
    """One study in ``folder``, by TPE and at random; that by TPE is killed before its 8th and its 18th trial ends."""
    command = [sys.executable, str(ROOT / "train.py"), "-m", *SETTINGS, f"hydra.sweeper.seed={seed}"]
    tpe, chance = folder / "tpe", folder / "random"
    subprocess.run([*command, "hydra.sweeper.sampler=random", f"hydra.sweep.dir={chance}"], check=True)
    waiting = random.Random(seed)
    for trial in (7, 17):
        process = subprocess.Popen([*command, f"hydra.sweep.dir={tpe}"])
        while not (tpe / str(trial) / "status.json").exists():
            time.sleep(0.05)
        time.sleep(waiting.uniform(0, 2))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run([*command, f"hydra.sweep.dir={tpe}"], check=True)
    found = [_study(path).trials for path in (tpe, chance)]
    completed, drawn = ([trial for trial in trials if trial.value is not None] for trials in found)
    ordered = [trial.value for trial in sorted(completed, key=lambda trial: trial.datetime_start)]
    folders = [path for path in tpe.iterdir() if (path / "summary.json").is_file()]
    assert len(folders) == len(completed)  # each trial has one folder, also one that was begun twice
    return Outcome(mean(ordered[-10:]), mean(trial.value for trial in drawn), len(completed), len(found[0]) - TRIALS)


def _study(folder: Path):  # type: ignore[no-untyped-def]  # Optuna's
    return open_study("deepdigits", f"sqlite:///{folder.resolve()}/study.db")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=3, help="how many, of the seeds 0, 1, … (default: 3)")
    studies = parser.parse_args().studies
    with tempfile.TemporaryDirectory() as folder:
        outcomes = [compare(Path(folder) / str(seed), seed) for seed in range(studies)]
    for seed, found in enumerate(outcomes):
        print(
            f"study {seed}: mean of its last ten {found.last_ten:.4f}, of {TRIALS} random ones {found.random:.4f}; "
            f"{found.trials} trials completed, {found.begun_again} begun again after a kill"
        )
    better = sum(found.last_ten < found.random for found in outcomes)
    print(f"{better} of {studies} are better than chance")


if __name__ == "__main__":
    main()
