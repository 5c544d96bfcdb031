"""`digits import-keras` and `digits export --format keras`: files that Keras writes are read, and it reads ours.

The legacy layout of tf.keras as of TensorFlow 2.12 is built here by h5py: that TensorFlow does not go with this
project's packages, and today's Keras gives the weights in such a file other names.
"""

import json
import os
import sys
import zipfile
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"  # both are read once, when keras is imported
os.environ["KERAS_TORCH_DEVICE"] = "cpu"

import h5py
import keras
import numpy as np
import pytest
import torch
from keras import layers
from test_keras_parity import keras_model, random_batch_norms, weights_of
from torch import Tensor

from digits.__main__ import main
from digits.data.mnist import load_mnist5k
from digits.errors import DigitsError
from digits.exchange import keras_file
from digits.exchange.keras_file import load_keras, save_keras
from digits.exchange.model_folder import load_model
from digits.network import DeepDigits, to_input

WITH_CONFIG = ["model.keras", "model.h5", "tf212.h5"]
WEIGHTS_ONLY = ["model.weights.h5", "tf212_weights.h5"]


def save_as_tensorflow_212(path: Path, model: keras.Model, whole: bool) -> None:
    """As `save_weights`, or with ``whole`` `save`, of TensorFlow 2.12 lay out an `.h5`."""
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole else file
        root.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        root.attrs["backend"], root.attrs["keras_version"] = b"tensorflow", b"2.12.0"
        for layer in model.layers:
            group = root.create_group(layer.name)
            names = [f"{layer.name}/{weight.name}:0" for weight in layer.weights]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, weight in zip(names, layer.weights, strict=True):
                group[name] = weight.numpy()
        if whole:
            root.create_group("top_level_model_weights").attrs["weight_names"] = np.zeros(0)
            file.attrs["model_config"] = json.dumps(tensorflow_212_config(model)).encode()


def tensorflow_212_config(model: keras.Model) -> dict[str, Any]:
    """Neither modules nor dtype policies, the axis of a normalisation as a list, and L2 in float32."""
    found: list[dict[str, Any]] = [{"class_name": "InputLayer", "config": {"batch_input_shape": [None, 28, 28, 1]}}]
    for layer in model.layers:
        config = layer.get_config() | {"dtype": "float32"}
        if "axis" in config:
            config["axis"] = [3]
        if config.get("kernel_regularizer"):
            config["kernel_regularizer"] = {"class_name": "L2", "config": {"l2": float(np.float32(0.001))}}
        found.append({"class_name": type(layer).__name__, "config": config})
    return {"class_name": "Sequential", "config": {"name": "sequential", "layers": found}}


def save(path: Path, model: keras.Model) -> Path:
    """Write ``model`` in the layout that the name of ``path`` tells."""
    if path.name.startswith("tf212"):
        save_as_tensorflow_212(path, model, whole=path.name == "tf212.h5")
    elif path.name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)
    return path


@pytest.fixture(scope="module")
def original() -> keras.Model:
    """A model of Keras with Adam's state, dropout other than the default, and layers whose names end in numbers."""
    for _ in range(2):
        model = keras_model(conv_dropout=0.2, dense_dropout=0.4)
    random_batch_norms(model)
    model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy", jit_compile=False)
    model.train_on_batch(np.zeros((2, 28, 28, 1)), np.zeros(2))
    assert "conv2d" not in {layer.name for layer in model.layers}
    return model


@pytest.fixture(scope="module")
def files(original: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of ``original`` in every layout."""
    folder = tmp_path_factory.mktemp("keras")
    for name in [*WITH_CONFIG, *WEIGHTS_ONLY]:
        save(folder / name, original)
    return folder


@pytest.fixture(scope="module")
def images() -> Tensor:
    return to_input(load_mnist5k().test_images[:64])


@torch.no_grad()
def keras_logits(model: keras.Model, images: Tensor) -> Tensor:
    activation, model.layers[-1].activation = model.layers[-1].activation, keras.activations.linear
    logits = model(images.permute(0, 2, 3, 1), training=False)
    model.layers[-1].activation = activation
    return logits


def other_model(change: dict[int, layers.Layer]) -> keras.Model:
    """The original with other layers in some places."""
    found = [type(layer).from_config(layer.get_config()) for layer in keras_model().layers]  # not yet built
    return keras.Sequential([keras.Input((28, 28, 1)), *[change.get(i, layer) for i, layer in enumerate(found)]])


# ---- reading


@pytest.mark.parametrize("name", [*WITH_CONFIG, *WEIGHTS_ONLY])
def test_logits_are_those_of_keras(files: Path, original: keras.Model, images: Tensor, name: str):
    network, expected = load_keras(files / name), keras_logits(original, images)
    with torch.no_grad():
        torch.testing.assert_close(network(images), expected, atol=1e-5, rtol=0)
    assert expected.std() > 0.1  # or 1e-5 would mean nothing
    assert not network.training


@pytest.mark.parametrize("name", WITH_CONFIG)
def test_settings_are_those_of_the_files_configuration(files: Path, name: str):
    expected = {"name": "deepdigits", "conv_dropout": 0.2, "dense_dropout": 0.4, "l2": 0.001, "temperature": 1.0}
    assert load_keras(files / name).settings() == expected


@pytest.mark.parametrize("name", WEIGHTS_ONLY)
def test_without_a_configuration_settings_are_the_originals(files: Path, name: str):
    assert load_keras(files / name).settings() == DeepDigits().settings()


def test_numbers_that_tensorflow_212_leaves_out_of_a_keras_file_do_not_matter(files: Path, tmp_path: Path):
    path = tmp_path / "model.weights.h5"
    with h5py.File(files / "model.weights.h5") as keras3, h5py.File(path, "w") as tf212:
        for name, layer in keras3["layers"].items():
            kind, _, number = name.rpartition("_")
            other = f"{kind}_{2 * int(number)}" if number.isdecimal() else name  # conv2d, conv2d_2, conv2d_4, ...
            for key, value in layer["vars"].items():
                tf212[f"_layer_checkpoint_dependencies/{other}/vars/{key}"] = value[()]
    found, expected = load_keras(path).state_dict(), load_keras(files / "model.h5").state_dict()
    assert all(map(torch.equal, found.values(), expected.values()))


def test_a_model_made_of_functions_is_read(original: keras.Model, tmp_path: Path):
    inputs = keras.Input((28, 28, 1))
    outputs = inputs
    for layer in original.layers:
        outputs = layer(outputs)
    model = keras.Model(inputs, outputs)
    for name in ("model.keras", "model.h5", "model.weights.h5"):
        found = load_keras(save(tmp_path / name, model)).state_dict()
        assert all(torch.equal(found[key], value) for key, value in weights_of(original).items())


def test_a_model_of_logits_is_read(tmp_path: Path):
    model = other_model({19: layers.Dense(10)})
    assert load_keras(save(tmp_path / "model.keras", model)).settings() == DeepDigits().settings()


def test_import_writes_a_model_that_all_else_takes(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], images: Tensor
):
    assert main(["import-keras", str(files / "model.keras"), str(tmp_path / "model")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'model'}\n"
    with torch.no_grad():
        assert torch.equal(load_model(tmp_path / "model")(images), load_model(files / "model.keras")(images))


# ---- writing


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.parametrize("l2", [0.0, 0.002])
def test_keras_loads_what_is_written(tmp_path: Path, images: Tensor, name: str, l2: float):
    network = DeepDigits(conv_dropout=0.1, dense_dropout=0.3, l2=l2).eval()
    network.load_state_dict(DeepDigits.from_pretrained().state_dict())
    save_keras(tmp_path / name, network)
    model: Any = keras.saving.load_model(tmp_path / name)
    with torch.no_grad():
        torch.testing.assert_close(keras_logits(model, images), network(images), atol=1e-5, rtol=0)
        probabilities = model(images.permute(0, 2, 3, 1), training=False)
        torch.testing.assert_close(probabilities, network(images).softmax(1), atol=1e-5, rtol=0)
    assert [layer.rate for layer in model.layers if isinstance(layer, layers.Dropout)] == [0.1, 0.1, 0.3, 0.3]
    assert sum(loss.item() for loss in model.losses) == pytest.approx(network.l2_penalty().item(), rel=1e-6)
    assert model.count_params() == network.count_parameters()


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
def test_what_is_written_is_read_as_it_was(tmp_path: Path, name: str):
    network = DeepDigits(conv_dropout=0.1, dense_dropout=0.3, l2=0.0)
    save_keras(tmp_path / name, network)
    loaded = load_keras(tmp_path / name)
    assert loaded.settings() == network.settings()
    assert all(map(torch.equal, loaded.state_dict().values(), network.state_dict().values()))


def test_export_writes_a_keras_file(tmp_path: Path):
    assert main(["export", str(tmp_path / "model.keras"), "--format", "keras"]) == 0
    loaded, packaged = load_model(tmp_path / "model.keras"), load_model()
    assert all(map(torch.equal, loaded.state_dict().values(), packaged.state_dict().values()))


# ---- other architectures


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.weights.h5", "tf212_weights.h5"])
def test_another_shape_names_the_layer_and_both_shapes(tmp_path: Path, name: str):
    model = other_model({2: layers.Conv2D(48, 3, activation="relu", name="conv2d_1")})
    with pytest.raises(
        DigitsError,
        match=r"another architecture: layer conv2d_1 has weights of shape \[\[3, 3, 32, 48\], \[48\]\], "
        r"expected \[\[3, 3, 32, 64\], \[64\]\]$",
    ):
        load_keras(save(tmp_path / name, model))


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.parametrize(
    ("place", "layer", "problem"),
    [
        (
            1,
            lambda: layers.BatchNormalization(epsilon=1e-5, name="norm"),
            "epsilon of layer norm is 1e-05, expected 0.001",
        ),
        (0, lambda: layers.Conv2D(32, 3, activation="elu", name="c"), "activation of layer c is elu, expected relu"),
        (
            4,
            lambda: layers.AveragePooling2D(2, name="pool"),
            "layer pool is of class AveragePooling2D, expected MaxPooling2D",
        ),
        (11, lambda: layers.Dropout(0.1, name="drop"), "rate of layer drop is 0.1, expected 0.25"),
    ],
)
def test_another_setting_names_the_layer(tmp_path: Path, name: str, place: int, layer: Any, problem: str):
    with pytest.raises(DigitsError, match=f"another architecture: {problem}$"):
        load_keras(save(tmp_path / name, other_model({place: layer()})))


def test_pixels_divided_within_the_model_are_another_architecture(tmp_path: Path):
    model = keras.Sequential([keras.Input((28, 28, 1)), layers.Rescaling(1 / 255, name="r"), *keras_model().layers])
    with pytest.raises(DigitsError, match="layer r is of class Rescaling, expected Conv2D$"):
        load_keras(save(tmp_path / "model.keras", model))


@pytest.mark.parametrize("name", ["model.weights.h5", "tf212_weights.h5"])
def test_a_layer_too_few_or_too_many_is_named(tmp_path: Path, name: str):
    found = keras_model().layers
    fewer = keras.Sequential([keras.Input((28, 28, 1)), *found[:-1]])
    with pytest.raises(DigitsError, match="another architecture: it ends where a layer as dense_2 is expected$"):
        load_keras(save(tmp_path / name, fewer))
    more = keras.Sequential([keras.Input((28, 28, 1)), *found, layers.Dense(2, name="dense_3")])
    with pytest.raises(DigitsError, match="another architecture: layer dense_3 comes after all that are expected$"):
        load_keras(save(tmp_path / name, more))


# ---- wrong files


@pytest.mark.parametrize("name", ["model.keras", "model.h5"])
@pytest.mark.parametrize("content", [b"", b"text", b"PK", b"\x89HDF\r\n\x1a\n"])
def test_what_is_no_file_of_keras_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: bytes
):
    (tmp_path / name).write_bytes(content)
    assert main(["import-keras", str(tmp_path / name), str(tmp_path / "model")]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"digits: {tmp_path / name}: ")
    assert error.count("\n") == 1
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", ["model.keras", "model.h5", "model.weights.h5"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_truncated_file_is_one_line(files: Path, tmp_path: Path, name: str, share: float):
    content = (files / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(share * len(content))])
    with pytest.raises(DigitsError, match=r"^[^\n]*or a damaged one: [^\n]+$"):
        load_keras(tmp_path / name)


def test_no_file_is_one_line(tmp_path: Path):
    with pytest.raises(DigitsError, match=r"model\.h5: no such file$"):
        load_keras(tmp_path / "model.h5")


def test_a_folder_is_one_line(tmp_path: Path):
    with pytest.raises(DigitsError, match=r": a folder; of what Keras saves, \.keras and \.h5 are read$"):
        load_keras(tmp_path)


def test_an_empty_zip_is_one_line(tmp_path: Path):
    zipfile.ZipFile(tmp_path / "model.keras", "w").close()
    with pytest.raises(DigitsError, match=r"not a \.keras file: it holds no config\.json$"):
        load_keras(tmp_path / "model.keras")


def test_an_hdf5_file_of_something_else_is_one_line(tmp_path: Path):
    with h5py.File(tmp_path / "model.h5", "w") as file:
        file["x"] = [1.0]
    with pytest.raises(DigitsError, match="an HDF5 file, but none of Keras$"):
        load_keras(tmp_path / "model.h5")


def test_a_zip_that_would_fill_the_memory_is_not_unpacked(files: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(keras_file.MAX_UNPACKED_BYTES, "model.weights.h5", 1_000_000)
    with pytest.raises(DigitsError, match=r"its model\.weights\.h5 would unpack to 31,\d+,\d+ bytes"):
        load_keras(files / "model.keras")


def test_weights_kept_in_another_file_are_not_read(files: Path, tmp_path: Path):
    path = tmp_path / "model.weights.h5"
    path.write_bytes((files / "model.weights.h5").read_bytes())
    (tmp_path / "secret").write_bytes(bytes(128))
    with h5py.File(path, "a") as file:
        bias = file["layers/conv2d/vars"]
        del bias["1"]
        bias.create_dataset("1", (32,), np.float32, external=[(str(tmp_path / "secret"), 0, 128)])
    with pytest.raises(DigitsError, match="layer conv2d: its weights are not floating-point numbers within this file$"):
        load_keras(path)


@pytest.mark.parametrize("arguments", [["import-keras", "FILE", "FOLDER"], ["export", "FILE", "--format", "keras"]])
def test_a_missing_h5py_is_one_line(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setitem(sys.modules, "h5py", None)  # import raises ImportError
    paths = {"FILE": str(tmp_path / "model.keras"), "FOLDER": str(tmp_path / "model")}
    assert main([paths.get(argument, argument) for argument in arguments]) == 1
    assert capsys.readouterr().err == "digits: files of Keras: h5py is not installed; pip install -e '.[keras]'\n"
