"""Several processes with a part of the CPU each: the maths of one, every image once, one folder, none left behind."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from comparing import checkpoint, relative
from conftest import ROOT, configure, needs_full_mnist

from digits.errors import ConfigError, DigitsError
from digits.training.placement import place
from digits.training.run import train

SLOW = pytest.mark.slow
Start = Callable[..., Path]
SMALL = ("data=mnist5k", "trainer.accelerator=cpu", "data.batch_size=48", "logger=none")
# 20 steps in which nothing is drawn at random, in float64, so that rounding does not hide what differs
CALM = (
    *SMALL,
    "trainer.precision=64-true",
    "recipe.augmentation=null",
    "recipe.schedule=constant",
    "recipe.learning_rate=5e-6",
    "recipe.ema_decay=0.99",
    "trainer.limit_train_batches=20",
    "trainer.max_epochs=1",
    "trainer.limit_val_batches=1",
)
NO_DROPOUT = ("model.conv_dropout=0", "model.dense_dropout=0", "model.l2=1e-3")
DRAWN = (*SMALL, "recipe.schedule=constant", "trainer.limit_train_batches=4", "trainer.limit_test_batches=1")


def processes(number: int) -> str:
    return f"trainer.devices={number}"


def assert_same_maths(found: Path, expected: Path, tolerance: float) -> None:
    """Weights, averages, moments, batch statistics, counts of steps, and what was measured, which is in float32."""
    one, other = checkpoint(found), checkpoint(expected)
    assert one.keys() == other.keys()
    for path, value in other.items():
        if isinstance(value, float) or (isinstance(value, torch.Tensor) and value.is_floating_point()):
            assert relative(one[path], value) <= max(tolerance, 1e-6 * ("/rows/" in path)), path
        elif not isinstance(value, torch.Tensor):
            assert one[path] == value, path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Start:
    """The folder of a run; of the same one the first."""
    done: dict[Any, Path] = {}

    def once(*overrides: str) -> Path:
        if overrides not in done:
            folder = tmp_path_factory.mktemp("run")
            train(configure(*overrides), folder)
            done[overrides] = folder
        return done[overrides]

    return once


def summary(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "summary.json").read_text("utf-8"))


def torchrun(nodes: int, *arguments: str) -> list[tuple[int, str, str]]:
    """`torchrun train.py ARGUMENTS` as on so many machines with one process each: status and output of each."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={nodes}", "--nproc-per-node=1"]
    command += ["--master-addr=127.0.0.1", f"--master-port={port}"]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen([*command, f"--node-rank={node}", ROOT / "train.py", *arguments], **pipes)
        for node in range(nodes)
    ]
    said = [process.communicate(timeout=240) for process in started]
    return [(process.returncode, *texts) for process, texts in zip(started, said, strict=True)]


# ---- the maths


def test_two_machines_of_torchrun_train_and_test_as_one_process(run: Start, tmp_path: Path):
    settings = (*CALM, *NO_DROPOUT, "recipe.ema_decay=0")  # averages, which take time, are in the tests below
    ended, one = torchrun(2, *settings, f"hydra.run.dir={tmp_path}"), run(*settings)
    assert [status for status, *_ in ended] == [0, 0], ended
    assert_same_maths(tmp_path, one, 1e-8)
    assert summary(tmp_path)["test/wrong"] == summary(one)["test/wrong"] and summary(one)["test_images"] == 1_000
    (_, first, _), (_, second, _) = ended
    assert len(re.findall("^epoch ", first, re.MULTILINE)) == 1 and not second
    assert sorted(path.name for path in tmp_path.glob("*.log")) == ["train.log"]


@SLOW
@pytest.mark.parametrize(("number", "tolerance"), [(2, 1e-8), (3, 1e-4)])  # by 3 the float32 logits round differently
@pytest.mark.parametrize("options", [(), ("recipe=keras",), ("trainer.accumulate_grad_batches=2",)], ids=str)
def test_processes_train_as_one(run: Start, number: int, tolerance: float, options: tuple[str, ...]):
    settings = (*options, *CALM, *NO_DROPOUT)
    assert_same_maths(run(*settings, processes(number)), run(*settings), tolerance)


@SLOW
def test_torchs_own_batch_normalization_is_that_of_one_process_too(run: Start):
    settings = ("model=simple_cnn", *CALM)
    assert_same_maths(run(*settings, processes(2)), run(*settings), 1e-8)


@SLOW
def test_two_runs_of_one_seed_are_the_same_to_the_bit_with_dropout_and_augmentation(tmp_path: Path):
    for name in ("first", "second"):
        train(configure(*DRAWN, "trainer.max_epochs=1", processes(2)), tmp_path / name)
    one, other = (checkpoint(tmp_path / name) for name in ("first", "second"))
    assert all(torch.equal(one[path], value) for path, value in other.items() if isinstance(value, torch.Tensor))


@SLOW
def test_processes_drop_and_augment_differently(tmp_path: Path):
    train(configure(*DRAWN, "trainer.max_epochs=1", processes(2)), tmp_path)
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["callbacks"]["RNGState"]
    states = [content["cpu"], *(other["cpu"] for other in content["others"])]
    assert len(states) == 2 and not torch.equal(*states)


# ---- the test


@SLOW
@needs_full_mnist
@pytest.mark.parametrize("number", [2, 3])
def test_every_test_image_counts_once_and_the_same_are_misread(tmp_path: Path, number: int):
    begun = ("data=mnist", *SMALL[1:], "trainer.precision=32-true", "recipe.schedule=constant")
    begun = (*begun, "trainer.max_epochs=1", "trainer.limit_train_batches=4", "data.val_size=100")
    train(configure(*begun), tmp_path / "one")
    train(configure(*begun, f"ckpt_path={tmp_path / 'one'}", processes(number)), tmp_path / "more")
    one, more = summary(tmp_path / "one"), summary(tmp_path / "more")
    assert more["test_images"] == 10_000
    assert 0 < one["test/errors"] < 10_000
    assert more["test/wrong"] == one["test/wrong"]
    for figure in ("test/loss", "test/sparse_accuracy", "test/ece", "test/nll"):
        assert more[figure] == pytest.approx(one[figure], rel=1e-5)


# ---- one folder, and how it goes on


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, float]:
    """The folder of a run of two processes, one of which was killed after the first epoch; what it said, and when."""
    run_dir = tmp_path_factory.mktemp("killed")
    settings = (*DRAWN, "trainer.max_epochs=200", processes(2), f"hydra.run.dir={run_dir}")
    process = subprocess.Popen(
        [sys.executable, ROOT / "train.py", *settings], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (run_dir / "checkpoints" / "last.ckpt").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    (other,) = psutil.Process(process.pid).children()
    other.send_signal(signal.SIGKILL)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    return run_dir, errors, time.monotonic() - begun


def test_a_process_that_is_killed_ends_the_run_within_30_seconds(killed: tuple[Path, str, float]):
    assert killed[2] < 30


def test_one_line_names_the_process_that_was_killed(killed: tuple[Path, str, float]):
    (line,) = killed[1].splitlines()
    assert re.fullmatch(r"train\.py: rank 1 \(process \d+\) was killed by SIGKILL; the same command .*", line)
    assert summary(killed[0])["status"] == "failed"


def test_its_folder_goes_on_with_another_number_of_processes(killed: tuple[Path, str, float]):
    run_dir = killed[0]
    before = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["epoch"] + 1
    result = train(configure(*DRAWN, f"trainer.max_epochs={before + 1}"), run_dir)
    assert result["status"] == "completed" and result["epochs"] == before + 1


STUCK = """
import os, time
import lightning as L

class Stuck(L.Callback):
    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == 2:
            time.sleep(600) if trainer.is_global_zero else os._exit(7)
"""
IMPATIENT = """
import sys
from digits.training.command import main
from digits.training.distributed import launch

launch.GRACE = 1.0
main(sys.argv[1:], "train.py")
"""


@SLOW
def test_a_first_process_that_does_not_notice_is_ended_too(tmp_path: Path):
    (tmp_path / "stuck.py").write_text(STUCK)
    settings = (*DRAWN, "trainer.max_epochs=2", processes(2), "callbacks=[{_target_: stuck.Stuck}]")
    command = [sys.executable, "-c", IMPATIENT, *settings, f"hydra.run.dir={tmp_path / 'run'}"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 1
    assert re.fullmatch(r"train\.py: rank 1 \(process \d+\) ended: exit status 7; the same command goes on .*", line)
    assert summary(tmp_path / "run")["status"] == "failed"


@SLOW
def test_a_signal_to_the_first_process_stops_all_at_one_step_within_an_epoch(tmp_path: Path):
    settings = (*SMALL, "trainer.max_epochs=3", processes(2), f"hydra.run.dir={tmp_path}")
    process = subprocess.Popen([sys.executable, ROOT / "train.py", *settings], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()  # of the first epoch
    time.sleep(1)
    others = psutil.Process(process.pid).children()
    process.send_signal(signal.SIGINT)
    process.wait(60)
    assert process.returncode == 130
    assert psutil.wait_procs(others, timeout=20)[1] == []
    assert summary(tmp_path)["status"] == "interrupted"
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["global_step"] > len(content["callbacks"]["History"]["rows"]) * (3667 // 48)
    assert int(content["measured"]["total"]) % 48 == 0  # of the whole epoch so far, over both processes
    assert train(configure(*SMALL, "trainer.max_epochs=3"), tmp_path)["status"] == "completed"


@SLOW
def test_a_sweep_makes_one_table_though_a_process_of_a_job_is_killed_and_the_same_command_finishes_it(tmp_path: Path):
    short = (*DRAWN, "trainer.max_epochs=8", processes(2), "seed=0,1", f"hydra.sweep.dir={tmp_path}/sweep")
    command = [sys.executable, ROOT / "train.py", "-m", *short]
    sweep = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("sweep/*/checkpoints/last.ckpt")):
        assert sweep.poll() is None, sweep.communicate()
        time.sleep(0.1)
    (other,) = psutil.Process(sweep.pid).children()
    other.kill()
    sweep.communicate(timeout=200)
    assert states(tmp_path / "sweep") == ["failed", "completed"]
    subprocess.run(command, check=True, capture_output=True)
    assert states(tmp_path / "sweep") == ["completed", "completed"]


def states(sweep: Path) -> list[str]:
    with (sweep / "sweep.csv").open(newline="") as table:
        return [row["status"] for row in csv.DictReader(table)]


# ---- what is refused, before anything is started


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("trainer.devices=5",), "data.batch_size=48: 5 processes share it equally; allowed are multiples of 5"),
        (("trainer.devices=-1",), "trainer.devices=-1: goes with trainer.accelerator=gpu and CUDA"),
        (("trainer.devices=[0,1]",), r"trainer.devices=\[0, 1\]: goes with trainer.accelerator=gpu and CUDA"),
        (("trainer.num_nodes=2",), "trainer.num_nodes=2: needs torchrun, on each of the machines: torchrun --nnodes=2"),
    ],
    ids=str,
)
def test_what_cannot_be_shared_out_is_refused_in_one_line(overrides: tuple[str, ...], reason: str):
    with pytest.raises(ConfigError, match=reason):
        place(configure(*SMALL, *overrides))


def test_with_several_gpus_and_nothing_asked_for_one_line_says_how_to_use_them(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # mocks, as few machines have four
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    with caplog.at_level("INFO", "digits"):
        backend, _ = place(configure(*SMALL, "trainer.accelerator=gpu"))
    assert backend.processes == 1
    assert caplog.messages == ["3 of 4 GPUs are idle: trainer.devices=-1 trains on all of them"]
    assert place(configure(*SMALL, "trainer.accelerator=gpu", "trainer.devices=-1"))[0].processes == 4
    with pytest.raises(ConfigError, match="trainer.devices=6: 4 GPUs are here"):
        place(configure(*SMALL, "trainer.accelerator=gpu", "trainer.devices=6"))


def test_slurms_tasks_are_the_processes(monkeypatch: pytest.MonkeyPatch):
    started = {"NTASKS": "4", "NTASKS_PER_NODE": "2", "NNODES": "2", "PROCID": "1", "LOCALID": "1", "NODEID": "0"}
    for name, value in started.items():  # in place of a cluster
        monkeypatch.setenv(f"SLURM_{name}", value)
    backend, arguments = place(configure(*SMALL))
    assert (backend.processes, arguments["devices"], arguments["num_nodes"]) == (4, 2, 2)


def test_a_number_that_torchrun_has_not_started_is_refused(monkeypatch: pytest.MonkeyPatch):
    started = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"}
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="trainer.devices=3: 1 processes were started here"):
        place(configure(*SMALL, processes(3)))


def test_compile_is_for_one_process(tmp_path: Path):
    with pytest.raises(ConfigError, match="compile=true: goes with trainer.accelerator=cpu only, not with 2 processes"):
        train(configure(*DRAWN, processes(2), "compile=true"), tmp_path / "run")


def test_a_process_that_cannot_start_is_named_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("digits.training.distributed.launch.WORKER", "no_such_module")
    with pytest.raises(DigitsError, match=r"rank 1 \(process \d+\) ended: .*No module named no_such_module"):
        train(configure(*DRAWN, processes(2)), tmp_path)
