"""Files of torch.save opened safely, and Lightning's checkpoints of this project known for what they are."""

import zipfile
from pathlib import Path
from typing import Any

import torch

from digits.errors import DigitsError


def load_torch_file(path: Path, argument: str = "") -> dict[str, Any]:
    """The dictionary in the file at ``path``, its tensors on the CPU; ``argument`` stands before the path in errors.

    Raises:
        DigitsError: it cannot be read, is damaged, or holds no dictionary of plain values and tensors.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # which is what torch.save writes; torch.load does not check the sums
            damaged = archive.testzip()
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise DigitsError(f"{argument}{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # on a wrong file torch.load may raise almost anything
        raise not_ours(path, argument) from error
    if damaged is not None:
        raise DigitsError(f"{argument}{path}: a damaged file: the checksum of {damaged} is wrong")
    if not isinstance(content, dict):
        raise not_ours(path, argument)
    return content


def load_checkpoint(path: Path, argument: str = "") -> dict[str, Any]:
    """What a checkpoint of this project holds, as :func:`load_torch_file` reads it.

    Raises:
        DigitsError: it cannot be read, is no checkpoint of this project, or one of version 0.1.
    """
    checkpoint = load_torch_file(path, argument)
    try:
        from_0_1 = "digits" not in checkpoint and "average_decay" in checkpoint["hyper_parameters"]["recipe"]
    except (KeyError, TypeError) as error:
        raise not_ours(path, argument) from error
    if from_0_1:
        # it names its settings and callbacks otherwise: Lightning would drop the averaged weights without a word
        raise DigitsError(
            f"{argument}{path}: a checkpoint of DeepDigits 0.1, which this version cannot read; train anew, or use the "
            "model/ folder of that run"
        )
    return checkpoint


def not_ours(path: Path, argument: str = "", reason: str = "") -> DigitsError:
    """The error to raise where ``path`` lacks what a checkpoint of this project has; ``reason`` says what."""
    reason = f": {reason}" if reason else ""
    return DigitsError(f"{argument}{path}: not a checkpoint of this project, or a damaged one{reason}")
