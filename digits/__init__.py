"""DeepDigits reads handwritten digits: a small CNN, trained with PyTorch Lightning on CPU, GPU or TPU."""

from typing import Any

__version__ = "0.1.0"
__all__ = ["DeepDigits", "Digit", "Reader"]


def __getattr__(name: str) -> Any:
    """``digits.DeepDigits`` and ``digits.Reader``, with which torch comes: only who asks for them waits for it."""
    if name == "DeepDigits":
        from digits.network import DeepDigits

        return DeepDigits
    if name in ("Digit", "Reader"):
        from digits.reading import reader

        return getattr(reader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
