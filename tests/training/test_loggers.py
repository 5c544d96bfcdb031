"""What Lightning's loggers are given; that TensorBoard shows it is in test_run.py."""

import contextlib
import csv
import time
from pathlib import Path

import pytest
from conftest import SMALL, configure
from lightning.pytorch.loggers import CSVLogger

from digits.errors import DigitsError
from digits.report import plots
from digits.training.ema import EMA
from digits.training.run import train

TINY = (
    *SMALL,
    "data.val_size=32",
    "recipe.schedule=constant",
    "trainer.limit_train_batches=4",
    "trainer.limit_test_batches=2",
    "trainer.max_epochs=1",
)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch):
    """Without what takes most of the time of a tiny run."""
    monkeypatch.setattr(plots, "draw_all", lambda *_, **__: None)
    monkeypatch.setattr(EMA, "statistics_images", 64)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def test_csv_has_each_epoch_of_a_resumed_run_once_and_its_result(tmp_path: Path):
    train(configure(*TINY, "logger=csv"), tmp_path)
    train(configure(*TINY, "logger=csv", "trainer.max_epochs=2"), tmp_path)
    *epochs, result = rows(tmp_path / "csv" / "metrics.csv")
    assert [row["epoch"] for row in epochs] == ["1", "2"]
    assert result["result/epochs"] == "2"
    assert "model.l2: 0.0" in (tmp_path / "csv" / "hparams.yaml").read_text()
    assert len(rows(tmp_path / "metrics.csv")) == 2


@pytest.mark.parametrize(("rate", "said"), [("1e-3", "success"), ("1e30", "failed")])
def test_a_logger_is_told_how_the_run_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: str, said: str):
    heard: list[str] = []
    monkeypatch.setattr(CSVLogger, "finalize", lambda self, status: heard.append(status))  # to hear what it is told
    with contextlib.suppress(DigitsError):
        train(configure(*TINY, "logger=csv", f"recipe.learning_rate={rate}"), tmp_path)
    assert heard[-1] == said


def test_none_leaves_the_runs_own_files_alone(tmp_path: Path):
    train(configure(*TINY, "logger=none"), tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} <= {"", ".csv", ".json", ".yaml"}
    assert (tmp_path / "metrics.csv").is_file() and not list(tmp_path.glob("events*"))


def test_wandb_logs_offline_into_the_runs_folder(tmp_path: Path):
    pytest.importorskip("wandb")
    train(configure(*TINY, "logger=wandb", "logger.offline=true"), tmp_path)
    (record,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    for _ in range(100):  # wandb's own process writes it, and may do so after the run
        if b"result/test/errors" in record.read_bytes():
            return
        time.sleep(0.3)
    raise AssertionError(f"{record}: has no result after 30 s")


def test_a_logger_whose_package_is_missing_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lightning.pytorch.loggers.wandb._WANDB_AVAILABLE", False)  # as where it is not installed
    with pytest.raises(DigitsError, match=r"^logger: WandbLogger needs a package that is not installed"):
        train(configure(*TINY, "logger=wandb"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_validations_within_an_epoch_are_logged_where_they_were(tmp_path: Path):
    train(configure(*TINY, "logger=csv", "trainer.val_check_interval=0.5"), tmp_path)
    within, end = (row for row in rows(tmp_path / "csv" / "metrics.csv") if row["val/loss"])
    assert (within["step"], within["epoch"], end["step"]) == ("2", "", "4")


def test_weights_that_were_not_validated_have_no_validation_in_their_row(tmp_path: Path):
    train(configure(*TINY, "logger=none", "trainer.val_check_interval=0.75"), tmp_path)
    (row,) = rows(tmp_path / "metrics.csv")
    assert "val/loss" not in row
