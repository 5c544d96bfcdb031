"""Saves and loads trained networks: a folder in the Hugging Face hub's layout, or a single file of another format.

The folder holds the weights, the constructor arguments and a model card.
"""

import contextlib
import copy
import io
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import save_file

from digits.errors import ConfigError, DigitsError
from digits.exchange.card import model_card, pictures_in
from digits.exchange.checkpoint import check_version, not_ours, open_torch_file
from digits.exchange.keras_file import load_keras, save_keras
from digits.exchange.onnx_file import save_onnx
from digits.exchange.torch_file import StoredTensor
from digits.files import member, move_files, read_json, temporary_beside, write_atomically
from digits.network import WEIGHTS, DeepDigits, Network, build_network
from digits.network.deepdigits import MAX_CONFIG_BYTES
from digits.network.weights import check_layout, load_weights, read_safetensors
from digits.report.tables import read_summary, write_json
from digits.settings.schema import section_of_file

FILE_SUFFIXES = {"torch": (".pt",), "onnx": (".onnx",), "keras": (".keras", ".h5")}  # of the single-file formats
ENDINGS = {suffix: format for format, suffixes in FILE_SUFFIXES.items() for suffix in suffixes}
MODEL_FILES = ("config.json", "model.safetensors")
DEFAULTS = {"name": "deepdigits", "temperature": 1.0}  # what config.json of version 0.1 may lack


def save_model(
    folder: Path,
    network: Network,
    summary: dict[str, Any] | None = None,
    plots: Path | None = None,
    half: bool = False,
) -> None:
    """Write ``network`` to ``folder`` as `model.safetensors` and `config.json`; with a ``summary`` also card and plots.

    Args:
        folder: created if it does not exist; an earlier model in it is replaced.
        network: on the CPU, at the temperature to be saved.
        summary: of the run, as `summary.json` holds it.
        plots: folder of the run's plots.
        half: save the weights in float16, which halves the file.

    Raises:
        DigitsError: the folder holds something other than a model or cannot be written, or the summary is not that of a
            run.
    """
    check_target(folder)
    pictures = pictures_in(plots) if summary and plots else []
    try:
        card = model_card(summary, network, [picture.name for picture in pictures]) if summary else ""
    except KeyError as error:
        missing = f"the model's summary.json has no {error}"
        raise DigitsError(f"{folder}: no card can be written: {missing}; without that file none is written") from error
    staging = temporary_beside(folder / "model")  # in the folder, as that may be a disk of its own
    try:
        folder.mkdir(parents=True, exist_ok=True)
        staging.mkdir()
        write_json(staging / "config.json", network.settings())
        state = (copy.deepcopy(network).half() if half else network).state_dict()
        # each a copy, as safetensors refuses two that share memory
        copies = {name: value.clone(memory_format=torch.contiguous_format) for name, value in state.items()}
        save_file(copies, staging / "model.safetensors")
        # safetensors lets only the owner read it
        shutil.copymode(staging / "config.json", staging / "model.safetensors")
        if summary is not None:
            local = ("run_dir", "last_checkpoint", "resume_command", "status")  # mean nothing outside of the run
            write_json(staging / "summary.json", {key: value for key, value in summary.items() if key not in local})
            (staging / "README.md").write_text(card, "utf-8")
        (staging / "plots").mkdir()
        for picture in pictures:
            shutil.copyfile(picture, staging / "plots" / picture.name)
        for old in (folder / "README.md", folder / "summary.json", *folder.glob("plots/*")):
            if not (staging / old.relative_to(folder)).exists():
                old.unlink(missing_ok=True)
        move_files(staging, folder, first="model.safetensors")  # by which check_target knows a model
    except SafetensorError as error:  # a full disk, for example
        raise DigitsError(f"{folder}: cannot be written: {error}") from error
    except OSError as error:
        raise DigitsError(f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    with contextlib.suppress(OSError):  # there are plots in it, or it is not there
        (folder / "plots").rmdir()


def check_target(folder: Path) -> None:
    """Raise an error if :func:`save_model` would not write to ``folder``.

    Raises:
        DigitsError: it holds something other than a model.
    """
    member(folder, "plots")  # or those of another folder would be replaced
    others = [path for path in folder.iterdir() if path.suffix != ".tmp"] if folder.is_dir() else []
    if others and not (folder / "model.safetensors").is_file():
        raise DigitsError(f"{folder}: is not empty and holds no model that could be replaced; name another folder")


def model_folder(name: str | Path | None) -> Path:
    """The folder that ``name`` names, which of a run is the `model/` in it; None: that of the package's own weights.

    Raises:
        DigitsError: the `model/` is a symbolic link.
    """
    path = WEIGHTS if name is None else Path(name).expanduser()
    return member(path, "model") if (path / "model").is_dir() else path


def load_model(name: str | Path | None = None) -> Network:
    """The trained network that ``name`` names, in evaluation mode on the CPU.

    Args:
        name: a run's folder, a model's folder, a checkpoint (`*.ckpt`), a file from :func:`save_torch` (`*.pt`) or
            from Keras (`*.keras`, `*.h5`), the name of a model on the Hugging Face hub ("owner/model"), or None for the
            package's own weights.

    Raises:
        DigitsError: the model does not exist, cannot be downloaded, is damaged, or is of another architecture.
    """
    path = WEIGHTS if name is None else Path(name).expanduser()
    if path.suffix in (".ckpt", ".pt"):
        return _load_torch_file(path)
    if path.suffix in (".keras", ".h5"):
        return load_keras(path)
    if path.is_dir():
        return _load_folder(model_folder(path))
    if name is None or path.exists() or str(name).count("/") != 1 or str(name).startswith((".", "/", "~")):
        kinds = "a run's folder, a model's folder, a *.ckpt, *.pt, *.keras or *.h5, or owner/model"
        raise DigitsError(f"{path}: no model there; {kinds} is one")
    if path.parent.is_dir():
        raise DigitsError(f"{path}: no model there: {path.parent} has no {path.name}")
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # its retries; the one line below says what went wrong
    try:
        folder = snapshot_download(str(name), allow_patterns=[*MODEL_FILES])
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DigitsError(f"{name}: no such folder here, and not to be had from the hub: {reason}") from error
    return _load_folder(Path(folder), str(name))


def export(name: str | Path | None, target: str | Path, half: bool = False, format: str | None = None) -> None:
    """Copy a model to another folder, or convert it to a file of another format.

    Args:
        name: the model, as :func:`load_model` takes it.
        target: for "safetensors" a folder, which gets the model's card and plots too; otherwise a file.
        half: save the weights in float16; only with "safetensors".
        format: "safetensors" (:func:`save_model`), "torch" (:func:`save_torch`), "onnx"
            (:func:`~digits.exchange.onnx_file.save_onnx`) or "keras" (:func:`~digits.exchange.keras_file.save_keras`);
            None: as the ending of ``target`` says, where none, a slash, or a folder that is there mean "safetensors".

    Raises:
        DigitsError: the model cannot be loaded, or a package that the format needs is not installed.
        ConfigError: ``target``, ``half`` or the network does not go with the format, or nothing says which it is to be.
    """
    if format not in (None, "safetensors", *FILE_SUFFIXES):
        raise ConfigError(f"no format is called {format!r}: take safetensors, {', '.join(FILE_SUFFIXES)}")
    format = format or _format_of(str(target))
    target = Path(target)
    suffixes = FILE_SUFFIXES.get(format, ())
    if half and suffixes:
        raise ConfigError(f"--half: goes with a folder only, not with a file of {format}")
    if suffixes and target.suffix not in suffixes:
        raise ConfigError(f"{target}: the name of a file of --format {format} ends in {' or '.join(suffixes)}")
    if not suffixes and target.suffix in ENDINGS:
        raise ConfigError(
            f"{target}: is named as a file, but would be a folder; give it a name without {target.suffix}"
        )
    network = load_model(name)
    if format == "keras" and not isinstance(network, DeepDigits):
        raise ConfigError(f"{target}: Keras's files are for deepdigits only, this is {network.config_name}")
    if suffixes:
        target.parent.mkdir(parents=True, exist_ok=True)
        save: dict[str, Callable[[Path, Any], None]] = {"torch": save_torch, "onnx": save_onnx, "keras": save_keras}
        save[format](target, network)
        return
    source = model_folder(name)
    if target.resolve() == source.resolve():
        raise ConfigError(f"{target}: is the model itself; name another folder")
    save_model(target, network, read_summary(source), source / "plots", half)


def _format_of(target: str) -> str:
    """The format that the name ``target`` asks for; raises ConfigError if it is none that is known."""
    suffix = Path(target).suffix
    if not suffix or target.endswith(("/", os.sep)) or Path(target).is_dir():
        return "safetensors"
    if suffix not in ENDINGS:
        known = ", ".join(ENDINGS)
        raise ConfigError(f"{target}: no format ends in {suffix}; known are {known}; for a folder write {target}/")
    return ENDINGS[suffix]


def save_torch(path: Path, network: Network) -> None:
    """Write ``network`` as a dict of plain numbers and tensors, which `torch.load(path, weights_only=True)` can read.

    Under ``config`` are the settings of the network, under ``state_dict`` its float32 weights.
    """
    content = io.BytesIO()  # for a path that is not writable torch.save raises RuntimeError, this OSError
    torch.save({"config": network.settings(), "state_dict": dict(network.state_dict())}, content)
    write_atomically(path, content.getbuffer())


def training_data(name: str | Path | None) -> str | None:
    """The dataset that a model was trained on, "mnist" or "mnist-5k"; None if its folder does not say."""
    source = WEIGHTS if name is None else Path(name).expanduser()
    for folder in (source, source / "model"):
        if summary := read_summary(folder):
            return summary.get("dataset")
    return None


def _load_folder(path: Path, called: str | None = None) -> Network:
    """The network in the folder ``path``, which errors name as it was ``called``."""
    where = called or path
    try:
        config, weights = (member(path, name) for name in MODEL_FILES)
        for file in (config, weights):  # so that one is said to be missing, and not damaged
            file.stat()
        network = _build_network(read_json(config, MAX_CONFIG_BYTES), where)
        load_weights(network, read_safetensors(weights, network))
    except FileNotFoundError as error:
        raise DigitsError(f"{where}: no model there: {Path(error.filename).name} is missing") from error
    except PermissionError as error:
        raise DigitsError(f"{error.filename}: may not be read") from error
    except DigitsError as error:
        raise _named(error, where) from error
    except (OSError, ValueError, SafetensorError) as error:
        raise DigitsError(f"{where}: its config.json or model.safetensors is damaged: {error}") from error
    return network


def _load_torch_file(path: Path) -> Network:
    """Load a file from :func:`save_torch` or a Lightning checkpoint, where the network is a part of the classifier."""
    if not path.exists():
        where = "; checkpoints are in runs/<name>/<time>/checkpoints/" if path.suffix == ".ckpt" else ""
        raise DigitsError(f"{path}: no such file{where}")
    exported = path.suffix == ".pt"
    prefix = "" if exported else "network."
    with open_torch_file(path) as file:
        content: Any = file.content
        if not exported:
            check_version(content, path)
        try:
            arguments = content["config"] if exported else content["hyper_parameters"]["model"]
            state = {k.removeprefix(prefix): v for k, v in content["state_dict"].items() if k.startswith(prefix)}
        except (AttributeError, KeyError, TypeError) as error:
            raise not_ours(path) from error
        network = _build_network(arguments, path)
        tensors = {name: value for name, value in state.items() if isinstance(value, StoredTensor)}
        check_layout(network, {name: (value.shape, value.dtype) for name, value in tensors.items()})
        load_weights(network, file.read(tensors))
    return network


def _named(error: DigitsError, path: Path | str) -> DigitsError:
    """``error`` of what lies at ``path`` or in it, which its line begins with."""
    said = str(error)
    return error if said.startswith(str(path)) else DigitsError(f"{path}: {said}")


def _build_network(settings: Any, path: Path | str) -> Network:
    """A network with new weights, of ``settings`` from ``path``: its class is that of the `model` config they name."""
    try:
        settings = DEFAULTS | settings
        section = section_of_file("model", str(settings["name"]))
        # types and ranges, before torch sees them
        return build_network(section.model_validate(settings).model_dump())
    except ValidationError as error:
        problem = error.errors()[0]
        (key,) = problem["loc"][:1] or ("settings",)  # a name that is no Unicode has no place
        if problem["type"] in ("extra_forbidden", "missing"):
            has = "has" if problem["type"] == "extra_forbidden" else "lacks"
            raise DigitsError(f"{path}: a model of another network: it {has} {key}") from error
        raise DigitsError(f"{path}: its {key} is {problem['input']!r}: {problem['msg']}") from error
    except ConfigError as error:
        raise DigitsError(f"{path}: {error}") from error
    except (AttributeError, RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())[:150]
        raise DigitsError(f"{path}: a model of another network: {reason}") from error
