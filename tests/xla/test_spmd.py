"""Eight cores, rehearsed on virtual devices of the CPU: the same maths, few programs, little to send."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from comparing import relative
from conftest import needs_full_mnist, needs_xla
from rehearsal import SMALL, rehearse

from digits.xla import host_shard

pytestmark = needs_xla

SLOW = pytest.mark.slow
# 20 steps without anything that is drawn at random on the device. In float32 rounding grows with every step, the faster
# the higher the rate: at the default's first rate, 1.6e-4, losses differ by up to 8e-3 after 20 steps, 1 and 8 devices
# among themselves by 4e-3, as a unit near the kink of its ReLU falls to one side or the other.
MATHS = (
    *SMALL,
    "data.batch_size=64",
    "model.conv_dropout=0",
    "model.dense_dropout=0",
    "model.l2=1e-3",
    "recipe.augmentation=null",
    "recipe.schedule=constant",
    "recipe.learning_rate=5e-6",
    "trainer.limit_train_batches=10",
    "trainer.limit_val_batches=1.0",  # which are of another size on XLA
)
WITHOUT_AVERAGES = "recipe.ema_decay=0"
EPOCHS = 3
WHOLE = (*SMALL, "data.batch_size=64", f"trainer.max_epochs={EPOCHS}", "trainer.limit_train_batches=5")


@pytest.mark.parametrize("devices", [1, pytest.param(8, marks=SLOW)])
def test_the_maths_is_that_of_the_cpu(devices: int):
    cpu, xla = (rehearse(where, *MATHS, WITHOUT_AVERAGES, "trainer.max_epochs=2") for where in (None, devices))
    assert len(xla["losses"]) == len(cpu["losses"]) == 20
    assert relative(xla["losses"][:1], cpu["losses"][:1]) < 1e-5
    assert max(relative([a], [b]) for a, b in zip(xla["losses"], cpu["losses"], strict=True)) < 1e-3
    for name, expected in cpu["statistics"].items():
        assert relative(xla["statistics"][name], expected) < 1e-3, name


def test_keras_adam_is_that_of_the_cpu_down_to_gradients_below_its_epsilon():
    code = """
import json, sys, torch
from digits.training.optimizer import KerasAdam
xla = sys.argv[1] == "xla"
if xla:
    import torch_xla
device = torch_xla.device() if xla else "cpu"
gradients = torch.logspace(-9, 0, 200)
weights = torch.nn.Parameter(torch.zeros(200, device=device))
optimizer = KerasAdam([weights], 1e-3, capturable=xla, fused=not xla)
for step in range(5):
    weights.grad = ((-1) ** (step // 2) * gradients).to(device)
    optimizer.step()
print(json.dumps(weights.detach().cpu().tolist()))
"""
    environment = os.environ | {"PJRT_DEVICE": "CPU"}
    cpu, xla = (
        json.loads(subprocess.check_output([sys.executable, "-c", code, where], env=environment, text=True))
        for where in ("cpu", "xla")
    )
    torch.testing.assert_close(torch.tensor(xla), torch.tensor(cpu), rtol=1e-4, atol=0)


@SLOW
def test_two_runs_of_one_seed_are_identical_to_the_bit_with_dropout_and_augmentation(tmp_path: Path):
    short = (*SMALL, "data.batch_size=16", "trainer.max_epochs=1", "trainer.limit_train_batches=4")
    first, second = rehearse(2, *short), rehearse(2, *short, folder=str(tmp_path))
    assert (first["weights"], first["losses"]) == (second["weights"], second["losses"])


def test_images_and_labels_are_both_sharded():
    assert rehearse(8, *WHOLE)["shardings"] == {
        "image": "{devices=[8,1,1]0,1,2,3,4,5,6,7}",
        "label": "{devices=[8]0,1,2,3,4,5,6,7}",
    }


def test_nothing_is_compiled_after_the_first_epoch():
    seen = rehearse(8, *WHOLE)
    by_epoch = [epoch["compiled"] for epoch in seen["epochs"]]
    begun = seen["steps"][5]["compiled"]  # the first step of the second epoch: what lies between two epochs
    assert by_epoch[1:] == [begun] * (EPOCHS - 1)
    assert begun - by_epoch[0] <= 1


def test_a_whole_fit_and_test_takes_at_most_12_programs():
    assert rehearse(8, *WHOLE)["end"]["compiled"] <= 12


def test_nothing_falls_back_to_the_host():
    assert rehearse(8, *WHOLE)["end"]["host"] == 0


def test_a_step_sends_the_indices_and_at_most_that_again():
    steps = [step["sent"] for step in rehearse(8, *WHOLE)["steps"]]
    within = [later - earlier for i, (earlier, later) in enumerate(itertools.pairwise(steps)) if (i + 1) % 5]
    assert max(within) <= 2 * 64 * 4  # an index is an int32


@needs_full_mnist
@pytest.mark.parametrize("devices", [pytest.param(1, marks=SLOW), 3, pytest.param(8, marks=SLOW)])
def test_every_test_image_counts_once_however_the_batches_are_shared_out(devices: int):
    one_step = ("data.batch_size=384", "trainer.max_epochs=1", "trainer.limit_train_batches=1")
    seen = rehearse(devices, *one_step, "trainer.limit_val_batches=1", "trainer.precision=32-true")
    assert seen["tested"] == 10_000
    assert seen["test"]["test/sparse_accuracy"] == pytest.approx(seen["correct"] / 10_000, abs=1e-7)


@SLOW
def test_a_run_begun_on_eight_devices_goes_on_on_the_cpu(tmp_path: Path):
    rehearse(8, *MATHS, "trainer.max_epochs=1", folder=str(tmp_path))
    checkpoint = f"ckpt_path={tmp_path}/checkpoints/last.ckpt"
    resumed, unbroken = (
        rehearse(None, *MATHS, "trainer.max_epochs=2", checkpoint),
        rehearse(None, *MATHS, "trainer.max_epochs=2"),
    )
    assert relative(resumed["losses"], unbroken["losses"][10:]) < 1e-3
    assert relative(resumed["rows"][-1]["val/loss"], unbroken["rows"][-1]["val/loss"]) < 1e-3  # of the averages


@SLOW
def test_a_run_begun_on_the_cpu_goes_on_on_eight_devices(tmp_path: Path):
    rehearse(None, *MATHS, "trainer.max_epochs=1", folder=str(tmp_path))
    checkpoint = f"ckpt_path={tmp_path}/checkpoints/last.ckpt"
    resumed, unbroken = (
        rehearse(8, *MATHS, "trainer.max_epochs=2", checkpoint),
        rehearse(None, *MATHS, "trainer.max_epochs=2"),
    )
    assert relative(resumed["losses"], unbroken["losses"][10:]) < 1e-3
    assert relative(resumed["rows"][-1]["val/loss"], unbroken["rows"][-1]["val/loss"]) < 1e-3


@SLOW
def test_a_run_that_was_stopped_within_an_epoch_goes_on_to_the_bits_of_an_unbroken_one(tmp_path: Path):
    drawn = (*SMALL, "data.batch_size=64", "recipe.schedule=constant", "trainer.limit_train_batches=5")
    unbroken = rehearse(8, *drawn, "trainer.max_epochs=2")
    rehearse(8, *drawn, "trainer.max_epochs=2", "trainer.max_steps=7", folder=str(tmp_path))
    resumed = rehearse(8, *drawn, "trainer.max_epochs=2", f"ckpt_path={tmp_path}/checkpoints/last.ckpt")
    assert len(resumed["losses"]) == 3
    assert (resumed["losses"], resumed["weights"]) == (unbroken["losses"][7:], unbroken["weights"])


def test_warnings_that_a_user_can_do_nothing_about_do_not_reach_the_terminal():
    stderr = rehearse(8, *WHOLE)["stderr"]
    assert "deprecated" not in stderr.lower()


def test_hosts_share_a_global_batch_in_order():
    indices = torch.arange(64, dtype=torch.int32)
    parts = [host_shard(indices, 4, host) for host in range(4)]
    assert [len(part) for part in parts] == [16] * 4
    assert torch.equal(torch.cat(parts), indices)
