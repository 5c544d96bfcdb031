"""A trained network as a folder: weights, constructor arguments and a model card, as the Hugging Face hub has them.

And the way to and from its other forms, which are one file each.
"""

import copy
import io
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file

from digits.config import ModelConfig
from digits.errors import ConfigError, DigitsError
from digits.exchange.card import model_card
from digits.exchange.keras_file import load_keras, save_keras
from digits.exchange.onnx_file import save_onnx
from digits.network import WEIGHTS, DeepDigits
from digits.report.tables import write_json

FILES = {"torch": (".pt",), "onnx": (".onnx",), "keras": (".keras", ".h5")}  # the formats that are one file each


def save_model(
    folder: Path,
    network: DeepDigits,
    summary: dict[str, Any] | None = None,
    plots: Path | None = None,
    half: bool = False,
) -> None:
    """Write ``network`` to ``folder``: `model.safetensors`, `config.json`, and with a ``summary`` the card and plots.

    Args:
        folder: is made; files of an earlier model in it are replaced.
        network: on the CPU, with the temperature that it is to keep.
        summary: of the run, as `summary.json` holds it.
        plots: folder of the run's pictures.
        half: keep the weights in float16, which halves the file.

    Raises:
        DigitsError: the folder holds other things than a model, or the summary is not that of a run.
    """
    check_target(folder)
    pictures = sorted(plots.glob("*.png")) if summary and plots else []
    try:
        card = model_card(summary, network, [picture.name for picture in pictures]) if summary else ""
    except KeyError as error:
        missing = f"the model's summary.json has no {error}"
        raise DigitsError(f"{folder}: no card can be written: {missing}; without that file none is written") from error
    for name in ("README.md", "summary.json"):
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "plots", ignore_errors=True)
    (copy.deepcopy(network).half() if half else network).save_pretrained(folder)
    shutil.copymode(folder / "config.json", folder / "model.safetensors")  # which safetensors lets only its owner read
    if summary is None:
        return
    local = ("run_dir", "last_checkpoint", "status")  # of no meaning elsewhere
    write_json(folder / "summary.json", {key: value for key, value in summary.items() if key not in local})
    if pictures:
        (folder / "plots").mkdir(exist_ok=True)
    for picture in pictures:
        shutil.copyfile(picture, folder / "plots" / picture.name)
    (folder / "README.md").write_text(card, "utf-8")


def check_target(folder: Path) -> None:
    """Refuse a folder that :func:`save_model` would not write to.

    Raises:
        DigitsError: it holds other things than a model.
    """
    if folder.is_dir() and any(folder.iterdir()) and not (folder / "model.safetensors").is_file():
        raise DigitsError(f"{folder}: is not empty and holds no model that could be replaced; name another folder")


def load_model(name: str | Path | None = None) -> DeepDigits:
    """The trained network that ``name`` names, in evaluation mode on the CPU.

    Args:
        name: a run's folder, a model's folder, a checkpoint (`*.ckpt`), a file of :func:`save_torch` (`*.pt`) or of
            Keras (`*.keras`, `*.h5`), the name of a model on the Hugging Face hub ("owner/model"), or None for the
            weights that the package carries.

    Raises:
        DigitsError: there is no such model, it cannot be fetched, or it is damaged or one of another network.
    """
    path = WEIGHTS if name is None else Path(name).expanduser()
    if path.suffix in (".ckpt", ".pt"):
        return _from_checkpoint(path)
    if path.suffix in (".keras", ".h5"):
        return load_keras(path)
    if (path / "model").is_dir():  # a run's folder
        path = path / "model"
    if path.is_dir():
        return _from_folder(path)
    if name is None or path.exists() or str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        kinds = "a run's folder, a model's folder, a *.ckpt, *.pt, *.keras or *.h5, or owner/model"
        raise DigitsError(f"{path}: no model there; {kinds} is one")
    if path.parent.is_dir():
        raise DigitsError(f"{path}: no model there: {path.parent} has no {path.name}")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its tries are told by the one line below
    try:
        network = DeepDigits.from_pretrained(str(name))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DigitsError(f"{name}: no such folder here, and not to be had from the hub: {reason}") from error
    except (RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise DigitsError(f"{name}: on the hub, but not a model of this network") from error
    return _network(network.arguments(), network.state_dict(), path)


def export(name: str | Path | None, target: Path, half: bool = False, format: str = "safetensors") -> None:
    """Write the model that ``name`` names, as :func:`load_model` takes it, in another place or another form.

    Args:
        name: the model.
        target: a folder for "safetensors", which gets the model's card and plots too; else a file.
        half: keep the weights in float16; only in "safetensors".
        format: "safetensors" (:func:`save_model`), "torch" (:func:`save_torch`), "onnx"
            (:func:`~digits.exchange.onnx_file.save_onnx`) or "keras" (:func:`~digits.exchange.keras_file.save_keras`).

    Raises:
        DigitsError: there is no such model, or what the format needs is not installed.
        ConfigError: ``target`` or ``half`` does not go with the format.
    """
    if format not in ("safetensors", *FILES):
        raise ConfigError(f"no format is called {format!r}: take safetensors, {', '.join(FILES)}")
    suffixes = FILES.get(format, ())
    if half and suffixes:
        raise ConfigError(f"--half: goes with --format safetensors only, not with {format}")
    if suffixes and target.suffix not in suffixes:
        raise ConfigError(f"{target}: the name of a file of --format {format} ends in {' or '.join(suffixes)}")
    for other in FILES:
        if not suffixes and target.suffix in FILES[other]:
            raise ConfigError(f"{target}: would be a folder; for a file add --format {other}")
    network = load_model(name)
    if suffixes:
        target.parent.mkdir(parents=True, exist_ok=True)
        {"torch": save_torch, "onnx": save_onnx, "keras": save_keras}[format](target, network)
        return
    source = WEIGHTS if name is None else Path(name).expanduser()
    source = source / "model" if (source / "model").is_dir() else source
    if target.resolve() == source.resolve():
        raise ConfigError(f"{target}: is the model itself; name another folder")
    save_model(target, network, read_summary(source), source / "plots", half)


def save_torch(path: Path, network: DeepDigits) -> None:
    """Write ``network`` for `torch.load(path, weights_only=True)`: a dict of plain numbers and tensors.

    ``config`` has the arguments of :class:`~digits.network.DeepDigits`, ``state_dict`` its weights, float32.
    """
    content = io.BytesIO()  # torch.save into a path that cannot be written raises a RuntimeError
    torch.save({"config": network.arguments(), "state_dict": dict(network.state_dict())}, content)
    path.write_bytes(content.getvalue())


def training_data(name: str | Path | None) -> str | None:
    """What the model was trained on, "mnist" or "mnist-5k"; None where its folder does not tell."""
    source = WEIGHTS if name is None else Path(name).expanduser()
    for folder in (source, source / "model"):
        if summary := read_summary(folder):
            return summary.get("dataset")
    return None


def read_summary(folder: Path) -> dict[str, Any] | None:
    """What `summary.json` in ``folder`` holds, of a run, a model or an evaluation; None if there is none.

    Raises:
        DigitsError: it is damaged or may not be read.
    """
    file = folder / "summary.json"
    try:
        summary = json.loads(file.read_text("utf-8")) if file.is_file() else None
    except ValueError as error:
        raise DigitsError(f"{file}: damaged: {error}") from error
    except OSError as error:
        raise DigitsError(f"{file}: cannot be read: {error.strerror}") from error
    if summary is not None and not isinstance(summary, dict):
        raise DigitsError(f"{file}: damaged: holds no JSON object")
    return summary


def _from_folder(path: Path) -> DeepDigits:
    try:
        for name in ("config.json", "model.safetensors"):
            (path / name).open("rb").close()  # safetensors does not tell what is missing from what may not be read
        arguments = json.loads((path / "config.json").read_text("utf-8"))
        weights = load_file(path / "model.safetensors")
    except FileNotFoundError as error:
        raise DigitsError(f"{path}: no model there: {Path(error.filename).name} is missing") from error
    except PermissionError as error:
        raise DigitsError(f"{error.filename}: may not be read") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise DigitsError(f"{path}: its config.json or model.safetensors is damaged: {error}") from error
    return _network(arguments, weights, path)


def _from_checkpoint(path: Path) -> DeepDigits:
    """Of a file of :func:`save_torch`, or of Lightning's, where the network is a part of the classifier."""
    if not path.is_file():
        where = "; checkpoints are in runs/<name>/<time>/checkpoints/" if path.suffix == ".ckpt" else ""
        raise DigitsError(f"{path}: no such file{where}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        exported = path.suffix == ".pt"
        arguments = checkpoint["config"] if exported else checkpoint["hyper_parameters"]["model"]
        prefix = "" if exported else "network."
        state = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
    except OSError as error:
        raise DigitsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # torch.load raises whatever a wrong file leads it to
        raise DigitsError(f"{path}: not a checkpoint of this project, or a damaged one") from error
    return _network(arguments, state, path)


def _network(arguments: Any, weights: dict[str, torch.Tensor], path: Path) -> DeepDigits:
    try:
        network = DeepDigits(**arguments)
        network.load_state_dict({name: value.float() for name, value in weights.items()})
    except (AttributeError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise DigitsError(f"{path}: a model of another network: {reason}") from error
    try:
        ModelConfig(**network.arguments())
    except ValidationError as error:
        problem = error.errors()[0]
        raise DigitsError(f"{path}: its {problem['loc'][0]} is {problem['input']!r}: {problem['msg']}") from error
    if not all(value.isfinite().all() for value in network.state_dict().values()):
        raise DigitsError(f"{path}: its weights are damaged: some are NaN or infinite")
    return network.eval()
