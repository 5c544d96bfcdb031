"""How the jobs of a sweep stand, told from the files that they leave."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from digits.sweep import status
from digits.sweep.jobs import read_job, read_jobs
from digits.sweep.status import JobStatus, is_alive, this_process

DEAD = {"state": "running", "host": this_process()["host"], "pid": 2**22 + 1, "started": 1.0}


def leave(folder: Path, summary: dict[str, Any] | None = None, **said: Any) -> Path:
    """A job's folder with the ``summary`` of a run, and what `status.json` says."""
    folder.mkdir(parents=True, exist_ok=True)
    if said:
        (folder / "status.json").write_text(json.dumps({"begun": time.time()} | said))
    if summary is not None:
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_a_job_whose_process_works_is_running(tmp_path: Path):
    with JobStatus(tmp_path):
        assert read_job(tmp_path).state == "running"


def test_a_job_that_is_run_again_is_running_whatever_its_summary_says(tmp_path: Path):
    leave(tmp_path, {"status": "interrupted", "signal": "SIGINT"})
    with JobStatus(tmp_path):
        assert read_job(tmp_path).state == "running"


def test_a_job_without_a_process_and_a_summary_was_killed(tmp_path: Path):
    job = read_job(leave(tmp_path, **DEAD))
    assert job.state == "killed"
    assert f"process {DEAD['pid']} on {DEAD['host']} ended without a word" in job.reason


def test_a_job_that_was_killed_in_its_second_run_was_killed(tmp_path: Path):
    leave(tmp_path, {"status": "interrupted", "signal": "SIGINT"})
    os.utime(tmp_path / "summary.json", (1, 1))
    assert read_job(leave(tmp_path, **DEAD)).state == "killed"


def test_a_job_that_was_killed_after_its_summary_is_what_that_says(tmp_path: Path):
    leave(tmp_path, **DEAD | {"begun": time.time() - 60})
    assert read_job(leave(tmp_path, {"status": "completed"})).state == "completed"


@pytest.mark.parametrize("state", ["completed", "pruned"])
def test_a_job_that_has_ended_needs_no_reason(state: str, tmp_path: Path):
    job = read_job(leave(tmp_path, {"status": state}, **DEAD | {"state": "ended"}))
    assert (job.state, job.reason) == (state, "")


def test_an_interrupted_job_names_the_signal(tmp_path: Path):
    job = read_job(leave(tmp_path, {"status": "interrupted", "signal": "SIGTERM"}))
    assert (job.state, job.reason) == ("interrupted", "by SIGTERM")


def test_a_failed_job_has_its_reason_on_one_line(tmp_path: Path):
    job = read_job(leave(tmp_path, {"status": "failed", "error": "no\n\x1b[31mroom\x1b[0m"}))
    assert (job.state, job.reason) == ("failed", "no room")


def test_a_job_that_ended_without_a_summary_failed(tmp_path: Path):
    job = read_job(leave(tmp_path, **DEAD | {"state": "ended"}))
    assert (job.state, job.reason) == ("failed", "no summary.json: the job ended before it could write one")


def test_a_summary_that_is_cut_short_is_a_failed_job(tmp_path: Path):
    (tmp_path / "summary.json").write_text('{"status": "comp')
    assert read_job(tmp_path).reason.startswith("summary.json is damaged")


def test_of_another_machine_silence_for_ten_minutes_is_death(tmp_path: Path):
    job = leave(tmp_path, **DEAD | {"host": "elsewhere"})
    assert read_job(job).state == "running"
    silent = time.time() - 601
    os.utime(job / "status.json", (silent, silent))
    assert read_job(job).state == "killed"


def test_another_process_with_the_same_number_is_not_the_same():
    assert is_alive(this_process(), 0)
    assert not is_alive(this_process() | {"started": 1.0}, time.time())


def test_a_zombie_works_no_more():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = this_process() | {"pid": child.pid, "started": time.time()}
    assert is_alive(process, 0)
    child.kill()
    deadline = time.monotonic() + 10
    while is_alive(process, 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_alive(process, 0)
    child.communicate()


def test_a_job_gives_a_sign_of_life_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(status, "SIGN_OF_LIFE", 0.02)  # a minute is too long for a test
    with JobStatus(tmp_path):
        os.utime(tmp_path / "status.json", (1, 1))
        deadline = time.monotonic() + 10
        while (tmp_path / "status.json").stat().st_mtime < 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_jobs_are_in_the_order_of_their_numbers(tmp_path: Path):
    for name in ("10", "9", "l2-0.01_seed-0", "l2-0.001_seed-0"):
        leave(tmp_path / name, **DEAD)
    assert [job.name for job in read_jobs([tmp_path])] == ["9", "10", "l2-0.001_seed-0", "l2-0.01_seed-0"]


def test_a_folder_of_something_else_is_no_job(tmp_path: Path):
    (tmp_path / ".submitit").mkdir()
    assert read_jobs([tmp_path]) == []


def test_settings_are_those_that_the_run_was_begun_with(tmp_path: Path):
    leave(tmp_path, {"status": "completed"})
    (tmp_path / "config.yaml").write_text("seed: 3\nname: x\nmodel:\n  l2: 1.0e-05\nlogger:\n  a: 1\n")
    assert read_job(tmp_path).settings == {"seed": 3, "model.l2": 1e-5}


def test_of_a_job_that_was_not_begun_they_are_its_overrides(tmp_path: Path):
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- model.l2=1e-5\n- +x.y=a=b\n")
    assert read_job(tmp_path).settings == {"model.l2": 1e-5, "x.y": "a=b"}
