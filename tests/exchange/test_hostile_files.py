"""Models from strangers: a file made to harm is refused in one line, before it has cost memory or time."""

import json
import os
import resource
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from digits.__main__ import main
from digits.errors import DigitsError, one_line
from digits.exchange import hdf5_reader, keras_file
from digits.exchange.checkpoint import load_torch_file
from digits.exchange.hub import files_to_push
from digits.exchange.keras_file import load_keras, save_keras
from digits.exchange.model_folder import export, load_model, save_model, save_torch
from digits.network import WEIGHTS, DeepDigits
from digits.report.tables import read_summary

MEMORY = 300_000_000  # bytes that refusing a file may take
FIRST = "features.0.weight"
VARIANCE = "features.2.running_var"


@pytest.fixture(scope="module")
def network() -> DeepDigits:
    return DeepDigits()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the package's own model: settings, weights, card, summary and plots."""
    shutil.copytree(WEIGHTS, tmp_path / "model")
    return tmp_path / "model"


def refusal(load: Callable[[Path], Any], path: Path) -> str:
    """The one line that ``load`` refuses ``path`` with; it took hardly any memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DigitsError) as error:
        load(path)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY
    said = str(error.value)
    assert said == one_line(said)
    return said


def torch_file(path: Path, network: DeepDigits, **changed: Any) -> Path:
    """A file of save_torch with other weights, which are taken as they are."""
    torch.save({"config": network.settings(), "state_dict": network.state_dict() | changed}, path)
    return path


def rewritten(path: Path, change: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    """The zip file ``path`` with the content of its members changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))
    return path


# ---- links, pipes and devices in a model's folder


@pytest.mark.parametrize("name", ["plots/mistakes.png", "plots", "summary.json", "config.json", "model.safetensors"])
def test_no_link_in_a_models_folder_is_exported(name: str, folder: Path, tmp_path: Path):
    secret = tmp_path / "secret"
    shutil.move(folder / name, secret)
    (folder / name).symlink_to(secret)
    assert "symbolic link" in refusal(lambda path: export(path, tmp_path / "out"), folder)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["plots/mistakes.png", "plots", "README.md", "model.safetensors"])
def test_no_link_in_a_models_folder_is_pushed(name: str, folder: Path, tmp_path: Path):
    shutil.move(folder / name, tmp_path / "secret")
    (folder / name).symlink_to(tmp_path / "secret")
    assert "symbolic link" in refusal(files_to_push, folder)


def test_a_runs_folder_does_not_link_to_its_model(folder: Path, tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").symlink_to(folder)
    assert "symbolic link" in refusal(load_model, tmp_path / "run")


def test_links_of_the_hubs_cache_are_followed(folder: Path, tmp_path: Path):
    snapshot, blobs = tmp_path / "cache" / "snapshots" / "1", tmp_path / "cache" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.move(folder / name, blobs / name)
        (snapshot / name).symlink_to(Path("..", "..", "blobs", name))
    assert load_model(snapshot).settings() == load_model().settings()


def test_only_the_files_of_a_model_are_pushed(folder: Path):
    for stray in (".env", "notes.txt", "plots/.env", "plots/a b.png", ".git/config"):
        (folder / stray).parent.mkdir(exist_ok=True)
        (folder / stray).write_text("secret")
    _, files = files_to_push(folder)
    expected = {"README.md", "config.json", "model.safetensors", "summary.json"}
    assert {str(file) for file in files} == expected | {f"plots/{path.name}" for path in (WEIGHTS / "plots").iterdir()}


def test_only_the_files_of_a_model_are_exported(folder: Path, tmp_path: Path):
    for stray in (".env", "plots/a b.png", "plots/notes.txt"):
        (folder / stray).write_text("secret")
    export(folder, tmp_path / "out")
    assert {path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*.*")} == {
        path.relative_to(WEIGHTS) for path in WEIGHTS.rglob("*.*")
    }


def test_a_target_whose_plots_are_a_link_is_not_written_to(folder: Path, tmp_path: Path, network: DeepDigits):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.png").touch()
    shutil.rmtree(folder / "plots")
    (folder / "plots").symlink_to(tmp_path / "photos")
    assert "symbolic link" in refusal(lambda path: save_model(path, network), folder)
    assert (tmp_path / "photos" / "mine.png").exists()


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "summary.json"])
def test_a_pipe_in_a_models_folder_is_not_waited_for(name: str, folder: Path, tmp_path: Path):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert "is no regular file" in refusal(lambda path: export(path, tmp_path / "out"), folder)


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".keras", ".h5"])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_a_model_that_is_no_regular_file_is_refused(suffix: str, kind: str, tmp_path: Path):
    path = tmp_path / f"model{suffix}"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    assert "is a folder" in (said := refusal(load_model, path)) or "is no regular file" in said or ": a folder" in said


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "summary.json", "plots/mistakes.png"])
def test_a_file_of_a_terabyte_is_not_read(name: str, folder: Path, tmp_path: Path):
    os.truncate(folder / name, 10**12)  # without a block of it on the disk
    assert "1,000,000,000,000 bytes" in refusal(lambda path: export(path, tmp_path / "out"), folder)


@pytest.mark.parametrize("suffix", [".pt", ".ckpt", ".keras", ".h5"])
def test_a_single_file_of_a_terabyte_is_not_read(suffix: str, tmp_path: Path):
    path = tmp_path / f"model{suffix}"
    path.touch()
    os.truncate(path, 10**12)
    assert "1,000,000,000,000 bytes" in refusal(load_model, path)


@pytest.mark.parametrize("brackets", ["[", '{"a":'])
def test_brackets_in_brackets_are_one_line(brackets: str, folder: Path):
    (folder / "config.json").write_text(brackets * 15_000)
    (folder / "summary.json").write_text(brackets * 100_000)
    assert "nested too deep" in refusal(load_model, folder)
    assert "nested too deep" in refusal(read_summary, folder)
    assert "nested too deep" in refusal(DeepDigits.from_pretrained, folder)


# ---- names of classes and modules


@pytest.mark.parametrize(
    "settings",
    [
        {"_target_": "antigravity.fly"},
        {"name": "antigravity.Network"},
        {"name": "../model/deepdigits"},
        {"name": "/etc/passwd"},
        {"name": ["deepdigits"]},
        {"class": "antigravity.Network"},
    ],
)
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_no_class_or_module_that_a_model_names_is_imported(
    settings: dict[str, Any], kind: str, folder: Path, network: DeepDigits, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delitem(sys.modules, "antigravity", raising=False)
    path = folder
    if kind == "folder":
        (folder / "config.json").write_text(json.dumps(network.settings() | settings))
    else:
        path = folder / "model.pt"
        torch.save({"config": network.settings() | settings, "state_dict": network.state_dict()}, path)
    assert refusal(load_model, path)
    assert "antigravity" not in sys.modules


class Evil:
    """Runs a command where pickle is let to."""

    def __reduce__(self) -> Any:
        return (os.mkdir, ("evil",))


@pytest.mark.parametrize("content", [Evil(), {"config": Evil()}, {"state_dict": {FIRST: Evil()}}])
def test_a_torch_file_calls_nothing(content: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save(content, "model.pt")
    assert "posix mkdir, which is not read" in refusal(load_model, Path("model.pt"))
    assert not Path("evil").exists()


# ---- what a header says is checked before a tensor is read


def header(path: Path, entries: dict[str, Any], size: int = 0) -> Path:
    """A safetensors file of any header, with so many bytes of zeros behind it."""
    text = json.dumps(entries).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size))
    return path


@pytest.mark.parametrize("shape", [[10**9], [2**62, 2**62], [32, 1, 3, 3, 1], []])
def test_a_shape_of_a_safetensors_header_is_not_believed(shape: list[int], folder: Path):
    header(folder / "model.safetensors", {FIRST: {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}, 4)
    assert "damaged" in (said := refusal(load_model, folder)) or "another network" in said


def test_a_header_of_many_tensors_is_refused(folder: Path):
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header(folder / "model.safetensors", {f"t{number}": entry for number in range(40_000)})
    assert "its header is too long" in refusal(load_model, folder)


def test_a_header_nested_too_deep_is_refused(folder: Path):
    text = b'{"a":' * 100_000
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    assert "damaged" in refusal(load_model, folder)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool, torch.int8, torch.float8_e4m3fn])
def test_weights_that_are_not_real_numbers_are_refused(dtype: torch.dtype, folder: Path, tmp_path: Path):
    path = folder / "model.safetensors"
    state = load_file(path)
    save_file(state | {FIRST: state[FIRST].float().to(dtype)}, path)
    assert f"{FIRST} is not of real floating-point numbers" in refusal(load_model, folder)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool, torch.int64])
def test_a_torch_file_of_other_than_real_numbers_is_refused(dtype: torch.dtype, tmp_path: Path, network: DeepDigits):
    path = torch_file(tmp_path / "model.pt", network, **{FIRST: torch.zeros(32, 1, 3, 3, dtype=dtype)})
    assert f"{FIRST} is not of real floating-point numbers" in refusal(load_model, path)


# ---- files of torch.save


@pytest.mark.parametrize("shape", [(1_500_000_000,), (40_000, 40_000), (32, 1, 3, 3)])
def test_one_number_is_not_repeated_to_fill_the_memory(shape: tuple[int, ...], tmp_path: Path, network: DeepDigits):
    path = torch_file(tmp_path / "model.pt", network, **{FIRST: torch.zeros(1).expand(shape)})
    assert "larger than its record" in refusal(load_model, path)
    assert "larger than its record" in refusal(load_torch_file, path)


def test_a_compressed_torch_file_is_refused(tmp_path: Path, network: DeepDigits):
    path = torch_file(tmp_path / "model.pt", network, **{FIRST: torch.zeros(10_000_000)})
    assert "it is compressed" in refusal(load_model, rewritten(path, lambda _, c: c, zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize("length", [0, 4, 10_000])
def test_a_record_of_another_length_than_stated_is_not_read(length: int, tmp_path: Path, network: DeepDigits):
    path = torch_file(tmp_path / "model.pt", network)
    rewritten(path, lambda name, content: bytes(length) if name.endswith("/data/0") else content)
    assert "record 0 is not as long as it should be" in refusal(load_model, path)


def pickled(path: Path, data: bytes) -> Path:
    """A file of torch.save whose content is the pickle ``data``."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return path


LIST_OF_ITSELF = b"\x80\x02}X\x01\x00\x00\x00a]q\x00h\x00as."
LEVELS = b"".join(b"(" + (b"h" + bytes([level])) * 9 + b"tq" + bytes([level + 1]) for level in range(12))
LAUGHS = b"\x80\x02}X\x01\x00\x00\x00a](K\x01q\x00" + LEVELS + b"es."  # tuples of nine times the one before


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\x80\x02}X\x01\x00\x00\x00ac__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85Rs.", "bytearray, which is not"),
        (b"\x80\x02}X\x01\x00\x00\x00actorch\nTensor\nJ\xff\xff\xff\x7f\x85Rs.", "torch Tensor, which is not read"),
        (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R.", "os system, which is not read"),
        (b"\x80\x02}X\x01\x00\x00\x00acos\nsystem\ns.", "os system, which is not read"),
        (b"\x80\x02}X\x01\x00\x00\x00a" + b"]" + b"\x85" * 20_000 + b"s.", "nested too deep"),
        (b"\x80\x02}" + b")" + b"\x85" * 20_000 + b"Ns.", "tuple in the place of str"),
        (LIST_OF_ITSELF, "without an end"),
        (LAUGHS, "fill the memory"),
        (b"\x80\x02" + b"N" * 3_000_000 + b".", "too long"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "not a checkpoint"),
        (b"\x80\x02}", "damaged"),
        (b"", "damaged"),
        (b"\x80\x020000.", "damaged"),
    ],
    ids=["bytearray", "tensor", "call", "name", "tuples", "key", "itself", "laughs", "long", "stack", "cut",
         "empty", "pop"],
)  # fmt: skip
def test_a_pickle_that_torch_save_would_not_write_is_refused(data: bytes, said: str, tmp_path: Path):
    assert said in refusal(load_torch_file, pickled(tmp_path / "model.pt", data))


@pytest.mark.parametrize("suffix", [".pt", ".keras"])
def test_a_zip_of_very_many_members_is_refused(suffix: str, tmp_path: Path):
    path = tmp_path / f"model{suffix}"
    count, name = 30_000, b"a"
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 0, 20, 0, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + name
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, count * len(entry), 0, 0)
    path.write_bytes(entry * count + end if suffix == ".pt" else b"PK\1\2" + (entry * count)[4:] + end)
    assert refusal(load_model, path)


def test_what_torch_load_reads_of_a_file_of_this_project_is_read(tmp_path: Path, network: DeepDigits):
    content = {
        "tensors": [torch.arange(6).view(2, 3).t(), torch.zeros(0), torch.tensor(True), torch.ones(4).half()[1:3]],
        "state": network.state_dict(),
        "plain": {"a": (1, -2, 3.5, None, True, 2**40, "é"), "set": {1, 2}, 5: []},
    }
    torch.save(content, tmp_path / "a.pt")
    found, expected = load_torch_file(tmp_path / "a.pt"), torch.load(tmp_path / "a.pt", weights_only=True)
    assert found["plain"] == expected["plain"]
    for one, other in zip(
        [*found["tensors"], *found["state"].values()], [*expected["tensors"], *expected["state"].values()], strict=True
    ):
        assert torch.equal(one, other) and (one.dtype, one.stride()) == (other.dtype, other.stride())
    assert found["state"]._metadata == expected["state"]._metadata


# ---- values


BAD_VALUES = [
    (FIRST, float("nan"), "NaN or infinite"),
    (FIRST, float("-inf"), "NaN or infinite"),
    (FIRST, 1e38, "1e+38 is among them"),
    (FIRST, -1e38, "1e+38 is among them"),
    (VARIANCE, -0.5, "the variance -0.5 is among them"),
]


@pytest.mark.parametrize(("name", "value", "said"), BAD_VALUES)
@pytest.mark.parametrize("kind", ["folder", "mixin", ".pt"])
def test_a_value_that_no_training_leads_to_is_refused(name: str, value: float, said: str, kind: str, tmp_path: Path):
    network = DeepDigits()
    network.state_dict()[name].view(-1)[3] = value
    path = tmp_path / f"model{kind}"
    save_torch(path, network) if kind == ".pt" else save_model(path, network)
    assert said in refusal(DeepDigits.from_pretrained if kind == "mixin" else load_model, path)


@pytest.mark.parametrize(("name", "value", "said"), BAD_VALUES[::4])
def test_a_file_of_keras_with_such_a_value_is_refused(name: str, value: float, said: str, tmp_path: Path):
    network = DeepDigits()
    network.state_dict()[name].view(-1)[3] = value
    save_keras(tmp_path / "model.h5", network)
    assert said in refusal(load_model, tmp_path / "model.h5")


def test_a_number_too_large_for_float32_is_refused(folder: Path):
    state = {name: value.double() for name, value in load_file(folder / "model.safetensors").items()}
    state[FIRST][0, 0, 0, 0] = 1e300
    save_file(state, folder / "model.safetensors")
    assert "NaN or infinite" in refusal(load_model, folder)


@pytest.mark.parametrize("temperature", [1e-320, 1e308])
@pytest.mark.parametrize("kind", ["folder", "mixin", ".pt"])
def test_a_temperature_that_was_not_fitted_is_refused(temperature: float, kind: str, tmp_path: Path):
    path = tmp_path / f"model{kind}"
    network = DeepDigits(temperature=temperature)
    save_torch(path, network) if kind == ".pt" else save_model(path, network)
    assert "its temperature is" in refusal(DeepDigits.from_pretrained if kind == "mixin" else load_model, path)


# ---- HDF5


@pytest.fixture
def h5(tmp_path: Path, network: DeepDigits) -> Path:
    save_keras(tmp_path / "model.h5", network)
    return tmp_path / "model.h5"


KERNEL, BIAS = "model_weights/conv2d/conv2d/kernel:0", "model_weights/conv2d/conv2d/bias:0"


@pytest.mark.parametrize(
    ("place", "kind"),
    [
        (BIAS, "external"),
        (BIAS, "pipe"),
        ("model_weights/conv2d/conv2d", "soft"),
        ("model_weights/conv2d", "external"),
        ("model_weights", "external"),
    ],
)
def test_a_link_at_any_step_is_not_followed(place: str, kind: str, h5: Path):
    other = h5.with_name("other.h5")
    shutil.copy(h5, other) if kind != "pipe" else os.mkfifo(other)
    with h5py.File(h5, "a") as file:
        file.move(place, "elsewhere")
        file[place] = h5py.SoftLink("/elsewhere") if kind == "soft" else h5py.ExternalLink(str(other), place)
    assert "is a link, which a file of Keras has not" in refusal(load_keras, h5)


def test_a_chunk_of_a_gigabyte_is_not_unpacked(h5: Path):
    with h5py.File(h5, "a") as file:
        del file[BIAS]
        file.create_dataset(BIAS, (32,), "f4", chunks=(250_000_000,), maxshape=(None,), compression="gzip")
    assert "in chunks of (250000000,), larger than themselves" in refusal(load_keras, h5)


def test_many_zeros_in_a_keras_file_are_not_unpacked(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "model.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        with archive.open("model.weights.h5", "w") as member:
            for _ in range(70):
                member.write(bytes(1_000_000))
    assert "would unpack to 70,000,000 bytes" in refusal(load_model, tmp_path / "model.keras")


@pytest.mark.parametrize("dtype", ["c8", "i4"])
def test_weights_of_keras_that_are_not_real_numbers_are_refused(dtype: str, h5: Path):
    with h5py.File(h5, "a") as file:
        del file[BIAS]
        file[BIAS] = np.zeros(32, dtype)
    assert "layer conv2d: its weights are not floating-point numbers" in refusal(load_keras, h5)


def test_a_configuration_of_brackets_is_one_line(h5: Path):
    with h5py.File(h5, "a") as file:
        file.attrs["model_config"] = "[" * 60_000
    assert "nested too deep" in refusal(load_keras, h5)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os; os.abort()", "the HDF5 library crashed on it"),
        ("while True: pass", "it takes too long to read"),
        ("bytearray(500_000_000)", "it takes more than 400 MB to read"),
    ],
    ids=["crash", "loop", "memory"],
)
def test_what_goes_wrong_in_the_reader_of_hdf5_is_one_line(
    code: str, said: str, h5: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # stands in for a fault of libhdf5: which bytes it crashes on differs from version to version
    source = (
        Path(hdf5_reader.__file__).read_text().replace("    with h5py.File(", f"    {code}\n    with h5py.File(", 1)
    )
    (tmp_path / "reader.py").write_text(source)
    monkeypatch.setattr(keras_file, "READER", tmp_path / "reader.py")
    assert said in refusal(load_keras, h5)


# ---- names


def test_control_characters_of_names_do_not_reach_the_terminal(
    tmp_path: Path, network: DeepDigits, capsys: pytest.CaptureFixture[str]
):
    name = "\x1b]0;owned\x07\x1b[2J\u202e\n" + "x" * 10_000
    torch.save(
        {"config": network.settings(), "state_dict": network.state_dict() | {name: torch.zeros(1)}}, tmp_path / "a.pt"
    )
    assert main(["export", str(tmp_path / "out"), "--model", str(tmp_path / "a.pt")]) == 1
    said = capsys.readouterr().err
    assert said.removesuffix("\n").isprintable()
    assert len(said) < 3_000
