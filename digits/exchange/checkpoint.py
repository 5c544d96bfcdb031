"""Files of torch.save opened safely, and Lightning's checkpoints of this project known for what they are."""

import contextlib
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from digits.errors import DigitsError
from digits.exchange.archive import open_zip
from digits.exchange.torch_file import TorchFile

MAX_CHECKPOINT_BYTES = 4_000_000_000  # that of the default run has 42 MB


@contextlib.contextmanager
def open_torch_file(path: Path, argument: str = "") -> Iterator[TorchFile]:
    """The file at ``path``, which holds a dictionary; ``argument`` stands before the path in errors.

    Raises:
        DigitsError: it cannot be read, is damaged, or holds no dictionary of plain values and tensors. What is raised
            within the `with` block becomes one too, and begins with the path.
    """
    try:
        with open_zip(path, MAX_CHECKPOINT_BYTES) as archive:
            file = TorchFile(archive)
            if not isinstance(file.content, dict):
                raise not_ours(path, argument)
            yield file
    except DigitsError as error:
        reason = error.args[0].removeprefix(argument).removeprefix(f"{path}: ")
        raise DigitsError(f"{argument}{path}: {reason}") from error
    except OSError as error:
        raise DigitsError(f"{argument}{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # on a wrong file zipfile may raise almost anything
        if isinstance(error, zipfile.BadZipFile) and (sum_of := re.match("Bad CRC-32 for file '(.*)'", str(error))):
            raise DigitsError(f"{argument}{path}: a damaged file: the checksum of {sum_of[1]} is wrong") from error
        raise not_ours(path, argument, str(error) if isinstance(error, ValueError) else "") from error


def load_torch_file(path: Path, argument: str = "") -> dict[str, Any]:
    """The dictionary in the file at ``path``, its tensors on the CPU; raises as :func:`open_torch_file`."""
    with open_torch_file(path, argument) as file:
        return file.read(file.content)


def load_checkpoint(path: Path, argument: str = "") -> dict[str, Any]:
    """What a checkpoint of this project holds, as :func:`load_torch_file` reads it.

    Raises:
        DigitsError: it cannot be read, is no checkpoint of this project, or one of version 0.1.
    """
    with open_torch_file(path, argument) as file:
        check_version(file.content, path, argument)
        return file.read(file.content)


def check_version(checkpoint: dict[str, Any], path: Path, argument: str = "") -> None:
    """Raise DigitsError if ``checkpoint``, from ``path``, is none of this project, or one of version 0.1."""
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


def not_ours(path: Path, argument: str = "", reason: str = "") -> DigitsError:
    """The error to raise where ``path`` lacks what a checkpoint of this project has; ``reason`` says what."""
    reason = f": {reason}" if reason else ""
    return DigitsError(f"{argument}{path}: not a checkpoint of this project, or a damaged one{reason}")
