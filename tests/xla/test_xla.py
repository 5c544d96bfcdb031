"""One XLA device, rehearsed on the CPU; each test in a process of its own, as torch_xla chooses its device once."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import needs_xla

from digits.errors import DigitsError
from digits.xla import require_torch_xla, tpu_present

Run = Callable[..., subprocess.CompletedProcess[str]]
XLA = ("trainer.accelerator=tpu", "data=mnist5k", "data.batch_size=16", "hydra.run.dir=run")


@needs_xla
@pytest.mark.parametrize(
    ("vendor", "device", "expected"),
    [("0x1ae0", "0x0063", True), ("0x10de", "0x2204", False), ("0x1ae0", "0x0042", False)],
    ids=["TPU v5e", "GPU handed on by VFIO", "Google's network card"],
)
def test_a_tpu_is_told_from_other_devices_by_the_pci_bus(vendor: str, device: str, expected: bool, tmp_path: Path):
    entry = tmp_path / "sys/bus/pci/devices/0000:00:05.0"  # a stand-in for a machine with the device, which this is not
    entry.mkdir(parents=True)
    (entry / "vendor").write_text(f"{vendor}\n")
    (entry / "device").write_text(f"{device}\n")
    (tmp_path / "dev/vfio").mkdir(parents=True)
    (tmp_path / "dev/vfio/17").touch()
    assert tpu_present(tmp_path) is expected


@needs_xla
def test_training_on_the_cpu_does_not_import_torch_xla(tmp_path: Path):
    code = (
        "import sys; from conftest import configure; from digits.training.run import train; from pathlib import Path\n"
        "config = configure('data=mnist5k', 'trainer.accelerator=cpu', 'trainer.fast_dev_run=true')\n"
        f"train(config, Path({str(tmp_path)!r}))\n"
        "print('torch_xla' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[1], capture_output=True, text=True)
    assert result.stdout.strip().endswith("False"), result.stderr


@needs_xla
def test_fast_dev_run_on_one_xla_device(train_py: Run, tmp_path: Path):
    result = train_py(*XLA, "trainer.fast_dev_run=true", "trainer.precision=bf16-mixed", PJRT_DEVICE="CPU")
    assert result.returncode == 0, result.stdout + result.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["accelerator"], summary["precision"]) == ("tpu", "bf16-mixed")


@needs_xla
def test_without_a_tpu_one_line_says_so_and_gives_the_command_to_rehearse(train_py: Run, monkeypatch):
    monkeypatch.delenv("PJRT_DEVICE", raising=False)
    result = train_py("trainer.accelerator=tpu", "data=mnist5k")
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1
    assert "no TPU was found" in result.stderr
    assert "PJRT_DEVICE=CPU CPU_NUM_DEVICES=8 python train.py trainer.accelerator=tpu" in result.stderr


@pytest.mark.parametrize("torch", ["2.10.0", "2.15.0+cu130", "2.8.0"])
def test_beside_another_torch_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch, torch: str):
    versions = {"torch": torch, "torch_xla": "2.9.0"}  # a stand-in: two versions of torch cannot be installed at once
    monkeypatch.setattr("importlib.metadata.version", versions.__getitem__)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(DigitsError) as error:
        require_torch_xla("trainer.accelerator=tpu", "tpu")
    assert str(error.value) == (
        f"trainer.accelerator=tpu: torch_xla 2.9.0 goes with torch 2.9, here is {torch}: pip install -e '.[tpu]'"
    )
