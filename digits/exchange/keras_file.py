"""Models of Keras: read from its files and written to them by h5py alone, without TensorFlow or Keras.

Two layouts hold the weights. The legacy `.h5` of tf.keras and Keras 2 lists the layers by name, in their order; what
`save_weights` wrote has no configuration. Keras 3 names the layers in `*.weights.h5` by class, numbered in their order
(conv2d, conv2d_1, ...), whatever their own names; its `.keras` is a zip of such a file and of `config.json`.
"""

import io
import json
import re
import zipfile
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from digits.config import ModelConfig
from digits.errors import DigitsError
from digits.network import BatchNorm, DeepDigits

# Bytes that a member of a `.keras` file may unpack to: a true one has 20 kB and, with Adam's state, 32 MB.
LIMITS = {"config.json": 10_000_000, "model.weights.h5": 500_000_000}
SNAKE_CASE = {
    "Conv2D": "conv2d",
    "BatchNormalization": "batch_normalization",
    "MaxPooling2D": "max_pooling2d",
    "Dropout": "dropout",
    "Flatten": "flatten",
    "Dense": "dense",
}
WEIGHTS = {
    "conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}
FoundWeights = list[tuple[str, list[Any]]]  # of each layer that has some, in order: its name, its HDF5 datasets


def load_keras(path: Path) -> DeepDigits:
    """The network in a Keras file of the original's architecture, in evaluation mode on the CPU, at temperature 1.

    Args:
        path: `.keras`, `.weights.h5`, or the legacy `.h5` of a whole model or of its weights; told by what is in it.
            Where it has the model's configuration, that gives dropout and L2; else they are the original's.

    Raises:
        DigitsError: h5py is not installed; the file is not there, damaged, not Keras's, or of another architecture.
    """
    h5py = _import_h5py()
    if path.is_dir():  # as TensorFlow's SavedModel is
        raise DigitsError(f"{path}: a folder; of what Keras saves, .keras and .h5 are read")
    if not path.is_file():
        raise DigitsError(f"{path}: no such file")
    try:
        source, config = _open(path)
        with h5py.File(source, "r") as file:
            state = _state_dict(_weights(file, h5py))
            config = file.attrs.get("model_config") if config is None else config
        settings = {} if config is None else _settings(json.loads(config))
    except DigitsError as error:
        raise DigitsError(f"{path}: {error}") from error
    except Exception as error:  # zipfile and h5py raise whatever a damaged file leads them to
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DigitsError(f"{path}: not a file of Keras, or a damaged one: {reason}") from error
    network = DeepDigits(**settings)
    network.load_state_dict(state)
    return network.eval()


def save_keras(path: Path, network: DeepDigits) -> None:
    """Write ``network``, on the CPU, as a model of Keras, which `keras.saving.load_model` loads, not compiled.

    It takes float (N, 28, 28, 1) in [0, 1], 1 = ink, and gives probabilities (N, 10) by a softmax, as the original
    does. They are those at temperature 1: Keras's model has no place for another.

    Args:
        path: ends in `.keras`, for Keras 3, or in `.h5`, for tf.keras and Keras 3.
        network: any.

    Raises:
        DigitsError: h5py is not installed.
    """
    h5py = _import_h5py()
    config, weights, legacy = json.dumps(_config(network)), _keras_weights(network), path.suffix == ".h5"
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
    if legacy:
        path.write_bytes(hdf5.getvalue())
        return
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", hdf5.getvalue())


def _import_h5py() -> Any:
    try:
        import h5py
    except ImportError as error:
        raise DigitsError("files of Keras: h5py is not installed; pip install -e '.[keras]'") from error
    return h5py


# ---- the architecture


def _layers(conv_dropout: float, dense_dropout: float, l2: float) -> list[tuple[str, dict[str, Any]]]:
    """Class and settings of each layer of the original, in order; ``kernel_regularizer`` is the weight of L2."""
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
    output = {"units": DeepDigits.classes, "activation": "softmax", "kernel_regularizer": 0.0}
    return [
        *[*conv(32), *conv(64), *pool],
        *[*conv(128), *conv(256, l2), *pool],
        ("Flatten", last),
        *[*dense(512), *dense(256), ("Dense", output)],
    ]


def _kinds() -> list[str]:
    """The classes of ``_layers`` as Keras's names have them."""
    return [SNAKE_CASE[kind] for kind, _ in _layers(0, 0, 0)]


def _names() -> list[str]:
    """What Keras calls the layers of ``_layers`` if nothing else is said: by class, numbered."""
    kinds = _kinds()
    before = [kinds[:i].count(kind) for i, kind in enumerate(kinds)]
    return [f"{kind}_{number}" if number else kind for kind, number in zip(kinds, before, strict=True)]


def _keras_weights(network: DeepDigits) -> dict[str, dict[str, np.ndarray]]:
    """By layer and by name, in Keras's order and layout: HWIO kernels of convolutions, (inputs, outputs) dense ones.

    Torch's state dict has the layers and each layer's weights in that same order.
    """
    values = iter(network.state_dict().values())
    return {
        name: {weight: _to_keras(next(values)) for weight in WEIGHTS[kind]}
        for name, kind in zip(_names(), _kinds(), strict=True)
        if kind in WEIGHTS
    }


def _to_keras(weight: Tensor) -> np.ndarray:
    order = {4: (2, 3, 1, 0), 2: (1, 0)}.get(weight.dim(), (0,))
    return weight.float().permute(order).numpy()


def _to_torch(weight: np.ndarray) -> Tensor:
    order = {4: (3, 2, 0, 1), 2: (1, 0)}.get(weight.ndim, (0,))
    return torch.from_numpy(weight.astype(np.float32).transpose(order))


# ---- reading


def _open(path: Path) -> tuple[Path | io.BytesIO, bytes | None]:
    """The HDF5 file of ``path``, and the configuration where ``path`` is a zip of both."""
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"\x89HDF":
        return path, None
    if start[:2] != b"PK":
        raise DigitsError("neither a .keras nor an .h5 file")
    with zipfile.ZipFile(path) as archive:
        for name, limit in LIMITS.items():
            if name not in archive.namelist():
                raise DigitsError(f"not a .keras file: it holds no {name}")
            size = archive.getinfo(name).file_size  # no more than it declares is ever unpacked
            if size > limit:
                raise DigitsError(f"its {name} would unpack to {size:,} bytes, more than any of this network has")
        return io.BytesIO(archive.read("model.weights.h5")), archive.read("config.json")


def _weights(file: Any, h5py: Any) -> FoundWeights:
    root = file.get("model_weights", file)
    if "layer_names" in root.attrs:  # legacy
        named = [(_text(layer), root[_text(layer)]) for layer in root.attrs["layer_names"]]
        found = [(layer, [group[_text(name)] for name in group.attrs["weight_names"]]) for layer, group in named]
        return [(layer, datasets) for layer, datasets in found if datasets]
    layers: dict[str, dict[int, dict[int, Any]]] = {}  # by class, number of the layer and number of the dataset

    def collect(name: str, item: Any) -> None:
        match = re.fullmatch(r"(?:layers|_layer_checkpoint_dependencies)/(\w+?)(?:_(\d+))?/vars/(\d+)", name)
        if match and isinstance(item, h5py.Dataset):
            layers.setdefault(match[1], {}).setdefault(int(match[2] or 0), {})[int(match[3])] = item

    file.visititems(collect)
    if not layers:
        raise DigitsError("an HDF5 file, but none of Keras")
    # TensorFlow 2.12 leaves numbers out (conv2d, conv2d_2, ...): only their order tells, and that class by class.
    by_kind = {
        kind: [(f"{kind}_{n}" if n else kind, found[n]) for n in sorted(found)] for kind, found in layers.items()
    }
    ordered = [by_kind[kind].pop(0) for kind in _kinds() if by_kind.get(kind)]
    ordered += [layer for left in by_kind.values() for layer in left]  # of another architecture
    return [(name, [datasets[number] for number in sorted(datasets)]) for name, datasets in ordered]


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)


def _state_dict(found: FoundWeights) -> dict[str, Tensor]:
    """What :class:`DeepDigits` loads; the shapes are checked before anything is read."""
    network = DeepDigits()
    expected = _keras_weights(network)
    values = []
    for (name, datasets), weights in zip(found, expected.values(), strict=False):
        shapes, wanted = [list(d.shape) for d in datasets], [list(w.shape) for w in weights.values()]
        if shapes != wanted:
            raise DigitsError(f"another architecture: layer {name} has weights of shape {shapes}, expected {wanted}")
        for dataset in datasets:
            if dataset.dtype.kind != "f" or dataset.external or dataset.is_virtual:
                raise DigitsError(f"layer {name}: its weights are not floating-point numbers within this file")
            values.append(_to_torch(dataset[()]))
    for name, _ in found[len(expected) :]:
        raise DigitsError(f"another architecture: layer {name} comes after all that are expected")
    for name in list(expected)[len(found) :]:
        raise DigitsError(f"another architecture: it ends where a layer as {name} is expected")
    return dict(zip(network.state_dict(), values, strict=True))


def _settings(config: dict[str, Any]) -> dict[str, float]:
    """The arguments of :class:`DeepDigits` that the model's ``config`` tells, once all else in it is as expected."""
    layers = [layer for layer in config["config"]["layers"] if layer["class_name"] != "InputLayer"]
    names = [layer["config"]["name"] for layer in layers]
    kinds = [layer["class_name"] for layer in layers]
    expected_kinds = [kind for kind, _ in _layers(0, 0, 0)]
    for name, kind, expected in zip_longest(names, kinds, expected_kinds, fillvalue="nothing"):
        if kind != expected:
            raise DigitsError(f"another architecture: layer {name} is of class {kind}, expected {expected}")
    settings = [layer["config"] | {"kernel_regularizer": _l2(layer["config"])} for layer in layers]
    rates = [layer["rate"] for layer in settings if "rate" in layer]
    found = {
        "conv_dropout": rates[0],
        "dense_dropout": rates[-1],
        "l2": settings[kinds.index("Dense")]["kernel_regularizer"],
    }
    ModelConfig(**found, temperature=1.0)  # types and ranges
    expected_settings = [settings for _, settings in _layers(**found)]
    if settings[-1]["activation"] == "linear":  # logits in place of probabilities
        settings[-1]["activation"] = "softmax"
    for name, has, expects in zip(names, settings, expected_settings, strict=True):
        for key, value in expects.items():
            if key in has and has[key] != value:
                raise DigitsError(f"another architecture: {key} of layer {name} is {has[key]}, expected {value}")
    return found


def _l2(settings: dict[str, Any]) -> float:
    """The weight of L2 on a layer's kernel; TensorFlow keeps it in float32."""
    regularizer = settings.get("kernel_regularizer")
    return float(f"{regularizer['config']['l2']:.6g}") if regularizer else 0.0


# ---- writing


def _config(network: DeepDigits) -> dict[str, Any]:
    """What Keras makes the model of."""
    arguments = network.arguments()
    del arguments["temperature"]
    shape = [None, 28, 28, 1]
    layers = [{"module": "keras.layers", "class_name": "InputLayer", "config": {"batch_input_shape": shape}}]
    for name, (kind, settings) in zip(_names(), _layers(**arguments), strict=True):
        config = settings | {"name": name}
        if "kernel_regularizer" in config:
            l2 = {"module": "keras.regularizers", "class_name": "L2", "config": {"l2": config["kernel_regularizer"]}}
            config["kernel_regularizer"] = l2 if config["kernel_regularizer"] else None
        layers.append({"module": "keras.layers", "class_name": kind, "config": config})
    return {"module": "keras", "class_name": "Sequential", "config": {"name": "deepdigits", "layers": layers}}
