"""Reads and writes Keras model files with h5py alone, without TensorFlow or Keras.

Weights come in two layouts. The legacy `.h5` of tf.keras and Keras 2 lists the layers in order, by their names; a file
from `save_weights` has no configuration. In the `*.weights.h5` of Keras 3 the layers are named by class and numbered in
order (conv2d, conv2d_1, ...), whatever names they had; a `.keras` file is a zip of such a file and a `config.json`.
"""

import importlib.util
import io
import json
import math
import os
import signal
import subprocess
import sys
import zipfile
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from digits.errors import DigitsError
from digits.exchange.archive import open_zip
from digits.files import parse_json, read_bounded, write_atomically
from digits.network import BatchNorm, DeepDigits
from digits.network.weights import load_weights
from digits.settings.schema import DeepDigitsConfig

MAX_BYTES = 64_000_000  # of a file: real ones have 10 MB, and 32 MB with Adam's state
# Of a `.keras` file's members, to stop zip bombs: the configuration has 20 kB.
MAX_UNPACKED_BYTES = {"config.json": 1_000_000, "model.weights.h5": MAX_BYTES}
READER = Path(__file__).with_name("hdf5_reader.py")
READER_SECONDS = 60  # for all that the reader does, on a machine that is busy; it also limits itself
H5PY_MISSING = "files of Keras: h5py is not installed; pip install -e '.[keras]'"
SNAKE_CASE_CLASSES = {
    "Conv2D": "conv2d",
    "BatchNormalization": "batch_normalization",
    "MaxPooling2D": "max_pooling2d",
    "Dropout": "dropout",
    "Flatten": "flatten",
    "Dense": "dense",
}
WEIGHT_NAMES = {
    "conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}


def load_keras(path: Path) -> DeepDigits:
    """Load a network of the original's architecture from a Keras file.

    Args:
        path: `.keras`, `.weights.h5`, or a legacy `.h5` of a whole model or of its weights; the content decides, not
            the name. Dropout and L2 are read from the model's configuration; without one, they are the original's.

    Returns:
        The network in evaluation mode on the CPU, at temperature 1.

    Raises:
        DigitsError: h5py is not installed, or the file is missing, damaged, not from Keras, or of another architecture.
    """
    if importlib.util.find_spec("h5py") is None:  # the reader imports it, this process need not
        raise DigitsError(H5PY_MISSING)
    if path.is_dir():  # such as TensorFlow's SavedModel
        raise DigitsError(f"{path}: a folder; of what Keras saves, .keras and .h5 are read")
    if not path.exists():
        raise DigitsError(f"{path}: no such file")
    try:
        content, config = _open_hdf5(path)
        state, own_config = _read_hdf5(content)
        config = own_config if config is None else config
        settings = {} if config is None else _parse_config(parse_json(config))
        network = DeepDigits(**settings)
        load_weights(network, state)
    except DigitsError as error:
        raise DigitsError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    except Exception as error:  # on a damaged file zipfile may raise almost anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DigitsError(f"{path}: not a file of Keras, or a damaged one: {reason}") from error
    return network


def save_keras(path: Path, network: DeepDigits) -> None:
    """Write ``network`` as a Keras model, not compiled, which `keras.saving.load_model` can load.

    Its input is float (N, 28, 28, 1) in [0, 1], 1 = ink, and its output the probabilities (N, 10) of a softmax, as in
    the original. They are those at temperature 1, as the Keras model has no temperature.

    Args:
        path: ends in `.keras`, for Keras 3, or in `.h5`, for tf.keras and Keras 3.
        network: on the CPU.

    Raises:
        DigitsError: h5py is not installed.
    """
    h5py = _import_h5py()
    config, weights, legacy = json.dumps(_keras_config(network)), _keras_weights(network), path.suffix == ".h5"
    hdf5 = io.BytesIO()
    with h5py.File(hdf5, "w") as file:
        if legacy:
            file.attrs["model_config"] = config
            root = file.create_group("model_weights")
            root.attrs.update({"layer_names": list(weights), "backend": "tensorflow", "keras_version": "2.12.0"})
        for layer, values in weights.items():
            if legacy:
                root.create_group(layer).attrs["weight_names"] = [f"{layer}/{name}:0" for name in values]
            for number, (name, value) in enumerate(values.items()):
                place = f"model_weights/{layer}/{layer}/{name}:0" if legacy else f"layers/{layer}/vars/{number}"
                file[place] = value
    content = hdf5
    if not legacy:
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
            archive.writestr("config.json", config)
            archive.writestr("model.weights.h5", hdf5.getvalue())
    write_atomically(path, content.getbuffer())


def _import_h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise DigitsError(H5PY_MISSING) from error
    return h5py


def _layers(conv_dropout: float, dense_dropout: float, l2: float) -> list[tuple[str, dict[str, Any]]]:
    """Class and configuration of each layer of the original, in order; ``kernel_regularizer`` is just the L2 factor."""
    norm: tuple[str, dict[str, Any]] = ("BatchNormalization", {"epsilon": BatchNorm.eps})
    last = {"data_format": "channels_last"}

    def conv(filters: int, l2: float = 0.0) -> list[tuple[str, dict[str, Any]]]:
        settings = {"filters": filters, "kernel_size": [3, 3], "strides": [1, 1], "padding": "valid"} | last
        return [("Conv2D", settings | {"activation": "relu", "kernel_regularizer": l2}), norm]

    def dense(units: int) -> list[tuple[str, dict[str, Any]]]:
        settings = {"units": units, "activation": "relu", "kernel_regularizer": l2}
        return [("Dense", settings), norm, ("Dropout", {"rate": dense_dropout})]

    pool: list[tuple[str, dict[str, Any]]] = [
        ("MaxPooling2D", {"pool_size": [2, 2], "strides": [2, 2], "padding": "valid"} | last),
        ("Dropout", {"rate": conv_dropout}),
    ]
    output = {"units": 10, "activation": "softmax", "kernel_regularizer": 0.0}
    return [
        *[*conv(32), *conv(64), *pool],
        *[*conv(128), *conv(256, l2), *pool],
        ("Flatten", last),
        *[*dense(512), *dense(256), ("Dense", output)],
    ]


def _layer_classes() -> list[str]:
    """The class of each of ``_layers`` in snake case, which is how Keras begins its names."""
    return [SNAKE_CASE_CLASSES[kind] for kind, _ in _layers(0, 0, 0)]


def _layer_names() -> list[str]:
    """The name that Keras gives each of ``_layers`` by default: its class, numbered from the second one on."""
    kinds = _layer_classes()
    before = [kinds[:i].count(kind) for i, kind in enumerate(kinds)]
    return [f"{kind}_{number}" if number else kind for kind, number in zip(kinds, before, strict=True)]


def _keras_weights(network: DeepDigits) -> dict[str, dict[str, np.ndarray]]:
    """The weights by layer and by name, in Keras's layout: convolution kernels HWIO, dense ones (inputs, outputs)."""
    # torch's state dict has the layers, and the weights of each layer, in Keras's order
    values = iter(network.state_dict().values())
    return {
        name: {weight: _to_keras(next(values)) for weight in WEIGHT_NAMES[kind]}
        for name, kind in zip(_layer_names(), _layer_classes(), strict=True)
        if kind in WEIGHT_NAMES
    }


def _to_keras(weight: Tensor) -> np.ndarray:
    order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(weight.dim(), (0,))
    return weight.float().permute(order).numpy()


def _to_torch(weight: np.ndarray) -> Tensor:
    order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(weight.ndim, (0,))
    return torch.from_numpy(weight.astype(np.float32).transpose(order))


# ---- reading


def _open_hdf5(path: Path) -> tuple[bytes, bytes | None]:
    """The HDF5 file that ``path`` is or has in it; also the configuration if ``path`` is a zip of both, else None."""
    content = read_bounded(path, MAX_BYTES)
    if content[:4] == b"\x89HDF":
        return content, None
    if content[:2] != b"PK":
        raise DigitsError("neither a .keras nor an .h5 file")
    with open_zip(path, MAX_BYTES) as archive:
        for name, limit in MAX_UNPACKED_BYTES.items():
            if name not in archive.namelist():
                raise DigitsError(f"not a .keras file: it holds no {name}")
            size = archive.getinfo(name).file_size  # zipfile never unpacks more than this
            if size > limit:
                raise DigitsError(f"its {name} would unpack to {size:,} bytes, more than any of this network has")
        return archive.read("model.weights.h5"), archive.read("config.json")


def _read_hdf5(content: bytes) -> tuple[dict[str, Tensor], bytes | None]:
    """The state dict of :class:`DeepDigits` and the configuration, if there is one, in the HDF5 file ``content``.

    Another process reads it, in which the HDF5 library may crash or stall.
    """
    network = DeepDigits()
    expected = _keras_weights(network)
    shapes = {layer: [list(value.shape) for value in values.values()] for layer, values in expected.items()}
    argument = json.dumps({"classes": _layer_classes(), "layers": [*shapes.items()]})
    # one thread, as more take addresses; no filters from files, which a file of HDF5 may ask for by number
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "HDF5_PLUGIN_PRELOAD": "::"}
    try:
        result = subprocess.run(
            [sys.executable, "-P", str(READER), argument],  # -P: no module beside it takes the place of another
            input=content,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            timeout=READER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ValueError("it takes too long to read") from None
    if result.returncode:
        slow = -result.returncode in (getattr(signal, "SIGXCPU", None), getattr(signal, "SIGKILL", None))
        raise ValueError("it takes too long to read" if slow else "the HDF5 library crashed on it")
    line, _, values = result.stdout.partition(b"\n")
    answer = parse_json(line)
    if "error" in answer:
        raise (ValueError if answer["damaged"] else DigitsError)(answer["error"])
    flat = np.frombuffer(values, "<f4")
    state: dict[str, Tensor] = {}
    wanted = [shape for layer in shapes.values() for shape in layer]
    for name, shape in zip(network.state_dict(), wanted, strict=True):
        value, flat = flat[: math.prod(shape)].reshape(shape), flat[math.prod(shape) :]
        state[name] = _to_torch(value)
    return state, None if answer["config"] is None else answer["config"].encode()


def _parse_config(config: dict[str, Any]) -> dict[str, float]:
    """The arguments of :class:`DeepDigits` in a Keras model's ``config``; all the rest of it must be as expected."""
    layers = [layer for layer in config["config"]["layers"] if layer["class_name"] != "InputLayer"]
    names = [layer["config"]["name"] for layer in layers]
    kinds = [layer["class_name"] for layer in layers]
    expected_kinds = [kind for kind, _ in _layers(0, 0, 0)]
    for name, kind, expected in zip_longest(names, kinds, expected_kinds, fillvalue="nothing"):
        if kind != expected:
            raise DigitsError(f"another architecture: layer {name} is of class {kind}, expected {expected}")
    settings = [layer["config"] | {"kernel_regularizer": _l2_factor(layer["config"])} for layer in layers]
    rates = [layer["rate"] for layer in settings if "rate" in layer]
    found = {
        "conv_dropout": rates[0],
        "dense_dropout": rates[-1],
        "l2": settings[kinds.index("Dense")]["kernel_regularizer"],
    }
    DeepDigitsConfig(name="deepdigits", temperature=1.0, **found)  # validates types and ranges
    expected_settings = [settings for _, settings in _layers(**found)]
    if settings[-1]["activation"] == "linear":  # the model returns logits instead of probabilities
        settings[-1]["activation"] = "softmax"
    for name, has, expects in zip(names, settings, expected_settings, strict=True):
        for key, value in expects.items():
            if key in has and has[key] != value:
                raise DigitsError(f"another architecture: {key} of layer {name} is {has[key]}, expected {value}")
    return found


def _l2_factor(settings: dict[str, Any]) -> float:
    """The L2 factor of a layer's kernel, rounded, as TensorFlow stores it in float32."""
    regularizer = settings.get("kernel_regularizer")
    return float(f"{regularizer['config']['l2']:.6g}") if regularizer else 0.0


# ---- writing


def _keras_config(network: DeepDigits) -> dict[str, Any]:
    """The configuration from which Keras rebuilds the model."""
    arguments = {name: getattr(network, name) for name in ("conv_dropout", "dense_dropout", "l2")}
    shape = [None, 28, 28, 1]
    layers = [{"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_input_shape": shape}}]
    for name, (kind, settings) in zip(_layer_names(), _layers(**arguments), strict=True):
        config = settings | {"name": name}
        if "kernel_regularizer" in config:
            l2 = {"module": "keras.regularizers", "class_name": "L2", "config": {"l2": config["kernel_regularizer"]}}
            config["kernel_regularizer"] = l2 if config["kernel_regularizer"] else None
        layers.append({"module": "keras.layers", "class_name": kind, "config": config})
    return {"module": "keras", "class_name": "Sequential", "config": {"name": "deepdigits", "layers": layers}}
