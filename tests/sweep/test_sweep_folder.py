"""The folder of a sweep: whose it is, what jobs are called, how they are found again and what is kept of them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from digits.errors import ConfigError, DigitsError
from digits.settings.grid import Job as PlannedJob
from digits.sweep.folder import Record, folders_for, is_best_so_far, names_of, owned, remove_large, values_of
from digits.sweep.status import this_process


def record(process: dict[str, Any] | None = None, **values: list[Any]) -> Record:
    return Record("train.py", ["-m"], 1, values, this_process() if process is None else process)


def finished(sweep: Path, name: str, val: float | None, state: str = "completed", **settings: Any) -> Path:
    """The folder of a job, with a model, plots and checkpoints."""
    folder = sweep / name
    for large in ("model", "plots", "checkpoints"):
        (folder / large).mkdir(parents=True)
        (folder / large / "file").touch()
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    summary = {"status": state, "val/sparse_accuracy": val, "val/cross_entropy": 0.1}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_dir()}


ALL = {"model", "plots", "checkpoints"}


def test_a_job_is_called_by_what_differs():
    settings = [{"model.dense_dropout": d, "model.l2": l2, "trainer.x": 1} for d in (0.3, 0.5) for l2 in (0.0, 1e-3)]
    assert names_of(settings)[1] == "dense_dropout-0.3_l2-0.001"


def test_the_seed_comes_last():
    assert names_of([{"seed": s, "model.l2": l2} for s in (0, 1) for l2 in (0.0, 0.1)])[0] == "l2-0_seed-0"


@pytest.mark.parametrize("value", ["a=b,c", "x y/z", "{'degrees': 5}", "${a}", "ü", "..", ""])
def test_names_are_of_letters_digits_and_three_signs(value: str):
    names = names_of([{"a.key": value}, {"a.key": "other"}])
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", names[0])


def test_what_looks_the_same_without_its_signs_stays_apart():
    assert len({*names_of([{"a.key": "a=b"}, {"a.key": "a,b"}, {"a.key": "a-b"}])}) == 3


def test_numbers_that_are_close_stay_apart():
    assert len({*names_of([{"l2": 0.12345678}, {"l2": 0.12345679}])}) == 2


def test_a_large_number_is_not_taken_for_a_small_one():
    assert names_of([{"rate": 1e20}, {"rate": 0.1}])[0] == "rate-1e20"


def test_a_long_name_is_cut_at_80_characters_with_a_hash():
    settings = [{f"model.quite_a_long_setting_{i}": value for i in range(8)} for value in (1, 2)]
    names = names_of(settings)
    assert [len(name) for name in names] == [80, 80] and names[0] != names[1]


def test_a_single_job_has_a_name():
    assert names_of([{"seed": 0}]) == ["job"]


def test_a_job_is_found_by_its_settings_whatever_its_folder_is_called(tmp_path: Path):
    finished(tmp_path, "an-old-name", 0.9, seed=0, model={"l2": 0.1})
    planned = [PlannedJob((), {"seed": 0, "model.l2": l2}) for l2 in (0.1, 0.2)]
    assert [path.name for path in folders_for(tmp_path, planned)] == ["an-old-name", "l2-0.2"]


def test_a_name_that_another_job_has_taken_gets_a_hash(tmp_path: Path):
    finished(tmp_path, "l2-0.2", 0.9, seed=0, model={"l2": 0.3})
    planned = [PlannedJob((), {"seed": 0, "model.l2": l2}) for l2 in (0.1, 0.2)]
    assert re.fullmatch(r"l2-0\.2_[0-9a-f]{8}", folders_for(tmp_path, planned)[1].name)


def test_values_may_be_added(tmp_path: Path):
    with owned(tmp_path, record(a=[1, 2])):
        pass
    with owned(tmp_path, record(a=[1, 2, 3])):
        assert Record.of(tmp_path).values == {"a": [1, 2, 3]}


def test_a_sweep_without_some_of_the_values_is_refused_by_name(tmp_path: Path):
    with owned(tmp_path, record(a=[1, 2])):
        pass
    with pytest.raises(ConfigError, match="the sweep there has a=1,2, this one 2,3"), owned(tmp_path, record(a=[2, 3])):
        pass


def test_jobs_of_another_sweep_are_refused_without_a_record(tmp_path: Path):
    finished(tmp_path, "0", 0.9, seed=7)
    with pytest.raises(ConfigError, match="0 there has seed=7"), owned(tmp_path, record(seed=[0, 1])):
        pass


def test_a_folder_whose_process_lives_is_refused(tmp_path: Path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        import psutil

        process = this_process() | {"pid": other.pid, "started": psutil.Process(other.pid).create_time()}
        record(process, a=[1]).write(tmp_path)
        with pytest.raises(DigitsError, match=f"process {other.pid} on .* is at work"), owned(tmp_path, record(a=[1])):
            pass
        other.kill()


def test_a_folder_whose_process_was_killed_is_free(tmp_path: Path):
    record({"host": this_process()["host"], "pid": 2**22 + 1, "started": 1.0}, a=[1]).write(tmp_path)
    with owned(tmp_path, record(a=[1])):
        pass


def test_a_damaged_record_is_named(tmp_path: Path):
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(DigitsError, match=r"sweep\.json: damaged"):
        Record.of(tmp_path)


def test_a_sweep_keeps_all_of_the_best_setting_and_the_figures_of_the_others(tmp_path: Path):
    best = [finished(tmp_path, f"b{seed}", 0.99, seed=seed, l2=0.1) for seed in range(2)]
    others = [finished(tmp_path, f"a{seed}", 0.98, seed=seed, l2=0.2) for seed in range(2)]
    record(seed=[0, 1]).write(tmp_path)
    remove_large(tmp_path, "auto")
    assert [kept(folder) for folder in best] == [ALL, ALL]
    assert [kept(folder) for folder in others] == [set(), set()]
    assert (others[0] / "summary.json").is_file()


def test_a_setting_keeps_all_until_its_seeds_have_ended(tmp_path: Path):
    finished(tmp_path, "b0", 0.99, seed=0, l2=0.1)
    open_one = finished(tmp_path, "a0", 0.98, seed=0, l2=0.2)
    record(seed=[0, 1]).write(tmp_path)
    remove_large(tmp_path, "auto")
    assert kept(open_one) == ALL


@pytest.mark.parametrize("state", ["interrupted", "failed"])
def test_what_is_to_be_gone_on_with_keeps_its_checkpoints(state: str, tmp_path: Path):
    finished(tmp_path, "b", 0.99, seed=0, l2=0.1)
    stopped = finished(tmp_path, "a", None, state, seed=0, l2=0.2)
    remove_large(tmp_path, "auto")
    assert kept(stopped) == ALL


def test_nothing_is_removed_where_nothing_is_held_out(tmp_path: Path):
    folders = [finished(tmp_path, name, None, seed=0, l2=name) for name in "ab"]
    remove_large(tmp_path, "auto")
    assert [kept(folder) for folder in folders] == [ALL, ALL]


def test_keep_all_removes_nothing_and_keep_none_all(tmp_path: Path):
    folders = [finished(tmp_path, name, 0.9, seed=0, l2=name) for name in "ab"]
    remove_large(tmp_path, "all")
    assert [kept(folder) for folder in folders] == [ALL, ALL]
    remove_large(tmp_path, "none")
    assert [kept(folder) for folder in folders] == [set(), set()]


def test_a_job_knows_whether_its_setting_leads(tmp_path: Path):
    finished(tmp_path, "a0", 0.98, seed=0, l2=0.1)
    finished(tmp_path, "b0", 0.99, seed=0, l2=0.2)
    ending = finished(tmp_path, "b1", None, "interrupted", seed=1, l2=0.2)
    assert is_best_so_far(tmp_path, ending, {"val/sparse_accuracy": 0.985})
    assert not is_best_so_far(tmp_path, ending, {"val/sparse_accuracy": 0.96})


def test_a_sweep_has_all_values_of_each_setting():
    planned = [PlannedJob((), {"seed": seed, "model.l2": 0.1}) for seed in (0, 1)]
    assert values_of(planned) == {"seed": [0, 1], "model.l2": [0.1]}
