"""Weights from files of strangers: known to fit a network before they are read, and to be numbers that one can have."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from digits.errors import DigitsError
from digits.files import check_regular
from digits.network.base import Network

MAX_HEADER_BYTES = 1_000_000  # of a safetensors file; that of the package's own weights has 3 kB
MAX_MAGNITUDE = 1e9  # of a weight or statistic; those of the package's own reach 288
TEMPERATURES = (0.01, 100.0)  # fitted ones lie between 1/4 and 4
DTYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "I64": torch.int64}
Layout = tuple[Iterable[int], torch.dtype | None]  # shape and dtype; None: one that no weight has


def check_layout(network: Network, found: Mapping[str, Layout]) -> None:
    """Refuse weights that are not those of ``network`` by their names, shapes and dtypes.

    Floating-point numbers may have any width, as `export --half` has it; what else a network has is of its dtype.

    Raises:
        DigitsError: with the first that differs.
    """
    expected = network.state_dict()
    for name in [*expected, *found]:
        if name not in expected or name not in found:
            raise DigitsError(f"a model of another network: it {'has' if name in found else 'lacks'} {name}")
        shape, dtype = tuple(found[name][0]), found[name][1]
        wanted = tuple(expected[name].shape)
        if shape != wanted:
            raise DigitsError(f"a model of another network: {name} has the shape {shape}, expected {wanted}")
        floating = dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64)
        if not (floating if expected[name].is_floating_point() else dtype == expected[name].dtype):
            kind = "real floating-point numbers" if expected[name].is_floating_point() else f"{expected[name].dtype}"
            raise DigitsError(f"its weights are damaged: {name} is not of {kind}")


def read_safetensors(path: Path, network: Network) -> dict[str, Tensor]:
    """The weights in ``path``, known by its header to be those of ``network`` before any is read.

    Raises:
        DigitsError: they are of another network, or the file is larger than they could be.
        OSError, SafetensorError: it cannot be read, or is damaged.
    """
    elements = sum(value.numel() for value in network.state_dict().values())
    check_regular(path, 8 * elements + MAX_HEADER_BYTES)
    with path.open("rb") as file:
        if int.from_bytes(file.read(8), "little") > MAX_HEADER_BYTES:
            raise DigitsError("its model.safetensors is damaged: its header is too long")
    with safe_open(path, framework="pt") as tensors:
        slices = {name: tensors.get_slice(name) for name in tensors.keys()}  # noqa: SIM118 (it has no other way)
        check_layout(network, {n: (s.get_shape(), DTYPES.get(s.get_dtype())) for n, s in slices.items()})
        return {name: tensors.get_tensor(name) for name in slices}


def load_weights(network: Network, weights: Mapping[str, Tensor]) -> None:
    """Take ``weights`` into ``network``, which is in evaluation mode after it.

    Raises:
        DigitsError: they are those of another network, or not what a training can lead to: NaN, infinite, larger than
            ``MAX_MAGNITUDE``, or negative where they are variances; or the network's temperature is not.
    """
    check_layout(network, {name: (value.shape, value.dtype) for name, value in weights.items()})
    low, high = TEMPERATURES
    if not isinstance(network.temperature, int | float) or not low <= network.temperature <= high:
        raise DigitsError(f"its temperature is {network.temperature!r}: allowed is {low:g} to {high:g}")
    converted = {name: value.float() if value.is_floating_point() else value for name, value in weights.items()}
    for name, value in converted.items():
        if not value.numel() or not value.is_floating_point():
            continue
        least, most = (float(bound) for bound in value.aminmax())
        if not (-float("inf") < least and most < float("inf")):
            raise DigitsError(f"its weights are damaged: some are NaN or infinite, in {name}")
        if max(-least, most) > MAX_MAGNITUDE:
            raise DigitsError(f"its weights are damaged: {max(-least, most):g} is among them, in {name}")
        if name.endswith("running_var") and least < 0:
            raise DigitsError(f"its weights are damaged: the variance {least:g} is among them, in {name}")
    network.load_state_dict(converted)
    network.eval()
