"""The calls of torch_xla that it does not document, all in one place, as a release may change any of them.

A tensor whose data are on the device is known by an id. What a recorded program reads are its parameters, known by
their numbers.
"""

from typing import Any, cast

import torch_xla
from torch import Tensor
from torch_xla.core import xla_builder

Computation = Any  # torch_xla's own type: what can be called, in a program or as one
_C = torch_xla._XLAC


class Recorded:
    """The operations that give ``results``, recorded and not run, as a ``computation`` with a tuple of results."""

    def __init__(self, results: list[Tensor]) -> None:
        self._lowered = _C.lowering.LoweringContext("recorded")
        self._lowered.build(results)
        self.computation: Computation = xla_builder.computation_from_module_proto("recorded", self._lowered.hlo())

    def parameter_of(self, tensor: Tensor) -> int:
        """The number of the parameter that is ``tensor``; -1 if it is not read."""
        return cast(int, self._lowered.tensor_parameter_id(tensor))

    def parameters(self) -> dict[int, Tensor]:
        """What is read, on the host, by number."""
        return cast(dict[int, Tensor], self._lowered.device_parameter_id_tensor_mapping())


def id_of(tensor: Tensor) -> int:
    """Of the data of ``tensor``, which are on the device after a sync."""
    return cast(int, _C._xla_get_tensor_id(tensor))


def data_of(tensors: list[Tensor]) -> dict[int, Tensor]:
    """The data on the device that ``tensors`` are, or are to be computed from, by id."""
    return dict(zip(*_C._get_tensors_xla_device_data_node(tensors), strict=True))


def id_of_seed() -> int:
    """Of the number from which the operations that are being recorded draw random numbers."""
    return cast(int, _C._get_seed_info_id())


def call(computation: Computation, operands: list[Tensor]) -> list[Tensor]:
    """The results of ``computation`` for ``operands``: one operation, recorded like any other."""
    return cast(list[Tensor], _C._xla_user_computation("xla::digits", operands, computation))


def program_of(results: list[Tensor]) -> bytes:
    """What a sync would compile for ``results``, as an HLO proto."""
    return cast(bytes, _C._get_xla_tensors_hlo_proto(results))
