"""Opens the checkpoints that Lightning writes of this project, and refuses all others."""

from pathlib import Path
from typing import Any

import torch

from digits.errors import DigitsError


def load_checkpoint(path: Path, argument: str = "") -> dict[str, Any]:
    """The content of the checkpoint at ``path``, its tensors on the CPU; error messages begin with ``argument``.

    Raises:
        DigitsError: it cannot be read, is not a checkpoint of this project, or is one of version 0.1.
    """
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        recipe = checkpoint["hyper_parameters"]["recipe"]
    except OSError as error:
        raise DigitsError(f"{argument}{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # on a wrong file torch.load may raise almost anything
        raise DigitsError(f"{argument}{path}: not a checkpoint of this project, or a damaged one") from error
    if "digits" not in checkpoint and "average_decay" in recipe:
        # its settings and callbacks have other names, so Lightning would silently drop the averaged weights
        raise DigitsError(
            f"{argument}{path}: a checkpoint of DeepDigits 0.1, which this version cannot read; train anew, or use the "
            "model/ folder of that run"
        )
    return checkpoint
