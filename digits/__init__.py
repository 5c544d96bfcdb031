"""DeepDigits reads handwritten digits: a small CNN, trained with PyTorch Lightning on CPU, GPU or TPU."""

import importlib
from typing import Any

__version__ = "0.2.0"
HOMEPAGE = "https://github.com/OWNER/deepdigits"
__all__ = ["DeepDigits", "Digit", "Reader", "load_model"]

_MODULES = {
    "DeepDigits": "digits.network",
    "Digit": "digits.reading.reader",
    "Reader": "digits.reading.reader",
    "load_model": "digits.exchange.model_folder",
}


def __getattr__(name: str) -> Any:
    """``digits.DeepDigits`` and ``digits.Reader``, with which torch comes: only who asks for them waits for it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)
