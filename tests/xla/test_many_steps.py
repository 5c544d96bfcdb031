"""Many training steps in one program: the same run, one compilation, and one line where it cannot be."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from comparing import assert_same, checkpoint
from conftest import configure, needs_xla
from rehearsal import SMALL, rehearse

from digits.errors import ConfigError
from digits.training.placement import place
from digits.xla import steps_per_execution

SLOW = pytest.mark.slow
TINY = (
    *SMALL,
    "data.batch_size=8",
    "trainer.max_epochs=3",
    "trainer.limit_train_batches=3",
    "trainer.limit_val_batches=1",
)
# Nothing is drawn at random, at a rate at which rounding is not amplified
CALM = ("model.conv_dropout=0", "model.dense_dropout=0", "recipe.augmentation=null", "recipe.schedule=constant")
CALM = (
    *TINY,
    *CALM,
    "recipe.learning_rate=5e-6",
    "trainer.limit_train_batches=2",
    "trainer.limit_test_batches=1",
)
DRAWN = (*TINY, "recipe.schedule=one_cycle")


def steps(number: int) -> str:
    return f"steps_per_execution={number}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """A rehearsal, and the folder that it leaves; of the same one the first."""
    done: dict[Any, tuple[Path, dict[str, Any]]] = {}

    def once(devices: int, *overrides: str, double: bool = False) -> tuple[Path, dict[str, Any]]:
        key = (devices, double, *overrides)
        if key not in done:
            folder = tmp_path_factory.mktemp("run")
            done[key] = folder, rehearse(devices, *overrides, folder=str(folder), double=double)
        return done[key]

    return once


@needs_xla
@pytest.mark.parametrize(
    ("number", "devices"),
    [(50, 8), *(pytest.param(*which, marks=SLOW) for which in ((1, 8), (2, 1), (2, 8), (50, 1)))],
)
def test_the_run_is_that_of_single_steps_on_one_device(run, number: int, devices: int):
    (single, _), (many, _) = (run(n, *CALM, steps(k), double=True) for n, k in ((1, 1), (devices, number)))
    assert_same(many, single, 1e-7)


@needs_xla
@SLOW
def test_the_run_is_the_same_with_the_optimizer_of_the_original(run):
    (single, _), (many, _) = (run(1, "recipe=keras", *CALM, steps(k), double=True) for k in (1, 2))
    assert_same(many, single, 1e-6)


@needs_xla
@SLOW
def test_the_run_is_the_same_with_a_network_of_torchs_own_layers(run):
    calm = [setting for setting in CALM if not setting.startswith("model.")]
    (single, _), (many, _) = (run(1, "model=simple_cnn", *calm, steps(k)) for k in (1, 2))
    assert_same(many, single, 1e-3)  # in float32, as torch_xla normalizes no float64


@needs_xla
@SLOW
@pytest.mark.parametrize("number", [2, 50])
def test_the_run_is_the_same_with_accumulated_and_clipped_gradients(run, number: int):
    accumulated = (*CALM, "trainer.limit_train_batches=5", "trainer.accumulate_grad_batches=2")
    accumulated = (*accumulated, "trainer.gradient_clip_val=0.1")
    (single, _), (many, _) = (run(1, *accumulated, steps(k), double=True) for k in (1, number))
    assert_same(many, single, 1e-7)


@needs_xla
def test_the_training_is_compiled_once(run):
    assert run(8, *CALM, steps(50), double=True)[1]["executions"] == [1, 0, 0]  # of three epochs


@needs_xla
def test_a_checkpoint_written_on_eight_devices_holds_plain_cpu_tensors(run):
    content = checkpoint(run(8, *CALM, steps(50), double=True)[0])
    assert {value.device.type for value in content.values() if isinstance(value, torch.Tensor)} == {"cpu"}


@needs_xla
@SLOW
def test_the_training_is_compiled_once_though_executions_have_different_numbers_of_steps(run):
    assert run(8, *DRAWN, steps(2))[1]["executions"] == [1, 0] + [0, 0] * 2  # two steps and one in each epoch


@needs_xla
def test_a_whole_fit_and_test_takes_at_most_12_programs(run):
    assert run(8, *CALM, steps(50), double=True)[1]["end"]["compiled"] <= 12


@needs_xla
def test_no_step_falls_back_to_the_host(run):
    assert run(8, *CALM, steps(50), double=True)[1]["end"]["host"] == 0


@needs_xla
def test_steps_and_epochs_are_counted_as_ever(run):
    rows = run(8, *CALM, steps(50), double=True)[1]["rows"]
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 2), (2, 4), (3, 6)]


@needs_xla
@SLOW
def test_the_schedule_gives_each_step_its_rate(run):
    (single, _), (many, seen) = (run(8, *DRAWN, steps(k)) for k in (1, 2))
    rates = [row["learning_rate"] for row in seen["rows"]]
    assert rates[0] > rates[1] > rates[2]
    assert checkpoint(many)["/lr_schedulers/0/_last_lr/0"] == pytest.approx(
        float(checkpoint(single)["/lr_schedulers/0/_last_lr/0"]), rel=1e-6
    )


@needs_xla
@SLOW
def test_each_round_draws_its_own_random_numbers_and_the_same_for_a_seed(run):
    (two, _), (five, seen), (other, _) = (
        run(8, *DRAWN, *more) for more in ([steps(2)], [steps(5)], [steps(5), "seed=1"])
    )
    assert_same(five, two, 0)
    weights = "/current_model_state/network.head.8.weight"
    assert not torch.equal(checkpoint(five)[weights], checkpoint(other)[weights])
    losses = [row["train/loss"] for row in seen["rows"]]
    assert len(set(losses)) == 3


@needs_xla
@SLOW
@pytest.mark.parametrize("number", [3, 5])
def test_a_run_stopped_within_an_execution_goes_on_to_the_same_bits(run, number: int, tmp_path: Path):
    longer = (*DRAWN, "recipe.schedule=constant", "trainer.limit_train_batches=7")
    unbroken, _ = run(2, *longer, steps(3))
    rehearse(2, *longer, steps(3), "trainer.max_steps=12", folder=str(tmp_path / "first"))
    assert checkpoint(tmp_path / "first")["/global_step"] == 12  # the fifth of the second epoch, and of its executions
    resumed = f"ckpt_path={tmp_path}/first/checkpoints/last.ckpt"
    rehearse(2, *longer, steps(number), resumed, folder=str(tmp_path / "second"))
    found, expected = checkpoint(tmp_path / "second"), checkpoint(unbroken)
    for path in [path for path, value in expected.items() if isinstance(value, torch.Tensor)]:
        assert torch.equal(found[path], expected[path]), path
    assert found["/global_step"] == expected["/global_step"] == 21


@needs_xla
@SLOW
def test_a_signal_within_an_execution_loses_no_step(tmp_path: Path):
    code = """
import os, signal, sys
from pathlib import Path
import lightning as L
from digits.settings.command_line import configure
from digits.training import run

class Signal(L.Callback):
    def on_train_batch_start(self, trainer, *_):
        if trainer.global_step == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGTERM)

set_up = run.set_up
def set_up_with_signal(*arguments):
    trainer, *others = set_up(*arguments)
    trainer.callbacks.append(Signal())
    return trainer, *others

run.set_up = set_up_with_signal
print(run.train(configure(sys.argv[3:]), Path(sys.argv[1]))["status"])
"""

    def train(folder: str, step: int) -> str:
        overrides = (
            "trainer.accelerator=tpu",
            *DRAWN,
            "trainer.limit_train_batches=11",
            "trainer.max_epochs=1",
            steps(4),
        )
        command = [sys.executable, "-c", code, str(tmp_path / folder), str(step), *overrides, "keep=none"]
        environment = os.environ | {"PJRT_DEVICE": "CPU", "CPU_NUM_DEVICES": "2"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()

    assert train("stopped", 5) == "interrupted"
    assert checkpoint(tmp_path / "stopped")["/global_step"] == 6
    assert train("stopped", -1) == train("unbroken", -1) == "completed"
    metrics = [(tmp_path / folder / "metrics.csv").read_text().splitlines()[-1] for folder in ("stopped", "unbroken")]
    found, expected = (row.split(",")[:-2] for row in metrics)  # all but times
    assert found == expected


@needs_xla
@SLOW
def test_a_validation_within_an_epoch_sees_all_steps_before_it(run):
    often = (*CALM, "trainer.val_check_interval=2", "trainer.limit_train_batches=5")
    (single, _), (many, _) = (run(1, *often, steps(k), double=True) for k in (1, 50))
    assert_same(many, single, 1e-7)


@needs_xla
@SLOW
def test_a_loss_that_is_no_number_is_reported_with_its_epoch():
    stderr = rehearse(1, *DRAWN, steps(2), "recipe.learning_rate=1e30", fails=True)["stderr"]
    assert re.search("DigitsError: epoch 1: .*loss is nan; lower recipe.learning_rate", stderr)


@needs_xla
def test_the_calls_that_torch_xla_does_not_document_are_as_they_were():
    """Where this fails, see digits/xla/internals.py for what a release of torch_xla has changed."""
    code = """
import torch, torch_xla
from digits.xla import internals
from digits.xla.loop import StepLoop
device = torch_xla.device()
total, drawn = torch.zeros(2, device=device), torch.zeros(4, device=device)
factor = torch.full((2,), 2.0).to(device)

def step(value):
    global drawn
    total.add_(value * factor)
    drawn = torch.cat([drawn[1:], torch.rand(1, device=device)])

loop = StepLoop(step, lambda: [total, drawn])
rows = [torch.tensor([[1.0, 2.0, 3.0, 4.0]]).to(device), torch.tensor([5, 6, 7, 5]).to(device)]
loop.record(rows)
print(total.tolist(), drawn.tolist())
try:
    StepLoop(lambda value: total.add_(value.item()), lambda: [total]).record(rows)
except ValueError as error:
    print(error)
for count in (3, 4):
    loop(rows, torch.tensor([count], dtype=torch.int32).to(device))
    torch_xla.sync()
    print(total.tolist(), len(set(drawn.tolist())))
"""
    environment = os.environ | {"PJRT_DEVICE": "CPU"}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    recorded, refused, three, four = result.stdout.splitlines()
    assert recorded == "[0.0, 0.0] [0.0, 0.0, 0.0, 0.0]"  # nothing is computed
    assert refused == "the step reads values on the host: aten::_local_scalar_dense"
    assert three == "[12.0, 12.0] 4"  # (1 + 2 + 3) * 2; of each round its own number, beside a zero
    assert four == "[32.0, 32.0] 3"  # and (1 + 2 + 3 + 4) * 2; the same number for the same seed


@needs_xla
@SLOW
def test_where_the_step_cannot_be_recorded_one_line_says_so_and_training_goes_on(tmp_path: Path):
    code = """
import logging, sys
from pathlib import Path
from digits.settings.command_line import configure
from digits.training.setup import set_up
from digits.xla import internals

def gone(*_):
    raise AttributeError("no _xla_user_computation")

internals.call = gone  # a stand-in for another release of torch_xla, which cannot be installed beside this one
logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout, force=True)
trainer, classifier, data, history = set_up(configure(sys.argv[2:]), Path(sys.argv[1]))
trainer.fit(classifier, data)
print(trainer.global_step)
"""
    overrides = ("trainer.accelerator=tpu", *TINY, "trainer.max_steps=2", "trainer.limit_val_batches=0", steps(4))
    command = [sys.executable, "-c", code, str(tmp_path), *overrides, "recipe.ema_decay=0"]
    result = subprocess.run(command, env=os.environ | {"PJRT_DEVICE": "CPU"}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    reason = "going on step by step, as recording fails: no _xla_user_computation"
    assert result.stdout.splitlines() == [f"steps_per_execution=4: {reason}", "2"]


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["trainer.accelerator=cpu"], "goes with trainer.accelerator=tpu"),
        (
            ["trainer.accelerator=tpu", "trainer.detect_anomaly=true"],
            "trainer.detect_anomaly=true looks into each step",
        ),
        (
            ["trainer.accelerator=tpu", "callbacks=[{_target_: lightning.pytorch.callbacks.DeviceStatsMonitor}]"],
            "DeviceStatsMonitor acts within a step: on_train_batch_start, on_train_batch_end",
        ),
    ],
    ids=["on a CPU", "anomalies", "a callback"],
)
def test_where_each_step_must_be_a_program_of_its_own_more_are_refused(overrides: list[str], reason: str):
    with pytest.raises(ConfigError, match="steps_per_execution=50: ") as error:
        place(configure(*overrides, "steps_per_execution=50"))
    assert reason in str(error.value)


@pytest.mark.parametrize("value", ["0", "10001", "1.5", "many"])
def test_a_number_out_of_range_is_refused(value: str):
    with pytest.raises(ConfigError, match="allowed is auto, or a whole number from 1 to 10,000"):
        configure(f"steps_per_execution={value}")


@pytest.mark.parametrize(("device", "expected"), [("TPU", 50), ("CPU", 1)])
def test_auto_is_as_many_as_the_original_had_on_a_tpu_and_one_in_a_rehearsal(device: str, expected: int):
    assert steps_per_execution(configure("trainer.accelerator=tpu"), device) == expected
