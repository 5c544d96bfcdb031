"""What version 0.1.0 wrote: its model folders load, its checkpoints are refused in one line.

The files were written by 0.1.0. To be small when zipped, the network has numbers that repeat, and the checkpoint, that
of a real training, has zeros in the place of its large tensors.
"""

import zipfile
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from conftest import ROOT, SMALL

from digits.__main__ import main
from digits.errors import DigitsError
from digits.exchange.model_folder import export, load_model

FILES = ROOT / "tests" / "files"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder of 0.1.0."""
    with zipfile.ZipFile(FILES / "model-0.1.0.zip") as archive:
        archive.extractall(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint of 0.1.0."""
    with zipfile.ZipFile(FILES / "checkpoint-0.1.0.zip") as archive:
        archive.extractall(tmp_path)
    return tmp_path / "last.ckpt"


def test_a_model_folder_loads_with_its_settings_and_its_weights(folder: Path):
    network = load_model(folder)
    assert network.settings() == {
        "name": "deepdigits",
        "conv_dropout": 0.2,
        "dense_dropout": 0.4,
        "l2": 0.001,
        "temperature": 0.9,
    }
    for name, tensor in network.state_dict().items():
        numbers = torch.arange(tensor.numel()) % 64
        expected = (numbers + 1) / 64 if "running_var" in name else (numbers - 32) / 512
        assert torch.equal(tensor.flatten(), expected), name


def test_a_model_folder_is_exported_with_its_card(folder: Path, tmp_path: Path):
    export(folder, tmp_path / "again")
    assert "experiment=best" in (tmp_path / "again" / "README.md").read_text()


def test_a_checkpoint_is_not_resumed_from(
    checkpoint: Path, train_py: Callable[..., CompletedProcess[str]], tmp_path: Path
):
    result = train_py(*SMALL, f"ckpt_path={checkpoint}", "hydra.run.dir=run")
    assert result.returncode == 1
    assert result.stderr == (
        f"train.py: ckpt_path={checkpoint}: a checkpoint of DeepDigits 0.1, which this version cannot read; "
        "train anew, or use the model/ folder of that run\n"
    )


def test_a_checkpoint_is_not_taken_for_a_model(checkpoint: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(DigitsError, match=r"a checkpoint of DeepDigits 0\.1, which this version cannot read"):
        load_model(checkpoint)
    assert main(["evaluate", str(checkpoint)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
