"""Whole runs on real digits: what they write, what they reach, how they go on."""

import csv
import json
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning as L
import pytest
import torch
from conftest import ROOT, SMALL, configure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from digits.errors import ConfigError, DigitsError
from digits.evaluation.inference import predict_logits
from digits.exchange.model_folder import load_model
from digits.network import build_network
from digits.report import plots
from digits.report.tables import read_summary
from digits.settings.schema import RecipeConfig
from digits.training.classifier import DigitClassifier
from digits.training.ema import EMA
from digits.training.run import train, why_validation_differs
from digits.training.run_folder import begin
from digits.training.run_log import warnings_logged
from digits.training.setup import recipe_epochs, set_up

Run = Callable[..., subprocess.CompletedProcess[str]]
TINY = (
    *SMALL,
    "trainer.max_epochs=2",
    "trainer.limit_train_batches=3",
    "trainer.limit_test_batches=2",
    "logger=none",
)


def summary(run_dir: Path) -> dict:
    return json.loads((run_dir / "summary.json").read_text())


def test_a_small_training_reads_its_own_held_out_digits(finished: Path):
    assert summary(finished)["test/sparse_accuracy"] > 0.96


def test_the_summary_tells_what_was_run_and_what_came_of_it(finished: Path):
    content = summary(finished)
    assert content["dataset"] == "mnist-5k"
    assert (content["train_images"], content["val_images"], content["test_images"]) == (3667, 333, 1000)
    assert content["parameters"] == 2_624_394
    assert (content["seed"], content["epochs"], content["status"]) == (0, 3, "completed")
    assert content["accelerator"] == "cpu"
    assert content["precision"] in ("32-true", "bf16-mixed")
    assert content["test/errors"] == round((1 - content["test/sparse_accuracy"]) * 1000)
    assert content["run_dir"] == str(finished)
    assert content["images_per_second"] > 0
    assert content["seconds"] > 0
    assert content["torch"] == torch.__version__
    assert {"test/loss", "lightning", "digits", "git_commit"} <= content.keys()


def test_the_summary_has_precision_and_recall_of_each_digit(finished: Path):
    rows = summary(finished)["per_digit"]
    assert [row["digit"] for row in rows] == list(range(10))
    assert sum(row["images"] - row["correct"] for row in rows) == summary(finished)["test/errors"]


def test_the_summary_says_how_sure_the_probabilities_are(finished: Path):
    content = summary(finished)
    assert content["temperature"] != 1.0
    assert content["test/ece"] < 0.02  # 1,000 images in 15 bins do not show less
    assert 0 < content["test/nll"] < 0.2
    low, high = content["test/errors_95"]
    assert low < content["test/errors"] < high
    assert len(content["test/wrong"]) == content["test/errors"]


def test_without_validation_the_temperature_is_the_configurations(tmp_path: Path):
    settings = ("data.val_size=0", "model.temperature=0.7")
    assert train(configure(*TINY, *settings), tmp_path)["temperature"] == 0.7


def test_the_cross_entropy_of_the_validation_is_its_loss_without_the_l2_term(tmp_path: Path):
    settings = ("model.l2=0.01", "trainer.max_epochs=1", "recipe.ema_decay=0")
    found = train(configure(*TINY, *settings), tmp_path)
    network = load_model(tmp_path)
    assert found["val/loss"] - found["val/cross_entropy"] == pytest.approx(network.l2_penalty().item(), rel=1e-3)
    assert found["val/best_cross_entropy"] == found["val/cross_entropy"]


def test_a_run_that_keeps_none_leaves_its_figures_alone_and_is_complete(tmp_path: Path):
    config = configure(*TINY, "keep=none", "trainer.max_epochs=1")
    train(config, tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    assert {"summary.json", "metrics.csv", "config.yaml"} <= {path.name for path in tmp_path.iterdir()}
    assert train(config, tmp_path) == read_summary(tmp_path)  # which has another time if it is trained again


def test_metrics_csv_has_one_row_an_epoch(finished: Path):
    rows = list(csv.DictReader((finished / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    for column in ("train/loss", "train/sparse_accuracy", "val/loss", "val/sparse_accuracy", "images_per_second"):
        assert all(float(row[column]) >= 0 for row in rows)


def test_a_run_leaves_its_plots_checkpoints_and_events(finished: Path):
    plots = {path.name for path in (finished / "plots").iterdir()}
    curves = {"accuracy.png", "loss.png"}
    assert plots == curves | {"mistakes.png", "confusion.png", "reliability.png", "ten_digits.png"}
    checkpoints = {path.name for path in (finished / "checkpoints").iterdir()} - {"previous.ckpt"}  # on a slow machine
    assert checkpoints == {"best.ckpt", "last.ckpt"}
    assert list(finished.glob("events.out.tfevents.*"))


def test_tensorboard_has_the_figures_of_each_epoch(finished: Path):
    events = EventAccumulator(str(finished)).Reload()
    for row in csv.DictReader((finished / "metrics.csv").open()):
        for key in row.keys() - {"step"}:
            at = {event.step: event.value for event in events.Scalars(key)}
            assert at[int(row["step"])] == pytest.approx(float(row[key])), key


def test_tensorboard_compares_runs_by_their_settings_and_results(finished: Path):
    events = EventAccumulator(str(finished)).Reload()

    def part(name: str) -> HParamsPluginData:
        return HParamsPluginData.FromString(events.SummaryMetadata(f"_hparams_/{name}").plugin_data.content)

    settings = part("session_start_info").session_start_info.hparams
    assert settings["recipe.learning_rate"].number_value == 2e-3
    assert settings["trainer.accelerator"].string_value == "cpu"
    metrics = [metric.name.tag for metric in part("experiment").experiment.metric_infos]
    assert {"result/test/sparse_accuracy", "result/test/errors", "result/val/loss"} <= {*metrics}
    for name in metrics:
        (event,) = events.Scalars(name)
        assert event.value == pytest.approx(summary(finished)[name.removeprefix("result/")])


def test_tensorboard_shows_the_mistakes(finished: Path):
    (event,) = EventAccumulator(str(finished)).Reload().Images("mistakes")
    with Image.open(finished / "plots" / "mistakes.png") as picture:
        assert (event.width, event.height) == picture.size


def test_tensorboard_shows_each_epoch_of_a_resumed_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plots, "draw_all", lambda *_, **__: None)  # both take most of the time of a tiny run
    monkeypatch.setattr(EMA, "statistics_images", 64)
    logged = (*TINY, "logger=tensorboard", "recipe.schedule=constant", "data.val_size=32")
    train(configure(*logged, "trainer.max_epochs=1"), tmp_path)
    train(configure(*logged, "trainer.max_epochs=2"), tmp_path)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("epoch")] == [(3, 1), (6, 2)]
    assert [event.value for event in events.Scalars("result/epochs")] == [2]


def test_a_run_that_begins_afresh_removes_the_figures_of_the_one_before(tmp_path: Path):
    outdated = ["metrics.csv", "events.out.tfevents.1", "hparams.yaml"]
    for name in outdated:
        (tmp_path / name).touch()
    begin(configure(*TINY), tmp_path, fresh=False)
    assert all((tmp_path / name).exists() for name in outdated)
    begin(configure(*TINY), tmp_path, fresh=True)
    assert not any((tmp_path / name).exists() for name in outdated)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ((), "Why validation can look better than training: dropout, augmentation and label smoothing are active in "
         "training only, and validation uses averaged weights."),
        (("experiment=deepdigits",), "Why the test split can look better than training: dropout is active in training "
         "only."),
        (("experiment=deepdigits", "model.conv_dropout=0", "model.dense_dropout=0"), ""),
    ],
)  # fmt: skip
def test_the_curves_name_what_the_recipe_does_in_training_only(overrides: tuple[str, ...], said: str):
    config = configure(*overrides)
    assert why_validation_differs(config, build_network(config.model.model_dump())) == said


def test_a_warning_is_in_the_log_and_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    handler = logging.FileHandler(tmp_path / "train.log")
    logging.getLogger().addHandler(handler)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_: print(message, file=sys.stderr)  # pytest's keeps it to itself
            with warnings_logged():
                warnings.warn("too warm", UserWarning, stacklevel=1)
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
    assert "UserWarning: too warm (" in (tmp_path / "train.log").read_text()
    assert capsys.readouterr().err == "too warm\n"


def test_a_run_leaves_its_model(finished: Path):
    images = torch.randint(0, 256, (20, 28, 28), dtype=torch.uint8)
    checkpoint = load_model(finished / "checkpoints" / "last.ckpt")
    assert torch.equal(predict_logits(load_model(finished), images), predict_logits(checkpoint, images))


def accuracies(run_dir: Path) -> list[float]:
    """On validation, of each epoch."""
    return [float(row["val/sparse_accuracy"]) for row in csv.DictReader((run_dir / "metrics.csv").open())]


def test_the_best_checkpoint_is_of_the_best_validation_epoch(finished: Path):
    best = torch.load(finished / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == max(range(3), key=lambda i: accuracies(finished)[i])


def test_where_a_schedule_ends_the_last_weights_are_tested(finished: Path):
    assert summary(finished)["val/sparse_accuracy"] == pytest.approx(accuracies(finished)[-1])
    last = torch.load(finished / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(load_model(finished).weight_layers()[0].weight, last["network.features.0.weight"])


def test_at_a_constant_rate_the_best_validation_epoch_is_tested(tmp_path: Path):
    wild = ("trainer.max_epochs=5", "recipe.ema_decay=0", "recipe.schedule=constant", "recipe.learning_rate=0.1")
    for seed in range(5):  # until the last epoch is not the best one, which is chance
        run_dir = tmp_path / str(seed)
        train(configure(*TINY, *wild, f"seed={seed}"), run_dir)
        found = accuracies(run_dir)
        if max(found) > found[-1]:
            break
    assert summary(run_dir)["val/sparse_accuracy"] == pytest.approx(max(found)) != pytest.approx(found[-1])
    best = torch.load(run_dir / "checkpoints" / "best.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(load_model(run_dir).weight_layers()[0].weight, best["network.features.0.weight"])


@pytest.mark.parametrize(("steps", "tolerance"), [(120, 1e-5), (240, 0.1)])  # later only each fourth is taken in
def test_the_averages_are_those_of_the_weights_after_each_step(steps: int, tolerance: float, tmp_path: Path):
    weights: list[torch.Tensor] = []

    class Recorder(L.Callback):
        def on_train_batch_end(self, trainer, classifier, *_):
            weights.append(classifier.network.head[-1].weight.detach().clone())

    config = configure(*SMALL, "trainer.max_epochs=1", f"trainer.limit_train_batches={steps}")
    trainer, classifier, data, _ = set_up(config, tmp_path)
    trainer.callbacks.append(Recorder())
    trainer.fit(classifier, data)

    expected = weights[0]
    for step, current in enumerate(weights[1:], start=2):
        expected = expected.lerp(current, 1 - min(0.99, step / (9 + step)))
    averages = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    off = (averages["network.head.8.weight"] - expected).norm() / (weights[-1] - expected).norm()
    assert off < tolerance, off


def test_a_checkpoint_loads_as_the_averaged_classifier(finished: Path):
    from digits.data.module import MNISTDataModule

    classifier = DigitClassifier.load_from_checkpoint(finished / "checkpoints" / "last.ckpt", weights_only=True).eval()
    data = MNISTDataModule("unused", name="mnist5k", batch_size=1000, val_size=0)
    data.setup()
    with torch.no_grad():
        errors = (classifier(data.test.images).argmax(1) != data.test.labels).sum()
    assert abs(int(errors) - summary(finished)["test/errors"]) <= 2  # float32 here, perhaps bfloat16 there


def test_a_resumed_run_ends_where_an_unbroken_one_does(tmp_path: Path):
    exact = (*TINY, "trainer.precision=32-true", "trainer.max_epochs=3", "recipe.schedule=constant")
    train(configure(*exact), tmp_path / "whole")
    train(configure(*exact, "trainer.max_epochs=1"), tmp_path / "first")
    last = tmp_path / "first" / "checkpoints" / "last.ckpt"
    train(configure(*exact, f"ckpt_path={last}"), tmp_path / "rest")

    states = [torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True) for run in ("whole", "rest")]
    for key in ("state_dict", "current_model_state"):
        for name, tensor in states[0][key].items():
            assert torch.equal(tensor, states[1][key][name]), name  # with the same augmentation and dropout, too
    rows = list(csv.DictReader((tmp_path / "rest" / "metrics.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]


def test_a_resumed_run_remembers_the_best_epoch_of_the_one_before(tmp_path: Path):
    wild = (*TINY, "recipe.ema_decay=0", "recipe.schedule=constant", "recipe.learning_rate=0.1")
    whole = train(configure(*wild, "trainer.max_epochs=4"), tmp_path / "whole")
    train(configure(*wild, "trainer.max_epochs=2"), tmp_path / "first")
    (tmp_path / "first").rename(tmp_path / "renamed")
    last = tmp_path / "renamed" / "checkpoints" / "last.ckpt"
    rest = train(configure(*wild, "trainer.max_epochs=4", f"ckpt_path={last}"), tmp_path / "rest")
    assert rest["val/sparse_accuracy"] == whole["val/sparse_accuracy"] == max(accuracies(tmp_path / "rest"))
    best = [load_model(tmp_path / run / "checkpoints" / "best.ckpt").weight_layers()[0] for run in ("whole", "rest")]
    assert torch.equal(best[0].weight, best[1].weight)
    assert torch.equal(load_model(tmp_path / "rest").weight_layers()[0].weight, best[0].weight)


def test_a_run_may_be_resumed_from_a_checkpoint_that_has_lost_the_best_one(tmp_path: Path):
    constant = (*TINY, "recipe.schedule=constant")
    train(configure(*constant, "trainer.max_epochs=1"), tmp_path / "first")
    (tmp_path / "first" / "checkpoints" / "best.ckpt").unlink()
    last = tmp_path / "first" / "checkpoints" / "last.ckpt"
    content = train(configure(*constant, f"ckpt_path={last}"), tmp_path / "rest")
    assert content["val/sparse_accuracy"] == max(accuracies(tmp_path / "rest"))  # the first epoch's is in last.ckpt


def test_a_resumed_run_with_nothing_left_to_train_tests_and_ships_the_averages(tmp_path: Path):
    constant = (*TINY, "recipe.schedule=constant", "trainer.max_epochs=1")
    first = train(configure(*constant), tmp_path / "first")
    last = tmp_path / "first" / "checkpoints" / "last.ckpt"
    rest = train(configure(*constant, f"ckpt_path={last}"), tmp_path / "rest")
    assert rest["test/errors"] == first["test/errors"]
    shipped = [load_model(tmp_path / run).state_dict() for run in ("first", "rest")]
    assert all(torch.equal(tensor, shipped[1][name]) for name, tensor in shipped[0].items())


def test_two_runs_of_one_seed_are_the_same_to_the_bit(tmp_path: Path):
    states = []
    for run in ("a", "b"):
        train(configure(*TINY, "seed=5"), tmp_path / run)
        states.append(torch.load(tmp_path / run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())


def test_without_validation_the_last_weights_are_tested(tmp_path: Path):
    content = train(configure(*TINY, "data.val_size=0"), tmp_path)
    assert content["val/sparse_accuracy"] is None
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


def test_deepdigits_scores_the_test_split_after_each_epoch_and_selects_nothing(tmp_path: Path):
    train(configure("experiment=deepdigits", *TINY, "data.val_size=0", "trainer.limit_val_batches=2"), tmp_path)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert all(row["test_each_epoch/sparse_accuracy"] for row in rows)
    assert not [column for column in rows[0] if column.startswith("val/")]
    assert not (tmp_path / "checkpoints" / "best.ckpt").exists()


@pytest.mark.parametrize(
    "experiment", [(), ("experiment=deepdigits", "data.val_size=0")], ids=["default", "deepdigits"]
)
def test_fast_dev_run_on_the_cpu(experiment: tuple[str, ...], train_py: Run, tmp_path: Path):
    result = train_py("trainer.accelerator=cpu", "trainer.fast_dev_run=true", "data=mnist5k", *experiment)
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout + result.stderr
    assert "\r" not in result.stdout + result.stderr
    run_dir = Path(result.stdout.split("Everything about this run is in:\n")[1].splitlines()[0])
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert run_dir.is_relative_to(tmp_path / "runs")
    assert (run_dir / ".hydra" / "config.yaml").exists()
    log = (run_dir / "train.log").read_text()
    assert "batch_size: " in log  # the settings
    table = result.stdout.partition("Run completed")[2].splitlines()
    assert [line.rstrip() for line in table] == log.partition("Run completed")[2].splitlines()
    assert "digits predict" not in result.stdout  # there is no model


def test_a_small_training_set_gets_more_epochs():
    recipe = configure().recipe
    assert recipe_epochs(recipe, 60_000 // 128) == recipe.epochs
    assert recipe_epochs(recipe, 28) * 28 >= recipe.min_steps > (recipe_epochs(recipe, 28) - 1) * 28
    assert isinstance(recipe, RecipeConfig)


def refused(path: Path, tmp_path: Path, *overrides: str) -> str:
    with pytest.raises(DigitsError) as error:
        train(
            configure(*TINY, "data.batch_size=64", "recipe.learning_rate=2e-3", f"ckpt_path={path}", *overrides),
            tmp_path,
        )
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_checkpoint_is_refused(tmp_path: Path):
    assert "no checkpoint there" in refused(tmp_path / "none.ckpt", tmp_path)


def test_a_refused_start_leaves_what_an_earlier_run_left_in_the_folder(train_py: Run, tmp_path: Path):
    files = [tmp_path / "run" / name for name in ("summary.json", "config.yaml")]
    files[0].parent.mkdir()
    for file in files:
        file.write_text("of an earlier run")
    assert train_py("data=mnist5k", "hydra.run.dir=run", "ckpt_path=lst.ckpt").returncode == 1
    assert [file.read_text() for file in files] == ["of an earlier run"] * 2


def test_a_folder_where_no_model_can_be_written_is_refused_before_the_training(tmp_path: Path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "notes.txt").touch()
    with pytest.raises(DigitsError, match="is not empty and holds no model"):
        train(configure(*TINY), tmp_path)
    assert not (tmp_path / "metrics.csv").exists()


def test_a_file_that_is_no_checkpoint_is_refused(tmp_path: Path):
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    assert "not a checkpoint of this project" in refused(tmp_path / "text.ckpt", tmp_path)


def test_a_truncated_checkpoint_is_refused(finished: Path, tmp_path: Path):
    content = (finished / "checkpoints" / "last.ckpt").read_bytes()
    (tmp_path / "half.ckpt").write_bytes(content[: len(content) // 2])
    assert "a damaged one" in refused(tmp_path / "half.ckpt", tmp_path)


def test_a_checkpoint_of_another_optimizer_is_refused(finished: Path, tmp_path: Path):
    last = finished / "checkpoints" / "last.ckpt"
    assert "recipe.optimizer=adamw" in refused(last, tmp_path, "recipe=keras")


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("recipe.learning_rate=1e-4", "recipe.learning_rate=0.002"),
        ("recipe.weight_decay=0.5", "recipe.weight_decay=0.02"),
        ("recipe.ema_decay=0", "recipe.ema_decay=0.99"),
        ("seed=1", "seed=0"),
        ("data.val_size=335", "data.val_size=333"),
    ],
)
def test_a_setting_that_a_resumed_run_would_ignore_is_refused(override, named, finished: Path, tmp_path: Path):
    same_steps = ("trainer.max_epochs=3", "trainer.limit_train_batches=null")
    assert named in refused(finished / "checkpoints" / "last.ckpt", tmp_path, *same_steps, override)


def test_a_checkpoint_of_a_schedule_of_another_length_is_refused(finished: Path, tmp_path: Path):
    assert "steps" in refused(finished / "checkpoints" / "last.ckpt", tmp_path, "trainer.max_epochs=9")


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(("trainer.gradient_clip_val=0.1", "trainer.precision=bf16-mixed"), marks=pytest.mark.slow),
        pytest.param(("trainer.precision=64-true",), marks=pytest.mark.slow),  # as test_keras_parity.py trains too
        ("trainer.max_epochs=1", "trainer.limit_train_batches=5"),  # a fifth of which is one step to warm up
        ("trainer.accumulate_grad_batches=2",),
        ("trainer.strategy=ddp",),
    ],
)
def test_usual_settings_of_the_trainer_work(overrides: tuple[str, ...], tmp_path: Path):
    assert train(configure(*TINY, *overrides), tmp_path)["status"] == "completed"


def test_gradients_are_clipped(tmp_path: Path):
    settings = (
        "trainer.max_epochs=1",
        "recipe=keras",
        "model.l2=0",
        "recipe.ema_decay=0",
        "recipe.learning_rate=1e-3",
    )
    moved = []
    for run, clip in (("as they are", ()), ("clipped", ("trainer.gradient_clip_val=1e-9",))):
        train(configure(*TINY, *settings, *clip), tmp_path / run)
        moved.append(load_model(tmp_path / run).weight_layers()[-1].bias.abs().mean())  # which begins as zeros
    assert moved[1] < moved[0] / 10


def test_epochs_without_validation_have_no_figures_of_it(tmp_path: Path):
    content = train(configure(*TINY, "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=2"), tmp_path)
    rows = list(csv.DictReader((tmp_path / "metrics.csv").open()))
    assert [bool(row["val/loss"]) for row in rows] == [False, True, False]
    assert content["val/sparse_accuracy"] is None


def test_of_few_batches_without_validation_nothing_is_warned(train_py: Run):
    run = train_py(
        "data=mnist5k", "trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=0"
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_a_training_that_diverges_is_an_error(tmp_path: Path):
    with pytest.raises(DigitsError, match=r"epoch 1: \w+/loss is nan; lower recipe\.learning_rate"):
        train(configure(*TINY, "recipe.learning_rate=1e30"), tmp_path)


def test_a_share_of_batches_that_leaves_none_is_an_error_of_the_configuration(tmp_path: Path):
    with pytest.raises(ConfigError, match="limit_test_batches"):
        train(configure(*TINY, "trainer.limit_test_batches=0.0001"), tmp_path)


def test_a_profile_lies_in_the_runs_folder(tmp_path: Path):
    train(configure(*TINY, "trainer.profiler=simple"), tmp_path)
    assert "run_training_epoch" in (tmp_path / "fit-profile.txt").read_text()


def test_a_missing_gpu_is_one_line(train_py: Run):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    result = train_py("trainer.accelerator=gpu", "data=mnist5k")
    assert result.returncode == 1
    assert result.stderr.startswith("train.py: trainer.accelerator=gpu: ")
    assert len(result.stderr.splitlines()) == 1
    assert "Traceback" not in result.stdout + result.stderr


def test_a_run_folder_that_cannot_be_written_is_one_line(train_py: Run, tmp_path: Path):
    (tmp_path / "runs").write_text("a file in place of the folder")
    result = train_py("data=mnist5k")
    assert result.returncode == 1
    assert "Traceback" not in result.stdout + result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="RLIMIT_FSIZE is POSIX")
def test_a_log_that_cannot_be_written_is_one_line(train_py: Run, tmp_path: Path):
    (tmp_path / "run" / "train.log").mkdir(parents=True)
    run = train_py("data=mnist5k", "trainer.fast_dev_run=true", "hydra.run.dir=run")
    assert run.returncode == 1
    assert run.stderr.startswith("train.py: the run folder cannot be made or written: ") and run.stderr.count("\n") == 1


def test_a_reader_that_leaves_does_not_disturb_the_run(tmp_path: Path):
    train_ = f"{sys.executable} {ROOT / 'train.py'} data=mnist5k trainer.fast_dev_run=true hydra.run.dir=run"
    run = subprocess.run(f"{train_} | true", shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert not run.stderr
    assert summary(tmp_path / "run")["status"] == "completed"


def test_a_full_disk_in_the_run_folder_is_one_line(tmp_path: Path):
    code = (
        "import resource, runpy, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (5_000_000,) * 2)\n"
        f"sys.argv = ['train.py', *{[*TINY]!r}]; runpy.run_path({str(ROOT / 'train.py')!r}, run_name='__main__')"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "File too large" in result.stderr
    assert "Traceback" not in result.stdout + result.stderr


def test_a_sweep_runs_every_job_and_ends_with_one_table(train_py: Run, tmp_path: Path):
    (tmp_path / "text.ckpt").write_text("not a checkpoint")
    result = train_py(
        "-m",
        *TINY,
        "trainer.max_epochs=1",
        f"ckpt_path=null,{tmp_path / 'text.ckpt'}",
        "model.l2=1e-4,1e-3",
        "hydra.sweep.dir=sweep",
    )
    assert result.returncode == 1
    rows = list(csv.DictReader((tmp_path / "sweep" / "sweep.csv").open()))
    assert sorted(row["status"] for row in rows) == ["completed", "completed", "failed", "failed"]
    assert all("not a checkpoint" in row["error"] for row in rows if row["status"] == "failed")
    assert "Traceback" not in result.stdout + result.stderr


def test_a_checkpoint_from_a_device_with_another_memory_layout_resumes_the_same():
    def one_more_step(layout: torch.memory_format) -> torch.Tensor:
        torch.manual_seed(0)
        config = configure("recipe.schedule=constant")
        classifier = DigitClassifier(config.model.model_dump(), config.recipe.model_dump())
        classifier.network.to(memory_format=torch.channels_last)
        optimizer = classifier.configure_optimizers()
        for _ in range(2):
            for parameter in classifier.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizer.step()
            state = optimizer.state_dict()
            for values in state["state"].values():
                for name in ("exp_avg", "exp_avg_sq"):
                    if values[name].dim() == 4:
                        values[name] = values[name].contiguous(memory_format=layout)
            optimizer.load_state_dict(state)
        return classifier.network.weight_layers()[1].weight.detach()

    assert torch.equal(one_more_step(torch.contiguous_format), one_more_step(torch.channels_last))
