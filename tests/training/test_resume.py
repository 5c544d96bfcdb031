"""The same command in the same folder goes on with what is there, to the same bits."""

import contextlib
import csv
import json
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from conftest import SMALL, configure

from digits.errors import ConfigError, DigitsError
from digits.exchange.checkpoint import load_checkpoint
from digits.exchange.model_folder import load_model
from digits.files import locked
from digits.report import plots
from digits.training import checkpoints
from digits.training.classifier import DigitClassifier
from digits.training.ema import EMA
from digits.training.run import train
from digits.training.setup import set_up

SLOW = pytest.mark.slow
Run = Callable[..., subprocess.CompletedProcess[str]]
TINY = (
    *SMALL,
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=4",
    "trainer.limit_test_batches=1",
    "data.val_size=32",
    "logger=none",
    "trainer.precision=32-true",
)
CONSTANT = (*TINY, "recipe.schedule=constant")


def last(run_dir: Path) -> dict:
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)


def epochs(run_dir: Path) -> list[str]:
    return [row["epoch"] for row in csv.DictReader((run_dir / "metrics.csv").open())]


def figures(run_dir: Path) -> list[dict[str, str]]:
    """The rows of metrics.csv without those that are of the clock."""
    rows = csv.DictReader((run_dir / "metrics.csv").open())
    return [{k: v for k, v in row.items() if k not in ("images_per_second", "train_seconds")} for row in rows]


def same_bits(one: Path, other: Path) -> bool:
    states = [last(run) for run in (one, other)]
    parts = [key for key in ("state_dict", "current_model_state") if key in states[0]]
    return all(torch.equal(value, states[1][key][name]) for key in parts for name, value in states[0][key].items())


def contents(folder: Path) -> dict[Path, tuple[int, bytes]]:
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True, scope="module")
def quick() -> Iterator[None]:
    """Without what takes most of the time of so small a run, and has no part in going on with it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "draw_all", lambda *_, **__: None)
        patch.setattr(EMA, "statistics_images", 64)
        yield


@contextlib.contextmanager
def stopped_at(number: int) -> Iterator[None]:
    """Sends SIGTERM while a certain batch, counted from 1, is trained on."""
    step, taken = DigitClassifier.training_step, []

    def stopping(self, batch, batch_idx):
        taken.append(1)
        if len(taken) == number:
            signal.raise_signal(signal.SIGTERM)
        return step(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DigitClassifier, "training_step", stopping)
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An unbroken run."""
    run_dir = tmp_path_factory.mktemp("whole")
    train(configure(*TINY), run_dir)
    return run_dir


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that was stopped within its second epoch, after a checkpoint at each step."""
    run_dir = tmp_path_factory.mktemp("stopped")
    with stopped_at(6):
        content = train(configure(*TINY, "checkpoint_every=0.00001"), run_dir)
    assert (content["status"], content["signal"], content["epochs"]) == ("interrupted", "SIGTERM", 1)
    return run_dir


@pytest.fixture
def broken(stopped: Path, tmp_path: Path) -> Path:
    """A copy of it, to go on with."""
    return shutil.copytree(stopped, tmp_path / "run")


def test_a_run_that_was_stopped_within_an_epoch_goes_on_to_the_bits_of_an_unbroken_one(broken: Path, whole: Path):
    assert last(broken)["global_step"] == 6
    content = train(configure(*TINY), broken)
    assert (content["status"], content["epochs"]) == ("completed", 2)
    assert same_bits(broken, whole)
    assert figures(broken) == figures(whole)
    models = [load_model(run).state_dict() for run in (broken, whole)]
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


@SLOW
@pytest.mark.parametrize("step", [5, 6, 7])
def test_so_does_one_that_is_validated_within_its_epochs(tmp_path: Path, step: int):
    often = (*TINY, "trainer.val_check_interval=0.5")
    train(configure(*often), tmp_path / "whole")
    with stopped_at(step):
        assert train(configure(*often, "checkpoint_every=0.00001"), tmp_path / "run")["status"] == "interrupted"
    train(configure(*often), tmp_path / "run")
    assert same_bits(tmp_path / "run", tmp_path / "whole")
    assert figures(tmp_path / "run") == figures(tmp_path / "whole")
    logged = [last(tmp_path / run)["callbacks"]["History"]["validations"] for run in ("run", "whole")]
    assert logged[0] == [row for row in logged[1] if row["step"] != step]  # due when it was stopped, and not made up


@SLOW
def test_the_clock_of_an_epoch_that_was_resumed_counts_both_parts(broken: Path):
    train(configure(*TINY), broken)
    rows = list(csv.DictReader((broken / "metrics.csv").open()))
    assert all(0 < float(row["train_seconds"]) < 60 for row in rows)
    speeds = [float(row["images_per_second"]) * float(row["train_seconds"]) for row in rows]
    assert speeds == pytest.approx([64, 64], rel=0.01)


def test_a_run_that_was_stopped_in_its_test_tests_again_and_ships_the_averages(tmp_path: Path, whole: Path):
    def stopping(self, *batch) -> None:
        signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DigitClassifier, "test_step", stopping)
        assert train(configure(*TINY), tmp_path)["status"] == "interrupted"
    content = train(configure(*TINY), tmp_path)
    assert content["test/loss"] == json.loads((whole / "summary.json").read_text())["test/loss"]
    models = [load_model(run).state_dict() for run in (tmp_path, whole)]
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


@SLOW
def test_compiled_too(tmp_path: Path):
    train(configure(*TINY, "compile=true"), tmp_path / "whole")
    with stopped_at(6):
        assert train(configure(*TINY, "compile=true"), tmp_path / "run")["status"] == "interrupted"
    train(configure(*TINY, "compile=true"), tmp_path / "run")
    assert same_bits(tmp_path / "run", tmp_path / "whole")


@SLOW
def test_gradients_that_are_being_accumulated_are_not_lost(tmp_path: Path):
    two = (*TINY, "trainer.accumulate_grad_batches=2", "recipe.ema_decay=0")
    train(configure(*two), tmp_path / "whole")
    with stopped_at(5):  # the first of two
        train(configure(*two), tmp_path / "run")
    assert last(tmp_path / "run")["global_step"] == 3
    train(configure(*two), tmp_path / "run")
    assert same_bits(tmp_path / "run", tmp_path / "whole")


def test_a_run_that_is_complete_is_left_as_it_is(whole: Path):
    before = contents(whole)
    assert train(configure(*TINY), whole)["status"] == "completed"
    assert contents(whole) == before


def test_a_run_that_is_complete_says_so(train_py: Run, whole: Path):
    before = contents(whole)
    result = train_py(*TINY, f"hydra.run.dir={whole}")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1].startswith("This run is complete: nothing is left to do")
    assert contents(whole) == before


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("recipe.learning_rate=0.002", "was started with recipe.learning_rate=0.004, not 0.002"),
        ("seed=1", "was started with seed=0, not 1"),
        ("recipe.augmentation=null", "recipe.augmentation="),
        ("trainer.max_epochs=3", "was started with trainer.max_epochs=2, not 3"),  # the one-cycle schedule is for 2
        ("ckpt_path=elsewhere.ckpt", "no checkpoint there"),
        ("trainer.precision=64-true", "was started with trainer.precision=32-true, not 64-true"),
    ],
)
def test_other_settings_are_refused(override: str, said: str, whole: Path):
    before = contents(whole)
    with pytest.raises(DigitsError, match=said) as error:
        train(configure(*TINY, override), whole)
    assert "\n" not in str(error.value)
    assert contents(whole) == before


def test_a_refused_start_changes_no_file(train_py: Run, whole: Path):
    train_py(*TINY, "trainer.max_epochs=2", f"hydra.run.dir={whole}")
    before = contents(whole)
    result = train_py(*TINY, "seed=1", f"hydra.run.dir={whole}")
    assert result.returncode == 2
    assert result.stderr.startswith(f"train.py: {whole}: was started with seed=0, not 1; ")
    assert result.stderr.count("\n") == 1
    assert contents(whole) == before


@SLOW
def test_settings_that_leave_the_result_alone_may_differ(broken: Path, whole: Path):
    free = ("name=other", "logger=tensorboard", "trainer.enable_progress_bar=false", "checkpoint_every=1")
    train(configure(*TINY, *free), broken)
    assert same_bits(broken, whole)


@SLOW
def test_at_a_constant_rate_a_run_may_be_given_more_epochs(tmp_path: Path):
    train(configure(*CONSTANT, "trainer.max_epochs=3"), tmp_path / "whole")
    train(configure(*CONSTANT, "trainer.max_epochs=1"), tmp_path / "run")
    train(configure(*CONSTANT, "trainer.max_epochs=3"), tmp_path / "run")
    assert same_bits(tmp_path / "run", tmp_path / "whole")
    assert epochs(tmp_path / "run") == ["1", "2", "3"]
    with pytest.raises(DigitsError, match=r"was trained for 3 epochs, more than trainer\.max_epochs=2"):
        train(configure(*CONSTANT, "trainer.max_epochs=2"), tmp_path / "run")


def test_resume_false_starts_afresh(broken: Path, whole: Path):
    content = train(configure(*TINY, "seed=1", "trainer.max_epochs=1", "resume=false"), broken)
    assert (content["status"], content["epochs"], content["seed"]) == ("completed", 1, 1)
    assert last(broken)["global_step"] == 4
    with pytest.raises(ConfigError, match="resume=false replaces what is in"):
        train(configure(*TINY, "resume=false", f"ckpt_path={broken}"), broken)


@SLOW
def test_checkpoints_without_a_record_are_not_overwritten(broken: Path):
    (broken / "config.yaml").unlink()
    with pytest.raises(ConfigError, match=r"ckpt_path=last, or replace them with resume=false"):
        train(configure(*TINY), broken)
    assert train(configure(*TINY, "ckpt_path=last"), broken)["epochs"] == 2


@pytest.mark.parametrize("record", ["a: [", "a text", ""])
def test_a_damaged_record_is_refused(record: str, broken: Path):
    (broken / "config.yaml").write_text(record)
    with pytest.raises(DigitsError, match=r"config\.yaml: damaged; resume=false starts afresh"):
        train(configure(*TINY), broken)


def test_ckpt_path_takes_the_folder_of_a_run(broken: Path, whole: Path, tmp_path: Path):
    train(configure(*TINY, f"ckpt_path={broken}"), tmp_path / "rest")
    assert same_bits(tmp_path / "rest", whole)


@SLOW
def test_ckpt_path_best_goes_back_to_the_best_epoch(tmp_path: Path):
    train(configure(*CONSTANT, "trainer.max_epochs=1"), tmp_path)
    content = train(configure(*CONSTANT, "ckpt_path=best"), tmp_path)
    assert (content["status"], content["epochs"]) == ("completed", 2)


def test_a_torn_checkpoint_is_said_in_one_line_and_the_one_before_it_is_used(
    broken: Path, whole: Path, caplog: pytest.LogCaptureFixture
):
    newest = broken / "checkpoints" / "last.ckpt"
    newest.write_bytes(newest.read_bytes()[:-1000])
    assert train(configure(*TINY), broken)["status"] == "completed"
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1 and "going on from the one before it, previous.ckpt" in warnings[0]
    assert same_bits(broken, whole)


def test_no_flipped_bit_is_taken(whole: Path, tmp_path: Path):
    content = (whole / "checkpoints" / "last.ckpt").read_bytes()
    good, chance = last(whole), random.Random(0)
    for _ in range(24):
        flipped = bytearray(content)
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        (tmp_path / "flipped.ckpt").write_bytes(flipped)
        try:
            found = load_checkpoint(tmp_path / "flipped.ckpt")
        except DigitsError:
            continue
        assert all(torch.equal(found["state_dict"][name], value) for name, value in good["state_dict"].items())


@pytest.mark.parametrize(
    ("first", "rest"), [pytest.param(4, 8, marks=SLOW), pytest.param(3, 7, marks=SLOW), (4, 6)]
)  # whole epochs, parts of them, both
def test_a_run_that_max_steps_ended_can_be_given_more(first: int, rest: int, tmp_path: Path):
    endless = (*CONSTANT, "trainer.max_epochs=null", "recipe.ema_decay=0")
    train(configure(*endless, f"trainer.max_steps={rest}"), tmp_path / "whole")
    assert train(configure(*endless, f"trainer.max_steps={first}"), tmp_path / "run")["status"] == "completed"
    content = train(configure(*endless, f"trainer.max_steps={rest}"), tmp_path / "run")
    assert (content["status"], last(tmp_path / "run")["global_step"]) == ("completed", rest)
    assert same_bits(tmp_path / "run", tmp_path / "whole")
    assert figures(tmp_path / "run") == figures(tmp_path / "whole")
    assert epochs(tmp_path / "run") == ["1", "2"]


def test_a_part_of_an_epoch_with_nothing_left_to_train_tests_and_ships_the_averages(tmp_path: Path):
    part = (*CONSTANT, "trainer.max_steps=6", "data.val_size=0")
    first = train(configure(*part), tmp_path / "first")
    rest = train(configure(*part, f"ckpt_path={tmp_path / 'first'}"), tmp_path / "rest")
    assert rest["test/loss"] == first["test/loss"]
    models = [load_model(tmp_path / run).state_dict() for run in ("first", "rest")]
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


@SLOW
def test_max_time_that_is_used_up_ends_the_run_and_more_time_goes_on(tmp_path: Path):
    content = train(configure(*CONSTANT, "trainer.max_epochs=3", "trainer.max_time=00:00:00:00"), tmp_path)
    assert content["status"] == "completed"
    assert train(configure(*CONSTANT, "trainer.max_epochs=3"), tmp_path)["epochs"] == 3
    assert epochs(tmp_path) == ["1", "2", "3"]


@SLOW
def test_short_epochs_do_not_write_a_checkpoint_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written: list[str] = []
    write = checkpoints.write_atomically

    def noted(path: Path, *args: object, **kwargs: object) -> None:
        written.append(path.name)
        write(path, *args, **kwargs)

    monkeypatch.setattr(checkpoints, "write_atomically", noted)
    train(configure(*TINY, "trainer.max_epochs=3", "recipe.ema_decay=0"), tmp_path)
    assert written.count("last.ckpt") == 1  # the last always
    assert (tmp_path / "checkpoints" / "best.ckpt").exists()


def test_averages_that_are_not_finite_stop_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    end = EMA.on_train_batch_end

    def poisoned(self, trainer, *args):
        end(self, trainer, *args)
        if trainer.global_step == 5:
            next(self._average_model.parameters()).data.fill_(float("nan"))

    monkeypatch.setattr(EMA, "on_train_batch_end", poisoned)
    with pytest.raises(DigitsError, match=r"epoch 2: val/loss is nan; lower recipe\.learning_rate"):
        train(configure(*TINY), tmp_path / "validated")
    with pytest.raises(DigitsError, match=r"step 5: the averages of the weights are not finite"):
        train(configure(*TINY, "data.val_size=0", "checkpoint_every=0.00001"), tmp_path / "saved")
    assert last(tmp_path / "saved")["global_step"] == 4
    assert json.loads((tmp_path / "saved" / "summary.json").read_text())["status"] == "failed"


def test_two_runs_in_one_folder_at_once_are_refused(tmp_path: Path):
    code = f"from digits.files import locked, Path\nwith locked(Path({str(tmp_path)!r})):\n"
    code += "    print('in', flush=True); input()"
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    with pytest.raises(DigitsError, match="another run is being written there"):
        train(configure(*TINY), tmp_path)
    holder.kill()
    holder.wait()
    with locked(tmp_path):  # which a dead process does not hold
        pass
    assert not list(tmp_path.iterdir())


@SLOW
def test_completed_is_said_only_when_the_model_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from digits.network import DeepDigits

    def full(*args: object) -> None:  # stands in for a disk that is full at this moment
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DeepDigits, "save_pretrained", full)
    with pytest.raises(DigitsError, match="model: cannot be written: No space left on device"):
        train(configure(*TINY), tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "failed"
    monkeypatch.undo()
    assert train(configure(*TINY), tmp_path)["status"] == "completed"
    assert (tmp_path / "model" / "model.safetensors").is_file()


def test_a_folder_that_vanishes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    step = DigitClassifier.training_step

    def vanishing(self, *batch):
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return step(self, *batch)

    monkeypatch.setattr(DigitClassifier, "training_step", vanishing)
    with pytest.raises(OSError, match=f"{tmp_path}/run"):
        train(configure(*TINY), tmp_path / "run")


@SLOW
def test_the_checkpoint_of_the_best_epoch_survives_a_kill_between_the_two_files(tmp_path: Path):
    train(configure(*CONSTANT, "trainer.max_epochs=1"), tmp_path)
    (tmp_path / "checkpoints" / "best.ckpt").unlink()  # the same file as last.ckpt
    (tmp_path / "checkpoints" / "best.ckpt").write_bytes(b"of an earlier epoch")
    config = configure(*CONSTANT)
    resumed = tmp_path / "checkpoints" / "last.ckpt"
    trainer, classifier, data, _ = set_up(config, tmp_path, None, resumed)
    trainer.fit(classifier, data, ckpt_path=resumed, weights_only=True)
    assert load_checkpoint(tmp_path / "checkpoints" / "best.ckpt")["epoch"] in (0, 1)
