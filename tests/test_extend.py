"""docs/extend.md: its network, its data, its logger, each a few lines, taken through all that the project does."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, configure, needs_xla

from digits.__main__ import main
from digits.data.mnist import load_mnist5k
from digits.errors import ConfigError, DigitsError
from digits.exchange.model_folder import load_model
from digits.network import build_network
from digits.settings import targets
from digits.settings.command_line import check_command_line
from digits.training.run import train

PAGE = (ROOT / "docs" / "extend.md").read_text()
FILES = dict(re.findall(r"`mine/(\S+)`:\n\n```\w+\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE))
QUICK = ("data=mnist5k", "trainer.max_epochs=2", "trainer.accelerator=cpu")


@pytest.fixture(scope="session")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `mine/` as the page has it."""
    folder = tmp_path_factory.mktemp("extend") / "mine"
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


@pytest.fixture
def known(mine: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `--config-dir mine` makes known, for one test."""
    monkeypatch.setattr(targets, "_folders", [targets.CONF])
    monkeypatch.setattr(sys, "path", [*sys.path])
    targets.add_config_dir(mine)
    return mine


def train_py(mine: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "train.py"), "--config-dir", str(mine), *arguments]
    return subprocess.run(command, cwd=mine.parent, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def run(mine: Path) -> Path:
    """A run of the network with the logger and the callback."""
    folder = mine.parent / "run"
    result = train_py(mine, "model=mlp", "experiment=patient", *QUICK, f"hydra.run.dir={folder}")
    assert result.returncode == 0, result.stderr
    return folder


@pytest.mark.parametrize("name", FILES)
def test_each_example_is_short(name: str):
    lines = [line for line in FILES[name].splitlines() if line.strip()]
    assert len(lines) <= (10 if name == "mlp.py" else 15)


# ---- the network


def test_a_run_says_which_network_it_trained(run: Path):
    summary = json.loads((run / "summary.json").read_text())
    assert (summary["model"], summary["parameters"]) == ("mlp", 784 * 128 + 128 + 128 * 10 + 10)
    assert summary["test/sparse_accuracy"] > 0.7


def test_a_models_folder_holds_the_files_name_and_plain_values_only(run: Path):
    config = json.loads((run / "model" / "config.json").read_text())
    assert config == {"name": "mlp", "hidden": 128, "temperature": config["temperature"]}
    assert "The network `mlp`" in (run / "model" / "README.md").read_text()


def test_a_model_loads_with_its_file_and_without_it_is_one_line(run: Path, known: Path, monkeypatch, capsys):
    assert load_model(run).settings()["hidden"] == 128
    monkeypatch.setattr(targets, "_folders", [targets.CONF])
    assert main(["predict", str(ROOT / "examples" / "thick_pen.jpg"), "--model", str(run)]) == 1
    error = capsys.readouterr().err
    assert "model=mlp: no such file" in error and "--config-dir" in error and error.count("\n") == 1


@pytest.mark.parametrize("name", ["../mlp", "/etc/passwd", "", "os.system"])
def test_a_models_folder_cannot_name_what_is_no_file_of_the_group(name: str, run: Path, known: Path, tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes((run / "model" / "model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"name": name, "hidden": 128, "temperature": 1.0}))
    with pytest.raises(DigitsError, match="no such file of the group"):
        load_model(tmp_path)


def test_it_reads_pictures(run: Path, mine: Path, known: Path, capsys):
    assert (
        main(["predict", str(ROOT / "examples" / "thick_pen.jpg"), "--model", str(run), "--config-dir", str(mine)]) == 0
    )
    assert re.search(r"thick_pen\.jpg\t\d", capsys.readouterr().out)


def test_it_is_scored_with_others_and_on_corrupted_images(run: Path, known: Path, capsys):
    assert main(["ensemble", str(run), str(run), "--data", "mnist5k", "--json"]) == 0
    alone = json.loads((run / "summary.json").read_text())
    assert json.loads(capsys.readouterr().out)["test/errors"] == pytest.approx(alone["test/errors"], abs=3)
    assert main(["evaluate", str(run), "--data", "mnist5k", "--robustness", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["robustness"]) > 20


def test_it_is_exported_but_not_to_keras(run: Path, known: Path, tmp_path: Path, capsys):
    for target in ("folder", "mlp.pt", "mlp.onnx"):
        assert main(["export", str(tmp_path / target), "--model", str(run)]) == 0
    for copy in ("folder", "mlp.pt"):
        for name, tensor in load_model(tmp_path / copy).state_dict().items():
            assert torch.equal(tensor, load_model(run).state_dict()[name])
    assert main(["export", str(tmp_path / "mlp.keras"), "--model", str(run)]) == 2
    assert "Keras's files are for deepdigits only" in capsys.readouterr().err


def test_a_space_cannot_carry_it(run: Path, known: Path, tmp_path: Path, capsys):
    assert main(["demo", "--space", str(tmp_path / "space"), "--model", str(run)]) == 1
    assert "mlp is a network of your own" in capsys.readouterr().err
    assert not (tmp_path / "space").exists()


def test_a_sweep_tries_its_settings(mine: Path):
    result = train_py(mine, "-m", "model=mlp", "model.hidden=4,256", *QUICK, "hydra.sweep.dir=sweep", "logger=none")
    assert result.returncode == 0, result.stderr
    found = [json.loads((mine.parent / "sweep" / f"hidden-{n}" / "summary.json").read_text()) for n in (4, 256)]
    assert found[1]["test/sparse_accuracy"] > found[0]["test/sparse_accuracy"]
    assert found[1]["parameters"] == 784 * 256 + 256 + 256 * 10 + 10


def test_a_run_goes_on_from_its_checkpoint(run: Path, mine: Path):
    begun = run / "checkpoints" / "last.ckpt"
    longer = ("trainer.max_epochs=2", f"ckpt_path={begun}", "hydra.run.dir=more")
    result = train_py(mine, "model=mlp", "data=mnist5k", "trainer.accelerator=cpu", *longer)
    assert result.returncode == 0, result.stderr
    assert "going on from" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["model=mlp", "model.hidden=many"], "model.hidden='many': allowed is a whole number"),
        (["model=mlp", "model.depth=3"], "model.depth=3: no such setting"),
        (["model=mlp", "model.name=deepdigits"], "model._target_=mlp.MLP: is that of another file"),
        (["model=nothing"], "model=nothing: no such file of the group; there are deepdigits, mlp"),
        (
            ["callbacks=[{_target_: lines.JSONLines}]"],
            "lines.JSONLines is no subclass of lightning.pytorch.callbacks.callback.Callback",
        ),
        (["callbacks=[{_target_: no.such.Class}]"], "callbacks.0._target_: no.such.Class cannot be imported"),
        (
            ["callbacks=[{_target_: lightning.pytorch.callbacks.EarlyStopping, monitor: val/loss, patience: x}]"],
            "callbacks.0.patience='x': allowed is a whole number",
        ),
        (["logger=lines", "+logger.colour=red"], "logger.colour='red': no such setting"),
    ],
)
def test_what_is_wrong_is_one_line(known: Path, arguments: list[str], said: str):
    with pytest.raises(ConfigError) as error:
        check_command_line(["--config-dir", str(known), *arguments])
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.slow
@needs_xla
@pytest.mark.parametrize("model", ["mlp", "simple_cnn"])
def test_its_steps_compile_for_a_tpu(known: Path, capsys, model: str):
    assert main(["tpu-check", "--json", f"model={model}"]) == 0
    assert json.loads(capsys.readouterr().out)["host_fallbacks"] == []


@pytest.mark.slow
@needs_xla
@pytest.mark.parametrize("model", ["mlp", "simple_cnn"])
def test_it_trains_on_virtual_devices_as_on_one(mine: Path, monkeypatch: pytest.MonkeyPatch, model: str):
    exact = ("recipe.augmentation=null", "recipe.ema_decay=0", "trainer.precision=32-true", "data.batch_size=64")
    short = ("data=mnist5k", "trainer.max_steps=3", "data.val_size=64", "trainer.limit_test_batches=1", "logger=none")
    monkeypatch.setenv("PJRT_DEVICE", "CPU")
    monkeypatch.setenv("CPU_NUM_DEVICES", "2")
    losses = []
    for device in ("tpu", "cpu"):
        folder = mine.parent / f"{model}_{device}"
        settings = (f"model={model}", *exact, *short, f"trainer.accelerator={device}", f"hydra.run.dir={folder}")
        result = train_py(mine, *settings)
        assert result.returncode == 0, result.stderr
        losses.append(json.loads((folder / "summary.json").read_text())["train/loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-2)


def test_a_network_that_cannot_be_built_is_one_line(known: Path):
    with pytest.raises(DigitsError, match=r"^model=mlp: MLP: .*negative"):
        build_network({"name": "mlp", "hidden": -3})


def test_a_network_that_does_not_keep_its_arguments_is_one_line(known: Path):
    network = build_network({"name": "mlp", "hidden": 3})
    del network.hidden
    with pytest.raises(DigitsError, match=r"^model=mlp: 'MLP' object has no attribute 'hidden'"):
        network.settings()


# ---- the data


def test_data_of_ones_own_is_trained_on(known: Path, tmp_path: Path):
    digits = load_mnist5k()
    names = ("x_train", "y_train", "x_test", "y_test")
    arrays = (digits.train_images, digits.train_labels.byte(), digits.test_images, digits.test_labels.byte())
    np.savez(tmp_path / "mnist.npz", **{name: array.numpy() for name, array in zip(names, arrays, strict=True)})
    options = ("data=npz", "model=mlp", f"data.path={tmp_path / 'mnist.npz'}", "trainer.max_epochs=1", "logger=none")
    summary = train(configure(*options), tmp_path / "run")
    assert (summary["dataset"], summary["train_images"], summary["val_images"]) == ("npz", 3600, 400)


# ---- the logger and the callback


def test_the_logger_gets_each_epoch_and_the_result(run: Path):
    rows = [json.loads(line) for line in (run / "figures.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows[:2]] == [1, 2]
    assert rows[-1]["result/test/errors"] == json.loads((run / "summary.json").read_text())["test/errors"]
    assert not list(run.glob("events.out.tfevents.*"))


def test_the_callback_is_called(run: Path):
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert any("EarlyStopping" in key for key in checkpoint["callbacks"])
