"""Sweeps as a user runs them, with real trainings on the embedded digits: killed, stopped, gone on with."""

import contextlib
import csv
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean

import pytest
from conftest import ROOT

from digits.sweep.jobs import read_jobs
from digits.sweep.status import Status, is_alive, this_process

TINY = ("data=mnist5k", "trainer.accelerator=cpu", "logger=none", "trainer.max_epochs=2", "checkpoint_every=0.002")
TINY = (*TINY, "data.batch_size=64", "trainer.limit_train_batches=20")
BAD = "recipe.learning_rate=1e-3,1e12"  # with the second nothing stays finite
Start = Callable[..., "subprocess.Popen[str]"]


def default_signals() -> None:
    """A shell's background jobs ignore SIGINT, and what they start does."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `python train.py -m` in ``tmp_path``, in a process group of its own."""
    started = []

    def starting(*overrides: str) -> "subprocess.Popen[str]":
        command = [sys.executable, str(ROOT / "train.py"), "-m", *TINY, *overrides]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, cwd=tmp_path, preexec_fn=default_signals, **pipes))
        return started[-1]

    yield starting
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # jobs in other processes too
        process.communicate()


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def sweep(folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "digits", "sweep", str(folder)], capture_output=True, text=True)


def states(folder: Path) -> dict[str, str]:
    return {job.name: job.state for job in read_jobs([folder])}


def results(folder: Path) -> list[dict[str, str]]:
    """The rows of `sweep.csv` without what depends on the clock: the time, and the checkpoint that finds the fault."""
    with (folder / "sweep.csv").open(newline="") as file:
        rows = [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]
    return [row | {"error": re.sub(r"step \d+", "step", row["error"])} for row in rows]


def test_a_killed_sweep_is_told_and_the_same_command_finishes_it(start: Start, tmp_path: Path):
    grid = ("model.dense_dropout=0.3,0.5", "hydra.sweep.dir=s")
    process = start(*grid)
    wait_for(lambda: [*tmp_path.glob("s/*/checkpoints/last.ckpt")])
    process.kill()
    process.communicate()
    told = sweep(tmp_path / "s")
    assert told.returncode == 1
    assert "2 jobs: 1 killed, 1 not begun" in told.stdout and "ended without a word" in told.stdout
    again = start(*grid)
    output, error = again.communicate(timeout=120)
    assert (again.returncode, error) == (0, "")
    assert "[job 1/2] going on from" in output and "[job 2/2] epoch 2/2" in output
    assert re.search(r"\[job 1/2\] completed, .*; the rest, 1, takes about", output)
    assert "2 jobs: 2 completed" in output and (tmp_path / "s" / "sweep.png").is_file()
    best, other = sorted((tmp_path / "s").glob("dense*"), key=lambda folder: not (folder / "model").exists())
    assert (best / "plots" / "mistakes.png").is_file() or not (other / "model").exists()
    size = sum(path.stat().st_size for path in other.rglob("*") if path.is_file())
    assert size < 1_000_000
    third = start(*grid)
    output, _ = third.communicate(timeout=120)
    assert third.returncode == 0 and "2 jobs in s, of which 2 are completed" in output and "[job" not in output


@pytest.mark.slow
def test_whatever_ends_a_sweep_its_table_is_that_of_an_undisturbed_one(start: Start, tmp_path: Path):
    grid = (BAD, "model.dense_dropout=0.3,0.4,0.5")
    killed = start(*grid, "hydra.sweep.dir=s")
    wait_for(lambda: [*tmp_path.glob("s/*dropout-0.4*/checkpoints/last.ckpt")])
    killed.kill()
    killed.communicate()
    told = sweep(tmp_path / "s")
    assert "6 jobs: 1 completed, 1 killed, 4 not begun" in told.stdout
    stopped = start(*grid, "hydra.sweep.dir=s")
    wait_for(lambda: "running" in [states(tmp_path / "s").get("learning_rate-0.001_dense_dropout-0.5")])
    wait_for(lambda: [*tmp_path.glob("s/learning_rate-0.001_dense_dropout-0.5/checkpoints/last.ckpt")])
    stopped.send_signal(signal.SIGINT)
    output, error = stopped.communicate(timeout=120)
    assert stopped.returncode == 130 and "Traceback" not in error
    assert "6 jobs: 2 completed, 1 interrupted, 3 not begun" in output
    assert "interrupted: by SIGINT" in output and "The same command goes on with it:" in output
    finished = start(*grid, "hydra.sweep.dir=s")
    output, error = finished.communicate(timeout=240)
    assert finished.returncode == 1 and "6 jobs: 3 completed, 3 failed" in output
    assert "lower recipe.learning_rate" in output
    start(*grid, "hydra.sweep.dir=u").communicate(timeout=240)
    assert results(tmp_path / "s") == results(tmp_path / "u")


@pytest.mark.slow
def test_another_grid_is_refused_and_a_larger_one_goes_on(start: Start, tmp_path: Path):
    start("seed=0,1", "hydra.sweep.dir=s").communicate(timeout=120)
    other = start("seed=1,2", "hydra.sweep.dir=s")
    _, error = other.communicate(timeout=120)
    assert other.returncode == 2
    assert error == (
        "train.py: hydra.sweep.dir=s: the sweep there has seed=0,1, this one 1,2; values may be added, not taken away: "
        "name another one\n"
    )
    larger = start("seed=0,1,2", "hydra.sweep.dir=s")
    output, _ = larger.communicate(timeout=120)
    assert "3 jobs in s, of which 2 are completed" in output and larger.returncode == 0


@pytest.mark.slow
def test_a_second_command_in_the_folder_of_a_running_sweep_is_refused(start: Start, tmp_path: Path):
    start("seed=0,1", "trainer.max_epochs=50", "hydra.sweep.dir=s")
    wait_for(lambda: [*tmp_path.glob("s/*/checkpoints/last.ckpt")])
    second = start("seed=0,1", "trainer.max_epochs=50", "hydra.sweep.dir=s")
    _, error = second.communicate(timeout=60)
    assert second.returncode == 1 and "another run is being written there" in error


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_side_by_side_a_killed_job_is_one_row_and_the_others_go_on(launcher: str, start: Start, tmp_path: Path):
    options = (
        ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"] if launcher == "joblib" else [f"hydra/launcher={launcher}"]
    )
    process = start("seed=0,1,2", "trainer.max_epochs=8", "hydra.sweep.dir=s", *options)
    first = tmp_path / "s" / "seed-0"
    wait_for(lambda: (first / "checkpoints" / "last.ckpt").exists())
    os.kill(Status(first).process["pid"], signal.SIGKILL)
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 1
    assert states(tmp_path / "s") == {"seed-0": "killed", "seed-1": "completed", "seed-2": "completed"}, output
    assert "3 jobs: 2 completed, 1 killed" in output
    again = start("seed=0,1,2", "trainer.max_epochs=8", "hydra.sweep.dir=s", *options)
    output, _ = again.communicate(timeout=200)
    assert again.returncode == 0 and "3 jobs in s, of which 2 are completed" in output, output


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_jobs_in_other_processes_end_with_their_sweep(number: int, start: Start, tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    launcher = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    process = start("seed=0,1", "trainer.max_epochs=200", "hydra.sweep.dir=s", *launcher)
    folders = [tmp_path / "s" / f"seed-{seed}" for seed in (0, 1)]
    wait_for(lambda: all((folder / "checkpoints" / "last.ckpt").exists() for folder in folders))
    children = [Status(folder).process for folder in folders]
    assert all(is_alive(child, 0) for child in children) and this_process()["pid"] not in [c["pid"] for c in children]
    process.send_signal(number)
    wait_for(lambda: not any(is_alive(child, 0) for child in children), seconds=60)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == (143 if number == signal.SIGTERM else -9)
    wait_for(lambda: not _group(process.pid), seconds=30)  # joblib's workers too
    assert states(tmp_path / "s") == {"seed-0": "interrupted", "seed-1": "interrupted"}
    if number == signal.SIGTERM:
        assert "2 jobs: 2 interrupted" in output


def _group(leader: int) -> list[int]:
    """The processes of a group that still run."""
    import psutil

    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getpgid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


@pytest.mark.slow
def test_side_by_side_the_threads_are_divided(start: Start, tmp_path: Path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    process = start(
        "seed=0,1", "trainer.max_epochs=20", "hydra.sweep.dir=s", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"
    )
    folder = tmp_path / "s" / "seed-0"
    wait_for(lambda: (folder / "checkpoints" / "last.ckpt").exists())
    pid = Status(folder).process["pid"]
    variables = Path(f"/proc/{pid}/environ").read_bytes().decode()
    assert f"OMP_NUM_THREADS={max(1, (os.cpu_count() or 1) // 2)}" in variables.split("\0")
    process.kill()


@pytest.mark.slow
def test_a_search_prunes_and_resumes_with_real_trainings(start: Start, tmp_path: Path):
    pytest.importorskip("optuna")
    words = (
        "hydra/sweeper=search",
        "model.dense_dropout=interval(0.1,0.9)",
        "recipe.learning_rate=tag(log,interval(1e-5,1e-1))",
    )
    words = (*words, "hydra.sweeper.n_trials=14", "trainer.max_epochs=5", "hydra.sweep.dir=s")
    process = start(*words)
    wait_for(lambda: (tmp_path / "s" / "3" / "checkpoints" / "last.ckpt").exists())
    process.kill()
    process.communicate()
    assert states(tmp_path / "s")["3"] == "killed"
    process = start(*words)
    output, error = process.communicate(timeout=280)
    assert (process.returncode, error) == (0, ""), output
    found = read_jobs([tmp_path / "s"])
    assert len(found) == 14 and {job.state for job in found} == {"completed", "pruned"}
    pruned = [job for job in found if job.state == "pruned"]
    assert all("test/errors" not in job.summary and not (job.folder / "plots").exists() for job in pruned)
    assert all(not (job.folder / "checkpoints").exists() for job in pruned)
    assert "[job 4/14] going on from" in output


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_last_ten_trials_of_a_search_are_better_than_chance(tmp_path: Path):
    """In at least 2 of 3 studies; each is killed twice in between, and loses no trial and runs none twice."""
    pytest.importorskip("optuna")
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from search import compare

    outcomes = [compare(tmp_path / str(seed), seed) for seed in range(3)]
    assert sum(found.last_ten < found.random for found in outcomes) >= 2, outcomes
    assert all(found.trials == 30 and found.begun_again <= 2 for found in outcomes), outcomes


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_memory_does_not_grow_with_the_jobs(start: Start, tmp_path: Path):
    """By at most 1 MB a job after the tenth."""
    import psutil

    process = start("seed=range(0,60)", "trainer.max_epochs=1", "trainer.limit_train_batches=2", "hydra.sweep.dir=s")
    memory = {}
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        done = len([*tmp_path.glob("s/*/summary.json")])
        memory.setdefault(done, watched.memory_info().rss / 1e6)
        time.sleep(0.1)
        if done >= 59:
            break
    process.kill()
    assert (mean(memory[n] for n in range(50, 58)) - mean(memory[n] for n in range(10, 18))) / 40 < 1
