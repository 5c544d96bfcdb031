"""What a sweep has found: the table, the files, the picture, from folders as jobs leave them."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from rich.console import Console

from digits.__main__ import main
from digits.errors import DigitsError
from digits.report.sweep_plots import Point, draw_sweep
from digits.sweep.folder import Record
from digits.sweep.report import report


def job(sweep: Path, name: str, val: float | None = None, test: float | None = None, **said: Any) -> Path:
    """A job's folder: what is ``said`` goes into the summary, `settings` into the record of the run."""
    folder = sweep / name
    folder.mkdir(parents=True)
    settings = said.pop("settings", {"seed": 0})
    (folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    figures = {"val/sparse_accuracy": val, "test/sparse_accuracy": test, "val/cross_entropy": val and 0.02}
    (folder / "summary.json").write_text(json.dumps({"status": "completed"} | figures | said))
    return folder


def grid(sweep: Path, jobs: int = 12) -> None:
    """Two dropouts, two L2 and three seeds, of which the first ``jobs`` are completed."""
    Record(
        "train.py", ["-m", "model.l2=0,0.001", "dense=0.3,0.5", "seed=0,1,2", "x.y=1", "hydra.sweep.dir=s"], 12, {}, {}
    ).write(sweep)
    number = 0
    for dropout in (0.3, 0.5):
        for l2 in (0.0, 0.001):
            for seed in range(3):
                if number < jobs:
                    value = 0.99 - l2 + seed / 1000 - dropout / 100
                    settings = {"seed": seed, "model": {"l2": l2}, "dense": dropout}
                    words = ["x.y=1", f"model.l2={l2}", f"dense={dropout}", f"seed={seed}"]
                    job(sweep, f"j{number}", value, value + 0.001, settings=settings, overrides=words)
                number += 1


def printed(*sweeps: Path, width: int = 80) -> str:
    file = io.StringIO()
    report(sweeps, Console(file=file, width=width))
    return file.getvalue()


def rows(sweep: Path) -> list[dict[str, str]]:
    with (sweep / "sweep.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_seeds_are_one_row_with_mean_deviation_and_interval(tmp_path: Path):
    grid(tmp_path)
    lines = [" ".join(line.split()) for line in printed(tmp_path).splitlines()]
    assert "0 0.3 3 98.80% ± 0.10 98.55-99.05 0.0200 98.90% ± 0.10" in lines


def test_the_best_row_is_first(tmp_path: Path):
    grid(tmp_path)
    lines = [line.split()[:2] for line in printed(tmp_path).splitlines() if "±" in line]
    assert lines == [["0", "0.3"], ["0.001", "0.3"], ["0", "0.5"], ["0.001", "0.5"]]


def test_it_says_whether_the_best_is_better_than_chance(tmp_path: Path):
    grid(tmp_path)
    assert "by more than chance" in " ".join(printed(tmp_path).split())


def test_it_ends_with_the_command_of_the_best(tmp_path: Path):
    grid(tmp_path)
    assert "  python train.py x.y=1 model.l2=0.0 dense=0.3 seed=0\n" in printed(tmp_path)


def test_it_names_the_models_of_the_best(tmp_path: Path):
    grid(tmp_path)
    for name in ("j0", "j1"):
        (tmp_path / name / "model").mkdir()
        (tmp_path / name / "model" / "model.safetensors").touch()
    text = printed(tmp_path)
    assert f"  digits predict PICTURE --model {tmp_path}/j0\n" in text
    assert f"  digits ensemble {tmp_path}/j0 {tmp_path}/j1\n" in text


def test_states_are_counted_and_those_that_have_not_begun(tmp_path: Path):
    grid(tmp_path, jobs=9)
    job(tmp_path, "x", status="failed", error="no room", settings={"seed": 9})
    text = printed(tmp_path)
    assert "12 jobs: 9 completed, 1 failed, 2 not begun" in text
    assert "x failed: no room" in text


def test_what_is_not_completed_is_counted(tmp_path: Path):
    grid(tmp_path, jobs=9)
    job(tmp_path, "p", status="pruned", settings={"seed": 9})
    job(tmp_path, "i", status="interrupted", signal="SIGINT", settings={"seed": 8})
    assert report([tmp_path], Console(file=io.StringIO())) == 1 + 1


def test_the_table_has_a_row_a_job_without_formatting(tmp_path: Path):
    grid(tmp_path)
    printed(tmp_path)
    (row,) = [row for row in rows(tmp_path) if row["job"] == "j4"]
    assert {key: row[key] for key in ("status", "model.l2", "dense", "seed", "val/sparse_accuracy")} == {
        "status": "completed",
        "model.l2": "0.001",
        "dense": "0.3",
        "seed": "1",
        "val/sparse_accuracy": "0.987",
    }
    assert len(rows(tmp_path)) == 12


def test_a_setting_that_was_named_is_a_column_also_with_one_value(tmp_path: Path):
    job(tmp_path, "0", 0.9, settings={"seed": 0, "model": {"l2": 0.1}}, overrides=["model.l2=0.1"])
    printed(tmp_path)
    assert [row["model.l2"] for row in rows(tmp_path)] == ["0.1"]


def test_the_folder_gets_a_page_that_shows_table_and_picture(tmp_path: Path):
    grid(tmp_path)
    printed(tmp_path)
    page = (tmp_path / "README.md").read_text("utf-8")
    assert "| l2 | dense | n | validation | 95 % | entropy | test |" in page
    assert "![What the sweep found](sweep.png)" in page and "by more than chance" in page
    assert Image.open(tmp_path / "sweep.png").width == 1000


def test_where_nothing_is_held_out_nothing_is_ranked(tmp_path: Path):
    for number, test in enumerate((0.98, 0.99)):
        job(tmp_path, str(number), test=test, settings={"seed": 0, "l2": number})
    text = printed(tmp_path)
    assert "Nothing is held out" in text and "best" not in text
    table = [line.split() for line in text.splitlines() if "%" in line]
    assert table[:2] == [["0", "1", "98.00%"], ["1", "1", "99.00%"]]
    assert not (tmp_path / "sweep.png").exists()


def test_the_figures_of_the_embedded_digits_are_said_not_to_compare(tmp_path: Path):
    job(tmp_path, "0", 0.9, dataset="mnist-5k")
    assert "does not compare with full MNIST" in printed(tmp_path)


def test_several_folders_are_one_report_in_the_first(tmp_path: Path):
    for name, l2 in (("a", 0.1), ("b", 0.2)):
        job(tmp_path / name, "0", 0.9, settings={"seed": 0, "model": {"l2": l2}})
    assert "2 jobs: 2 completed" in printed(tmp_path / "a", tmp_path / "b")
    assert len(rows(tmp_path / "a")) == 2 and not (tmp_path / "b" / "sweep.csv").exists()


def test_more_keys_than_80_columns_hold_share_one(tmp_path: Path):
    for number in range(2):
        settings = {"seed": 0} | {f"quite_a_long_name_{i}": number for i in range(6)}
        job(tmp_path, str(number), 0.99, 0.99, settings=settings)
    text = printed(tmp_path)
    assert max(len(line) for line in text.splitlines() if "/" not in line and "=" in line) <= 80
    assert all(f"quite_a_long_name_{i}=1" in text for i in range(6))


def test_a_long_table_is_cut_on_the_terminal_alone(tmp_path: Path):
    for number in range(40):
        job(tmp_path, str(number), 0.5 + number / 100, settings={"seed": 0, "l2": number})
    assert "and 10 more, in sweep.csv" in printed(tmp_path)
    assert len(rows(tmp_path)) == 40


def test_values_that_look_like_markup_are_printed_as_they_are(tmp_path: Path):
    job(tmp_path, "0", 0.9, settings={"seed": 0, "shape": "[/red]"})
    job(tmp_path, "1", status="failed", error="no [/such] key", settings={"seed": 0, "shape": "[bold]"})
    text = printed(tmp_path)
    assert all(part in text for part in ("[/red]", "[bold]", "no [/such] key"))


def test_it_can_be_printed_in_ascii(tmp_path: Path):
    grid(tmp_path)
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    report([tmp_path], Console(file=file, width=80))


def test_a_folder_without_a_job_is_an_error(tmp_path: Path):
    with pytest.raises(DigitsError, match="no job of a sweep there"):
        report([tmp_path])


def test_the_command_exits_with_0_when_all_are_completed_or_pruned(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    job(tmp_path, "0", 0.9)
    assert main(["sweep", str(tmp_path)]) == 0
    job(tmp_path, "1", status="pruned")
    assert main(["sweep", str(tmp_path)]) == 0
    job(tmp_path, "2", status="failed", error="x")
    assert main(["sweep", str(tmp_path)]) == 1


@pytest.mark.parametrize("keys", [[], ["a"], ["a", "b"], ["a", "b", "c"]])
@pytest.mark.parametrize("values", [[0, 1], [0.1, "x", None], list(range(1, 2000, 100))])
def test_pictures_are_drawn_of_any_number_of_keys_and_kind_of_values(
    keys: list[str], values: list[Any], tmp_path: Path
):
    points = [Point(dict.fromkeys(keys, value), [0.9, 0.95 + i / 1000]) for i, value in enumerate(values)]
    draw_sweep(points, "mnist", tmp_path / "x.png", dict.fromkeys(keys, 0.3))
    assert Image.open(tmp_path / "x.png").width == 1000


def test_importances_name_the_key_that_matters(tmp_path: Path):
    from digits.sweep.importance import importances
    from digits.sweep.jobs import read_jobs
    from digits.sweep.ranking import settings_of

    number = 0
    for a in (0.1, 0.2, 0.3, 0.4):
        for b in (0.1, 0.2, 0.3, 0.4):
            job(tmp_path, str(number), 0.9 + a / 10 + b / 1000, settings={"seed": 0, "x": {"a": a, "b": b}})
            number += 1
    shares = importances(settings_of(read_jobs([tmp_path])), {"x.a": "a", "x.b": "b"})
    assert shares["a"] > shares["b"]
