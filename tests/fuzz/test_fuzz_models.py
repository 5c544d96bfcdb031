"""Any file that is called a model is loaded, or refused in one line."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, configure
from damage import altered, damaged, values
from fuzzing import contract, inputs
from hypothesis import example, given
from hypothesis import strategies as st

from digits import load_model
from digits.exchange.keras_file import save_keras
from digits.network import WEIGHTS
from digits.training import checkpoint_check
from digits.training.run import train
from digits.training.setup import set_up

CONFIG = (WEIGHTS / "config.json").read_bytes()
SETTINGS = json.loads(CONFIG)
TENSORS = (WEIGHTS / "model.safetensors").read_bytes()
LENGTH = struct.unpack("<Q", TENSORS[:8])[0]
HEADER = json.loads(TENSORS[8 : 8 + LENGTH])


@pytest.fixture(scope="module", autouse=True)
def imported() -> None:
    load_model()  # what is imported once is no input's


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's folder, of which each input replaces a file."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_bytes(CONFIG)
    (folder / "model.safetensors").write_bytes(TENSORS)
    return folder


# ---- config.json

nested = st.builds(
    lambda bracket, depth: (bracket * depth).encode(), st.sampled_from(["[", '{"a":']), st.integers(1, 10**5)
)
config = st.one_of(
    damaged(CONFIG),
    altered(SETTINGS, values).map(lambda settings: json.dumps(settings).encode("utf-8", "replace")),
    values.map(lambda settings: json.dumps(settings).encode("utf-8", "replace")),
    nested,
)


@example(content=json.dumps(SETTINGS | {"\ud800": 1}).encode())  # half of a surrogate pair, which is no Unicode
@inputs(quick=200, thorough=100_000)
@given(content=config)
def test_json(content: bytes, folder: Path):
    (folder / "model.safetensors").write_bytes(b"")  # refused once the settings have been read
    (folder / "config.json").write_bytes(content)
    with contract():
        load_model(folder)


@inputs(quick=20, thorough=1_000)
@given(content=config)
def test_json_beside_whole_weights(content: bytes, folder: Path):
    (folder / "model.safetensors").write_bytes(TENSORS)
    (folder / "config.json").write_bytes(content)
    with contract():
        load_model(folder)


# ---- model.safetensors

LAYOUTS = st.sampled_from(["F16", "F32", "F64", "BF16", "I64", "BOOL", "C64", "F8_E4M3", "x"])
sizes = st.lists(st.sampled_from([0, 1, 10, 32, 2**31, 2**62, -1]), max_size=4)
offsets = st.lists(st.sampled_from([0, 1, 64, len(TENSORS), 2**40, 2**63, -1]), max_size=3)
header = altered(HEADER, values | LAYOUTS | sizes | offsets).map(
    lambda header: json.dumps(header).encode("utf-8", "replace")
)
lengths = st.sampled_from([0, 1, LENGTH, LENGTH + 8, 10**8, 2**63, 2**64 - 1])


def with_header(header: bytes, length: int | None, zeros: int) -> tuple[bytes, int]:
    return struct.pack("<Q", len(header) if length is None else length) + header, zeros


safetensors = st.builds(
    with_header,
    header | damaged(TENSORS[8 : 8 + LENGTH]) | nested,
    st.none() | st.none() | lengths,
    st.sampled_from([0, 1, len(TENSORS) - 8 - LENGTH, 10**7]),
)


@inputs(quick=200, thorough=100_000)
@given(file=safetensors)
def test_safetensors(file: tuple[bytes, int], folder: Path):
    content, zeros = file
    (folder / "config.json").write_bytes(CONFIG)
    with (folder / "model.safetensors").open("wb") as target:
        target.write(content)
        target.truncate(len(content) + zeros)  # takes no room on the disk
    with contract():
        load_model(folder)


# ---- *.pt

TINY: dict[str, Any] = {
    "config": SETTINGS,
    "state_dict": {name: torch.zeros(2) for name in HEADER if name != "__metadata__"},
}
plain_tensors = st.sampled_from(
    [
        torch.full((10,), float("nan")),
        torch.full((10,), 1e38),
        torch.zeros(10, dtype=torch.complex64),
        torch.zeros(10, dtype=torch.bool),
        torch.zeros(0),
    ]
)
shared, sparse = torch.zeros(1).expand(10**9), torch.zeros(10).to_sparse()  # of the first 4 bytes are in the file
tensors = plain_tensors | st.sampled_from([shared, sparse])


def saved(content: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@inputs(quick=200, thorough=10_000)
@given(content=damaged(saved(TINY)) | altered(TINY, values | tensors).map(saved))
def test_pt(content: bytes, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.getbasetemp() / "model.pt"
    path.write_bytes(content)
    with contract():
        load_model(path)


# ---- *.h5


@pytest.fixture(scope="module")
def hdf5(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A file of Keras in which nearly all bytes are structure, as its weights are all the same and take no room."""
    h5py = pytest.importorskip("h5py")
    path, small = tmp_path_factory.mktemp("keras") / "whole.h5", io.BytesIO()
    save_keras(path, load_model())  # type: ignore[arg-type]
    with h5py.File(path) as source, h5py.File(small, "w") as target:

        def copy(place: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                target.create_dataset(place, shape=item.shape, dtype=item.dtype, compression="gzip", fillvalue=1)
            else:
                target.create_group(place).attrs.update(item.attrs)

        target.attrs.update(source.attrs)
        source.visititems(copy)
    return small.getvalue()


@inputs(quick=20, thorough=1_000)  # each is to be read in a process of its own
@given(data=st.data())
def test_h5(data: st.DataObject, hdf5: bytes, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.getbasetemp() / "model.h5"  # stays there if reading it ends this process
    path.write_bytes(data.draw(damaged(hdf5)))
    with contract():
        load_model(path)


# ---- checkpoints

RUN = (*SMALL, "model=simple_cnn", "logger=none", "trainer.max_epochs=2", "recipe.schedule=constant", "keep=all")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a training of one step."""
    run_dir = tmp_path_factory.mktemp("run")
    train(configure(*RUN, "trainer.max_steps=1", "trainer.limit_test_batches=1", "data.val_size=16"), run_dir)
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    trainer, classifier, data, _ = set_up(configure(*RUN, "data.val_size=16"), tmp_path_factory.mktemp("run"))
    return trainer, classifier, data


@inputs(quick=100, thorough=100_000)
@given(data=st.data())
def test_structure_of_checkpoints(
    data: st.DataObject, checkpoint: dict[str, Any], run: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
):
    content = data.draw(altered(checkpoint, values | plain_tensors))
    # a mock, as to write and read 30 MB takes a second; `test_pt` has files, and in them tensors that are refused
    monkeypatch.setattr(checkpoint_check, "load_checkpoint", lambda *_: content)
    with contract():
        checkpoint_check.check_checkpoint(Path("a.ckpt"), *run)
