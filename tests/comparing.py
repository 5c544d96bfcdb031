"""Two runs beside each other: what they have left, number by number."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

NO_RESULTS = ("images_per_second", "train_seconds", "seconds", "eps")  # times, and what Keras's Adam computes anew


def relative(found: Any, expected: Any) -> float:
    """The greatest difference, beside the greatest expected value."""
    found, expected = torch.as_tensor(found), torch.as_tensor(expected)
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def leaves(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Each number and tensor in a checkpoint, with where it is."""
    if isinstance(content, dict | list | tuple):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from leaves(value, f"{path}/{key}")
    else:
        yield path, content


def checkpoint(folder: Path) -> dict[str, Any]:
    """All results in `last.ckpt`; without the states of the generators, which count draws."""
    content = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    del content["callbacks"]["RNGState"]
    return {path: value for path, value in leaves(content) if path.rsplit("/", 1)[1] not in NO_RESULTS}


def assert_same(found: Path, expected: Path, tolerance: float) -> None:
    """Weights, averages, batch statistics, moments, metrics, counts of steps: all that a run leaves."""
    one, other = checkpoint(found), checkpoint(expected)
    assert one.keys() == other.keys()
    for path, value in other.items():
        if isinstance(value, float) or (isinstance(value, torch.Tensor) and value.is_floating_point()):
            assert relative(one[path], value) <= tolerance, path
        elif isinstance(value, torch.Tensor):
            assert torch.equal(one[path], value), path
        else:
            assert one[path] == value, path
