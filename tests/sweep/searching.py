"""A search whose trials are a formula, as a program: python searching.py FOLDER N_TRIALS [STORAGE] [KILL_AT].

The launcher is the mock: a training takes seconds, and what is tested here is the search around it. Sweeper, study,
storage and folders are real; test_sweeps.py searches with real trainings.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from digits.sweep.search import SearchSweeper
from digits.sweep.status import JobStatus

SPACE = ("model.dense_dropout=interval(0.1,0.9)", "model.l2=tag(log,interval(1e-6,1e-2))")


def bowl(values: dict[str, float]) -> dict[str, Any]:
    """The summary of a run that is best at a dropout of 0.3."""
    value = (values["model.dense_dropout"] - 0.3) ** 2
    return {"status": "completed", "val/best_cross_entropy": value, "val/sparse_accuracy": 1 - value}


class BasicLauncher:
    """Writes at once what a run would leave; of the name of Hydra's, which runs jobs one after the other."""

    def __init__(self, folder: Path, result: Callable[[dict[str, float]], dict[str, Any]], kill_at: int | None) -> None:
        self.folder, self.result, self.kill_at = folder, result, kill_at
        self.launched: list[list[str]] = []

    def launch(self, job_overrides: list[list[str]], initial_job_idx: int) -> None:
        """Each job: a settings file, a status, and a summary; the process is killed before the ``kill_at``-th."""
        for overrides in job_overrides:
            values = dict(word.split("=", 1) for word in overrides)
            folder = self.folder / values.pop("hydra.sweep.subdir")
            with JobStatus(folder):
                numbers = {key: float(value) for key, value in values.items() if key != "data"}
                (folder / "config.yaml").write_text(json.dumps({"seed": 0} | numbers))
                with (folder / "begun").open("a") as file:
                    file.write(f"{os.getpid()} {json.dumps(numbers)}\n")
                time.sleep(0.05)
                self.launched.append(overrides)
                if len(self.launched) == self.kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                (folder / "summary.json").write_text(json.dumps(self.result(numbers)))


def search(
    folder: Path,
    n_trials: int,
    storage: str | None = None,
    kill_at: int | None = None,
    result: Callable[[dict[str, float]], dict[str, Any]] = bowl,
    space: tuple[str, ...] = SPACE,
    **options: Any,
) -> SearchSweeper:
    """A search in ``folder``, ended; see :class:`SearchSweeper`."""
    defaults: dict[str, Any] = {"n_jobs": 1, "study": "s", "sampler": "tpe", "pruner": "median", "seed": 0}
    sweeper = SearchSweeper(n_trials=n_trials, storage=storage, **defaults | options)
    settings = {"data": {"val_size": 500}, "keep": "auto"}
    settings |= {
        "hydra": {"sweep": {"dir": str(folder)}, "overrides": {"hydra": ["hydra/sweeper=search"]}, "launcher": {}}
    }
    sweeper.prepare(OmegaConf.create(settings), BasicLauncher(folder, result, kill_at))  # type: ignore[arg-type]
    sys.argv = ["train.py", "-m"]
    sweeper.sweep(["data=mnist5k", *space])
    return sweeper


if __name__ == "__main__":
    where, number, *more = sys.argv[1:]
    search(Path(where), int(number), (more[0] if more else "") or None, int(more[1]) if len(more) > 1 else None)
