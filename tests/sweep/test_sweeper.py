"""What the sweeper does around its jobs.

The launchers here are mocks: they leave at once what a run leaves, or break as no real one does when it is asked to.
test_sweeps.py has the real ones.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from digits.errors import ConfigError
from digits.settings.command_line import plan
from digits.sweep.grid import GridSweeper
from digits.sweep.status import JobStatus
from digits.training.interruption import Interrupted

GRID = ("data=mnist5k", "model.l2=0,1e-3", "seed=0,1")


class BasicLauncher:
    """Completes the jobs that it is given; ``stop`` is called before each, with its number from 1."""

    def __init__(
        self, folder: Path, stop: Callable[[int], None] = lambda number: None, val: float | None = 0.9
    ) -> None:
        self.folder, self.stop, self.val = folder, stop, val
        self.launched: list[str] = []

    def launch(self, job_overrides: list[list[str]], initial_job_idx: int) -> None:
        for overrides in job_overrides:
            values = dict(word.split("=", 1) for word in overrides)
            folder = self.folder / values["hydra.sweep.subdir"]
            self.launched.append(folder.name)
            self.stop(len(self.launched))
            folder.mkdir(exist_ok=True)
            with JobStatus(folder):
                (job,) = plan([], [word for word in overrides if not word.startswith("hydra")]).jobs()
                (folder / "config.yaml").write_text(json.dumps(job.settings))
                summary = {"status": "completed", "val/sparse_accuracy": self.val, "test/sparse_accuracy": 0.8}
                (folder / "summary.json").write_text(json.dumps(summary | {"seconds": 2}))


class OtherLauncher(BasicLauncher):
    """One that is not Hydra's own, so that it may run jobs in other processes."""


def sweep(folder: Path, engine: Any = None, overrides: tuple[str, ...] = GRID, val_size: int = 5000) -> Any:
    sweeper = GridSweeper()
    hydra = {"sweep": {"dir": str(folder)}, "overrides": {"hydra": []}, "launcher": {"n_jobs": 2}}
    settings = {"data": {"val_size": val_size}, "keep": "auto", "hydra": hydra}
    engine = engine or BasicLauncher(folder)
    sweeper.prepare(OmegaConf.create(settings), engine)
    sweeper.sweep([*overrides])
    return engine


@pytest.fixture(autouse=True)
def command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["train.py", "-m", *GRID])


def test_all_jobs_run_and_the_seeds_of_a_setting_follow_each_other(tmp_path: Path):
    assert sweep(tmp_path).launched == ["l2-0_seed-0", "l2-0_seed-1", "l2-0.001_seed-0", "l2-0.001_seed-1"]


def test_completed_jobs_are_skipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sweep(tmp_path)
    assert sweep(tmp_path).launched == []
    assert "4 jobs in" in capsys.readouterr().out


def test_added_values_run_alone(tmp_path: Path):
    sweep(tmp_path)
    assert sweep(tmp_path, overrides=(*GRID[:2], "seed=0,1,2")).launched == ["l2-0_seed-2", "l2-0.001_seed-2"]


def test_a_key_may_be_added_if_one_of_its_values_is_that_of_before(tmp_path: Path):
    sweep(tmp_path)
    launched = sweep(tmp_path, overrides=(*GRID, "model.dense_dropout=0.5,0.3")).launched
    assert [name for name in launched if "dense_dropout-0.5" in name] == []
    assert len(launched) == 4


def test_a_line_after_each_job_says_how_long_the_rest_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sweep(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert any(
        line.startswith("[job 1/4] completed, validation 90.00%, test 80.00%, 2.0s; the rest, 3, takes about")
        for line in lines
    )


def test_a_launcher_that_fails_ends_with_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def fail(number: int) -> None:
        if number > 2:
            raise RuntimeError("no machine")

    with pytest.raises(SystemExit, match="1"):
        sweep(tmp_path, BasicLauncher(tmp_path, fail))
    output = capsys.readouterr().out
    assert "4 jobs: 2 completed, 2 not begun" in output
    assert f"  python train.py -m {' '.join(GRID)} hydra.sweep.dir={tmp_path}\n" in output


def test_after_a_launcher_that_fails_once_the_other_jobs_are_launched_again(tmp_path: Path):
    def fail(number: int) -> None:
        if number == 2:
            raise RuntimeError("a worker was killed")

    engine = sweep(tmp_path, OtherLauncher(tmp_path, fail))
    assert engine.launched == ["l2-0_seed-0", "l2-0_seed-1", "l2-0_seed-1", "l2-0.001_seed-0", "l2-0.001_seed-1"]


@pytest.mark.parametrize("stop", [Interrupted(2), Interrupted(15), SystemExit(130)])
def test_what_stops_it_comes_after_the_report(stop: BaseException, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def interrupt(number: int) -> None:
        if number == 2:
            raise stop

    with pytest.raises(type(stop)) as raised:
        sweep(tmp_path, BasicLauncher(tmp_path, interrupt))
    assert raised.value is stop
    assert "4 jobs: 1 completed, 3 not begun" in capsys.readouterr().out


def test_where_nothing_is_held_out_it_says_first_that_it_will_not_rank(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    sweep(tmp_path, BasicLauncher(tmp_path, val=None), overrides=(*GRID, "data.val_size=0"), val_size=0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Nothing is held out (data.val_size=0), so the settings are not ranked")


def test_an_interval_needs_a_search(tmp_path: Path):
    with pytest.raises(ConfigError, match="add hydra/sweeper=search"):
        sweep(tmp_path, overrides=("model.l2=interval(0,1)",))
