"""`digits export model.onnx`: what ONNX Runtime makes of the file is what the network says."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import ROOT, needs_full_mnist
from torch import Tensor

from digits.__main__ import main
from digits.data.mnist import load_digits, load_mnist5k
from digits.evaluation.inference import predict_logits
from digits.exchange.onnx_file import save_onnx
from digits.network import DeepDigits, to_input

Run = Callable[[Tensor], tuple[Tensor, Tensor]]  # uint8 (N, 28, 28) -> probabilities, logits


@pytest.fixture(scope="module")
def network() -> DeepDigits:
    return DeepDigits.from_pretrained()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    assert main(["export", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def session(file: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def run(session: onnxruntime.InferenceSession) -> Run:
    def of_batches(images: Tensor) -> tuple[Tensor, Tensor]:
        outputs = [session.run(None, {"images": batch.numpy()}) for batch in images.split(500)]
        probabilities, logits = zip(*outputs, strict=True)
        return torch.from_numpy(np.concatenate(probabilities)), torch.from_numpy(np.concatenate(logits))

    return of_batches


def test_it_takes_pixels_and_gives_probabilities_first_then_logits(session: onnxruntime.InferenceSession):
    ports = [(port.name, port.type, port.shape) for port in [*session.get_inputs(), *session.get_outputs()]]
    assert ports == [
        ("images", "tensor(uint8)", ["N", 28, 28]),
        ("probabilities", "tensor(float)", ["N", 10]),
        ("logits", "tensor(float)", ["N", 10]),
    ]


@pytest.mark.parametrize("size", [1, 7, 300])
def test_it_takes_any_number_of_images(run: Run, network: DeepDigits, size: int):
    images = load_mnist5k().test_images[:size]
    probabilities, logits = run(images)
    torch.testing.assert_close(logits, predict_logits(network, images), atol=1e-3, rtol=0)
    with torch.no_grad():
        torch.testing.assert_close(probabilities, network.probabilities(to_input(images)), atol=1e-4, rtol=0)


@pytest.mark.parametrize("data", ["mnist5k", pytest.param("mnist", marks=needs_full_mnist)])
def test_it_reads_every_test_image_as_the_network_does(run: Run, network: DeepDigits, data: str):
    images = load_digits(data, Path(os.environ.get("DIGITS_DATA_DIR", "")), offline_fallback=False).test_images
    logits, expected = run(images)[1], predict_logits(network, images)
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=0)
    assert torch.equal(logits.argmax(1), expected.argmax(1))


def test_probabilities_are_at_the_models_temperature(tmp_path: Path):
    network, images = DeepDigits(temperature=3.0).eval(), load_mnist5k().test_images[:2]
    save_onnx(tmp_path / "model.onnx", network)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    probabilities, logits = map(torch.from_numpy, session.run(None, {"images": images.numpy()}))
    torch.testing.assert_close(probabilities, (logits / 3).softmax(1))


def test_it_is_one_valid_file(file: Path):
    onnx.checker.check_model(onnx.load(file, load_external_data=False), full_check=True)
    assert [path.name for path in file.parent.iterdir()] == ["model.onnx"]


def test_it_says_what_it_is(file: Path, network: DeepDigits):
    model = onnx.load(file)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata == {
        "name": "deepdigits",
        "temperature": str(network.temperature),
        "labels": "0,1,2,3,4,5,6,7,8,9",
    }
    assert "0 = paper, 255 = ink" in model.doc_string


def test_no_path_of_the_machine_is_in_it(file: Path):
    content = file.read_bytes()
    assert str(ROOT).encode() not in content
    assert b"site-packages" not in content


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_a_missing_package_is_one_line(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, missing, None)  # import raises ImportError
    file = tmp_path / "model.onnx"
    assert main(["export", str(file)]) == 1
    assert capsys.readouterr().err == (f"digits: {file}: {missing} is not installed; pip install -e '.[onnx]'\n")
    assert not file.exists()
