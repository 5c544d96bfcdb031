"""Reads the weights of a Keras model out of an HDF5 file, as a program of its own: `python hdf5_reader.py EXPECTED`.

A damaged file can crash or stall the HDF5 library, and with it whoever reads it. So :mod:`~digits.exchange.keras_file`
calls this program, which takes the file on standard input and has little memory and time. It prints a line of JSON,
`{"error": ..., "damaged": ...}` or `{"config": ...}`, and after the latter the weights, float32, one after another.

EXPECTED is JSON: `classes` of all layers in snake case, and `layers`, the name and the weights' shapes of each that has
some.
"""

import contextlib
import io
import json
import math
import re
import sys
from typing import Any

import h5py
import numpy as np

MEMORY = 400_000_000  # bytes of addresses; Python, NumPy and h5py take 114 million, and Adam's state makes a file 32
SECONDS = 2  # of computing, after the imports; a whole file takes 0.1
MAX_CONFIG_BYTES = 10_000_000
LayerWeights = list[tuple[str, list[Any]]]  # name and HDF5 datasets of each layer that has weights, in order


class Refused(Exception):
    """A line that says why the file is not taken."""


def limit_resources() -> None:
    """From here on this process writes no file, and is ended where it takes too much; on Windows it is not limited."""
    try:
        import resource
    except ImportError:
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime) + SECONDS
    limits = {"RLIMIT_AS": MEMORY, "RLIMIT_CPU": seconds, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0}
    for name, limit in limits.items():
        with contextlib.suppress(ValueError, OSError):  # macOS does not take all of them
            resource.setrlimit(getattr(resource, name), (limit, limit))


def within(group: Any, path: str) -> Any:
    """What lies at ``path`` in ``group``; no link on the way leads elsewhere or into another file."""
    for name in filter(None, path.split("/")):
        if not isinstance(group, h5py.Group) or name == "." or name not in group:
            raise Refused(f"it has no {path}")
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise Refused(f"{path} is a link, which a file of Keras has not")
        group = group[name]
    return group


def find_weights(file: Any, classes: list[str]) -> LayerWeights:
    """The layers of ``file`` in the order of the network's ``classes``, whichever Keras wrote it."""
    root = within(file, "model_weights") if "model_weights" in file else file
    if "layer_names" in root.attrs:  # legacy
        named = [(decode(layer), within(root, decode(layer))) for layer in root.attrs["layer_names"]]
        found = [
            (layer, [within(group, decode(name)) for name in group.attrs["weight_names"]]) for layer, group in named
        ]
        return [(layer, datasets) for layer, datasets in found if datasets]
    layers: dict[str, dict[int, dict[int, Any]]] = {}  # by class, layer number and dataset number
    for top in ("layers", "_layer_checkpoint_dependencies"):
        for name in within(file, top) if top in file else ():
            match = re.fullmatch(r"(\w+?)(?:_(\d{1,9}))?", name)
            if match is None or "vars" not in within(file, f"{top}/{name}"):
                continue
            for number in within(file, f"{top}/{name}/vars"):
                if re.fullmatch(r"\d{1,9}", number):
                    datasets = layers.setdefault(match[1], {}).setdefault(int(match[2] or 0), {})
                    datasets[int(number)] = within(file, f"{top}/{name}/vars/{number}")
    if not layers:
        raise Refused("an HDF5 file, but none of Keras")
    # TensorFlow 2.12 skips numbers (conv2d, conv2d_2, ...), so only their order within a class means anything.
    by_kind = {
        kind: [(f"{kind}_{n}" if n else kind, found[n]) for n in sorted(found)] for kind, found in layers.items()
    }
    ordered = [by_kind[kind].pop(0) for kind in classes if by_kind.get(kind)]
    ordered += [layer for rest in by_kind.values() for layer in rest]  # kept, so that the check names what is too much
    return [(name, [datasets[number] for number in sorted(datasets)]) for name, datasets in ordered]


def decode(name: Any) -> str:
    """A name, which some versions of Keras write as bytes."""
    return name.decode() if isinstance(name, bytes) else str(name)


def check_weights(found: LayerWeights, expected: list[tuple[str, list[list[int]]]]) -> None:
    """Refuse what is not of the expected shapes, or would take more than they do; no dataset is read."""
    for (name, datasets), (_, wanted) in zip(found, expected, strict=False):
        if not all(isinstance(dataset, h5py.Dataset) for dataset in datasets):
            raise Refused(f"layer {name}: its weights are no datasets")
        shapes = [list(dataset.shape or ()) for dataset in datasets]
        if shapes != wanted:
            raise Refused(f"another architecture: layer {name} has weights of shape {shapes}, expected {wanted}")
        for dataset in datasets:
            if dataset.dtype.kind != "f" or dataset.external or dataset.is_virtual:
                raise Refused(f"layer {name}: its weights are not floating-point numbers within this file")
            if dataset.chunks and any(part > whole for part, whole in zip(dataset.chunks, dataset.shape, strict=True)):
                raise Refused(f"layer {name}: its weights come in chunks of {dataset.chunks}, larger than themselves")
    for name, _ in found[len(expected) :]:
        raise Refused(f"another architecture: layer {name} comes after all that are expected")
    for name, _ in expected[len(found) :]:
        raise Refused(f"another architecture: it ends where a layer as {name} is expected")


def read(content: bytes, expected: dict[str, Any]) -> tuple[str | None, list[bytes]]:
    """The model's configuration, where the file has one, and its weights."""
    with h5py.File(io.BytesIO(content), "r") as file:
        found = find_weights(file, expected["classes"])
        check_weights(found, expected["layers"])
        config = file.attrs.get("model_config")
        if config is not None and (not isinstance(config, str | bytes) or len(config) > MAX_CONFIG_BYTES):
            raise Refused("its model_config is no text, or a very long one")
        weights = [dataset[()].astype("<f4").tobytes() for _, datasets in found for dataset in datasets]
    return None if config is None else decode(config), weights


def main() -> None:
    """Read standard input, and print what came of it."""
    expected, content = json.loads(sys.argv[1]), sys.stdin.buffer.read()
    limit_resources()
    weights: list[bytes] = []
    try:
        with np.errstate(over="ignore"):  # a number too large for float32 is then infinite, which the caller refuses
            config, weights = read(content, expected)
        answer: dict[str, Any] = {"config": config}
    except Refused as error:
        answer = {"error": str(error), "damaged": False}
    except MemoryError:
        answer = {"error": f"it takes more than {MEMORY // 1_000_000} MB to read", "damaged": True}
    except Exception as error:  # on a damaged file h5py may raise almost anything
        answer = {"error": (str(error).splitlines() or [type(error).__name__])[0], "damaged": True}
    sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n" + b"".join(weights))
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
