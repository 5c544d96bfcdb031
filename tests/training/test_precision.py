"""`trainer.precision=auto` on a CPU: measured once, kept, and never in the way of who asks for another."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, configure

from digits.network.fast import precision as kept
from digits.network.fast.precision import Speed, evaluates_in_bfloat16, keep_speed, known_speed, native_bfloat16
from digits.training import precision
from digits.training.placement import place
from digits.training.precision import choose_precision
from digits.training.setup import set_up
from digits.training.summary import summarize

needs_bfloat16 = pytest.mark.skipif(not native_bfloat16("cpu"), reason="this CPU has no arithmetic for bfloat16")
CONFIG = configure(*SMALL)


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache folder, and a CPU of either kind: what is tested is the choice, which each CPU can carry out."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in (kept, precision):
        monkeypatch.setattr(module, "native_bfloat16", lambda device: True)
    return tmp_path / "cache"


def measuring_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(precision, "measure_speed", fail)


@needs_bfloat16
def test_it_is_measured_in_under_three_seconds(cache: Path):
    start = time.process_time()  # of all threads, so that what runs beside it does not count
    chosen = choose_precision(CONFIG)
    assert time.process_time() - start < 3 * torch.get_num_threads()
    assert {chosen.precision, chosen.evaluation} <= {"32-true", "bf16-mixed"}
    (speed,) = json.loads((cache / "deepdigits" / "precision.json").read_text()).values()
    assert (speed["training"] > 1) is (chosen.precision == "bf16-mixed")
    assert (speed["evaluation"] > 1) is (chosen.evaluation == "bf16-mixed")


def test_it_is_measured_once_for_a_network_and_a_number_of_threads(monkeypatch: pytest.MonkeyPatch):
    keep_speed("deepdigits", Speed(1.5, 1.5))
    measuring_fails(monkeypatch)
    choose_precision(CONFIG)
    with pytest.raises(AssertionError, match="measured"):
        choose_precision(configure(*SMALL, "model=simple_cnn"))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        with pytest.raises(AssertionError, match="measured"):
            choose_precision(CONFIG)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("content", ["", "[]", '{"a": 1}', "\0"], ids=["empty", "a list", "another", "binary"])
def test_a_damaged_file_is_as_none(cache: Path, content: str):
    (cache / "deepdigits").mkdir(parents=True)
    (cache / "deepdigits" / "precision.json").write_text(content)
    assert known_speed("deepdigits") is None
    keep_speed("deepdigits", Speed(1.5, 0.5))
    assert known_speed("deepdigits") == Speed(1.5, 0.5)


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path):
    cache.write_text("a file where the folder would be")
    keep_speed("deepdigits", Speed(1.5, 1.5))
    assert known_speed("deepdigits") is None


def test_training_and_evaluation_each_take_their_faster_one_and_one_line_says_why(caplog: pytest.LogCaptureFixture):
    keep_speed("deepdigits", Speed(training=0.62, evaluation=1.9))
    with caplog.at_level("INFO", logger="digits"):
        chosen = choose_precision(CONFIG)
    assert (chosen.precision, chosen.evaluation) == ("32-true", "bf16-mixed")
    assert caplog.messages == [
        "precision=auto: training in float32: 1.6 times bfloat16 here; evaluation in bfloat16: 1.9 times float32 here"
    ]


def test_a_cpu_without_arithmetic_for_bfloat16_takes_float32_without_measuring(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(precision, "native_bfloat16", lambda device: False)
    measuring_fails(monkeypatch)
    chosen = choose_precision(CONFIG)
    assert (chosen.precision, chosen.evaluation) == ("32-true", "32-true")


def test_a_precision_that_is_asked_for_is_taken_and_nothing_measured(monkeypatch: pytest.MonkeyPatch):
    measuring_fails(monkeypatch)
    _, arguments = place(configure(*SMALL, "trainer.precision=32-true"))
    assert arguments["precision"] == "32-true"


def test_a_run_goes_on_as_it_began(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    def fit(steps: int, checkpoint: Path | None) -> dict[str, Any]:
        short = ("recipe.schedule=constant", "recipe.ema_decay=0", "trainer.limit_val_batches=0")
        config = configure(*SMALL, *short, f"trainer.max_steps={steps}")
        trainer, classifier, data, history = set_up(config, tmp_path)
        trainer.fit(classifier, data, ckpt_path=checkpoint, weights_only=True)
        return summarize(config, trainer, data, classifier, history, 1)

    keep_speed("deepdigits", Speed(training=0.5, evaluation=2.0))
    begun = fit(2, None)
    keep_speed("deepdigits", Speed(training=2.0, evaluation=0.5))
    with caplog.at_level("INFO", logger="digits"):
        resumed = fit(4, tmp_path / "checkpoints" / "last.ckpt")
    for summary in (begun, resumed):
        assert (summary["precision"], summary["evaluation_precision"]) == ("32-true", "bf16-mixed")
    assert "precision=auto: going on as it began: 32-true in training, bf16-mixed in evaluation" in caplog.messages


@pytest.mark.parametrize(("factor", "expected"), [(2.0, True), (0.5, False), (None, True)])
def test_pictures_are_read_in_what_was_found_else_as_the_processor_says(factor: float | None, expected: bool):
    if factor is not None:
        keep_speed("deepdigits", Speed(training=1 / factor, evaluation=factor))
    assert evaluates_in_bfloat16("deepdigits") is expected
